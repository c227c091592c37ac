"""Significance: p-values that are uniform for normals, small for anomalies, and conditional on (z, S/N)."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import RunError
from pipeline.significance import Calibrated, calibrate_scores


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


def _calibrated(s: dict[str, np.ndarray]) -> Calibrated:
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
    assert np.isnan(done.q_value[:5]).all()
    assert sorted(done.rank[5:]) == list(range(1, 2996))
    shuffled = np.random.default_rng(1).permutation(3000)
    again = _calibrated({name: values[shuffled] for name, values in s.items()})
    np.testing.assert_array_equal(again.rank, done.rank[shuffled])
    np.testing.assert_array_equal(again.p_value, done.p_value[shuffled])


def _contaminated(n: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A survey with 2.7% of anomalies, calibration spectra no different, 4 to 40 σ in one component of two."""
    s = _survey(n, seed)
    rng = np.random.default_rng([seed, 1])
    strange = rng.random(n) < 0.027
    sigma = np.exp(rng.uniform(np.log(4), np.log(40), n))
    first = rng.random(n) < 0.5
    s["misfit"] += np.where(strange & first, sigma * (1 + 0.5 * s["z"]), 0.0)
    s["density"] += np.where(strange & ~first, sigma, 0.0)
    return s, strange


def test_anomalies_among_the_calibration_spectra_are_discounted() -> None:
    rates, power, low, plain = [], [], [], []
    for seed in range(3):
        s, strange = _contaminated(60_000, seed)
        done = _calibrated(s)
        tested = ~s["calibration"]
        found = tested & (done.q_value < 0.1)
        rates.append(float(np.mean(~strange[found])))
        power.append(float(np.mean(done.q_value[tested & strange] < 0.1)))
        low.append(float(np.mean(done.p_value[tested & ~strange] < 0.01)))
        ordered = np.sort(done.anomaly_score[~tested])
        beyond = len(ordered) - np.searchsorted(ordered, done.anomaly_score[tested & ~strange])
        plain.append(float(np.mean((1 + beyond) / (1 + len(ordered)) < 0.01)))
        assert 0.015 < done.anomalous < 0.055
    assert np.mean(rates) < 0.11, "no more false discoveries than were asked for"
    assert np.mean(power) > 0.5
    assert 0.005 < np.mean(low) < 0.015, "1% of normals below p = 0.01"
    assert max(plain) < 0.001, "which plain conformal p-values miss by far"


def _detected(n: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """A contaminated survey with a detector's log odds, surer of itself at high S/N than it may be."""
    s, strange = _contaminated(n, seed)
    rng = np.random.default_rng([seed, 2])
    sigma = np.exp(rng.uniform(np.log(2), np.log(8), n))
    shift = rng.normal(0, 1, n) + np.where(strange, sigma, 0.0)
    odds = (1.0 + 0.1 * s["snr"]) * (3.0 * shift - 4.5 - np.log(50.0))
    return s, strange, {"misfit": s["misfit"], "density": s["density"], "detection": odds}


def test_a_detector_s_log_odds_tell_which_calibration_spectra_to_discount() -> None:
    rates, low, high = [], [], []
    for seed in range(2):
        s, strange, parts = _detected(60_000, seed)
        done = calibrate_scores(parts, s["z"], s["snr"], s["calibration"], s["key"])
        tested = ~s["calibration"]
        found = tested & (done.q_value < 0.1)
        rates.append(float(np.mean(~strange[found])))
        normal = tested & ~strange
        low.append(float(np.mean(done.p_value[normal] < 0.01)))
        high.append(float(np.mean(done.p_value[normal & (s["snr"] > 4)] < 0.01)))
        assert np.mean(done.q_value[tested & strange] < 0.1) > 0.4
    assert np.mean(rates) < 0.11
    assert 0.0015 < np.mean(low) < 0.015, "anomalies that only other components see make it cautious"
    assert 0.0015 < np.mean(high) < 0.015, "log odds that are too sure at high S/N do not make it rash there"


def test_a_clean_calibration_is_left_alone() -> None:
    assert _calibrated(_survey(40_000, seed=5)).anomalous < 0.003


def test_a_component_that_is_mostly_zero() -> None:
    s = _survey(30_000)
    rng = np.random.default_rng(2)
    some = rng.random(30_000) < 0.04
    s["density"] = np.where(some, rng.exponential(1.0 + s["snr"]), 0.0)
    done = _calibrated(s)
    assert (done.components["density"][~some] == 0).all(), "p is 1 where nothing was found"
    rare = done.components["density"][some]
    assert rare.min() > 2.5, "to have found anything has p = 0.04"
    assert np.mean(rare > -np.log(0.01)) == pytest.approx(0.25, abs=0.08)
    p = done.p_value[~s["calibration"]]
    assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=0.02)
    assert np.mean(p <= 0.01) == pytest.approx(0.01, abs=0.005)


def test_tails_that_grow_with_signal_to_noise_are_told_apart() -> None:
    s = _survey(60_000)
    rng = np.random.default_rng(3)
    tail = np.where(rng.random(60_000) < 0.02 + 0.02 * np.minimum(s["snr"], 5), 4.0 * s["snr"], 1.0)
    s["density"] = np.abs(rng.normal(0, tail))
    p = _calibrated(s).p_value
    for low, high in ((0, 1), (1, 2), (2, 4), (4, 8), (8, 40)):
        rows = (s["snr"] > low) & (s["snr"] <= high) & ~s["calibration"]
        assert 0.003 < np.mean(p[rows] <= 0.01) < 0.02, f"S/N {low} to {high}"


def test_spectra_beyond_what_calibration_saw_keep_sane_p_values() -> None:
    s = _survey()
    s["snr"][:4], s["z"][:4] = (0.0, 0.01, 60.0, 200.0), (0.01, 3.9, 6.0, 0.3)
    s["misfit"][:4] = 3 * s["z"][:4] + s["snr"][:4]
    s["calibration"][:4] = False
    done = _calibrated(s)
    assert np.isfinite(done.anomaly_score[:4]).all()
    assert (done.p_value[:2] > 0.003).all(), "no more than noise"


@pytest.mark.parametrize("n", [12, 60, 400])
def test_small_and_uniform_calibrations_do_not_fail(n: int) -> None:
    s = _survey(n)
    s["calibration"][:] = True
    s["z"][:] = 1.0
    s["density"][:] = 0.0
    done = _calibrated(s)
    assert ((done.p_value > 0) & (done.p_value <= 1)).all()


def test_too_few_calibration_spectra_is_one_clear_line() -> None:
    s = _survey(100)
    s["calibration"][:] = False
    with pytest.raises(RunError, match="only 0 scored spectra lie in calibration"):
        _calibrated(s)
