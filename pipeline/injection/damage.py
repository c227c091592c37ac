"""Damage that takes information away from a spectrum: an arm lost, a run masked, pixels of huge error.

Shapes: L=7781 native pixels. All functions change one spectrum in place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.grid import ARMS, N_PIXELS

Flux = NDArray[np.float32]


def lose_arm(rng: np.random.Generator, ivar_L: Flux) -> None:
    """Leave one arm of three without information."""
    ivar_L[ARMS[str(rng.choice(list(ARMS)))]] = 0


def mask_run(rng: np.random.Generator, ivar_L: Flux) -> slice:
    """Leave a run of 3 to 40% of the spectrum without information; returns where."""
    length = int(rng.uniform(0.03, 0.4) * N_PIXELS)
    start = int(rng.integers(0, N_PIXELS - length))
    run = slice(start, start + length)
    ivar_L[run] = 0
    return run


def worsen(rng: np.random.Generator, flux_L: Flux, ivar_L: Flux) -> None:
    """Make the errors of some runs of pixels 10 to 1,000 times as large, and their flux scatter as much."""
    for _ in range(int(rng.integers(1, 6))):
        start, length = int(rng.integers(0, N_PIXELS - 20)), int(rng.integers(1, 20))
        run, worse = slice(start, start + length), np.float32(10 ** rng.uniform(1, 3))
        known = ivar_L[run] > 0
        noise = np.where(known, worse / np.sqrt(np.where(known, ivar_L[run], 1.0)), 0.0)
        flux_L[run] += (noise * rng.standard_normal(length)).astype(np.float32)
        ivar_L[run] /= worse * worse + 1
