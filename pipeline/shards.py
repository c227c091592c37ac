"""Shards: spectra of one chunk as one Parquet file that pandas, polars and DuckDB read as it is.

Row groups hold at most 64 spectra, so one spectrum is one small read. Uncompressed, no dictionaries, no
statistics on the wide columns: noise does not compress, and Parquet's defaults write at a third of the speed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.chunks import Chunk
from pipeline.desi.coadd import CoaddRows, dense_mask
from pipeline.desi.exposures import LIST
from pipeline.desi.grid import N_OVERLAP, N_PIXELS, WAVELENGTH, WAVELENGTH_START, WAVELENGTH_STEP
from pipeline.errors import InputError
from pipeline.keys import spectrum_id
from pipeline.quality import Quality
from pipeline.stores.objects import ObjectStore

ROW_GROUP = 64  # spectra
GRID_PATH = "shards/grid.parquet"


def _vector(length: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.float32(), nullable=False), length)


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
        pa.field("flux", _vector(N_PIXELS), nullable=False),
        pa.field("ivar", _vector(N_PIXELS), nullable=False),
        pa.field("mask_pixel", pa.list_(pa.field("element", pa.int16(), nullable=False)), nullable=False),
        pa.field("mask_bits", pa.list_(pa.field("element", pa.int32(), nullable=False)), nullable=False),
        pa.field("arm_difference", _vector(N_OVERLAP), nullable=False),  # σ; NaN: no information
        pa.field("fiber", LIST, nullable=False),
        pa.field("petal", LIST, nullable=False),
        pa.field("night", LIST, nullable=False),  # YYYYMMDD
        pa.field("tile", LIST, nullable=False),
    ],
    metadata={
        "skysift.format": "1",
        "skysift.wavelength": f"{WAVELENGTH_START} + {WAVELENGTH_STEP} i, i < {N_PIXELS}; Angstrom, vacuum, observed",
        "skysift.flux": "1e-17 erg/s/cm2/Angstrom",
        "skysift.ivar": "1/flux2; 0 = no information",
        "skysift.arm_difference": "(B-R) pixels 2700-2750, then (R-Z) pixels 4900-5025, in sigma",
    },
)
WIDE = ("flux", "ivar", "arm_difference", "mask_pixel", "mask_bits", "fiber", "petal", "night", "tile")
SMALL = tuple(name for name in SCHEMA.names if name not in WIDE)


@dataclass(frozen=True)
class Shard:
    """B spectra read from a shard: numpy views of an Arrow table's columns.

    A property of a column that was not read raises ``KeyError``.
    """

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def numbers(self, name: str) -> NDArray[Any]:
        """One scalar column [B]; unknown values are NaN in float columns, −1 in integer ones."""
        column = _one(self.table[name])
        if pa.types.is_integer(column.type):
            column = column.fill_null(-1)
        return cast(NDArray[Any], column.to_numpy(zero_copy_only=False))

    def vectors(self, name: str) -> NDArray[np.float32]:
        """One fixed-length list column as float32 [B, length]."""
        column = _one(self.table[name])
        return cast(NDArray[np.float32], column.flatten().to_numpy().reshape(len(column), column.type.list_size))

    def lists(self, name: str) -> list[list[int]]:
        """One list column (fiber, petal, night, tile) as Python lists."""
        return cast(list[list[int]], self.table[name].to_pylist())

    @cached_property
    def spectrum_id_B(self) -> NDArray[np.int64]:  # noqa: N802 - the name tells the shape
        """Keys, int64 [B]."""
        return self.numbers("spectrum_id")

    @cached_property
    def z_B(self) -> NDArray[np.float64]:  # noqa: N802
        """Redshifts, float64 [B]."""
        return self.numbers("z")

    @cached_property
    def snr_B(self) -> NDArray[np.float32]:  # noqa: N802
        """Median S/N a pixel, float32 [B]."""
        return self.numbers("snr")

    @cached_property
    def quality_B(self) -> NDArray[np.int32]:  # noqa: N802
        """Quality bits, int32 [B]."""
        return self.numbers("quality")

    @cached_property
    def flux_BL(self) -> NDArray[np.float32]:  # noqa: N802
        """Flux, 1e-17 erg/s/cm²/Å, float32 [B, L]."""
        return self.vectors("flux")

    @cached_property
    def ivar_BL(self) -> NDArray[np.float32]:  # noqa: N802
        """Inverse variance of the flux, 0 where there is no information, float32 [B, L]."""
        return self.vectors("ivar")

    @cached_property
    def arm_difference_BK(self) -> NDArray[np.float32]:  # noqa: N802
        """Differences of the arms in their overlaps in σ, float32 [B, 177]."""
        return self.vectors("arm_difference")

    def dense_mask(self) -> NDArray[np.int32]:
        """DESI's mask bits, int32 [B, L]."""
        pixel, bits = _one(self.table["mask_pixel"]), _one(self.table["mask_bits"])
        offset = pixel.offsets.to_numpy()
        return dense_mask(offset - offset[0], pixel.flatten().to_numpy(), bits.flatten().to_numpy())


