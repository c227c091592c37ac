"""Significance: p-values that are uniform for normals, small for anomalies, and conditional on (z, S/N)."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import RunError
from pipeline.significance import calibrate_scores, conformal


def _survey(n: int = 20_000, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    z, snr = rng.uniform(0.2, 4, n), rng.lognormal(0.5, 0.7, n)
    level = 3 * z + snr  # a component whose normal level and spread follow z and S/N
    return {
        "z": z,
        "snr": snr,
        "misfit": level + rng.normal(0, 1 + 0.5 * z),
        "density": rng.normal(0, 1, n),
        "calibration": rng.random(n) < 0.2,
        "key": rng.permutation(n),
    }


def _calibrated(s: dict[str, np.ndarray]):
    parts = {"misfit": s["misfit"], "density": s["density"]}
    return calibrate_scores(parts, s["z"], s["snr"], s["calibration"], s["key"])


def test_p_values_of_normals_are_uniform_overall_and_across_redshift() -> None:
    s = _survey()
    p = _calibrated(s).p_value[~s["calibration"]]
    z = s["z"][~s["calibration"]]
    for level in (0.01, 0.1, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * np.sqrt(level / len(p)) + 0.004)
    assert np.mean(p[z > 3] <= 0.1) == pytest.approx(0.1, abs=0.03)
    assert np.mean(p[z < 1] <= 0.1) == pytest.approx(0.1, abs=0.03)


def test_one_strong_component_suffices() -> None:
    s = _survey()
    s["density"][7] = 40.0
    done = _calibrated(s)
    assert done.rank[7] == 1
    assert done.extrapolated[7]
    assert done.p_value[7] < 1 / (s["calibration"].sum() + 1)


def test_an_outlier_is_judged_against_its_own_redshift() -> None:
    s = _survey()
    low = int(np.argmin(np.abs(s["z"] - 0.4)))
    s["misfit"][low] = 3 * 3.9 + 5  # usual at z = 3.9
    assert _calibrated(s).p_value[low] < 0.005


def test_ranks_are_a_stable_permutation_and_unscored_rows_have_none() -> None:
    s = _survey(3000)
    s["misfit"][:5] = np.nan
    done = _calibrated(s)
    assert (done.rank[:5] == 0).all()
    assert np.isnan(done.p_value[:5]).all()
    assert sorted(done.rank[5:]) == list(range(1, 2996))
    shuffled = np.random.default_rng(1).permutation(3000)
    again = _calibrated({name: values[shuffled] for name, values in s.items()})
    np.testing.assert_array_equal(again.rank, done.rank[shuffled])


def test_the_tail_falls_as_the_parent_distribution_does() -> None:
    rng = np.random.default_rng(3)
    log_p, extrapolated = conformal(np.array([9.0, 14.0, 5000.0, 6000.0]), rng.exponential(1.0, 1000))
    assert extrapolated.all()
    assert log_p[1] == pytest.approx(-14, abs=5)
    assert log_p[3] < log_p[2] < log_p[1] < log_p[0] < np.log(1e-2), "no two extremes tie"


def test_too_few_calibration_spectra_is_one_clear_line() -> None:
    s = _survey(100)
    s["calibration"][:] = False
    with pytest.raises(RunError, match="only 0 scored spectra lie in calibration"):
        _calibrated(s)
