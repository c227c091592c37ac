"""Who is in a sky pixel: positions, identifiers, kinds and redshifts of its targets.

Shapes: N targets of one HEALPix pixel (nside 64, nested).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate.galaxies import STAR_TYPES
from pipeline.simulate.quasars import flux_from_magnitude

Array = NDArray[np.float64]
Texts = NDArray[np.str_]
NSIDE = 64

# what the rows that are not quasars hold: share in the dark and the bright survey
KINDS = ("elg", "lrg", "bgs", "star", "sky", "badfiber")
SHARES = {"dark": (0.40, 0.26, 0.0, 0.17, 0.12, 0.05), "bright": (0.0, 0.0, 0.55, 0.31, 0.10, 0.04)}


@dataclass(frozen=True)
class PixelPlan:
    """What to simulate in one pixel. ``shared`` of the bright quasars are dark quasars seen again."""

    healpix: int
    dark_quasars: int
    bright_quasars: int
    shared: int
    dark_others: int
    bright_others: int

    @property
    def unique_quasars(self) -> int:
        """Quasars, each counted once."""
        return self.dark_quasars + self.bright_quasars - self.shared


@dataclass
class Targets:
    """N targets: quasars first (dark, then bright only), then the others (dark, then bright only)."""

    targetid: NDArray[np.int64]
    ra: Array  # deg
    dec: Array  # deg
    kind: Texts  # quasar, or one of KINDS
    subtype: Texts  # a star's type, else empty
    z: Array  # true redshift; a star's is its velocity/c, sky's is NaN
    flux_r: Array  # mean over 5840–7120 Å, 1e-17 erg/s/cm²/Å
    is_bright: NDArray[np.bool_]  # in the bright survey only

    def __len__(self) -> int:
        return len(self.targetid)


def draw_targets(rng: np.random.Generator, plan: PixelPlan, z: Array, flux_r: Array) -> Targets:
    """Targets of a pixel, given its quasars' redshifts and fluxes [unique_quasars]."""
    n_quasars, n_others = plan.unique_quasars, plan.dark_others + plan.bright_others
    n = n_quasars + n_others
    ra, dec = draw_positions(rng, plan.healpix, n)
    others_bright = np.arange(n_others) >= plan.dark_others
    kind = np.concatenate([np.full(n_quasars, "quasar"), _draw_kinds(rng, others_bright)])
    subtype, z_other, flux_other = _draw_others(rng, kind[n_quasars:])
    return Targets(
        targetid=_identifiers(plan.healpix, kind),
        ra=ra,
        dec=dec,
        kind=kind,
        subtype=np.concatenate([np.full(n_quasars, ""), subtype]),
        z=np.concatenate([z, z_other]),
        flux_r=np.concatenate([flux_r, flux_other]),
        is_bright=np.concatenate([np.arange(n_quasars) >= plan.dark_quasars, others_bright]),
    )


def draw_positions(rng: np.random.Generator, healpix: int, n: int) -> tuple[Array, Array]:
    """RA and Dec (deg) of ``n`` points spread evenly over the inside of a pixel."""
    from astropy_healpix import healpix_to_lonlat

    dx, dy = 0.001 + 0.998 * rng.random((2, n))
    lon, lat = healpix_to_lonlat(np.full(n, healpix), NSIDE, dx=dx, dy=dy, order="nested")
    return np.asarray(lon.to_value("deg")), np.asarray(lat.to_value("deg"))


def _draw_kinds(rng: np.random.Generator, is_bright: NDArray[np.bool_]) -> Texts:
    """Kinds [M] of the rows that are not quasars."""
    place = rng.random(len(is_bright))
    picks = [np.searchsorted(np.cumsum(SHARES[program]), place) for program in ("dark", "bright")]
    index = np.minimum(np.where(is_bright, picks[1], picks[0]), len(KINDS) - 1)
    return np.asarray(np.array(KINDS)[index])


def _draw_others(rng: np.random.Generator, kind: Texts) -> tuple[Texts, Array, Array]:
    """Subtype, redshift and r flux [M] by kind."""
    n = len(kind)
    star = rng.choice(len(STAR_TYPES), n, p=[0.06, 0.03, 0.1, 0.28, 0.23, 0.16, 0.14])
    subtype = np.where(kind == "star", np.array(STAR_TYPES)[star], "")
    z_of = {
        "elg": np.clip(rng.normal(1.1, 0.27, n), 0.3, 1.63),
        "lrg": np.clip(rng.normal(0.72, 0.2, n), 0.15, 1.2),
        "bgs": np.clip(rng.gamma(3.2, 0.075, n), 0.01, 0.6),
        "star": rng.normal(0, 80, n) / 299792.458,
        "badfiber": rng.uniform(0, 3, n),
    }
    magnitude_of = {
        "elg": rng.normal(23.4, 0.4, n),
        "lrg": 22.2 - rng.gamma(2, 0.5, n),
        "bgs": 19.8 - rng.gamma(1.5, 0.5, n),
        "star": 20.8 - rng.gamma(2, 0.9, n),
        "badfiber": rng.normal(21.5, 1, n),
    }
    z = np.select([kind == key for key in z_of], list(z_of.values()), np.nan)
    magnitude = np.select([kind == key for key in magnitude_of], list(magnitude_of.values()), 99.0)
    return (
        np.asarray(subtype),
        z,
        np.where(kind == "sky", 0.0, flux_from_magnitude(np.maximum(magnitude, 14))),
    )


def _identifiers(healpix: int, kind: Texts) -> NDArray[np.int64]:
    """TARGETIDs in DESI's layout: release 22 bits up from brick, brick 22 up from object; sky negative."""
    release, brick = 9010, 100000 + healpix
    objects = np.arange(1, len(kind) + 1, dtype=np.int64)
    identifier = (np.int64(release) << 42) | (np.int64(brick) << 22) | objects
    return np.where(kind == "sky", -(np.int64(brick) * 100000 + objects), identifier)
