"""Verdicts: what a spectrum looks like by itself, and when its neighbours overrule it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.verdicts import classify, clusters
from pipeline.verdicts.features import FEATURES, features
from pipeline.verdicts.kinds import KIND_OF_CLASS, KINDS, MEANING, VERDICTS, is_artefact, kind_of


def _table(spectra: Any) -> dict[str, Any]:
    n = len(spectra.z)
    measured = features(spectra.flux, spectra.ivar, spectra.model, spectra.z, spectra.difference)
    return {"features": measured, "windows": np.zeros((n, 5, 3)), "z": spectra.z, "snr": np.ones(n),
            "fiber": [[i % 5000] for i in range(n)], "night": [[20210101 + i] for i in range(n)]}  # fmt: skip


def _no_cluster(n: int) -> clusters.Clusters:
    return clusters.find(np.zeros((n, 15)), [[]] * n, [[]] * n)


def _single(n: int, **kinds: float) -> np.ndarray:
    rest = (1 - sum(kinds.values())) / (len(KINDS) - len(kinds))
    return np.tile([kinds.get(kind, rest) for kind in KINDS], (n, 1)).astype(np.float32)


def _in_group(n: int, grouping: str = "fibers", size: int = 8, expected: float = 1.05) -> clusters.Clusters:
    return replace(_no_cluster(n), member=np.ones(n, bool), grouping=np.full(n, grouping), size=np.full(n, size),
                   expected=np.full(n, expected))  # fmt: skip


def test_every_class_and_verdict_has_a_kind_and_a_meaning() -> None:
    assert set(KIND_OF_CLASS.values()) <= set(VERDICTS)
    assert set(MEANING) == set(VERDICTS)
    assert kind_of("extra_bump") == "physical"
    assert is_artefact("fiber_group")
    assert not is_artefact("wrong_redshift")


def test_known_faults_get_their_verdicts(spectra: Any) -> None:
    hurt = spectra.name != ""
    done = classify.verdicts(_table(spectra))
    truth = np.array([kind_of(name) for name in spectra.name[hurt].tolist()])
    assert np.mean(done.verdict[hurt] == truth) >= 0.85
    made = np.array([is_artefact(name) for name in truth.tolist()])
    artefact = done.artefact_probability[hurt]
    assert np.median(artefact[made]) > 0.9 > 0.3 > np.median(artefact[~made])


def test_probabilities_are_probabilities_whatever_is_unknown(spectra: Any) -> None:
    table = _table(spectra) | {"features": np.full((len(spectra.z), len(FEATURES)), np.nan)}
    done = classify.verdicts(table | {"blend_kind": [None] * len(spectra.z), "blend": np.full(len(spectra.z), np.nan)})
    assert np.allclose(done.kinds.sum(1), 1, atol=1e-5)
    assert ((done.artefact_probability >= 0) & (done.artefact_probability <= 1)).all()
    assert set(done.verdict) <= set(VERDICTS)


def test_features_of_another_version_are_refused(spectra: Any) -> None:
    with pytest.raises(ValueError, match="calibrate again"):
        classify.verdicts(_table(spectra) | {"features": np.zeros((len(spectra.z), 3))})


def test_a_group_makes_a_physical_looking_feature_the_instruments() -> None:
    done = classify.combine(_single(2, physical=0.9), _in_group(2))
    assert set(done.verdict) == {"fiber_group"}
    assert (done.artefact_probability > 0.85).all()


def test_a_group_leaves_known_artefacts_and_sure_stars_their_names() -> None:
    for kind in ("sky_residual", "arm_step", "spike", "bad_column", "star_or_blend", "wrong_redshift"):
        done = classify.combine(_single(1, **{kind: 0.9}), _in_group(1))
        assert done.verdict.tolist() == [kind]
    star = classify.combine(_single(1, star_or_blend=0.9), _in_group(1))
    assert star.artefact_probability[0] < 0.2


def test_a_common_wavelength_raises_the_odds_but_names_no_group() -> None:
    alone = classify.combine(_single(1, physical=0.6), _no_cluster(1))
    common = classify.combine(_single(1, physical=0.6), _in_group(1, "survey", 40, 10.0))
    assert common.verdict.tolist() == ["physical"]
    odds = [one.artefact_probability[0] / (1 - one.artefact_probability[0]) for one in (alone, common)]
    assert odds[1] == pytest.approx(4 * odds[0], rel=1e-3)


def test_nobody_to_judge_is_no_error() -> None:
    table = {"features": np.zeros((0, len(FEATURES))), "windows": np.zeros((0, 15)), "z": np.zeros(0),
             "snr": np.zeros(0), "fiber": [], "night": []}  # fmt: skip
    assert len(classify.verdicts(table).verdict) == 0
