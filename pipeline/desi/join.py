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
    pixels: NDArray[np.int32]  # [B, 3] pixels with information in each of B, R, Z


def join(arms: dict[str, ArmRows], row: NDArray[np.int64]) -> Joined:
    """Joins rows ``row`` [B] of the arms (by name, at least one of B, R, Z) into spectra on the grid.

    Raises:
        ValueError: three arms overlap in one pixel.
    """
    n = len(row)
    flux = np.zeros((n, N_PIXELS), np.float32)
    ivar = np.zeros((n, N_PIXELS), np.float32)
    difference = np.full((n, N_OVERLAP), np.nan, np.float32)
    quality = np.zeros(n, np.uint32)
    pixels = np.zeros((n, len(ARMS)), np.int32)
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
        tuple(arm.flux for arm in every),
        tuple(arm.ivar for arm in every),
        tuple(arm.mask for arm in every),
        (flux.view(np.uint32), ivar.view(np.uint32)),
        (flux, ivar, difference),
        (quality, pixels, mask_offset, mask_pixel, mask_bits),
    )
    kept = int(mask_offset[-1])
    sparse = mask_pixel[:kept].copy(), mask_bits[:kept].view(np.int32).copy()
    return Joined(flux, ivar, mask_offset, *sparse, difference, quality.view(np.int32), pixels)


def _segments(arms: dict[str, ArmRows]) -> NDArray[np.int64]:
    """Stretches of the grid covered by the same arms: int64 [S, 4] of start, stop, arm, other arm or −1."""
    spans = [
        (place, arms[name].offset, arms[name].offset + arms[name].flux.shape[1])
        for place, name in enumerate(ARMS)
        if name in arms
    ]
    edges = sorted({edge for _, *ends in spans for edge in ends})
    found = []
    for start, stop in pairwise(edges):
        cover = [place for place, first, end in spans if first <= start and stop <= end]
        if len(cover) > 2:
            raise ValueError(f"three arms overlap at {WAVELENGTH[start]:.1f} Å")
        if cover:
            found.append((start, stop, cover[0], cover[1] if len(cover) == 2 else -1))
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
        flags |= np.uint32(_BAD_IVAR if unmasked & bad else 0) | np.uint32(_NONFINITE if positive & nonfinite else 0)
        any_mask |= m
        good += np.uint32(1 if informative else 0)
        out_flux[i] = np.uint32(0) if nonfinite else f
        out_ivar[i] = v if informative else np.uint32(0)
    return flags, any_mask, good


@compiled
def _average(
    start: Any, flux_a: Any, ivar_a: Any, flux_b: Any, ivar_b: Any, out_flux: Any, out_ivar: Any, difference: Any
) -> None:  # pragma: no cover
    """Inverse-variance mean of two arms over one stretch, in float64 as desispec does it."""
    for i in range(len(out_flux)):
        f_a, v_a = np.float64(flux_a[i]), np.float64(ivar_a[i])
        f_b, v_b = np.float64(flux_b[i]), np.float64(ivar_b[i])
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
def _join_rows(
    rows: Any,
    segments: Any,
    offset: Any,
    flip: Any,
    flux: Any,
    ivar: Any,
    mask: Any,
    words: Any,
    floats: Any,
    facts: Any,
) -> None:  # pragma: no cover
    quality, pixels, mask_offset, mask_pixel, mask_bits = facts
    out_flux, out_ivar, difference = floats
    scratch = np.empty((4, N_PIXELS), np.uint32)
    values = scratch.view(np.float32)
    kept = 0
    for i in range(len(rows)):
        row = rows[i]
        for s in range(len(segments)):
            start, stop, a, b = segments[s]
            n = stop - start
            lo_a = start - offset[a]
            part_a = flux[a][row, lo_a : lo_a + n], ivar[a][row, lo_a : lo_a + n]
            mask_a = mask[a][row, lo_a : lo_a + n]
            if b < 0:
                into = words[0][i, start:stop], words[1][i, start:stop]
                flags, any_mask, good = _clean(part_a[0], part_a[1], mask_a, flip[a], into[0], into[1])
                quality[i] |= flags
                pixels[i, a] += good
                if any_mask:
                    for j in range(n):
                        m = np.uint32(_swap(mask_a[j]) ^ flip[a])
                        if m:
                            mask_pixel[kept] = start + j
                            mask_bits[kept] = m
                            kept += 1
                continue
            lo_b = start - offset[b]
            mask_b = mask[b][row, lo_b : lo_b + n]
            flags, any_a, good = _clean(part_a[0], part_a[1], mask_a, flip[a], scratch[0, :n], scratch[1, :n])
            quality[i] |= flags
            pixels[i, a] += good
            flags, any_b, good = _clean(
                flux[b][row, lo_b : lo_b + n],
                ivar[b][row, lo_b : lo_b + n],
                mask_b,
                flip[b],
                scratch[2, :n],
                scratch[3, :n],
            )
            quality[i] |= flags
            pixels[i, b] += good
            _average(
                start,
                values[0, :n],
                values[1, :n],
                values[2, :n],
                values[3, :n],
                out_flux[i, start:stop],
                out_ivar[i, start:stop],
                difference[i],
            )
            if any_a | any_b:
                for j in range(n):
                    m = np.uint32((_swap(mask_a[j]) ^ flip[a]) | (_swap(mask_b[j]) ^ flip[b]))
                    if m and out_ivar[i, start + j] == 0:
                        mask_pixel[kept] = start + j
                        mask_bits[kept] = m
                        kept += 1
        mask_offset[i + 1] = kept
