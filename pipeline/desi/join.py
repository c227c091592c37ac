"""The arms of each spectrum joined on the native grid, equal to desispec 0.70's ``coadd_cameras``.

Where one arm covers a pixel its values are copied; where two do they are averaged by inverse variance, their
masks OR-ed. Where there is information (ivar > 0) the mask is clear. Beyond desispec: a masked pixel carries
no information even where the file gives it ivar > 0 (recent desispec releases do), and neither do pixels with
NaN or infinite flux or a negative or non-finite ivar; those last two are told as quality bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pipeline.desi.compiled import compiled
from pipeline.desi.grid import ARMS, N_OVERLAP, N_PIXELS, OVERLAP_BR, OVERLAP_RZ, WAVELENGTH
from pipeline.desi.snr import median_snr
from pipeline.quality import Quality

_AS_IT_IS = np.uint32(0)
UNSIGNED_MASK = np.uint32(1 << 31)  # BZERO = 2³¹ flips the top bit of a stored int32

_NONFINITE = np.uint32(Quality.NONFINITE_FLUX)
_BAD_IVAR = np.uint32(Quality.BAD_IVAR)
_EXPONENT = np.uint32(0x7F800000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SIGN = np.uint32(0x80000000)
_N_BR = OVERLAP_BR.stop - OVERLAP_BR.start


@dataclass(frozen=True)
class ArmRows:
    """One arm of n rows as stored: big-endian 32-bit words viewed as uint32 [n, nwave]."""

    offset: int  # grid pixel of the arm's first pixel
    flux: NDArray[np.uint32]
    ivar: NDArray[np.uint32]
    mask: NDArray[np.uint32]
    mask_flip: np.uint32 = _AS_IT_IS  # XOR-ed to each mask word after byte swapping


@dataclass(frozen=True)
class Joined:
    """B spectra on the grid; masks are sparse: row i has mask_offset[i] to mask_offset[i+1]."""

    flux: NDArray[np.float32]  # [B, L]
    ivar: NDArray[np.float32]  # [B, L]
    mask_offset: NDArray[np.int32]  # [B + 1]
    mask_pixel: NDArray[np.int16]  # [M]
    mask_bits: NDArray[np.int32]  # [M]
    arm_difference: NDArray[np.float32]  # [B, 177] in σ, B−R then R−Z; NaN: no information
    quality: NDArray[np.int32]  # [B] NONFINITE_FLUX, BAD_IVAR
    informative: NDArray[np.int32]  # [B, 4] pixels with ivar > 0 in each of B, R, Z and in all
    snr: NDArray[np.float32]  # [B] median over informative pixels of flux·√ivar, NaN where there is none


def join(arms: dict[str, ArmRows], row: NDArray[np.int64]) -> Joined:
    """Joins rows ``row`` [B] of the arms (by name, at least one of B, R, Z) into spectra on the grid.

    Raises:
        ValueError: three arms overlap in one pixel.
    """
    n = len(row)
    flux, ivar = np.empty((2, n, N_PIXELS), np.float32)
    difference = np.full((n, N_OVERLAP), np.nan, np.float32)
    quality, informative = np.zeros(n, np.uint32), np.zeros((n, 4), np.int32)
    snr = np.empty(n, np.float32)
    mask_offset = np.zeros(n + 1, np.int32)
    # Room for every pixel: memory that is never touched costs nothing.
    mask_pixel, mask_bits = np.empty(n * N_PIXELS, np.int16), np.empty(n * N_PIXELS, np.uint32)
    filler = next(iter(arms.values()))
    every = [arms.get(name, filler) for name in ARMS]
    _join_rows(
        row,
        _segments(arms),
        np.array([arm.offset for arm in every]),
        np.array([arm.mask_flip for arm in every], np.uint32),
        tuple((arm.flux, arm.ivar, arm.mask) for arm in every),
        (flux, ivar, flux.view(np.uint32), ivar.view(np.uint32)),
        (difference, quality, informative, snr),
        (mask_offset, mask_pixel, mask_bits),
    )
    kept = int(mask_offset[-1])
    sparse = mask_pixel[:kept].copy(), mask_bits[:kept].view(np.int32).copy()
    return Joined(flux, ivar, mask_offset, *sparse, difference, quality.view(np.int32), informative, snr)


def _segments(arms: dict[str, ArmRows]) -> NDArray[np.int64]:
    """Stretches of the grid covered by the same arms: int64 [S, 4] of start, stop, arm, other arm; −1: none."""
    spans = [
        (place, arms[name].offset, arms[name].offset + arms[name].flux.shape[1])
        for place, name in enumerate(ARMS)
        if name in arms
    ]
    edges = sorted({0, N_PIXELS} | {edge for _, *ends in spans for edge in ends})
    found = []
    for start, stop in pairwise(edges):
        cover = [place for place, first, end in spans if first <= start and stop <= end]
        if len(cover) > 2:
            raise ValueError(f"three arms overlap at {WAVELENGTH[start]:.1f} Å")
        found.append((start, stop, *cover, *[-1] * (2 - len(cover))))
    return np.array(found, np.int64)


def _swap_word(typing_context: Any, word: Any) -> Any:
    """Byte-swaps a uint32 (one vector instruction for many)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bswap(arguments[0])

    return types.uint32(types.uint32), generate


_swap: Any = intrinsic(_swap_word)


