"""Nearest neighbours against a k-d tree's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import KDTree

from pipeline.lookalikes import nearest


@pytest.mark.parametrize(("n", "k"), [(3000, 3), (6, 3), (4, 3), (2, 3), (1, 1)])
def test_neighbours_are_the_nearest(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    others = (5.0 + rng.standard_normal((n, 8))).astype(np.float32)
    vectors = (5.0 + 2.0 * rng.standard_normal((600, 8))).astype(np.float32)
    place, distance = nearest(vectors, others, k)
    wanted, at = KDTree(others.astype(np.float64)).query(vectors.astype(np.float64), range(1, min(k, n) + 1))
    assert np.array_equal(place, at)
    np.testing.assert_allclose(distance, wanted, rtol=1e-6)


def test_none_to_choose_from() -> None:
    place, distance = nearest(np.ones((5, 4), np.float32), np.empty((0, 4), np.float32), 3)
    assert place.shape == distance.shape == (5, 0)
