"""Discoveries in a survey of many spectra: false discovery rates and ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def q_values(p_value: Floats) -> Floats:
    """Return the false discovery rate of the list that ends with each spectrum, [N]; NaN where p is NaN.

    Benjamini & Hochberg 1995 (J. R. Statist. Soc. B 57, 289). The share of normal spectra is taken to be 1: Storey's
    estimate of it is 0.97 to 1 where anomalies are a few percent, and gains nothing.
    """
    known = np.flatnonzero(np.isfinite(p_value))
    order = known[np.argsort(p_value[known], kind="stable")]
    rate = p_value[order] * len(order) / np.arange(1, len(order) + 1)
    q_value = np.full(len(p_value), np.nan)
    q_value[order] = np.minimum(np.minimum.accumulate(rate[::-1])[::-1], 1.0)
    return q_value


def ranks(score: Floats, key: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ranks [N], 1 the highest score, ties by ``key``; 0 where the score is NaN."""
    order = np.lexsort((key, np.where(np.isnan(score), np.inf, -score)))
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(1, len(score) + 1)
    rank[np.isnan(score)] = 0
    return rank
