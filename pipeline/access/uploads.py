"""Spectra from elsewhere, put on DESI's grid: files and arrays that people bring to be scored or compared.

Read are DESI coadds (FITS with B_FLUX, …), FITS tables with a row a pixel (SDSS's ``loglam``, ``flux``, ``ivar`` among
them) and Parquet files with the same columns. Wavelengths are vacuum, observed frame.
"""

from __future__ import annotations

import io
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.desi.grid import N_PIXELS, WAVELENGTH, WAVELENGTH_START, WAVELENGTH_STEP, offset_on_grid
from pipeline.errors import InputError, first_sentence

MAX_BYTES: Final = 256 << 20  # of a file, and of what it unpacks to
MAX_SPECTRA: Final = 5_000  # of one file
MAX_PIXELS: Final = 1_000_000  # of one spectrum as it comes
LEAST_PIXELS: Final = 100  # native pixels with information that are needed to say anything
NAMES: Final = {
    "wavelength": ("wavelength", "wave", "lambda", "lam"),
    "loglam": ("loglam", "log_wave"),
    "flux": ("flux", "flux_density"),
    "ivar": ("ivar", "inverse_variance"),
    "error": ("error", "err", "sigma", "uncertainty", "flux_error"),
}
REDSHIFTS: Final = ("Z", "REDSHIFT", "Z_VI", "ZBEST")
GIVEN: Final = "--redshift (redshift= in Python, z= in REST)"
_GZIP: Final = b"\x1f\x8b"
_BLOCK: Final = 1 << 20


@dataclass(frozen=True)
class NewSpectra:
    """B spectra on the native grid, L pixels; ivar 0 where there is no information."""

    flux_BL: NDArray[np.float32]  # 1e-17 erg/s/cm²/Å
    ivar_BL: NDArray[np.float32]
    z_B: NDArray[np.float64]
    name: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.z_B)


def from_file(path: str | Path, z: float | Sequence[float] | None = None, targetid: Sequence[int] = ()) -> NewSpectra:
    """Read the spectra of a file; see ``from_bytes``.

    Raises:
        InputError: there is no such file, or it holds no spectrum.
    """
    place = Path(path)
    try:
        if place.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} has {place.stat().st_size:,} bytes, at most {MAX_BYTES:,} are read", "too_large")
        data = place.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", "missing_file") from None
    return from_bytes(data, place.name, z, targetid)


def from_bytes(
    data: bytes, name: str, z: float | Sequence[float] | None = None, targetid: Sequence[int] = ()
) -> NewSpectra:
    """Read the spectra of a file's bytes, gzipped or not.

    Args:
        data: the bytes.
        name: what to call the file in messages.
        z: redshift, one for all or one a spectrum; None: as the file's header says.
        targetid: of a coadd, these only.

    Raises:
        InputError: ``not_a_spectrum``, ``too_large``, ``no_overlap``, ``no_redshift`` or a coadd's own reasons.
    """
    whole = _unpacked(data, name)
    if whole.startswith(b"PAR1"):
        return _parquet(whole, name, z)
    if not whole.startswith(b"SIMPLE  ="):
        raise InputError(f"{name} is no spectrum: expected FITS or Parquet (gzipped or not)", "not_a_spectrum")
    return _fits(whole, name, z, targetid)


def from_arrays(
    wavelength: NDArray[Any], flux: NDArray[Any], ivar: NDArray[Any], z: float | None, name: str = "the spectrum"
) -> NewSpectra:
    """Put one spectrum on the native grid.

    On DESI's own pixels it is taken as it is. Any other grid is interpolated, its information spread over the new
    pixels in proportion to their width: noise of neighbouring pixels is then correlated, and scores a little tame.

    Args:
        wavelength: vacuum Å, increasing, [M].
        flux: 1e-17 erg/s/cm²/Å, [M].
        ivar: 1/flux², 0 or NaN where there is no information, [M].
        z: redshift.
        name: what to call it in messages.

    Raises:
        InputError: arrays of unequal length, not increasing, without information on the grid, or no redshift.
    """
    lam, values, weight = (np.atleast_1d(np.asarray(one, np.float64)) for one in (wavelength, flux, ivar))
    if not lam.ndim == values.ndim == weight.ndim == 1 or not len(lam) == len(values) == len(weight):
        shapes = ", ".join(str(one.shape) for one in (lam, values, weight))
        raise InputError(f"{name}: wavelength, flux and ivar should be as long as each other, found {shapes}",
                         "not_a_spectrum")  # fmt: skip
    if not 2 <= len(lam) <= MAX_PIXELS:
        raise InputError(f"{name} has {len(lam):,} pixels, expected 2 to {MAX_PIXELS:,}", "not_a_spectrum")
    if not np.isfinite(lam).all() or not (np.diff(lam) > 0).all():
        raise InputError(f"{name}: wavelengths should be finite and increase from pixel to pixel", "not_a_spectrum")
    weight = np.where(np.isfinite(values) & np.isfinite(weight) & (weight > 0), weight, 0.0)
    values = np.where(weight > 0, values, 0.0)
    offset = offset_on_grid(lam)
    flux_L, ivar_L = np.zeros(N_PIXELS), np.zeros(N_PIXELS)
    if offset is not None:
        flux_L[offset : offset + len(lam)], ivar_L[offset : offset + len(lam)] = values, weight
    else:
        flux_L, ivar_L = _interpolated(lam, values, weight)
    return _checked(flux_L[None], ivar_L[None], z, (name,), lam)


