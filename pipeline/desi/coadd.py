"""Chosen spectra of one DESI coadd file, fetched by byte ranges and joined over the arms."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.arms import find_arms, read_rows
from pipeline.desi.exposures import Exposures, read_exposures
from pipeline.desi.fits import Hdu
from pipeline.desi.grid import N_PIXELS
from pipeline.desi.join import Joined, join
from pipeline.desi.layout import CoaddFile
from pipeline.errors import InputError
from pipeline.quality import Quality
from pipeline.stores.objects import ObjectStore


@dataclass(frozen=True)
class CoaddRows:
    """B spectra of one coadd, in the order asked for.

    Sparse masks: bits ``mask_bits`` at pixels ``mask_pixel``, spectrum i from ``mask_offset[i]`` up to
    ``mask_offset[i + 1]``. A pixel with ivar > 0 has a clear mask.
    """

    targetid: NDArray[np.int64]  # [B]
    flux: NDArray[np.float32]  # [B, L] 1e-17 erg/s/cm²/Å
    ivar: NDArray[np.float32]  # [B, L] 1/flux², 0 = no information
    mask_offset: NDArray[np.int32]  # [B + 1]
    mask_pixel: NDArray[np.int16]  # [M]
    mask_bits: NDArray[np.int32]  # [M] DESI's specmask
    arm_difference: NDArray[np.float32]  # [B, 177] σ, B−R then R−Z; NaN: no information
    quality: NDArray[np.int32]  # [B] Quality bits
    snr: NDArray[np.float32]  # [B] median over informative pixels of flux·√ivar; NaN where there is none
    ra: NDArray[np.float64]  # [B] deg, NaN: unknown
    dec: NDArray[np.float64]  # [B] deg, NaN: unknown
    ebv: NDArray[np.float32]  # [B] mag, NaN: unknown
    exposures: Exposures
    missing: NDArray[np.int64]  # targets asked for that the file does not have
    bytes_read: int
    requests: int
    read_seconds: float
    join_seconds: float

    @property
    def mask(self) -> NDArray[np.int32]:
        """Mask bits as a dense array [B, L]."""
        return dense_mask(self.mask_offset, self.mask_pixel, self.mask_bits)


def dense_mask(offset: NDArray[np.int32], pixel: NDArray[np.int16], bits: NDArray[np.int32]) -> NDArray[np.int32]:
    """int32 [B, L] of masks given as ``bits`` at ``pixel``, spectrum i from ``offset[i]`` to ``offset[i+1]``."""
    mask = np.zeros((len(offset) - 1, N_PIXELS), np.int32)
    mask[np.repeat(np.arange(len(mask)), np.diff(offset)), pixel] = bits
    return mask


def read_coadd(store: ObjectStore, path: str, targetid: NDArray[np.int64], *, etag: str | None = None) -> CoaddRows:
    """Reads the spectra of ``targetid`` [B] from one coadd: only the bytes of their FLUX, IVAR and MASK rows.

    Raises:
        InputError: the file is unusable; ``reason`` is one of ``missing_file``, ``changed``, ``not_fits``,
            ``truncated``, ``damaged``, ``too_large``, ``bad_header``, ``missing_hdu``, ``missing_column``,
            ``wrong_shape``, ``wrong_grid``.
        StoreError: the store is unreachable or refuses us.
    """
    began, requests, bytes_read = time.perf_counter(), store.requests, store.bytes_read
    file = CoaddFile.open(store, path, etag)
    fibermap = _table(file, "FIBERMAP")
    listed = file.column(fibermap, "TARGETID")
    if listed is None or listed.dtype.kind not in "iu":
        raise InputError(f"{file.where}: FIBERMAP has no integer column TARGETID", "missing_column")
    row, asked, repeated = _rows_of(listed.astype(np.int64), np.asarray(targetid, np.int64))
    found = targetid[asked]
    arms = find_arms(file, len(listed))
    stored, place = np.unique(row, return_inverse=True)
    rows = read_rows(file, arms, stored)
    read_done = time.perf_counter()
    try:
        joined = join(rows, place)
    except ValueError as error:
        raise InputError(f"{file.where}: {error}", "wrong_grid") from error
    exposures = read_exposures(file, found, row)
    ra, dec, ebv = (_fibermap_float(file, name, row) for name in ("TARGET_RA", "TARGET_DEC", "EBV"))
    quality = _quality(joined, repeated, exposures)
    return CoaddRows(
        found,
        joined.flux,
        joined.ivar,
        joined.mask_offset,
        joined.mask_pixel,
        joined.mask_bits,
        joined.arm_difference,
        quality,
        joined.snr,
        ra,
        dec,
        ebv.astype(np.float32),
        exposures,
        np.delete(targetid, asked),
        store.bytes_read - bytes_read,
        store.requests - requests,
        read_done - began,
        time.perf_counter() - read_done,
    )


def _table(file: CoaddFile, name: str) -> Hdu:
    hdu = file.hdus.get(name)
    if hdu is None or not hdu.is_table:
        raise file.missing(f"HDU {name}")
    return hdu


def _rows_of(
    listed: NDArray[np.int64], targetid: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of a FIBERMAP that hold the targets.

    Returns, for the targets that are there: row [b], position in ``targetid`` [b], listed more than once [b].
    """
    order = np.argsort(listed, kind="stable")
    ordered = listed[order]
    first = np.searchsorted(ordered, targetid, "left")
    count = np.searchsorted(ordered, targetid, "right") - first
    asked = np.flatnonzero(count)
    return order[first[asked]], asked, count[asked] > 1


def _fibermap_float(file: CoaddFile, name: str, row: NDArray[np.int64]) -> NDArray[np.float64]:
    hdu = file.hdus["FIBERMAP"]
    values = file.column(hdu, name)
    if values is None or values.dtype.kind not in "fiu":
        return np.full(len(row), np.nan)
    return values[row].astype(np.float64)


def _quality(joined: Joined, repeated: NDArray[np.bool_], exposures: Exposures) -> NDArray[np.int32]:
    in_b, in_r, in_z, informative = joined.informative.T
    lengths = [np.diff(lists.offsets.to_numpy()) for lists in (exposures.fiber, exposures.night)]
    bits = {
        Quality.MISSING_B: in_b == 0,
        Quality.MISSING_R: in_r == 0,
        Quality.MISSING_Z: in_z == 0,
        Quality.NO_INFORMATION: informative == 0,
        Quality.DUPLICATE_ROW: repeated,
        Quality.LOW_COVERAGE: informative < N_PIXELS / 2,
        Quality.NO_EXPOSURES: np.minimum(*lengths) == 0,
    }
    quality = joined.quality.copy()
    for bit, where in bits.items():
        quality[where] |= int(bit)
    return quality
