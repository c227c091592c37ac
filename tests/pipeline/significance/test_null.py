"""The null: ranks where there are calibration spectra, their tail beyond, anomalies discounted."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.significance.null import Null


def test_p_values_are_conformal_where_calibration_spectra_are() -> None:
    reference = np.random.default_rng(0).exponential(1.0, 999)
    null = Null.fit(reference)
    middle = float(np.median(reference))
    assert null.surprise(np.array([middle]))[0] == pytest.approx(-np.log((1 + 500) / 1000))
    assert null.surprise(np.array([-1.0]))[0] == 0
    assert null.anomalous == 0


def test_ties_count_as_at_least_as_strange() -> None:
    null = Null.fit(np.zeros(500))
    assert null.surprise(np.array([0.0]))[0] == 0


def test_the_tail_falls_as_the_parent_distribution_does() -> None:
    null = Null.fit(np.random.default_rng(3).exponential(1.0, 5000))
    surprise = null.surprise(np.array([9.0, 14.0, 5000.0, 6000.0]))
    np.testing.assert_array_equal(null.extrapolated(surprise), [True] * 4)
    assert surprise[1] == pytest.approx(14, abs=2)
    assert (np.diff(surprise) > 0).all(), "no two extremes tie"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.03])
def test_slowly_falling_anomalies_are_discounted(share: float) -> None:
    rng = np.random.default_rng(4)
    n = 40_000
    reference = np.where(rng.random(n) < share, rng.exponential(8.0, n), rng.exponential(1.0, n))
    null = Null.fit(reference)
    beyond = np.exp(-1.75 / 8) * share  # those far enough out to tell
    assert null.anomalous == pytest.approx(beyond, abs=0.25 * share + 0.002)
    assert null.surprise(np.array([4.6, 7.0])) == pytest.approx([4.6, 7.0], rel=0.08)


def test_a_moderately_heavy_normal_tail_is_not_taken_for_anomalies() -> None:
    rng = np.random.default_rng(5)
    reference = np.where(rng.random(40_000) < 0.02, rng.exponential(2.2, 40_000), rng.exponential(1.0, 40_000))
    null = Null.fit(reference)
    assert null.anomalous < 0.005, "of 0.02, as much as falls slowest"
    truth = 0.98 * np.exp(-7) + 0.02 * np.exp(-7 / 2.2)
    assert null.surprise(np.array([7.0]))[0] == pytest.approx(-np.log(truth), abs=0.7)