def _interpolated(
    lam: NDArray[np.float64], flux: NDArray[np.float64], ivar: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fine grids are averaged by inverse variance, coarse ones interpolated; both keep the information."""
    width = np.gradient(lam)
    fine = width < WAVELENGTH_STEP
    pixel = np.rint((lam - WAVELENGTH_START) / WAVELENGTH_STEP).astype(np.int64)
    inside = fine & (pixel >= 0) & (pixel < N_PIXELS)
    weight = np.bincount(pixel[inside], ivar[inside], N_PIXELS).astype(np.float64)
    total = np.bincount(pixel[inside], (ivar * flux)[inside], N_PIXELS).astype(np.float64)
    density = np.where(fine, 0.0, ivar / width * WAVELENGTH_STEP)
    place = np.clip(np.searchsorted(lam, WAVELENGTH), 1, len(lam) - 1)
    known = (density[place - 1] > 0) & (density[place] > 0) & (lam[0] <= WAVELENGTH) & (lam[-1] >= WAVELENGTH)
    coarse = np.where(known, np.interp(WAVELENGTH, lam, density), 0.0)
    both = weight + coarse
    mean = (total + coarse * np.interp(WAVELENGTH, lam, flux)) / np.where(both > 0, both, 1.0)
    return np.where(both > 0, mean, 0.0), both


def _checked(flux_BL: Any, ivar_BL: Any, z: Any, names: Sequence[str], lam: NDArray[np.float64] | None) -> NewSpectra:
    informative = (ivar_BL > 0).sum(1)
    poor = np.flatnonzero(informative < LEAST_PIXELS)
    if len(poor):
        covers = f"; it covers {lam[0]:.0f} to {lam[-1]:.0f} Å" if lam is not None else ""
        raise InputError(
            f"{names[poor[0]]}: {informative[poor[0]]} pixels with information lie between {WAVELENGTH[0]:.0f} and "
            f"{WAVELENGTH[-1]:.0f} Å, at least {LEAST_PIXELS} are needed{covers}",
            "no_overlap",
        )
    if z is None:
        raise InputError(f"{names[0]}: the redshift is not known; give it as {GIVEN}", "no_redshift")
    z_B = np.broadcast_to(np.asarray(z, np.float64), (len(flux_BL),)) if np.ndim(z) == 0 else np.asarray(z, np.float64)
    if z_B.shape != (len(flux_BL),) or not np.isfinite(z_B).all():
        raise InputError(f"{names[0]}: expected one finite redshift, or one for each of {len(flux_BL)} spectra, "
                         f"found {np.size(z)}", "no_redshift")  # fmt: skip
    return NewSpectra(flux_BL.astype(np.float32), ivar_BL.astype(np.float32), z_B.copy(), tuple(names))


def _unpacked(data: bytes, name: str) -> bytes:
    """Unpack gzip, no further than ``MAX_BYTES``: a small file may hold a huge one."""
    if not data.startswith(_GZIP):
        return data
    unpacker, parts, size = zlib.decompressobj(wbits=31), [], 0
    rest = data
    try:
        while rest and not unpacker.eof:
            part = unpacker.decompress(rest, _BLOCK)
            rest = unpacker.unconsumed_tail
            size += len(part)
            if size > MAX_BYTES:
                raise InputError(f"{name} unpacks to more than {MAX_BYTES:,} bytes", "too_large")
            parts.append(part)
    except zlib.error as error:
        raise InputError(f"{name}: damaged gzip ({error})", "not_a_spectrum") from None
    whole = b"".join(parts)
    if whole.startswith(_GZIP):
        raise InputError(f"{name} is packed twice; unpack it first", "not_a_spectrum")
    return whole


def _parquet(data: bytes, name: str, z: Any) -> NewSpectra:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            about = file.metadata
            size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
            if about.num_rows > MAX_PIXELS or size > MAX_BYTES:
                raise InputError(f"{name}: {about.num_rows:,} rows, {size:,} bytes unpacked; a spectrum has at most "
                                 f"{MAX_PIXELS:,} pixels", "too_large")  # fmt: skip
            wanted = [one for one in file.schema_arrow.names if any(one.lower() in known for known in NAMES.values())]
            table = file.read(columns=wanted)
        columns = {one.lower(): np.asarray(table[one].to_numpy(), np.float64) for one in wanted}
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise InputError(f"{name}: unreadable Parquet ({first_sentence(error)})", "not_a_spectrum") from None
    kept = (about.metadata or {}).get(b"z")
    return _of_columns(columns, name, z if z is not None else (float(kept) if kept else None))


def _fits(data: bytes, name: str, z: Any, targetid: Sequence[int]) -> NewSpectra:
    import warnings

    from astropy.io import fits

    try:
        with warnings.catch_warnings(), fits.open(io.BytesIO(data), disable_image_compression=True) as file:
            warnings.simplefilter("ignore")
            names = {hdu.name for hdu in file}
            if {"FIBERMAP"} & names and {"B_FLUX", "R_FLUX", "Z_FLUX"} & names:
                ids = np.asarray(file["FIBERMAP"].data["TARGETID"], np.int64)
                return _coadd(data, name, z, ids, targetid)
            for hdu in file:
                if isinstance(hdu, fits.BinTableHDU) and (columns := _table(hdu)):
                    found = next((hdu.header.get(key, file[0].header.get(key)) for key in REDSHIFTS
                                  if key in hdu.header or key in file[0].header), None)  # fmt: skip
                    return _of_columns(columns, name, z if z is not None else found)
    except InputError:
        raise
    except Exception as error:  # astropy raises whatever it stumbles over in a damaged file
        raise InputError(f"{name}: unreadable FITS ({first_sentence(error)})", "not_a_spectrum") from None
    raise InputError(
        f"{name} is FITS without a spectrum: expected a coadd of DESI, or a table with columns wavelength (or loglam), "
        f"flux and ivar (or error); it has {', '.join(sorted(filter(None, names))) or 'no extension'}",
        "not_a_spectrum",
    )


def _table(hdu: Any) -> dict[str, NDArray[np.float64]]:
    """Columns that are known, of a table with a row a pixel or of one row of arrays."""
    known = {word for words in NAMES.values() for word in words}
    wanted = {column.name.lower(): column.name for column in hdu.columns if column.name.lower() in known}
    if not {"flux", "flux_density"} & set(wanted) or not 1 <= len(hdu.data) <= MAX_PIXELS:
        return {}
    found = {low: np.asarray(hdu.data[name], np.float64) for low, name in wanted.items()}
    return {name: values[0] if values.ndim == 2 and len(values) == 1 else values for name, values in found.items()}


def _of_columns(columns: dict[str, NDArray[np.float64]], name: str, z: Any) -> NewSpectra:
    def get(what: str) -> NDArray[np.float64] | None:
        return next((columns[word] for word in NAMES[what] if word in columns), None)

    wavelength, loglam, flux, ivar, error = (get(what) for what in NAMES)
    if wavelength is None and loglam is not None:
        wavelength = 10.0**loglam
    if ivar is None and error is not None:
        with np.errstate(all="ignore"):
            ivar = np.where(error > 0, error**-2.0, 0.0)
    given = {"wavelength": wavelength, "flux": flux, "ivar": ivar}
    if missing := [what for what, values in given.items() if values is None]:
        raise InputError(f"{name}: no column for {' and '.join(missing)}; it has {', '.join(columns) or 'none known'}",
                         "not_a_spectrum")  # fmt: skip
    assert wavelength is not None
    assert flux is not None
    assert ivar is not None
    try:
        redshift = None if z is None else float(np.asarray(z).reshape(-1)[0]) if np.size(z) == 1 else z
    except (TypeError, ValueError):
        said = f"{name}: the header's redshift {z!r} is no number; give it as {GIVEN}"
        raise InputError(said, "no_redshift") from None
    return from_arrays(wavelength, flux, ivar, redshift, name)


def _coadd(data: bytes, name: str, z: Any, ids: NDArray[np.int64], targetid: Sequence[int]) -> NewSpectra:
    from pipeline.desi.coadd import read_coadd
    from pipeline.stores.objects import ObjectStore

    wanted = np.asarray(targetid, np.int64) if len(targetid) else ids
    if absent := set(wanted.tolist()) - set(ids.tolist()):
        raise InputError(f"{name} has no TARGETID {min(absent)}; it holds {len(ids)} others", "not_in_file")
    if len(wanted) > MAX_SPECTRA:
        raise InputError(f"{name} holds {len(wanted):,} spectra, at most {MAX_SPECTRA:,} are read", "too_large")
    with tempfile.TemporaryDirectory(prefix="skysift-") as folder:
        (Path(folder) / "coadd.fits").write_bytes(data)
        rows = read_coadd(ObjectStore.open(folder), "coadd.fits", wanted)
    return _checked(rows.flux, rows.ivar, z, [f"{name}, TARGETID {one}" for one in rows.targetid], None)
