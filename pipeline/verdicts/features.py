"""Numbers that tell artefacts from astrophysics, of one spectrum at a time, mostly in the observed frame.

Significances are compressed, sign(x) asinh(x / 3), so that none of them dominates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.desi.grid import N_PIXELS, WAVELENGTH_START, WAVELENGTH_STEP
from pipeline.simulate.instrument import LSF_SIGMA
from pipeline.verdicts import instrument, local, sources
from pipeline.verdicts.residual import COARSE, TINY, Residual

Float = NDArray[np.float32]
Masks = Sequence[Sequence[int]]

ROWS = 64  # spectra worked on together
NEAR = 12  # pixels about the strongest peak in which masks count
SIGNS = ("up", "down")
PLACES = {"4390": (4390.0, 60.0), "5578": (5578.4, 8.0), "5780": (5780.0, 30.0), "7570": (7570.0, 60.0),
          "8630": (8630.0, 25.0), "9450": (9450.0, 150.0)}  # fmt: skip  # Å, and how near is near

_PEAK_NAMES = tuple(f"peak_{sign}_{width:.1f}" for width in local.widths() for sign in SIGNS)
_TOP_NAMES = (
    "top_sigma", "top_sign", "top_width", "top_wavelength", "top_resolution", "top_narrow", "top_wide", "top_rivals",
    *(f"top_at_{place}" for place in PLACES),
)  # fmt: skip
_STEP_NAMES = tuple(f"step_{what}_{level}" for level in local.STEP_LEVELS for what in ("sigma", "wavelength"))
_WHOLE_NAMES = (
    "chi2", "chi2_smooth", "broad_gain", "broad_slope", "broad_curve", "snr", "light", "light_share", "z", "z_sky",
    "power_b", "power_r", "power_z", "share_b", "share_r", "share_z",
)  # fmt: skip
_MASK_NAMES = ("lost", "longest_run", "lost_near_top", "masked_near_top")

FEATURES: Final = (
    *_WHOLE_NAMES, *_PEAK_NAMES, *_TOP_NAMES, *_STEP_NAMES, *instrument.SHAPE_NAMES, *instrument.SKY_NAMES,
    *instrument.OVERLAP_NAMES, *sources.STAR_NAMES, *sources.LINE_NAMES, *sources.GRID_NAMES, *_MASK_NAMES,
)  # fmt: skip


def features(
    flux_BL: Any, ivar_BL: Any, model_BL: Any, z_B: Any, arm_difference_BN: Any, mask_pixel: Masks | None = None
) -> Float:
    """Return the features of spectra, float32 [B, len(FEATURES)], always finite.

    Args:
        flux_BL: float32 [B, 7781] on the native grid, 1e-17 erg/s/cm²/Å; anything where ivar is 0.
        ivar_BL: float32 [B, 7781], 1/flux², finite and not negative.
        model_BL: the model's reconstructions on the same grid, [B, 7781].
        z_B: catalogued redshifts, [B].
        arm_difference_BN: differences of the arms in their overlaps in σ, [B, 177]; NaN or 0 where there is none.
        mask_pixel: native pixels with any mask bit, a list a spectrum; None where masks are not at hand.

    Raises:
        ValueError: the arrays do not belong together.
    """
    n = len(z_B)
    if not all(len(part) == n for part in (flux_BL, ivar_BL, model_BL, arm_difference_BN)):
        raise ValueError(f"expected flux, ivar, model and arm difference of {n} spectra each, as redshifts")
    out = np.zeros((n, len(FEATURES)), np.float32)
    with torch.no_grad():
        for start in range(0, n, ROWS):
            rows = slice(start, start + ROWS)
            residual = Residual.of(flux_BL[rows], ivar_BL[rows], model_BL[rows])
            z = torch.as_tensor(np.asarray(z_B[rows], np.float32))
            difference = torch.as_tensor(np.array(arm_difference_BN[rows], np.float32))
            masks = None if mask_pixel is None else mask_pixel[rows]
            out[rows] = torch.nan_to_num(_block(residual, z, difference, masks), 0.0, 0.0, 0.0).numpy()
    return out


def squeeze(sigma: Tensor) -> Tensor:
    """Compress significances, keeping their sign."""
    return torch.asinh(sigma / 3.0)


def _block(residual: Residual, z_B: Tensor, difference_BN: Tensor, masks: Masks | None) -> Tensor:
    found, steps = local.peaks(residual.pull_BL, residual.root_BL)
    top, place_B = _top(found)
    shapes = instrument.shapes(residual)
    grids = sources.other_sources(residual, z_B)
    grids = torch.cat([squeeze(grids[:, :3]), grids[:, 3:4], squeeze(grids[:, 4:])], 1)
    sky = squeeze(instrument.sky(residual))
    parts = [
        _whole(residual, z_B), squeeze(found.sigma.flatten(1)), top,
        torch.stack([squeeze(steps[:, :, 0] * steps[:, :, 2]), _scaled(steps[:, :, 1])], 2).flatten(1),
        torch.cat([squeeze(shapes[:, :-1]), _scaled(shapes[:, -1:])], 1), sky,
        squeeze(instrument.overlaps(difference_BN)), squeeze(sources.stars(residual)),
        squeeze(sources.rest_lines(residual, z_B)), grids, _masks(residual, place_B, masks),
    ]  # fmt: skip
    return torch.cat(parts, 1)


def _scaled(wavelength: Tensor) -> Tensor:
    return (wavelength - 6700.0) / 1800.0


def _whole(residual: Residual, z_B: Tensor) -> Tensor:
    known = residual.w_BL > 0
    n = known.sum(1).clamp(min=1).float()
    chi2 = [((pull.square().clamp(max=1e4) * known).sum(1) - n) / (2 * n).sqrt()
            for pull in (residual.raw_BL, residual.pull_BL)]  # fmt: skip
    flux, model, w = residual.flux_BC, residual.model_BC, residual.w_BC
    seen = (w * model.square()).sum(1).clamp(min=TINY).sqrt()
    light = (w * model * flux).sum(1) / seen
    total = (w * flux.square()).sum(1).clamp(min=1.0).sqrt()
    snr = torch.where(w > 0, flux * (w / COARSE).sqrt(), torch.nan).nanmedian(1).values.nan_to_num(0.0)
    power = instrument.arm_power(residual)
    columns = [
        squeeze(chi2[0]), squeeze(chi2[1]), squeeze(residual.broad_gain_B.clamp(min=0).sqrt()),
        residual.broad_BP[:, 1].clamp(-2, 2), residual.broad_BP[:, 2].clamp(-2, 2), squeeze(3 * snr),
        squeeze(light), light / total, torch.log10(1 + z_B), torch.exp(-0.5 * ((z_B - 3.8) / 0.12) ** 2),
    ]  # fmt: skip
    return torch.cat([torch.stack(columns, 1), squeeze(power[:, :3]), power[:, 3:]], 1)


def _top(found: local.Peaks) -> tuple[Tensor, Tensor]:
    """What the strongest peak is like [B, 14], and where it is in Å [B]."""
    sigma = found.sigma.flatten(1)
    best_B1 = sigma.max(1).indices[:, None]
    strength = sigma.gather(1, best_B1)[:, 0]
    place = found.wavelength.flatten(1).gather(1, best_B1)[:, 0]
    sign = 1.0 - 2.0 * (best_B1[:, 0] % 2)
    at = best_B1[:, 0] // 2
    width = found.width[at]
    arm = torch.where(place < 5780, LSF_SIGMA["B"], torch.where(place < 7570, LSF_SIGMA["R"], LSF_SIGMA["Z"]))
    same = found.sigma.gather(2, (best_B1 % 2)[:, :, None].expand(-1, len(found.width), 1))[:, :, 0]
    sides = [same.gather(1, (at + k).clamp(0, len(found.width) - 1)[:, None])[:, 0] / strength.clamp(min=1.0)
             for k in (-2, 2)]  # fmt: skip
    apart = (found.wavelength - place[:, None, None]).abs() > 4 * (found.width[None, :, None] + width[:, None, None])
    rival = torch.where(apart, found.sigma, 0.0).flatten(1).max(1).values / strength.clamp(min=1.0)
    near = [torch.exp(-0.5 * ((place - centre) / reach) ** 2) for centre, reach in PLACES.values()]
    columns = [squeeze(strength), sign, width.log2() / 4, _scaled(place), (width / arm).log2() / 4, *sides, rival]
    return torch.stack([*columns, *near], 1), place


def _masks(residual: Residual, place_B: Tensor, masks: Masks | None) -> Tensor:
    lost = residual.w_BL <= 0
    pixel_B1 = ((place_B - WAVELENGTH_START) / WAVELENGTH_STEP).round().long()[:, None]
    around = (pixel_B1 + torch.arange(-NEAR, NEAR + 1)).clamp(0, N_PIXELS - 1)
    masked = torch.zeros(len(lost))
    if masks is not None:
        masked = _near_any(pixel_B1[:, 0].numpy(), masks)
    longest = torch.from_numpy(_longest_run(lost.numpy()))
    near = lost.gather(1, around).float().mean(1)
    return torch.stack([lost.float().mean(1), torch.log1p(longest), near, masked], 1)


def _longest_run(lost_BL: NDArray[np.bool_]) -> Float:
    """Return each row's longest run of lost pixels, [B]."""
    edges = np.diff(np.pad(lost_BL, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = np.nonzero(edges == 1)
    end = np.nonzero(edges == -1)[1]
    longest = np.zeros(len(lost_BL), np.float32)
    np.maximum.at(longest, row, (end - start).astype(np.float32))
    return longest


def _near_any(pixel_B: NDArray[np.int64], masks: Masks) -> Tensor:
    """Return the share of pixels near ``pixel_B`` that carry a mask bit, [B]."""
    length = np.array([len(one) for one in masks])
    row = np.repeat(np.arange(len(masks)), length)
    flat = np.concatenate([np.asarray(one, np.int64) for one in masks]) if length.sum() else np.zeros(0, np.int64)
    near = np.abs(flat - pixel_B[row]) <= NEAR
    counts = np.bincount(row[near], minlength=len(masks)) / (2 * NEAR + 1)
    return torch.from_numpy(counts.astype(np.float32))