def build_table(rows: CoaddRows, chunk: Chunk) -> pa.Table:
    """The shard table (``SCHEMA``) of spectra read from ``chunk``'s coadd; big arrays are not copied.

    Positions come from the catalog, where it has none from the file, where that has none they are null and
    the quality bit NO_POSITION is set.
    """
    catalog = _catalog_of(rows.targetid, chunk.targets)
    ra, dec = (_first_known(catalog[name], getattr(rows, name)) for name in ("ra", "dec"))
    quality = rows.quality | np.where(np.isfinite(ra) & np.isfinite(dec), 0, int(Quality.NO_POSITION)).astype(np.int32)
    n, coadd = len(rows.targetid), chunk.coadd
    offset = pa.array(rows.mask_offset)
    columns: dict[str, Any] = {
        "spectrum_id": spectrum_id(rows.targetid, coadd.name),
        "targetid": rows.targetid,
        "ra": pa.array(ra, from_pandas=True),
        "dec": pa.array(dec, from_pandas=True),
        "z": catalog["z"],
        "zerr": catalog["zerr"],
        "zwarn": catalog["zwarn"],
        "snr": pa.array(rows.snr, from_pandas=True),
        "ebv": pa.array(rows.ebv, from_pandas=True),
        "quality": quality,
        "mask_pixel": pa.ListArray.from_arrays(offset, rows.mask_pixel, type=SCHEMA.field("mask_pixel").type),
        "mask_bits": pa.ListArray.from_arrays(offset, rows.mask_bits, type=SCHEMA.field("mask_bits").type),
    }
    columns |= {name: pa.repeat(pa.scalar(getattr(coadd, name), SCHEMA.field(name).type), n) for name in _OF_COADD}
    columns["coadd"] = pa.repeat(pa.scalar(coadd.name), n)
    columns |= {name: _fixed_lists(getattr(rows, name)) for name in ("flux", "ivar", "arm_difference")}
    columns |= {name: getattr(rows.exposures, name) for name in ("fiber", "petal", "night", "tile")}
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def write_shard(store: ObjectStore, path: str, table: pa.Table) -> int:
    """Writes one shard atomically; equal tables give equal bytes. Returns its size in bytes."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="none",
        use_dictionary=False,
        write_statistics=["spectrum_id", "targetid", "ra", "dec", "z", "snr"],
        data_page_size=64 << 20,
        write_batch_size=1 << 20,
    ) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP)
    data = memoryview(sink.getvalue())
    store.write(path, data)
    return len(data)


def write_grid(store: ObjectStore) -> None:
    """Writes the wavelengths (Å, vacuum, observed) of the pixels of all shards, once a store."""
    if store.exists(GRID_PATH):
        return
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"pixel": np.arange(N_PIXELS, dtype=np.int16), "wavelength": WAVELENGTH}), sink)
    store.write(GRID_PATH, memoryview(sink.getvalue()))


def read_shard(store: ObjectStore, path: str, columns: Sequence[str] | None = None) -> Shard:
    """Reads all rows of one shard, ``columns`` of it (default: all).

    Raises:
        InputError: reason ``damaged_shard`` or ``missing_file``.
    """
    data = store.mapped(path)
    try:
        source = pa.BufferReader(pa.py_buffer(data))
        with pq.ParquetFile(source) as file:
            return _shard(file, file.read(columns=_known(columns), use_threads=False))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise _damaged(store.locate(path), error) from error


def read_spectrum(store: ObjectStore, path: str, row_group: int, row: int) -> Shard:
    """One spectrum, row ``row`` of row group ``row_group``; only that group's bytes are fetched.

    Raises:
        InputError: reason ``damaged_shard`` or ``missing_file``.
        IndexError: the shard has no such row.
    """
    source = io.BufferedReader(_RangeFile(store, path), 64 << 10)
    try:
        with pq.ParquetFile(source, pre_buffer=True) as file:
            if not 0 <= row_group < file.num_row_groups:
                raise IndexError(f"{store.locate(path)}: no row group {row_group} among {file.num_row_groups}")
            table = file.read_row_group(row_group, use_threads=False)
            shard = _shard(file, table)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise _damaged(store.locate(path), error) from error
    if not 0 <= row < len(shard):
        raise IndexError(f"{store.locate(path)}: no row {row} among {len(shard)} of row group {row_group}")
    return Shard(shard.table.slice(row, 1))


_OF_COADD = ("survey", "program", "healpix")


class _RangeFile(io.RawIOBase):
    """An object as a seekable file; every read is one range request."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store, self._path, self._at = store, path, 0
        self._size = store.head(path).size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        if length:
            out = np.frombuffer(buffer, np.uint8)[:length]
            self._store.read_into(self._path, np.array([self._at]), np.array([length]), out)
            self._at += length
        return length


def _catalog_of(targetid: NDArray[np.int64], targets: pa.Table) -> dict[str, pa.Array]:
    """Rows of the catalog for ``targetid`` [B], a column each."""
    known = targets["targetid"].to_numpy()
    order = np.argsort(known, kind="stable")
    place = pa.array(order[np.searchsorted(known[order], targetid)])
    return {name: _one(targets[name].take(place)) for name in targets.column_names}


def _first_known(catalog: pa.Array, file: NDArray[np.float64]) -> NDArray[np.float64]:
    values = catalog.to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, file)


def _fixed_lists(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=_vector(values.shape[1]))


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; no copy where it already is one."""
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [column.combine_chunks()])


def _known(columns: Sequence[str] | None) -> list[str] | None:
    if columns is None:
        return None
    unknown = [name for name in columns if name not in SCHEMA.names]
    if unknown:
        raise ValueError(f"no column {unknown[0]!r} in a shard")
    return list(columns)


def _shard(file: pq.ParquetFile, table: pa.Table) -> Shard:
    if file.schema_arrow.metadata.get(b"skysift.format") != SCHEMA.metadata[b"skysift.format"]:
        raise ValueError("not a skysift shard of format 1")
    return Shard(table)


def _damaged(where: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{where}: unreadable shard ({reason}): delete it and ingest its chunk again", "damaged_shard")
