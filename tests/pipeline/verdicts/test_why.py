"""Reasons: the lines that windows may be, the sentences, the JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.verdicts import classify, clusters
from pipeline.verdicts.features import FEATURES
from pipeline.verdicts.kinds import KINDS, VERDICTS
from pipeline.verdicts.naming import C_KMS, name_windows
from pipeline.verdicts.sentences import Case, OtherRedshift, sentence
from pipeline.verdicts.why import why

Z = 2.0


def _trough(line: float, velocity: float, sigma: float, width: float = 5000.0) -> list[float]:
    return [-sigma, line * (1 + Z) * (1 + velocity / C_KMS), width]


BAL = np.array([_trough(1549.06, -7000, 28), _trough(1396.76, -7200, 11), [4.0, 7000.0, 552.0]])


def _case(**changes: Any) -> Case:
    usual = Case("physical", 0.9, 0.1, Z, 4.0, name_windows(BAL, Z), "absorption", {"absorption": 30.0}, 1.3, None,
                 ("", np.nan), ("", np.nan), np.nan, OtherRedshift(np.nan, np.nan, ""), None)  # fmt: skip
    return replace(usual, **changes)


def _with_features(**sigma: float) -> np.ndarray:
    values = np.zeros(len(FEATURES), np.float32)
    for name, value in sigma.items():
        values[FEATURES.index(name)] = np.arcsinh(value / 3)
    return values


def test_troughs_at_one_velocity_support_each_other() -> None:
    together, alone = name_windows(BAL, Z), name_windows(BAL[1:2], Z)
    assert [window.line for window in together[:2]] == ["C IV", "Si IV"]
    assert together[0].velocity == pytest.approx(-7000, abs=5)
    assert together[0].is_trough
    assert together[1].certainty > alone[0].certainty


def test_emission_on_a_line_is_that_line() -> None:
    (window,) = name_windows(np.array([[12.0, 2799.12 * 3, 1000.0]]), Z)
    assert (window.line, window.kind) == ("Mg II", "emission")
    assert window.on_line
    assert window.certainty > 0.6


def test_a_place_without_lines_has_no_name_and_empty_windows_are_left_out() -> None:
    windows = name_windows(np.array([[9.0, 2230.0 * 3, 300.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]]), Z)
    assert len(windows) == 1
    assert windows[0].line == ""
    assert windows[0].as_json()["velocity"] is None


def test_broad_absorption_reads_as_an_astronomer_writes_it() -> None:
    assert sentence(_case()) == "Absorption 4,500–9,500 km/s blueward of C IV (28σ), also Si IV (11σ): BAL-like."


SAID = [
    (_case(verdict="wrong_redshift", z=0.84, other=OtherRedshift(2.31, 120.3, "C IV taken for Mg II")),
     "C IV at z = 2.31 fits far better than Mg II at z = 0.84 (gain 120)."),
    (_case(verdict="wrong_redshift", z=2.31, other=OtherRedshift(0.8, 35.2, "")),
     "Fits z = 0.80 far better than 2.31 (gain 35)."),
    (_case(verdict="wrong_redshift", z=2.31, redshift=14.2, other=OtherRedshift(0.8, 3.0, "C IV taken for Mg II")),
     "An ordinary quasar, but hardly at z = 2.31: its lines are not where they should be (odds 10^6.2)."),
    (_case(driver="redshift", redshift=14.2, other=OtherRedshift(0.8, 35.2, "")), "Fits z = 0.80 far better than 2.00"),
    (_case(driver="redshift", redshift=14.2), "and no other redshift well (odds 10^6.2)."),
    (_case(verdict="star_or_blend", blend=("white_dwarf", 23.0)), "Looks like a white dwarf, not a quasar (odds"),
    (_case(verdict="star_or_blend", blend=("galaxy_blend", 9.2)), "with the quasar's"),
    (_case(verdict="arm_step", features=_with_features(b_ramp=12)), "Arm step at 5780 Å"),
    (_case(verdict="arm_step", features=_with_features(r_step=12)), "A step within the R arm near 6700 Å (12σ)."),
    (_case(verdict="arm_step", features=_with_features(r_step=12, z_scale=9), instrument=("arm_step_7570", 8.0)),
     "Arm step at 7570 Å"),
    (_case(verdict="sky_residual", z=3.8, snr=0.01), "No light but the sky's: a fiber that saw only sky"),
    (_case(verdict="bad_column", windows=name_windows(np.array([[-15.0, 4392.0, 5000.0]]), Z)), "Dip at 4392 Å (15σ)"),
    (_case(verdict="spike", windows=name_windows(np.array([[31.0, 6123.0, 138.0]]), Z)), "Spike at 6123 Å (31σ)"),
    (_case(driver="global", windows=name_windows(np.array([[3.2, 6123.0, 138.0]]), Z)),
     "Unusual continuum or line shape overall (χ² 1.30 a bin), without one strong feature; most at 6123 Å"),
    (_case(driver="density", windows=[]), "Unusual continuum or line shape overall: a rare combination"),
    (_case(driver="blend", blend=("double_quasar", 9.2)), "Light of a second quasar with the first one's"),
    (_case(verdict="fiber_group", cluster={"grouping": "fibers", "size": 8, "expected": 1.1, "kind": "emission",
                                           "observed": 7139.0}),
     "The same emission at 7139 Å in 8 anomalies of neighbouring fibers on one night"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "words"), SAID)
def test_each_verdict_and_driver_has_its_words(case: Case, words: str) -> None:
    assert words in sentence(case)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_has_a_sentence_even_when_nothing_is_known(verdict: str) -> None:
    text = sentence(_case(verdict=verdict, windows=[], driver="", snr=np.nan))
    assert text[0].isupper()
    assert text.endswith(".")
    assert "nan" not in text


def test_json_is_plain_and_complete() -> None:
    n = 3
    table = {"windows": np.tile(np.pad(BAL, ((0, 2), (0, 0))).ravel(), (n, 1)), "z": np.full(n, Z), "snr": np.ones(n),
             "features": [None, np.full(len(FEATURES), np.nan), np.zeros(len(FEATURES))],
             "blend": np.array([np.nan, 8.0, 1.0]), "blend_kind": [None, "galaxy_blend", "galaxy_blend"],
             "redshift_gain": np.array([np.nan, 2.0, 9.0]),
             "absorption_surprise": np.array([30.0, np.nan, 2.0]),
             "global_surprise": np.array([3.0, np.nan, 5.0])}  # fmt: skip
    single = np.full((n, len(KINDS)), 1 / len(KINDS), np.float32)
    judged = classify.combine(single, clusters.find(np.zeros((n, 15)), [[]] * n, [[]] * n))
    reasons, said = why(table, judged)
    assert json.loads(json.dumps(reasons, allow_nan=False)) == reasons
    first, second, third = reasons
    assert [one["driver"] for one in reasons] == ["absorption", None, "global"]
    assert first["windows"][0]["line"] == "C IV"
    assert first["blend"] is None
    assert second["blend"] == {"kind": "galaxy_blend", "log_odds": 8.0}
    assert third["redshift"] == {"other": None, "gain": None, "lines": None, "log_odds": 9.0}
    assert all(text.endswith(".") for text in said)


def test_a_wrong_redshift_has_the_one_that_fits_far_better() -> None:
    table = {"windows": np.zeros((1, 15)), "z": np.array([0.49]), "snr": np.ones(1), "features": [None],
             "other_z": np.array([2.43]), "other_z_gain": np.float32([60]),
             "other_z_lines": ["Lyα taken for Mg II"]}  # fmt: skip
    single = np.array([[float(kind == "wrong_redshift") for kind in KINDS]], np.float32)
    judged = classify.combine(single, clusters.find(table["windows"], [[1]], [[2]]))
    reasons, said = why(table, judged)
    assert reasons[0]["redshift"] == {"other": 2.43, "gain": 60.0, "lines": "Lyα taken for Mg II", "log_odds": None}
    assert said == ["Lyα at z = 2.43 fits far better than Mg II at z = 0.49 (gain 60)."]
