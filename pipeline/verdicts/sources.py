"""Signs of what else a spectrum may be: a quasar at another redshift, a star, a galaxy; and of broad absorption."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline.verdicts.residual import N_COARSE, TINY, Residual, coarse_wavelength, inverse_normal, polynomials

C_KMS = 299792.458  # km/s
QUASAR = {1215.7: (1.0, 2500), 1549.1: (0.8, 2500), 1908.7: (0.5, 3000), 2799.1: (0.6, 2500),
          4341.7: (0.2, 2000), 4862.7: (0.6, 2200), 4960.3: (0.25, 450), 5008.2: (0.7, 450),
          6564.6: (1.5, 2200)}  # fmt: skip  # vacuum Å: strength, σ in km/s
GALAXY = {3728.5: -0.6, 3934.8: 1.0, 3969.6: 1.0, 4305.0: 0.6, 4862.7: -0.3, 5008.2: -0.5, 5176.0: 0.6, 5894.6: 0.5,
          6564.6: -0.8}  # fmt: skip  # absorption positive; σ 300 km/s
STARS: dict[str, tuple[tuple[float, ...], float]] = {  # vacuum Å at z = 0, σ in Å
    "white_dwarf": ((3889.0, 3970.1, 4102.9, 4341.7, 4862.7, 6564.6), 36.0),
    "hot_star": ((3889.0, 3970.1, 4102.9, 4341.7, 4862.7, 6564.6), 12.0),
    "cool_star": ((3934.8, 3969.6, 4305.0, 5175.0, 5894.6, 8544.4, 8664.5), 6.0),
    "late_star": ((4955.0, 5168.0, 5448.0, 5847.0, 6159.0, 6651.0, 7054.0, 7590.0, 8206.0, 8432.0), 35.0),
}
REST_LINES = {"lya": 1215.7, "nv": 1240.8, "si4": 1396.8, "c4": 1549.1, "c3": 1908.7, "mg2": 2799.1, "o2": 3728.5,
              "hb": 4862.7, "o3": 5008.2, "ha": 6564.6}  # fmt: skip
TROUGHS = {"si4": 1396.8, "c4": 1549.1, "al3": 1857.4, "mg2": 2799.1}
Z_STEP = 1.2e-3  # dex of the quasars' redshift grid, 830 km/s
GALAXY_STEP = 6e-4  # dex of the galaxies'
STAR_NAMES = tuple(f"star_{name}" for name in STARS)
LINE_NAMES = tuple(f"line_{name}" for name in REST_LINES) + tuple(f"trough_{name}" for name in TROUGHS)
GRID_NAMES = (
    "lines_here", "lines_elsewhere", "lines_gain", "lines_z_apart", "second_lines", "galaxy_lines", "galaxy_gain",
    "no_lines_chi2", "no_lines_gain", "forest_excess", "redward_excess",
)  # fmt: skip


def stars(residual: Residual) -> Tensor:
    """Return σ of stellar absorption at z = 0 in the residual, [B, 4], positive when it absorbs."""
    return residual.gain(level(residual), -_stellar())


def level(residual: Residual) -> Tensor:
    """Return the spectrum's own smooth level, [B, C]."""
    return _smooth(residual.flux_BC, residual.w_BC).abs()


@lru_cache(maxsize=1)
def _stellar() -> Tensor:
    wave = coarse_wavelength()[:, None]
    sums = [torch.exp(-0.5 * ((wave - torch.tensor(lines)) / width) ** 2).sum(1) for lines, width in STARS.values()]
    return torch.stack(sums)


def _smooth(values_BC: Tensor, w_BC: Tensor, reach: int = 30) -> Tensor:
    """Running weighted mean over ± ``reach`` coarse bins, [B, C]."""
    window = 2 * reach + 1
    mean = [
        torch.nn.functional.avg_pool1d(x[:, None], window, 1, reach, count_include_pad=False)[:, 0]
        for x in (values_BC * w_BC, w_BC)
    ]
    return mean[0] / mean[1].clamp(min=TINY)


def rest_lines(residual: Residual, z_B: Tensor) -> Tensor:
    """Return the residual at rest-frame lines (± 2,000 km/s) and blueward of them, σ, signed, [B, 14]."""
    ends = [(rest, -2000.0, 2000.0) for rest in REST_LINES.values()]
    ends += [(rest, -16_000.0, -1_500.0) for rest in TROUGHS.values()]
    rest, low, high = torch.tensor(ends).T
    wave = coarse_wavelength()
    step = float(wave[1] - wave[0])
    centre_BK = rest * (1 + z_B)[:, None]
    first, last = (((centre_BK * (1 + speed / C_KMS) - wave[0]) / step).round().long().clamp(0, N_COARSE)
                   for speed in (low, high))  # fmt: skip
    sums = []
    for part in (residual.w_BC * residual.r_BC, residual.w_BC, (residual.w_BC > 0).float()):
        running = torch.nn.functional.pad(part.double().cumsum(1), (1, 0))
        sums.append((running.gather(1, last) - running.gather(1, first)).float())
    top, total, seen = sums
    return torch.where(seen >= 2, top * total.clamp(min=TINY).rsqrt(), 0.0)


