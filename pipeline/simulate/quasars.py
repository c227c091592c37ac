"""Quasars: their parameters drawn from what surveys found, and their emission drawn from the parameters.

Shapes: B quasars, L=7781 native pixels. Flux in 1e-17 erg/s/cm²/Å, wavelengths in vacuum Å.
Continuum slopes: Vanden Berk et al. 2001 and simqso (McGreer et al. 2013); lines: ``lines.py``; Baldwin
trends and their scatter: simqso; C IV blueshifts: Richards et al. 2011 (AJ 141, 167).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import lines
from pipeline.simulate.galaxies import LATE, OLD, TEMPLATE_FIRST, TEMPLATE_STEP
from pipeline.simulate.kernels import FIRST, STEP, add_gaussians, add_template, upsample

Array = NDArray[np.float64]
Flux = NDArray[np.float32]

N_PIXELS = 7781
EVERY = 16  # pixels between nodes of the smooth continuum
LIGHT = 299792.458  # km/s
LSF = 0.75  # instrument's σ, Å
BREAKS = np.array([1100.0, 5700.0, 9730.0])  # rest Å, where the continuum's slope changes
R_BAND = slice(2800, 4400)  # native pixels whose mean is the r-band flux, 5840–7120 Å

# DR1's quasar redshifts: percentiles 1/5/25/50/75/95/99 of desi.md, ends drawn out
_Z_PERCENTILE = np.array([0, 1, 5, 25, 50, 75, 95, 99, 99.8, 100]) / 100
_Z_VALUE = np.array([0.08, 0.21, 0.51, 1.18, 1.67, 2.17, 2.95, 3.54, 4.3, 5.2])


@dataclass(frozen=True)
class Quasars:
    """Parameters of B quasars; arrays [B] unless the shape says otherwise."""

    z: Array
    flux_r: Array  # mean over 5840–7120 Å
    magnitude: Array  # absolute, from r
    slope: Array  # [B, 4] α of f_ν ∝ ν^α below, between and above BREAKS
    reddening: Array  # E(B−V) in the quasar's frame, mag
    balmer: Array  # Balmer continuum over the power law at 3000 Å
    ew_broad: Array  # [B, broad lines] rest EW, Å
    ew_narrow: Array  # [B, narrow lines]
    width: Array  # broad lines' width over the composite's
    width_narrow: Array  # km/s
    blueshift: Array  # of the high-ionisation lines, km/s
    iron: Array  # [B, 2] EW of the ultraviolet and optical iron, Å
    host: Array  # [B, 2] old and young starlight over the power law at 5000 Å
    split: Array  # km/s by which broad lines are double-peaked, 0 in normal quasars

    def __len__(self) -> int:
        return len(self.z)

    def rows(self, index: NDArray[np.int64]) -> Quasars:
        """The quasars of these rows."""
        return Quasars(**{name: value[index] for name, value in vars(self).items()})

    def with_values(self, **changes: Array) -> Quasars:
        """A copy with some parameters changed."""
        return replace(self, **changes)


def draw_redshifts(rng: np.random.Generator, n: int) -> Array:
    """Redshifts [n] over DR1's distribution."""
    return np.asarray(np.interp(rng.random(n), _Z_PERCENTILE, _Z_VALUE))


def draw_quasars(rng: np.random.Generator, n: int, bright: NDArray[np.bool_]) -> Quasars:
    """Parameters of ``n`` quasars; those flagged ``bright`` [n] are of the bright survey (r < 19.5)."""
    z = draw_redshifts(rng, n)
    z = np.where(bright, np.minimum(z, 0.15 + 2.6 * rng.random(n) ** 1.5), z)
    mag = np.clip(23.4 - rng.gamma(2.3, 0.62, n), 16.2, 23.4)
    mag = np.where(bright, 19.6 - rng.gamma(1.6, 0.45, n), mag)
    faintest = distance_modulus(z) - 20.7 - rng.gamma(2, 0.4, n)  # fainter nuclei are called galaxies
    mag = np.minimum(mag, np.maximum(faintest, 15.5))
    absolute = mag - distance_modulus(z) + 1.25 * np.log10(1 + z)  # K correction of α = −0.5
    slope = np.stack(
        [
            rng.normal(-1.5, 0.45, n),
            rng.normal(-0.45, 0.33, n),
            rng.normal(-0.37, 0.3, n),
            rng.normal(-1.5, 0.3, n),
        ],
        axis=1,
    )
    common = rng.normal(0, 0.13, n)
    blueshift = rng.normal(650, 350, n) - 1800 * common - 90 * (absolute + 25.5)
    host = 10 ** (-0.75 + 0.36 * (np.clip(absolute, -27, -19) + 22.5))[:, None] * 10 ** rng.normal(0, 0.25, (n, 2))
    return Quasars(
        z=z,
        flux_r=flux_from_magnitude(mag),
        magnitude=absolute,
        slope=slope,
        reddening=rng.exponential(0.022, n) + np.where(rng.random(n) < 0.04, rng.exponential(0.08, n), 0),
        balmer=0.09 * 10 ** rng.normal(0, 0.3, n),
        ew_broad=_broad_widths(rng, n, absolute, common),
        ew_narrow=_narrow_widths(rng, n, absolute),
        width=10 ** rng.normal(-0.03, 0.12, n),
        width_narrow=200 * 10 ** rng.normal(0, 0.12, n),
        blueshift=np.clip(blueshift, -400, 4000),
        iron=np.array([75.0, 34.0]) * 10 ** rng.normal(0, 0.22, (n, 2)),
        host=host * np.array([0.55, 0.45]),
        split=np.zeros(n),
    )


