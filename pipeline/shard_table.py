"""What a shard holds: its columns, and how spectra read from a coadd become its table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.chunks import Chunk
from pipeline.desi.coadd import CoaddRows
from pipeline.desi.exposures import LIST
from pipeline.desi.grid import N_OVERLAP, N_PIXELS, WAVELENGTH_START, WAVELENGTH_STEP
from pipeline.keys import spectrum_id
from pipeline.quality import Quality


def _vector(length: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.float32(), nullable=False), length)


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False))


SCHEMA = pa.schema(
    [
        pa.field("spectrum_id", pa.int64(), nullable=False),
        pa.field("targetid", pa.int64(), nullable=False),
        pa.field("coadd", pa.string(), nullable=False),
        pa.field("survey", pa.string()),
        pa.field("program", pa.string()),
        pa.field("healpix", pa.int32()),  # nside 64, nested
        pa.field("ra", pa.float64()),  # deg
        pa.field("dec", pa.float64()),  # deg
        pa.field("z", pa.float64(), nullable=False),
        pa.field("zerr", pa.float64()),
        pa.field("zwarn", pa.int64()),
        pa.field("snr", pa.float32()),  # median a pixel; null: no pixel with information
        pa.field("ebv", pa.float32()),  # mag
        pa.field("quality", pa.int32(), nullable=False),  # pipeline.quality.Quality
        pa.field("mask_pixel", _list(pa.int16()), nullable=False),
        pa.field("mask_bits", _list(pa.int32()), nullable=False),
        pa.field("fiber", LIST, nullable=False),
        pa.field("petal", LIST, nullable=False),
        pa.field("night", LIST, nullable=False),  # YYYYMMDD
        pa.field("tile", LIST, nullable=False),
        pa.field("arm_difference", _vector(N_OVERLAP), nullable=False),  # σ; NaN: no information
        pa.field("flux", _vector(N_PIXELS), nullable=False),
        pa.field("ivar", _vector(N_PIXELS), nullable=False),
    ],
    metadata={
        "skysift.format": "1",
        "skysift.wavelength": f"{WAVELENGTH_START} + {WAVELENGTH_STEP} i, i < {N_PIXELS}; Angstrom, vacuum, observed",
        "skysift.flux": "1e-17 erg/s/cm2/Angstrom",
        "skysift.ivar": "1/flux2; 0 = no information",
        "skysift.arm_difference": "(B-R) pixels 2700-2750, then (R-Z) pixels 4900-5025, in sigma",
    },
)
VECTORS = ("arm_difference", "flux", "ivar")  # fixed length
LISTS = ("mask_pixel", "mask_bits", "fiber", "petal", "night", "tile")
SCALARS = tuple(name for name in SCHEMA.names if name not in VECTORS + LISTS)


def build_table(rows: CoaddRows, chunk: Chunk) -> pa.Table:
    """The shard table (``SCHEMA``) of spectra read from ``chunk``'s coadd; big arrays are not copied.

    Positions come from the catalog, where it has none from the file; where that has none either they are null
    and the quality bit NO_POSITION is set.
    """
    catalog = _catalog_of(rows.targetid, chunk.targets)
    ra, dec = (_first_known(catalog[name], getattr(rows, name)) for name in ("ra", "dec"))
    placed = np.isfinite(ra) & np.isfinite(dec)
    offset = pa.array(rows.mask_offset)
    columns: dict[str, Any] = {
        "spectrum_id": spectrum_id(rows.targetid, chunk.coadd.name),
        "targetid": rows.targetid,
        "ra": pa.array(ra, from_pandas=True),
        "dec": pa.array(dec, from_pandas=True),
        "z": catalog["z"],
        "zerr": catalog["zerr"],
        "zwarn": catalog["zwarn"],
        "snr": pa.array(rows.snr, from_pandas=True),
        "ebv": pa.array(rows.ebv, from_pandas=True),
        "quality": rows.quality | np.where(placed, 0, int(Quality.NO_POSITION)).astype(np.int32),
        "mask_pixel": pa.ListArray.from_arrays(offset, rows.mask_pixel, type=_list(pa.int16())),
        "mask_bits": pa.ListArray.from_arrays(offset, rows.mask_bits, type=_list(pa.int32())),
    }
    columns |= _same_for_all(chunk, len(rows.targetid))
    columns |= {name: _fixed_lists(getattr(rows, name)) for name in VECTORS}
    columns |= {name: getattr(rows.exposures, name) for name in ("fiber", "petal", "night", "tile")}
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _same_for_all(chunk: Chunk, n: int) -> dict[str, pa.Array]:
    coadd = chunk.coadd
    values = {"coadd": coadd.name, "survey": coadd.survey, "program": coadd.program, "healpix": coadd.healpix}
    return {name: pa.repeat(pa.scalar(value, SCHEMA.field(name).type), n) for name, value in values.items()}


def _catalog_of(targetid: NDArray[np.int64], targets: pa.Table) -> dict[str, pa.Array]:
    """Rows of the catalog for ``targetid`` [B], a column each."""
    known = targets["targetid"].to_numpy()
    order = np.argsort(known, kind="stable")
    place = pa.array(order[np.searchsorted(known[order], targetid)])
    return {name: targets[name].take(place).combine_chunks() for name in targets.column_names}


def _first_known(catalog: pa.ChunkedArray, file: NDArray[np.float64]) -> NDArray[np.float64]:
    values = catalog.to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, file)


def _fixed_lists(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=_vector(values.shape[1]))