def other_sources(residual: Residual, z_B: Tensor) -> Tensor:
    """Return evidence for lines at other redshifts, for a galaxy, and for no lines at all, [B, 11]."""
    w_BC, flux_BC = residual.w_BC, residual.flux_BC
    known = w_BC > 0
    n = known.sum(1).clamp(min=1).float()
    bare = flux_BC - _continuum(flux_BC, w_BC)
    bare_chi2 = (w_BC * bare.square()).sum(1)
    model_chi2 = (w_BC * (flux_BC - residual.model_BC).square()).sum(1)
    templates, squares = _quasar_grid()
    scale_BZ = (w_BC @ squares.T).clamp(min=TINY).rsqrt()
    first_BZ, second_BZ = (((w_BC * part) @ templates.T) * scale_BZ for part in (bare, residual.r_BC))
    place_Z = torch.arange(len(templates))
    here_B = ((torch.log10(1 + z_B) - _FIRST) / Z_STEP).round().long().clamp(0, len(templates) - 1)
    apart = (place_Z - here_B[:, None]).abs()
    here = torch.where(apart <= 5, first_BZ, 0.0).amax(1)
    elsewhere, at = torch.where(apart > 13, first_BZ, 0.0).max(1)
    second = torch.where(apart > 13, second_BZ, 0.0).amax(1)
    level_BC = level(residual)
    galaxy = _galaxy(residual.r_BC, w_BC, level_BC)
    narrow = torch.where(known, flux_BC - _smooth(flux_BC, w_BC, 12), 0.0)
    galaxy_flux = _galaxy(narrow, w_BC, level_BC)
    forest = (coarse_wavelength() < 1216 * (1 + z_B)[:, None]) & known
    excess = residual.w_BC * residual.r_BC.square() - 1
    sides = [(excess * side).sum(1) / (2 * side.sum(1)).clamp(min=1).sqrt() for side in (forest, known & ~forest)]
    columns = [
        here, elsewhere, elsewhere - here, (at - here_B) * Z_STEP, second, galaxy_flux, galaxy,
        (bare_chi2 - n) / (2 * n).sqrt(), (bare_chi2 - model_chi2) / (2 * n).sqrt(), *sides,
    ]  # fmt: skip
    return torch.stack([column.float() for column in columns], 1)


def _continuum(flux_BC: Tensor, w_BC: Tensor) -> Tensor:
    """Fit the flux with polynomials alone, [B, C]."""
    terms = polynomials()
    right = (w_BC * flux_BC) @ terms.T
    found = inverse_normal(terms.expand(len(w_BC), -1, -1), w_BC) @ right[:, :, None]
    return found[:, :, 0] @ terms


def _galaxy(values_BC: Tensor, w_BC: Tensor, level_BC: Tensor) -> Tensor:
    """Return the best σ of a galaxy's lines at any redshift up to 1, [B]."""
    templates, squares = _galaxy_grid()
    top = (-w_BC * values_BC * level_BC) @ templates.T
    return (top * ((w_BC * level_BC.square()) @ squares.T).clamp(min=TINY).rsqrt()).amax(1)


_FIRST = float(np.log10(1.15))  # log10(1 + z) at which the quasars' grid begins


@lru_cache(maxsize=1)
def _quasar_grid() -> tuple[Tensor, Tensor]:
    shift = np.arange(_FIRST, np.log10(5.8), Z_STEP)
    return _grid(shift, [(rest, strength, rest * width / C_KMS) for rest, (strength, width) in QUASAR.items()])


@lru_cache(maxsize=1)
def _galaxy_grid() -> tuple[Tensor, Tensor]:
    shift = np.arange(0.0, np.log10(2.0), GALAXY_STEP)
    return _grid(shift, [(rest, strength, rest * 400 / C_KMS) for rest, strength in GALAXY.items()])


def _grid(shift: np.ndarray, lines: list[tuple[float, float, float]]) -> tuple[Tensor, Tensor]:
    """Lines at every redshift [Z, C], and their squares."""
    rest = coarse_wavelength().numpy()[None] / 10 ** shift[:, None]
    total = np.zeros(rest.shape, np.float32)
    for centre, strength, sigma in lines:
        total += (strength * np.exp(-0.5 * ((rest - centre) / sigma) ** 2)).astype(np.float32)
    out = torch.from_numpy(total)
    return out, out.square()
