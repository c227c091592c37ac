"""Wavelength grids: DESI's native pixels, log-wavelength bins of them, and the same bins at rest.

The step is the same in both log grids, so that going to the rest frame is a shift by whole bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from numpy.typing import NDArray

N_NATIVE = 7781  # pixels of the joined arms (DESI data model: B 3600–5800, R 5760–7620, Z 7520–9824 Å)
FIRST_WAVELENGTH = 3600.0  # Å
PIXEL = 0.8  # Å
STEP = 2e-4  # dex, a bin of the log grids
BIN_KMS = 299792.458 * math.log(10.0) * STEP  # km/s, 138.06: the width of a bin
BLOCK = 16  # bins of the rest-frame grid that share one weight-channel input


def native_wavelength() -> NDArray[np.float64]:
    """Return the native pixels' centres, vacuum Å, shape [L]."""
    return np.asarray(FIRST_WAVELENGTH + PIXEL * np.arange(N_NATIVE), np.float64)


@cache
def bin_of_pixel() -> NDArray[np.int64]:
    """Return the observed log bin each native pixel falls in, shape [L]; every pixel is in exactly one."""
    return np.floor(np.log10(native_wavelength() / FIRST_WAVELENGTH) / STEP + 1e-9).astype(np.int64)


N_OBSERVED = int(bin_of_pixel()[-1]) + 1
N_FINE = 2 * N_OBSERVED  # half bins, 69 km/s: about a resolution element at the red end


def half_bin_of_pixel() -> NDArray[np.int64]:
    """Return the half bin each native pixel falls in, shape [L]; half bins i and N_OBSERVED + i make bin i.

    All first halves come before all second ones, so that what is done to whole bins is done to runs of them.
    """
    half = np.floor(np.log10(native_wavelength() / FIRST_WAVELENGTH) / (0.5 * STEP) + 2e-9).astype(np.int64)
    second = np.clip(half - 2 * bin_of_pixel(), 0, 1)
    return np.asarray(bin_of_pixel() + second * N_OBSERVED, np.int64)


def observed_wavelength() -> NDArray[np.float64]:
    """Return the observed log bins' centres, vacuum Å, shape [O]."""
    return np.asarray(FIRST_WAVELENGTH * 10.0 ** ((np.arange(N_OBSERVED) + 0.5) * STEP), np.float64)


@dataclass(frozen=True)
class RestGrid:
    """The rest-frame log grid that covers redshifts 0 to ``z_max``."""

    z_max: float

    @cached_property
    def max_shift(self) -> int:
        """The shift of ``z_max`` in bins."""
        return round(float(np.log10(1.0 + self.z_max)) / STEP)

    @cached_property
    def n_rest(self) -> int:
        """R, rounded up to whole blocks."""
        return -(-(N_OBSERVED + self.max_shift) // BLOCK) * BLOCK

    @cached_property
    def wavelength(self) -> NDArray[np.float64]:
        """The bins' centres at rest, vacuum Å, shape [R]."""
        bins = np.arange(self.n_rest) + 0.5 - self.max_shift
        return np.asarray(FIRST_WAVELENGTH * 10.0 ** (bins * STEP), np.float64)

    def redshift(self, offset_B: torch.Tensor) -> torch.Tensor:
        """Return the redshifts of rest-frame bins of the first observed bin, or of places between them, float64 [B]."""
        return torch.pow(10.0, (self.max_shift - offset_B.double()) * STEP) - 1.0

    def offset(self, z_B: torch.Tensor) -> torch.Tensor:
        """Return the rest-frame bin of each spectrum's first observed bin, int64 [B].

        Shifts are rounded to whole bins: an error of at most 69 km/s, below quasar redshift errors.

        Raises:
            ValueError: a redshift is not a number or lies outside the grid.
        """
        bad = ~((z_B >= 0.0) & (z_B <= self.z_max))
        if bool(bad.any()):
            value = float(z_B[bad][0])
            raise ValueError(f"redshift {value:g} is outside the model's range 0 to {self.z_max:g}")
        return self.max_shift - torch.round(torch.log10(1.0 + z_B.double()) / STEP).long()
