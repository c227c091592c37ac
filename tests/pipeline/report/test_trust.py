from dataclasses import replace

import numpy as np
import pytest

from pipeline.credibility import discoveries, uniformity
from pipeline.report import choice, trust
from pipeline.report.contents import Contents, Metric, Reason, Spectrum
from pipeline.report.page import render
from pipeline.report.reasons import judged, words
from pipeline.report.summary import explained

EXPLANATION = "Absorption 4,100 to 9,800 km/s blueward of C IV (28σ), also Si IV (11σ): BAL-like."


def _metrics(stage: str, found: dict[str, float | tuple[float, str]]) -> list[Metric]:
    pairs = {name: value if isinstance(value, tuple) else (value, "") for name, value in found.items()}
    return [Metric(stage, name, None if np.isnan(value) else value, unit) for name, (value, unit) in pairs.items()]


@pytest.fixture
def calibrated(contents: Contents) -> Contents:
    """Contents with all metrics of a calibration."""
    rng = np.random.default_rng(0)
    p = rng.random(6000)
    none = np.zeros(6000, bool)
    found = discoveries(p, np.minimum(p * 20, 1), 1200) | uniformity(p, rng.random(6000), rng.random(6000), none, none)
    verdicts = {"verdict sky_residual": (12, "spectra"), "verdict spike": (0, "spectra")}
    return replace(contents, metrics=[*contents.metrics, *_metrics("calibrate", found | verdicts)])


def _comparison(fraction: float) -> list[Metric]:
    return _metrics("compare", {trust.FRACTION: fraction, trust.ALLOWED: 0.1})


def test_models_that_disagree_are_shouted_about(contents: Contents) -> None:
    loud = replace(contents, metrics=_comparison(0.37))
    assert "MODELS DISAGREE strongly on 37%" in trust.alarm(loud.metrics)
    page = render(loud)
    assert 'role="alert">MODELS DISAGREE' in page
    assert page.index("MODELS DISAGREE") < page.index("<nav")
    for quiet in (_comparison(0.1), contents.metrics, []):
        assert trust.alarm(quiet) == ""
    assert 'role="alert"' not in render(contents)


def test_what_tables_of_their_own_tell_is_not_told_twice(calibrated: Contents) -> None:
    page = render(calibrated)
    assert page.count("sky residual</td>") == 1
    assert "12</td>" in page
    assert "spike</td>" not in page  # of which there is none
    assert "p-values in cell" not in page
    for heading in ("Verdicts on the candidates", "trained on and held out", "by redshift and S/N"):
        assert page.count(heading) == 1
    assert "spectra have q &lt; 0.05" in page


def test_nothing_is_claimed_before_calibration(contents: Contents) -> None:
    for part in (trust.discoveries, trust.verdicts, trust.parts, trust.uniformity, trust.banner):
        assert part(contents) == ""


def test_an_explanation_takes_the_place_of_the_reason(contents: Contents) -> None:
    source: Spectrum = contents.top[0]
    told = replace(
        source,
        explanation=EXPLANATION,
        verdict="sky_residual",
        artefact_probability=0.984,
        q_value=0.03,
        lookalikes=("39627700000000123 (z 2.104)",),
    )
    page = render(replace(contents, top=[told]))
    assert f"{EXPLANATION}" in page
    assert words(source.reason, source.z) not in page  # type: ignore[arg-type]
    assert "39627700000000123 (z 2.104)" in page


def test_verdicts_in_words() -> None:
    assert judged("sky_residual", 0.984) == "sky residual (artefact 98%)"
    assert judged("", float("nan")) == ""
    row = {"explanation": EXPLANATION, "verdict": "physical", "artefact_probability": 0.02, "q_value": 0.0123}
    assert explained(row, None) == f"q 0.012, physical (artefact 2%): {EXPLANATION}"
    reason = Reason("absorption", 9.0, 4647.0, 3000.0)
    assert explained(row | {"explanation": None, "z": 2.0}, reason) == words(reason, 2.0)
    assert explained(row | {"explanation": None, "z": 2.0}, None) == "no reason"


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (
            Reason("blend", 12.0, template="cool_star"),
            "a second light source (cool star), log odds 12.0",
        ),
        (Reason("instrument", 8.0, template="step_5800"), "a fault of the instrument (step 5800), log odds 8.0"),
        (Reason("detection", 4.0), "like departures put into spectra for training, log odds 4.0"),
        (Reason("redshift", 9.5), "another redshift fits better, log odds 9.5"),
    ],
)
def test_reasons_that_are_not_local(reason: Reason, said: str) -> None:
    assert words(reason, 2.0) == said


def test_the_strongest_window_is_drawn_when_it_is_worth_it() -> None:
    whole = Reason("density", 40.0, chi2_reduced=1.2)
    local = Reason("emission", 7.0, 5000.0, 300.0)
    windows = [-9.0, 6543.0, 800.0, 4.0, 5000.0, 300.0]
    assert choice.close_up(whole, windows) == Reason("absorption", 9.0, 6543.0, 800.0, 1.2)
    assert choice.close_up(local, windows) == local
    assert choice.close_up(whole, [4.0, 5000.0, 300.0]) == whole
    assert choice.close_up(whole, None) == whole
    assert choice.close_up(None, []) is None
