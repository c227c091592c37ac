"""False discovery rates and ranks."""

from __future__ import annotations

import numpy as np

from pipeline.significance import q_values, ranks


def test_q_values_are_benjamini_and_hochberg_s() -> None:
    p = np.array([0.01, 0.8, np.nan, 0.02, 0.03])
    np.testing.assert_allclose(q_values(p), [0.04, 0.8, np.nan, 0.04, 0.04])


def test_lists_cut_at_q_hold_that_share_of_false_ones() -> None:
    rng = np.random.default_rng(0)
    false = []
    for _ in range(30):
        p = np.concatenate([rng.random(20_000), 10 ** rng.uniform(-9, -2, 500)])
        found = q_values(p) < 0.1
        false.append(found[:20_000].sum() / found.sum())
    assert 0.08 < np.mean(false) < 0.11


def test_ranks_break_ties_by_key() -> None:
    score = np.array([1.0, 3.0, np.nan, 3.0])
    np.testing.assert_array_equal(ranks(score, np.array([5, 9, 1, 2])), [3, 2, 0, 1])
