"""Which part of the sky a spectrum is used for: training, early stopping or calibration.

The part is a hash of the sky pixel, so the three lie in disjoint pixels, are the same on every machine, and do not
change when the survey grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.keys import spectrum_id

SPLITS: Final = ("train", "validate", "calibrate")
FRACTIONS: Final = (0.7, 0.1, 0.2)  # of the pixels
SPLIT_SEED: Final = 1  # another one would divide the sky otherwise
BY_PIXEL: Final = "sky pixel"  # what is divided: whole sky pixels,
BY_SPECTRUM: Final = "spectrum"  # or single spectra, when there are too few pixels


def split_of(
    healpix_B: NDArray[np.integer], seed: int, *, spectrum_id_B: NDArray[np.int64] | None = None
) -> NDArray[np.str_]:
    """Return 'train', 'validate' or 'calibrate' for each spectrum.

    Args:
        healpix_B: pixels, nside 64 nested, [B]; negative where the position is unknown.
        seed: of the hash; another seed divides the sky otherwise.
        spectrum_id_B: keys that stand in for unknown pixels, int64 [B]; without them those share one part.
    """
    unit = np.asarray(healpix_B, np.int64)
    if spectrum_id_B is not None:
        unit = np.where(unit < 0, -1 - np.asarray(spectrum_id_B, np.int64), unit)
    place = spectrum_id(unit, f"split {seed}") / 2.0**63  # the keys' own hash of a number and a name, as 0 to 1
    return np.array(SPLITS)[np.searchsorted(np.cumsum(FRACTIONS)[:-1], place, side="right")]


def split_of_model(
    settings: Mapping[str, Any], healpix_B: NDArray[np.integer], spectrum_id_B: NDArray[np.int64]
) -> NDArray[np.str_]:
    """Return the parts as a model's training divided the spectra; ``settings`` is its provenance's ``split``."""
    healpix_B = healpix_B if settings["unit"] == BY_PIXEL else np.full(len(healpix_B), -1)
    return split_of(healpix_B, int(settings["seed"]), spectrum_id_B=spectrum_id_B)
