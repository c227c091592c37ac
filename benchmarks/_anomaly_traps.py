"""Traps: what is done to ordinary spectra after their noise that takes information away and must not rank high.

Each changes flux and ivar [B, L] in place and returns the median S/N [B].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.grid import ARMS, N_PIXELS

Array = NDArray[np.float64]


def spikes(rng: np.random.Generator, flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> Array:
    """Runs of pixels whose errors are 10 to 1,000 times as large, and whose flux scatters as much."""
    for row in range(len(flux)):
        for _ in range(int(rng.integers(1, 6))):
            start, length = int(rng.integers(0, N_PIXELS - 20)), int(rng.integers(1, 20))
            run, worse = slice(start, start + length), np.float32(10 ** rng.uniform(1, 3))
            noise = np.where(ivar[row, run] > 0, worse / np.sqrt(np.maximum(ivar[row, run], 1e-20)), 0)
            flux[row, run] += (noise * rng.standard_normal(length)).astype(np.float32)
            ivar[row, run] /= worse * worse + 1
    return median_snr(flux, ivar)


def masked(rng: np.random.Generator, flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> Array:
    """A run of 3 to 40% of the spectrum without information; beneath it NaN, infinity or garbage."""
    for row in range(len(flux)):
        length = int(rng.uniform(0.03, 0.4) * N_PIXELS)
        start = int(rng.integers(0, N_PIXELS - length))
        run = slice(start, start + length)
        ivar[row, run] = 0
        garbage = rng.choice([np.nan, np.inf, 1e30, -1e30, 0.0])
        flux[row, run] = garbage
    return median_snr(flux, ivar)


def arm_missing(rng: np.random.Generator, flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> Array:
    """One arm of three without information."""
    for row in range(len(flux)):
        ivar[row, ARMS[str(rng.choice(list("BRZ")))]] = 0
    return median_snr(flux, ivar)


def median_snr(flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> Array:
    """Median S/N over pixels with information, as ingest has it."""
    with np.errstate(invalid="ignore"):
        value = np.where(ivar > 0, flux * np.sqrt(ivar), np.nan)
    return np.asarray(np.nanmedian(value, axis=1))


AFTER = {"spikes": spikes, "masked": masked, "arm_missing": arm_missing}