def _broad_widths(rng: np.random.Generator, n: int, absolute: Array, common: Array) -> Array:
    """Rest EW [n, broad lines]: log-normal, with each line's Baldwin trend about M = −25.5."""
    baldwin = lines.BROAD_BALDWIN * (np.clip(absolute, -29.5, -21)[:, None] + 25.5)
    own = rng.normal(0, 0.13, (n, len(lines.BROAD.strength)))
    return np.asarray(lines.BROAD.strength * 10 ** (baldwin + common[:, None] + own))


def _narrow_widths(rng: np.random.Generator, n: int, absolute: Array) -> Array:
    """Rest EW [n, narrow lines]: one log-normal factor a quasar (0.35 dex) and one a line."""
    factor = rng.normal(0, 0.35, (n, 1)) + 0.09 * (np.clip(absolute, -28, -19)[:, None] + 23)
    own = rng.normal(0, 1, (n, len(lines.NARROW.strength))) * lines.NARROW.extra
    return np.asarray(lines.NARROW.strength * 10 ** (factor + own))


def distance_modulus(z: Array) -> Array:
    """Distance modulus, mag, in flat ΛCDM with H0 = 67.7 km/s/Mpc and Ωm = 0.31 (Planck 2018)."""
    return np.asarray(5 * np.log10(np.interp(z, *_comoving()) * (1 + z)) + 25)


@cache
def _comoving() -> tuple[Array, Array]:
    """Comoving distance, Mpc, on a grid of redshifts."""
    grid = np.linspace(0, 7, 1401)
    rate = 1 / np.sqrt(0.31 * (1 + grid) ** 3 + 0.69)
    return grid, LIGHT / 67.7 * np.concatenate([[0], np.cumsum((rate[1:] + rate[:-1]) / 2 * np.diff(grid))])


def flux_from_magnitude(mag: Array) -> Array:
    """f_λ at 6400 Å, 1e-17 erg/s/cm²/Å, of an AB magnitude."""
    return np.asarray(10 ** (-0.4 * (mag + 48.6)) * 2.99792458e18 / 6400**2 * 1e17)


