"""DESI's native wavelength grid, on which the three arms share one phase.

7,781 pixels of 0.8 Å, vacuum, observed frame, 3600 to 9824 Å: B 3600–5800, R 5760–7620, Z 7520–9824
(DESI data model, coadd files; Guy et al. 2023, AJ 165, 144).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WAVELENGTH_START = 3600.0  # Å
WAVELENGTH_STEP = 0.8  # Å
N_PIXELS = 7781

WAVELENGTH = WAVELENGTH_START + WAVELENGTH_STEP * np.arange(N_PIXELS, dtype=np.float64)  # Å, vacuum
WAVELENGTH.setflags(write=False)

ARMS = {"B": slice(0, 2751), "R": slice(2700, 5026), "Z": slice(4900, 7781)}
OVERLAP_BR = slice(2700, 2751)  # 51 pixels, 5760–5800 Å
OVERLAP_RZ = slice(4900, 5026)  # 126 pixels, 7520–7620 Å
N_OVERLAP = 177

TOLERANCE = 1e-3  # Å; a wavelength array stored as float32 errs by up to 5e-4


def offset_on_grid(wavelength: NDArray[np.float64]) -> int | None:
    """Grid pixel of the first of ``wavelength`` [n] (Å), None if they are not n successive grid pixels."""
    if not len(wavelength) or not np.isfinite(wavelength[0]):
        return None
    offset = round((float(wavelength[0]) - WAVELENGTH_START) / WAVELENGTH_STEP)
    if offset < 0 or offset + len(wavelength) > N_PIXELS:
        return None
    pixels = WAVELENGTH[offset : offset + len(wavelength)]
    return offset if np.allclose(wavelength, pixels, rtol=0, atol=TOLERANCE) else None
