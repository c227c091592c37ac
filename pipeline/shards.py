"""Shards: the spectra of one chunk as one Parquet file that pandas, polars and DuckDB read as it is.

Row groups hold at most 64 spectra. `pipeline.parquet` lays each vector column of a row group down as the plain
array, so reading here copies nothing, and one spectrum is two reads of 31 kB and the row group's small columns.
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

from pipeline.desi.coadd import dense_mask
from pipeline.desi.grid import N_PIXELS, WAVELENGTH
from pipeline.errors import InputError
from pipeline.parquet import encode
from pipeline.shard_table import LISTS, SCALARS, SCHEMA, VECTORS, build_table
from pipeline.stores.objects import ObjectStore

__all__ = [
    "GRID_PATH",
    "ROW_GROUP",
    "SCALARS",
    "SCHEMA",
    "Shard",
    "build_table",
    "read_shard",
    "read_spectrum",
    "write_grid",
    "write_shard",
]

ROW_GROUP = 64  # spectra
GRID_PATH = "shards/grid.parquet"
FOOTER_READ = 32 << 10  # bytes; holds the footer of a shard of some twenty row groups

_FORMAT = SCHEMA.metadata[b"skysift.format"]
_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError)


@dataclass(frozen=True)
class Shard:
    """B spectra of a shard. What was not read raises ``KeyError``.

    ``table`` holds the scalar and list columns that were read, ``groups`` the vector columns, an array
    [rows, length] a row group: views of the file's own bytes where it is a local one.
    """

    table: pa.Table
    groups: dict[str, list[NDArray[np.float32]]]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def numbers(self, name: str) -> NDArray[Any]:
        """One numeric column [B]; unknown values are NaN in float columns, −1 in integer ones."""
        column = self.table[name]
        if pa.types.is_integer(column.type):
            column = column.fill_null(-1)
        return cast(NDArray[Any], column.to_numpy())

    def lists(self, name: str) -> list[list[int]]:
        """One list column (fiber, petal, night, tile)."""
        return cast(list[list[int]], self.table[name].to_pylist())

    def vectors(self, name: str) -> NDArray[np.float32]:
        """One vector column, float32 [B, length]; a view where there is one row group, else a copy."""
        groups = self.groups[name]
        return groups[0] if len(groups) == 1 else np.concatenate(groups)

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
        """Median S/N a pixel, NaN without information, float32 [B]."""
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
        pixel, bits = (_one(self.table[name]) for name in ("mask_pixel", "mask_bits"))
        lengths = pixel.value_lengths().to_numpy()
        offset = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return dense_mask(offset, pixel.flatten().to_numpy(), bits.flatten().to_numpy())


def write_shard(store: ObjectStore, path: str, table: pa.Table) -> int:
    """Writes one shard atomically; equal tables give equal bytes. Returns its size in bytes.

    Raises:
        StoreError: the store is full, read-only, unreachable or refuses us.
    """
    parts = encode(table, ROW_GROUP)
    store.write(path, parts, uncached=True)
    return sum(map(len, parts))


def write_grid(store: ObjectStore) -> None:
    """Writes the wavelengths (Å, vacuum, observed) of the pixels of all shards, once a store."""
    pixel = np.arange(N_PIXELS, dtype=np.int32)
    store.write(GRID_PATH, encode(pa.table({"pixel": pixel, "wavelength": WAVELENGTH}), N_PIXELS), if_absent=True)


def read_shard(store: ObjectStore, path: str, columns: Sequence[str] | None = None) -> Shard:
    """Reads all rows of one shard, ``columns`` of it (default: all).

    Raises:
        InputError: reason ``damaged_shard`` or ``missing_file``.
    """
    data = store.read_uncached(path)
    wanted = SCHEMA.names if columns is None else columns
    try:
        with pq.ParquetFile(pa.BufferReader(pa.py_buffer(data))) as file:
            metadata = _checked(file.metadata)
            table = file.read(columns=[name for name in wanted if name not in VECTORS], use_threads=False)
        groups = {
            name: [_vector(data, metadata, group, name) for group in range(metadata.num_row_groups)]
            for name in wanted
            if name in VECTORS
        }
    except _DAMAGE as error:
        raise _damaged(store.locate(path), error) from error
    return Shard(table, groups)


def read_spectrum(store: ObjectStore, path: str, row_group: int, row: int) -> Shard:
    """One spectrum, row ``row`` of row group ``row_group``: three small rounds of requests.

    Raises:
        InputError: reason ``damaged_shard`` or ``missing_file``; ``no_such_row`` where the shard has none.
    """
    where, size = store.locate(path), store.head(path).size
    try:
        file = _SparseFile(store, path, size)
        file.fetch([(max(0, size - FOOTER_READ), size)])
        metadata = _checked(pq.read_metadata(file))
        if not (0 <= row_group < metadata.num_row_groups and 0 <= row < metadata.row_group(row_group).num_rows):
            raise InputError(f"{where}: the shard has no row {row} in row group {row_group}", "no_such_row")
        spans = {name: _row_span(metadata, row_group, name, row) for name in VECTORS}
        small = [_chunk_span(metadata, row_group, name) for name in SCALARS + LISTS]
        file.fetch([(min(start for start, _ in small), max(stop for _, stop in small)), *spans.values()])
        with pq.ParquetFile(file, metadata=metadata) as parquet:
            table = parquet.read_row_group(row_group, columns=[*SCALARS, *LISTS], use_threads=False)
        groups = {name: [np.frombuffer(file.piece(*span), "<f4")[None].copy()] for name, span in spans.items()}
    except InputError as error:
        if error.reason == "truncated":
            raise _damaged(where, error) from error
        raise
    except _DAMAGE as error:
        raise _damaged(where, error) from error
    return Shard(table.slice(row, 1), groups)


class _SparseFile(io.RawIOBase):
    """An object as a seekable file of which only some spans were fetched; others are fetched when read."""

    def __init__(self, store: ObjectStore, path: str, size: int) -> None:
        self._store, self._path, self._size, self._at = store, path, size, 0
        self._pieces: list[tuple[int, memoryview]] = []

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        views = self._store.read_ranges(self._path, [a for a, _ in spans], [b - a for a, b in spans])
        self._pieces += [(start, view.data) for (start, _), view in zip(spans, views, strict=True)]

    def piece(self, start: int, stop: int) -> memoryview:
        for first, view in self._pieces:
            if first <= start and stop <= first + len(view):
                return view[start - first : stop - first]
        self.fetch([(start, stop)])
        return self._pieces[-1][1]

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
        stop = min(self._at + len(buffer), self._size)
        length = max(0, stop - self._at)
        buffer[:length] = self.piece(self._at, stop)
        self._at += length
        return length


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _checked(metadata: pq.FileMetaData) -> pq.FileMetaData:
    if (metadata.metadata or {}).get(b"skysift.format") != _FORMAT or metadata.num_columns != len(SCHEMA):
        raise ValueError("it is not a skysift shard of format 1")
    return metadata


def _chunk_span(metadata: pq.FileMetaData, group: int, name: str) -> tuple[int, int]:
    """First byte and end of one column of one row group."""
    column = metadata.row_group(group).column(SCHEMA.names.index(name))
    return column.data_page_offset, column.data_page_offset + column.total_compressed_size


def _row_span(metadata: pq.FileMetaData, group: int, name: str, row: int) -> tuple[int, int]:
    """First byte and end of one vector: values are the last bytes of their column's only page."""
    rows, length = metadata.row_group(group).num_rows, SCHEMA.field(name).type.list_size * 4
    start = _chunk_span(metadata, group, name)[1] - (rows - row) * length
    return start, start + length


def _vector(data: memoryview, metadata: pq.FileMetaData, group: int, name: str) -> NDArray[np.float32]:
    rows = metadata.row_group(group).num_rows
    length = SCHEMA.field(name).type.list_size
    start, _ = _row_span(metadata, group, name, 0)
    return np.frombuffer(data, "<f4", rows * length, start).reshape(rows, length)


def _damaged(where: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{where}: unreadable shard ({reason}): delete it and ingest its chunk again", "damaged_shard")
