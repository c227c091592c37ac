"""Sky pixels of DESI's healpix tree: nside 64, nested (DESI data model, ``healpix/`` tree)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NSIDE = 64
N_PIXELS = 12 * NSIDE**2


def pixel_of(ra_B: NDArray[Any], dec_B: NDArray[Any]) -> NDArray[np.int32]:
    """Return the pixel of each position, −1 where the position is unknown or impossible.

    Args:
        ra_B, dec_B: float [B], degrees, ICRS.
    """
    from astropy import units
    from astropy_healpix import HEALPix

    ra, dec = np.asarray(ra_B, dtype=np.float64), np.asarray(dec_B, dtype=np.float64)
    pixel = np.full(ra.shape, -1, dtype=np.int32)
    known = np.isfinite(ra) & (np.abs(dec) <= 90)
    grid = HEALPix(NSIDE, order="nested")
    pixel[known] = grid.lonlat_to_healpix(ra[known] * units.deg, dec[known] * units.deg)
    return pixel
