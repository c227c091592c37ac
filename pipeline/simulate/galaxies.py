"""Galaxies and stars: the rows that are not quasars, and starlight in quasars.

Shapes: B rows, L=7781 native pixels. The stellar populations are hand-made curves after the shapes in
Kinney et al. 1996 (ApJ 467, 38): plausible company for quasars, not stellar-population synthesis.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import lines
from pipeline.simulate.kernels import FIRST, STEP, add_gaussians, add_template, transmit

Array = NDArray[np.float64]
Flux = NDArray[np.float32]

TEMPLATE_FIRST, TEMPLATE_STEP = 1000.0, 2.0  # Å, rest
_REST = TEMPLATE_FIRST + TEMPLATE_STEP * np.arange(5001)
_OLD_NODES = (
    (1000, 1800, 2500, 3000, 3500, 3850, 3930, 4040, 4300, 4600, 5000, 5500, 6000, 7000, 8000, 9000, 11000),
    (0.01, 0.02, 0.05, 0.12, 0.25, 0.36, 0.37, 0.66, 0.80, 0.94, 1.0, 1.04, 1.05, 1.04, 1.0, 0.94, 0.8),
)
_LATE_NODES = (
    (1000, 1300, 2000, 3000, 3600, 3850, 4000, 4500, 5000, 6000, 8000, 11000),
    (1.2, 2.0, 1.5, 1.02, 0.88, 0.95, 1.12, 1.1, 1.0, 0.87, 0.68, 0.5),
)


def _population(nodes: tuple[tuple[float, ...], tuple[float, ...]], depth: float) -> Flux:
    """A population's light on the template grid: smooth nodes times stellar absorption lines, 1 at 5000 Å."""
    light = np.interp(_REST, *nodes)
    light = np.convolve(np.pad(light, 10, mode="edge"), np.ones(21) / 21, mode="valid")
    table = lines.STELLAR
    x = (_REST[:, None] - table.wavelength) / table.width
    light = light * np.prod(1 - depth * table.strength * np.exp(-0.5 * x * x), axis=1)
    return np.asarray(light, dtype=np.float32)


OLD: Flux = _population(_OLD_NODES, 1.0)
LATE: Flux = _population(_LATE_NODES, 0.35)

STAR_TYPES = ("WD", "B", "A", "F", "G", "K", "M")
_TEMPERATURE = np.array([18000.0, 14000.0, 9000.0, 6800.0, 5800.0, 4700.0, 3400.0])
_BALMER = np.array([3889.0, 3970.1, 4102.9, 4341.7, 4862.7, 6564.6])
_METAL = np.array([3934.8, 3969.6, 4305.0, 5175.0, 5894.6, 8544.4, 8664.5])
_TIO = np.array([4955.0, 5168.0, 5448.0, 5847.0, 6159.0, 6651.0, 7054.0, 7590.0, 8206.0, 8432.0])  # heads, Å
_STAR_LINES = (  # lines, depth and σ (Å) of each of STAR_TYPES
    (_BALMER, 0.5, 38.0),
    (_BALMER, 0.4, 14.0),
    (_BALMER, 0.65, 13.0),
    (_BALMER, 0.35, 6.0),
    (_METAL, 0.3, 5.0),
    (_METAL, 0.5, 7.0),
    (_METAL, 0.4, 6.0),
)


def galaxies(z: Array, old: Array, ew: Array, width: Array, flux_r: Array) -> Flux:
    """Flux [B, L] of galaxies.

    ``old`` is the old population's share of the light at 5000 Å, ``ew`` the rest EW of [O II] (Å) with
    the other nebular lines in step, ``width`` the lines' σ in km/s, ``flux_r`` the mean over 5840–7120 Å.
    """
    n = len(z)
    flux = np.zeros((n, 7781), np.float32)
    rows = np.arange(n)
    add_template(flux, rows, z, old, OLD, TEMPLATE_FIRST, TEMPLATE_STEP)
    add_template(flux, rows, z, 1 - old, LATE, TEMPLATE_FIRST, TEMPLATE_STEP)
    centre = lines.NEBULAR.wavelength * (1 + z[:, None])
    sigma = np.hypot(centre * width[:, None] / 299792.458, 0.75)
    level = np.interp(lines.NEBULAR.wavelength, _REST, LATE) * 0.9
    peak = ew[:, None] * lines.NEBULAR.strength * level * (1 + z[:, None]) / (sigma * np.sqrt(2 * np.pi))
    row = np.repeat(rows, centre.shape[1])
    add_gaussians(flux, row, centre.ravel(), sigma.ravel(), peak.ravel())
    return normalised(flux, flux_r)


@lru_cache(maxsize=1)
def _star_templates() -> Flux:
    """One spectrum [7, L] for each of STAR_TYPES, 1 at 5600 Å: a black body with its lines or bands."""
    wave = FIRST + STEP * np.arange(7781)
    types = ((wave / 5000.0) ** -5 / np.expm1(1.4388e8 / (wave * _TEMPERATURE[:, None]))).astype(np.float32)
    types /= types[:, 2500, None]
    for index, (table, depth, sigma) in enumerate(_STAR_LINES):
        row = np.full(len(table), index)
        transmit(types, row, table, np.full(len(table), sigma), np.full(len(table), depth), False)
    past_head = wave[:, None] - _TIO  # TiO bands: a sharp blue head that fades to the red
    bands = np.where(past_head > 0, 0.5 * np.exp(-np.maximum(past_head, 0) / 110.0), 0)
    types[STAR_TYPES.index("M")] *= np.prod(1 - bands, axis=1).astype(np.float32)
    return np.asarray(types)


def stars(rng: np.random.Generator, kind: NDArray[np.int64], flux_r: Array) -> Flux:
    """Flux [B, L] of stars, each a little redder or bluer than its type; ``kind`` indexes STAR_TYPES."""
    wave = FIRST + STEP * np.arange(7781)
    tilt = rng.normal(0, 0.25, len(kind)).astype(np.float32)[:, None] * np.log(wave / 6400.0).astype(np.float32)
    return normalised(np.asarray(_star_templates()[kind] * np.exp(tilt)), flux_r)


def normalised(flux: Flux, flux_r: Array) -> Flux:
    """Scaled in place so that the mean over 5840–7120 Å is ``flux_r`` [B]."""
    flux *= (flux_r / np.maximum(flux[:, 2800:4400].mean(axis=1), 1e-9)).astype(np.float32)[:, None]
    return flux
