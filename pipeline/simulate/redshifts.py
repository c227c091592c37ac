"""What the redshift fitter said of each row: redrock's columns, right most of the time.

Shapes: B rows. Scatter of quasar redshifts: Gaussian 150 km/s plus Lorentzian 400 km/s as in desisim's quickquasars.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate.targets import Texts

Array = NDArray[np.float64]
LIGHT = 299792.458  # km/s
SMALL_DELTA_CHI2 = 4  # ZWARN bit 2
SKY = 1  # ZWARN bit 0
BAD_TARGET = 256  # ZWARN bit 8
MAX_SLIP = 3000.0  # km/s; larger errors are catastrophic ones and are drawn apart


@dataclass
class RedshiftFits:
    """The fitter's answer for B rows."""

    z: Array
    zerr: Array
    zwarn: NDArray[np.int64]
    chi2: Array
    deltachi2: Array
    spectype: Texts
    subtype: Texts


def draw_fits(rng: np.random.Generator, kind: Texts, subtype: Texts, z: Array, snr: Array) -> RedshiftFits:
    """Fits of rows of these kinds, true redshifts (NaN for sky) and median S/N a pixel."""
    n = len(z)
    quasar = kind == "quasar"
    slip = rng.normal(0, 150, n) + np.clip(400 * rng.standard_cauchy(n) * 0.5, -MAX_SLIP, MAX_SLIP)
    slip = np.where(quasar, slip, rng.normal(0, 25, n))
    strength = np.where(np.isin(kind, ("elg", "bgs", "lrg", "star")), 90.0, 55.0)
    delta = strength * np.maximum(snr, 0.05) ** 1.8 * rng.lognormal(0, 0.5, n) + np.where(kind == "elg", 60, 0)
    spectype = np.select([quasar, kind == "star"], ["QSO", "STAR"], "GALAXY").astype("U6")
    unsure = delta < 12
    faint = quasar & unsure & (rng.random(n) < 0.4)
    spectype[faint] = "GALAXY"
    low = quasar & (z < 0.5) & (rng.random(n) < 0.12)
    spectype[low] = "GALAXY"
    mistaken = (kind == "star") & (rng.random(n) < 0.015)
    spectype[mistaken] = "QSO"
    fitted = z + slip / LIGHT * (1 + np.nan_to_num(z))
    fitted = np.where(faint | mistaken, rng.uniform(0.05, 3.5, n), fitted)
    zwarn = np.where(unsure, SMALL_DELTA_CHI2, 0) + np.where(rng.random(n) < 0.012, 16, 0)
    fits = RedshiftFits(
        z=fitted,
        zerr=2e-4 * (1 + np.nan_to_num(z)) / np.maximum(snr, 0.3) ** 0.8 * rng.lognormal(0, 0.3, n),
        zwarn=zwarn.astype(np.int64),
        chi2=7900 + 130 * rng.standard_normal(n) + 2 * np.minimum(snr, 60) ** 2,
        deltachi2=delta,
        spectype=spectype,
        subtype=np.where(spectype == "STAR", subtype, ""),
    )
    _fit_empty(rng, fits, kind)
    return fits


def _fit_empty(rng: np.random.Generator, fits: RedshiftFits, kind: Texts) -> None:
    """Sky and broken fibers: redrock finds galaxies anywhere and, notoriously, quasars near z = 3.8."""
    empty = np.isin(kind, ("sky", "badfiber"))
    n = int(empty.sum())
    fake_quasar = rng.random(n) < 0.2
    fits.z[empty] = np.where(fake_quasar, rng.normal(3.8, 0.08, n), rng.uniform(0.0, 1.7, n))
    fits.spectype[empty] = np.where(fake_quasar, "QSO", "GALAXY")
    fits.subtype[empty] = ""
    fits.deltachi2[empty] = rng.exponential(6, n)
    fits.zwarn[kind == "sky"] |= SKY
    fits.zwarn[empty] |= np.where(fits.deltachi2[empty] < 9, SMALL_DELTA_CHI2, 0)
    fits.zwarn[kind == "badfiber"] |= BAD_TARGET
