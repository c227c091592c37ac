"""Figures of merit against values worked out by hand or by definition."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import _anomaly_metrics as metrics


def test_auc_counts_pairs_and_halves_ties() -> None:
    assert metrics.auc(np.array([0.0, 1.0]), np.array([1.0, 2.0])) == pytest.approx(3.5 / 4)


def test_wilson_interval_of_nothing_found_is_not_empty() -> None:
    low, high = metrics.Share(0, 100).interval()
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(1 / 101)


def test_threshold_lets_the_stated_share_through() -> None:
    normals = np.random.default_rng(1).normal(size=10_000)
    assert (normals > metrics.threshold(normals, 0.01)).sum() == 100


def test_bands_share_out_everything_in_range() -> None:
    shares = metrics.by_band(np.array([True, False, True]), np.array([5.0, 8.0, 14.9]), (5, 8, 15))
    assert [(one.k, one.n) for one in shares] == [(1, 1), (1, 2)]


def test_jaccard_of_half_equal_tops() -> None:
    first, second = np.zeros(100), np.zeros(100)
    first[[0, 1]], second[[1, 2]] = (2.0, 1.0), (2.0, 1.0)
    assert metrics.jaccard(first, second, 0.02) == pytest.approx(1 / 3)


def test_composition_at_natural_rates_fills_the_list() -> None:
    scores = {"normal": np.zeros(50), "strange": np.ones(50)}
    found = metrics.composition(scores, {"strange": 0.01}, 100, 5_000, np.random.default_rng(0))
    assert found["normal"] + found["strange"] == pytest.approx(100)
    assert found["strange"] == pytest.approx(50, abs=5)


def test_equal_cells_hold_equal_numbers_and_are_ordered() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 1000))
    cell = metrics.equal_cells(first, second)
    assert np.bincount(cell).tolist() == [40] * 25
    assert first[cell < 5].max() < first[cell >= 20].min()


def test_uniform_p_values_are_close_and_skewed_ones_far() -> None:
    p = np.random.default_rng(3).random(5000)
    assert metrics.ks_uniform(p) < 0.03
    assert metrics.ks_uniform(p**2) > 0.2


def test_discoveries_are_split_into_true_and_false() -> None:
    found = metrics.discoveries(np.array([0.01, 0.04, 0.2, 0.03]), np.array([True, False, True, True]), 0.05)
    assert (found.found, found.false, found.true_possible) == (3, 1, 3)
    assert found.fdr == pytest.approx(1 / 3)
    assert found.power == pytest.approx(2 / 3)


def test_mcnemar_looks_at_disagreements_only() -> None:
    both = np.ones(50, bool)
    assert metrics.mcnemar_worse(both, both) == 1.0
    worse = np.array([False] * 10 + [True] * 40)
    assert metrics.mcnemar_worse(worse, both) == pytest.approx(2.0**-10)
    assert metrics.mcnemar_worse(both, worse) == pytest.approx(1.0)


def test_holm_multiplies_and_stays_monotone() -> None:
    assert metrics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])


def test_confusion_counts_every_object_once() -> None:
    table = metrics.confusion(np.array(["a", "a", "b"]), np.array(["x", "y", "x"]))
    assert table == {"a": {"x": 1, "y": 1}, "b": {"x": 1}}


def test_windows_overlap_features_they_touch() -> None:
    centre, width = np.array([5000.0, 5000.0]), np.array([1000.0, 1000.0])  # ± 8.3 Å
    assert metrics.overlaps(centre, width, np.array([5010.0, 5030.0]), np.array([2.0, 2.0])).tolist() == [True, False]