@compiled
def _clean(
    flux: Any, ivar: Any, mask: Any, flip: Any, out_flux: Any, out_ivar: Any
) -> tuple[Any, Any, Any]:  # pragma: no cover
    """Decodes one stretch of one arm; returns quality bits, the OR of its mask words, informative pixels."""
    flags, any_mask, good = np.uint32(0), np.uint32(0), np.uint32(0)
    for i in range(len(out_flux)):
        f, v, m = _swap(flux[i]), _swap(ivar[i]), np.uint32(_swap(mask[i]) ^ flip)
        unmasked = m == 0
        bad = ((v & _MAGNITUDE) >= _EXPONENT) | (v > _SIGN)
        positive = unmasked & (not bad) & ((v & _MAGNITUDE) != 0)
        nonfinite = (f & _EXPONENT) == _EXPONENT
        informative = positive & (not nonfinite)
        flags |= np.uint32(_BAD_IVAR if unmasked & bad else 0)
        flags |= np.uint32(_NONFINITE if positive & nonfinite else 0)
        any_mask |= m
        good += np.uint32(1 if informative else 0)
        out_flux[i] = np.uint32(0) if nonfinite else f
        out_ivar[i] = v if informative else np.uint32(0)
    return flags, any_mask, good


@compiled
def _average(start: Any, values: Any, out_flux: Any, out_ivar: Any, difference: Any) -> None:  # pragma: no cover
    """Inverse-variance mean of two arms over the grid from ``start``, in float64 as desispec does it.

    ``values`` float32 [4, n]: flux and ivar of the one arm, then of the other.
    """
    for i in range(len(out_flux)):
        f_a, v_a = np.float64(values[0, i]), np.float64(values[1, i])
        f_b, v_b = np.float64(values[2, i]), np.float64(values[3, i])
        total = v_a + v_b
        out_flux[i] = (v_a * f_a + v_b * f_b) / (total if total > 0 else 1.0)
        out_ivar[i] = total
        if v_a > 0 and v_b > 0:
            sigma = (f_a - f_b) * np.sqrt(v_a * v_b / total)
            pixel = start + i
            if OVERLAP_BR.start <= pixel < OVERLAP_BR.stop:
                difference[pixel - OVERLAP_BR.start] = sigma
            elif OVERLAP_RZ.start <= pixel < OVERLAP_RZ.stop:
                difference[pixel - OVERLAP_RZ.start + _N_BR] = sigma


@compiled
def _keep_mask(
    start: Any, mask: Any, flip: Any, ivar: Any, kept: Any, mask_pixel: Any, mask_bits: Any
) -> Any:  # pragma: no cover
    """Appends the mask words of pixels without information; ``mask``, ``flip`` of one arm or two."""
    for i in range(len(ivar)):
        m = np.uint32(0)
        for a in range(len(mask)):
            m |= np.uint32(_swap(mask[a][i]) ^ flip[a])
        if m and ivar[i] == 0:
            mask_pixel[kept] = start + i
            mask_bits[kept] = m
            kept += 1
    return kept


@compiled
def _join_rows(
    rows: Any, segments: Any, offset: Any, flip: Any, arms: Any, spectra: Any, facts: Any, masks: Any
) -> None:  # pragma: no cover
    out_flux, out_ivar, flux_words, ivar_words = spectra
    difference, quality, informative, snr = facts
    mask_offset, mask_pixel, mask_bits = masks
    scratch = np.empty((4, N_PIXELS), np.uint32)
    kept = 0
    for i in range(len(rows)):
        row = rows[i]
        for s in range(len(segments)):
            start, stop, a, b = segments[s]
            n = stop - start
            ivar = out_ivar[i, start:stop]
            if a < 0:
                out_flux[i, start:stop] = 0
                ivar[:] = 0
                continue
            flux_a, ivar_a, mask_a = _stretch(arms[a], row, start - offset[a], n)
            if b < 0:
                into = flux_words[i, start:stop], ivar_words[i, start:stop]
                flags, any_mask, good = _clean(flux_a, ivar_a, mask_a, flip[a], into[0], into[1])
                if any_mask:
                    kept = _keep_mask(start, (mask_a,), (flip[a],), ivar, kept, mask_pixel, mask_bits)
            else:
                flux_b, ivar_b, mask_b = _stretch(arms[b], row, start - offset[b], n)
                flags, any_mask, good = _clean(flux_a, ivar_a, mask_a, flip[a], scratch[0, :n], scratch[1, :n])
                more, any_b, good_b = _clean(flux_b, ivar_b, mask_b, flip[b], scratch[2, :n], scratch[3, :n])
                flags |= more
                informative[i, b] += good_b
                _average(start, scratch[:, :n].view(np.float32), out_flux[i, start:stop], ivar, difference[i])
                if any_mask | any_b:
                    both = (mask_a, mask_b), (flip[a], flip[b])
                    kept = _keep_mask(start, both[0], both[1], ivar, kept, mask_pixel, mask_bits)
            quality[i] |= flags
            informative[i, a] += good
        mask_offset[i + 1] = kept
        values = scratch.view(np.float32)[0], scratch.view(np.int32)[1]
        snr[i], informative[i, 3] = median_snr(out_flux[i], out_ivar[i], values[0], values[1])


@compiled
def _stretch(arm: Any, row: Any, start: Any, n: Any) -> tuple[Any, Any, Any]:  # pragma: no cover
    """FLUX, IVAR and MASK words of ``n`` pixels of one row of an arm."""
    flux, ivar, mask = arm
    return flux[row, start : start + n], ivar[row, start : start + n], mask[row, start : start + n]
