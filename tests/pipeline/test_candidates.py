"""Candidates and the pool of their look-alikes."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline import candidates as module
from pipeline.candidates import candidates, pool


def _ranked(p_value: np.ndarray) -> np.ndarray:
    rank = np.zeros(len(p_value), np.int64)
    known = np.flatnonzero(np.isfinite(p_value))
    rank[known[np.argsort(p_value[known], kind="stable")]] = np.arange(1, len(known) + 1)
    return rank


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (40, 40), (1000, 100), (50_000, 500), (3_000_000, 20_000)])
def test_the_strangest_come_first_and_neither_too_few_nor_too_many(n: int, expected: int) -> None:
    p = np.random.default_rng(0).permutation(np.arange(1, n + 1) / (n + 1))
    rank = _ranked(p)
    found = candidates(p, rank)
    assert len(found) == expected
    assert np.array_equal(rank[found], np.arange(1, expected + 1))


def test_what_has_no_rank_is_no_candidate() -> None:
    p = np.array([np.nan, 0.5, np.nan, 0.001])
    assert candidates(p, _ranked(p)).tolist() == [3, 1]


def test_the_pool_is_ordinary_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    p, key = rng.random(1000), rng.permutation(1000)
    p[5] = np.nan
    everything = pool(p, key)
    assert set(everything.tolist()) == set(np.flatnonzero(p > 0.1).tolist())
    monkeypatch.setattr(module, "POOL", 50)
    some, order = pool(p, key), rng.permutation(1000)
    assert set(key[some].tolist()) == set(key[order][pool(p[order], key[order])].tolist())
    assert len(some) == 50
