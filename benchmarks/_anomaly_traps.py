"""Traps: what is done to ordinary spectra after their noise that takes information away and must not rank high.

Each changes flux and ivar [B, L] in place and returns the median S/N [B].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.snr import median_snrs
from pipeline.injection import damage

Flux = NDArray[np.float32]


def spikes(rng: np.random.Generator, flux: Flux, ivar: Flux) -> Flux:
    """Runs of pixels whose errors are 10 to 1,000 times as large, and whose flux scatters as much."""
    for flux_L, ivar_L in zip(flux, ivar, strict=True):
        damage.worsen(rng, flux_L, ivar_L)
    return median_snrs(flux, ivar)


def masked(rng: np.random.Generator, flux: Flux, ivar: Flux) -> Flux:
    """A run of 3 to 40% of the spectrum without information; beneath it NaN, infinity or garbage."""
    for flux_L, ivar_L in zip(flux, ivar, strict=True):
        run = damage.mask_run(rng, ivar_L)
        flux_L[run] = rng.choice([np.nan, np.inf, 1e30, -1e30, 0.0])
    return median_snrs(flux, ivar)


def arm_missing(rng: np.random.Generator, flux: Flux, ivar: Flux) -> Flux:
    """One arm of three without information."""
    for ivar_L in ivar:
        damage.lose_arm(rng, ivar_L)
    return median_snrs(flux, ivar)


AFTER = {"spikes": spikes, "masked": masked, "arm_missing": arm_missing}
