"""Median signal-to-noise of many spectra at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.compiled import compiled

_MAGNITUDE = np.int32(0x7FFFFFFF)
_LOWEST, _HIGHEST = np.int32(-(2**31)), np.int32(2**31 - 1)


def median_snr(flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median of flux·√ivar over the pixels with ivar > 0, float32 [B]; NaN where there is none.

    ``flux`` and ``ivar`` are [B, L], L odd. Exact, four times as fast as ``np.median``: float32 as integers of the
    same order are selected much faster, and as many pixels without information go below as above, so that all
    rows have their median in the middle.
    """
    keys: Any = np.empty(flux.shape, np.int32)
    good = np.empty(len(flux), np.int64)
    _order_keys(flux, ivar, keys, good)
    middle = keys.shape[1] // 2
    keys.partition(middle, axis=1)
    upper = keys[:, middle].copy()
    lower = upper.copy()
    even = np.flatnonzero(good % 2 == 0)
    lower[even] = keys[even, :middle].max(axis=1)
    median = np.full(len(flux), np.nan, np.float32)
    middles = _as_float(lower[good > 0]), _as_float(upper[good > 0])
    median[good > 0] = middles[0] + np.float32(0.5) * (middles[1] - middles[0])
    return median


def _as_float(keys: Any) -> NDArray[np.float32]:
    return np.where(keys < 0, keys ^ _MAGNITUDE, keys).view(np.float32)


@compiled
def _order_keys(flux: Any, ivar: Any, keys: Any, good: Any) -> None:  # pragma: no cover
    """Integers ordered as the pixels' S/N; pixels without information at both ends, one more at the top if odd."""
    bits = np.empty(flux.shape[1], np.float32)
    words = bits.view(np.int32)
    for i in range(len(flux)):
        count = np.int32(0)
        for j in range(len(bits)):
            bits[j] = flux[i, j] * np.sqrt(ivar[i, j])
        for j in range(len(bits)):
            word = words[j]
            known = ivar[i, j] > 0
            count += np.int32(1 if known else 0)
            ordered = np.int32(word ^ _MAGNITUDE) if word < 0 else word
            keys[i, j] = ordered if known else _HIGHEST
        good[i] = count
        below = (len(bits) - count) // 2
        j = 0
        while below > 0:
            if keys[i, j] == _HIGHEST:
                keys[i, j] = _LOWEST
                below -= 1
            j += 1
