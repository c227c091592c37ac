"""The three arms of one coadd: checked, placed on the grid, chosen rows fetched as raw words."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.fits import Hdu
from pipeline.desi.grid import ARMS, N_PIXELS, WAVELENGTH_START, WAVELENGTH_STEP, offset_on_grid
from pipeline.desi.join import UNSIGNED_MASK, ArmRows
from pipeline.desi.layout import CoaddFile
from pipeline.errors import InputError
from pipeline.stores.objects import Bytes

_reused = threading.local()


@dataclass(frozen=True)
class Arm:
    """Image HDUs of one arm; ``mask`` is None where the file has none."""

    offset: int  # grid pixel of its first pixel
    flux: Hdu
    ivar: Hdu
    mask: Hdu | None


def find_arms(file: CoaddFile, n_targets: int) -> dict[str, Arm]:
    """The arms a file has, by name.

    Raises:
        InputError: reason ``missing_hdu``, ``truncated``, ``wrong_shape`` or ``wrong_grid``.
    """
    arms = {name: _arm(file, name, n_targets) for name in ARMS if _has(file, name)}
    if not arms:
        raise file.missing("every arm (B_FLUX, R_FLUX, Z_FLUX)")
    return arms


def read_rows(file: CoaddFile, arms: dict[str, Arm], row: NDArray[np.int64]) -> dict[str, ArmRows]:
    """FLUX, IVAR and MASK of ascending distinct rows ``row`` [n] of each arm.

    The words live in a buffer that the next call in this thread overwrites.
    """
    hdus = sorted(
        (hdu for arm in arms.values() for hdu in (arm.flux, arm.ivar, arm.mask) if hdu is not None),
        key=lambda hdu: hdu.data_start,
    )
    first = np.flatnonzero(np.diff(row, prepend=-2) != 1)
    run_start, run_rows = row[first], np.diff(np.append(first, len(row)))
    row_bytes = [hdu.item_size * hdu.shape[1] for hdu in hdus]
    starts = [hdu.data_start + run_start * size for hdu, size in zip(hdus, row_bytes, strict=True)]
    lengths = [run_rows * size for size in row_bytes]
    sizes = np.array(row_bytes, np.int64) * len(row)
    out = _buffer(int(sizes.sum()))
    file.source.read_into(np.concatenate(starts), np.concatenate(lengths), out)
    ends = np.cumsum(sizes)
    raw = {hdu.name: out[end - size : end] for hdu, size, end in zip(hdus, sizes.tolist(), ends.tolist(), strict=True)}
    return {name: _arm_rows(file, arm, raw, len(row)) for name, arm in arms.items()}


def _has(file: CoaddFile, name: str) -> bool:
    return any(f"{name}_{kind}" in file.hdus for kind in ("FLUX", "IVAR", "WAVELENGTH"))


def _arm(file: CoaddFile, name: str, n_targets: int) -> Arm:
    flux, ivar, wavelength = (_image(file, f"{name}_{kind}") for kind in ("FLUX", "IVAR", "WAVELENGTH"))
    mask = _image(file, f"{name}_MASK") if f"{name}_MASK" in file.hdus else None
    if len(wavelength.shape) != 1:
        raise _wrong_shape(file, wavelength, "one dimension")
    expected = (n_targets, wavelength.shape[0])
    for hdu in (flux, ivar, mask):
        if hdu is not None and hdu.shape != expected:
            raise _wrong_shape(file, hdu, f"{expected} (targets of FIBERMAP, pixels of {wavelength.name})")
    values = file.image(wavelength, file.data(wavelength))[0].astype(np.float64)
    offset = offset_on_grid(values)
    if offset is None:
        span = f"{values[0]:.4f}–{values[-1]:.4f} Å, {len(values)} pixels" if len(values) else "no pixels"
        raise InputError(
            f"{file.where}: {wavelength.name} is not on DESI's grid: expected successive pixels of "
            f"{WAVELENGTH_START:.0f} + {WAVELENGTH_STEP} i Å (i < {N_PIXELS}), found {span}",
            "wrong_grid",
        )
    return Arm(offset, flux, ivar, mask)


def _image(file: CoaddFile, name: str) -> Hdu:
    hdu = file.hdus.get(name)
    if hdu is None:
        raise file.missing(f"HDU {name}")
    if not hdu.is_image:
        raise InputError(f"{file.where}: HDU {name} is no plain image (compressed?)", "wrong_shape")
    return hdu


def _wrong_shape(file: CoaddFile, hdu: Hdu, expected: str) -> InputError:
    return InputError(f"{file.where}: HDU {hdu.name} has shape {hdu.shape}, expected {expected}", "wrong_shape")


def _arm_rows(file: CoaddFile, arm: Arm, raw: dict[str, Bytes], rows: int) -> ArmRows:
    flux, ivar = (_float_words(file, hdu, raw[hdu.name]) for hdu in (arm.flux, arm.ivar))
    if arm.mask is None:
        return ArmRows(arm.offset, flux, ivar, np.zeros(flux.shape, np.uint32))
    mask, flip = _mask_words(file, arm.mask, raw[arm.mask.name])
    return ArmRows(arm.offset, flux, ivar, mask, flip)


def _float_words(file: CoaddFile, hdu: Hdu, raw: Bytes) -> NDArray[np.uint32]:
    if hdu.header["BITPIX"] == -32 and _scaling(hdu) == (1, 0):
        return _words(raw, hdu)
    with np.errstate(over="ignore"):
        return file.image(hdu, raw).astype(">f4").view(np.uint32)


def _mask_words(file: CoaddFile, hdu: Hdu, raw: Bytes) -> tuple[NDArray[np.uint32], np.uint32]:
    if hdu.header["BITPIX"] == 32 and _scaling(hdu) in ((1, 0), (1, 2**31)):
        return _words(raw, hdu), UNSIGNED_MASK if _scaling(hdu)[1] else np.uint32(0)
    values = file.image(hdu, raw)
    if values.dtype.kind not in "iu":
        raise InputError(f"{file.where}: HDU {hdu.name} holds {values.dtype}, expected integers", "wrong_shape")
    return values.astype(np.int64).astype(">u4").view(np.uint32), np.uint32(0)


def _words(raw: Bytes, hdu: Hdu) -> NDArray[np.uint32]:
    return np.require(raw.view(np.uint32).reshape(-1, hdu.shape[1]), requirements=("C", "A"))


def _scaling(hdu: Hdu) -> tuple[object, object]:
    return hdu.header.get("BSCALE", 1), hdu.header.get("BZERO", 0)


def _buffer(size: int) -> Bytes:
    """Memory of this thread, kept between calls: fresh pages would cost as much as the reading itself."""
    held: Bytes | None = getattr(_reused, "buffer", None)
    if held is None or len(held) < size:
        held = _reused.buffer = np.empty(size, np.uint8)
    return held[:size]