def emission(quasars: Quasars) -> Flux:
    """Flux [B, L] before anything absorbs it: continuum, lines, iron, starlight; normalised to ``flux_r``."""
    flux = np.empty((len(quasars), N_PIXELS), np.float32)
    nodes = FIRST + STEP * EVERY * np.arange(N_PIXELS // EVERY + 2)
    rest = nodes[None, :] / (1 + quasars.z[:, None])
    upsample(flux, (continuum(quasars, rest) * (1 + _balmer(quasars, rest))).astype(np.float32), EVERY)
    rows = np.arange(len(quasars))
    at_5000 = continuum(quasars, np.full((len(quasars), 1), 5000.0))[:, 0]
    near = np.flatnonzero(quasars.z < 1.6)
    for which, template in ((0, OLD), (1, LATE)):
        add_template(
            flux,
            rows[near],
            quasars.z[near],
            (quasars.host[:, which] * at_5000)[near],
            template,
            TEMPLATE_FIRST,
            TEMPLATE_STEP,
        )
    _add_broad(flux, quasars)
    _add_iron(flux, quasars)
    _add_narrow(flux, quasars)
    flux *= (quasars.flux_r / np.maximum(flux[:, R_BAND].mean(axis=1), 1e-6)).astype(np.float32)[:, None]
    return flux


def continuum(quasars: Quasars, rest_BK: Array) -> Array:
    """Reddened broken power law at rest wavelengths [B, K], unreddened value 1 at 3000 Å."""
    log = np.log(rest_BK)
    edges = np.log(BREAKS)
    slope = -(quasars.slope + 2)  # of f_λ
    value = slope[:, 1, None] * (np.clip(log, edges[0], edges[1]) - np.log(3000))
    value = value + slope[:, 0, None] * np.minimum(log - edges[0], 0)
    value = value + slope[:, 2, None] * (np.clip(log, edges[1], edges[2]) - edges[1])
    value = value + slope[:, 3, None] * np.maximum(log - edges[2], 0)
    return np.asarray(np.exp(value - 0.921 * quasars.reddening[:, None] * smc_extinction(rest_BK)))


def smc_extinction(rest: Array) -> Array:
    """A(λ)/E(B−V) of the SMC bar (Prevot et al. 1984; 1.39 λ_μm^−1.2, as Richards et al. 2003 use it)."""
    return np.asarray(1.39 * (np.maximum(rest, 700) / 1e4) ** -1.2)


def _balmer(quasars: Quasars, rest: Array) -> Array:
    """Balmer continuum over the power law (Grandi 1982), blended high-order lines redward of 3646 Å."""
    edge = np.where(rest < 3646, (rest / 3646) ** 3, np.exp(-((np.maximum(rest, 3646) - 3646) / 130)))
    planck = (rest / 3000) ** -1.5 * np.clip((rest - 1700) / 700, 0, 1)
    return np.asarray(quasars.balmer[:, None] * 2.2 * (1 - np.exp(-edge * 1.2)) * planck)


def _add_lines(flux: Flux, quasars: Quasars, centre_BK: Array, sigma_BK: Array, ew_BK: Array) -> None:
    """Add Gaussians of rest centre, rest σ (Å) and rest EW (Å) [B, K] that reach the spectrograph."""
    stretch = (1 + quasars.z)[:, None]
    level = continuum(quasars, centre_BK)
    sigma = np.hypot(sigma_BK * stretch, LSF)
    peak = ew_BK * stretch * level / (sigma * np.sqrt(2 * np.pi))
    centre = centre_BK * stretch
    seen = (centre + 5 * sigma > FIRST) & (centre - 5 * sigma < FIRST + STEP * N_PIXELS)
    rows, _ = np.nonzero(seen)
    add_gaussians(flux, rows, centre[seen], sigma[seen], peak[seen])


def _add_broad(flux: Flux, quasars: Quasars) -> None:
    """Broad lines: a core of 55% and a wider, bluer base of 45% of the equivalent width."""
    table = lines.BROAD
    shift = quasars.blueshift[:, None] * table.extra / LIGHT
    width = quasars.width[:, None] * table.width
    split = quasars.split[:, None] / LIGHT
    halves = (-1.0, 1.0) if np.any(quasars.split) else (0.0,)
    for sign in halves:
        core = table.wavelength * (1 - 0.5 * shift + sign * split)
        base = table.wavelength * (1 - 1.7 * shift + sign * split)
        _add_lines(flux, quasars, core, 0.62 * width, 0.55 * quasars.ew_broad / len(halves))
        _add_lines(flux, quasars, base, 1.9 * width, 0.45 * quasars.ew_broad / len(halves))


def _add_iron(flux: Flux, quasars: Quasars) -> None:
    """Iron multiplets, broadened as the quasar's lines are."""
    table = lines.IRON
    family = table.extra.astype(int)
    share = table.strength / np.bincount(family, table.strength)[family]
    sigma = np.hypot(table.width, 0.0055 * table.wavelength * quasars.width[:, None])
    centre = np.broadcast_to(table.wavelength, sigma.shape)
    _add_lines(flux, quasars, centre, sigma, quasars.iron[:, family] * share)


def _add_narrow(flux: Flux, quasars: Quasars) -> None:
    """Narrow lines; [O III] carries a blue wing through its wider companion."""
    table = lines.NARROW
    sigma = table.wavelength * quasars.width_narrow[:, None] / LIGHT
    centre = np.broadcast_to(table.wavelength, sigma.shape)
    _add_lines(flux, quasars, centre, sigma, 0.75 * quasars.ew_narrow)
    _add_lines(flux, quasars, centre * (1 - 150 / LIGHT), 2.6 * sigma, 0.25 * quasars.ew_narrow)
