"""Parquet catalogs read in batches, from any object store, fetching only the columns asked for."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.catalog.fitstable import Block
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.stores.objects import ObjectStore

MAGIC = b"PAR1"
_BATCH_ROWS = 65_536
_READ_BYTES = 8 << 20  # column chunks pass through a buffer of this size, however long they are


class RangeFile(io.RawIOBase):
    """A read-only file over byte ranges of an object, for libraries that want to seek."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        self._store, self._path = store, path
        self._size = store.head(path).size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readall(self) -> bytes:
        return self.read(self._size)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        """Return up to ``size`` bytes (all that is left when negative) from the current place."""
        left = max(0, self._size - self._at)
        size = left if size is None or size < 0 else min(size, left)
        if not size:
            return b""
        data = bytes(self._store.read_ranges(self._path, [self._at], [size])[0])
        self._at += len(data)
        return data


def open_parquet(store: ObjectStore, path: str) -> pq.ParquetFile:
    """Open a Parquet object over ranged reads.

    Raises:
        InputError: the file is damaged or truncated (its footer is at its end).
    """
    try:
        return pq.ParquetFile(RangeFile(store, path), buffer_size=_READ_BYTES, pre_buffer=False)
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def kinds(file: pq.ParquetFile) -> dict[str, str]:
    """Kind of each column as in ``fitstable.Column.kind``, by the column's own name."""
    return {field.name: _kind(field.type) for field in file.schema_arrow}


def read_batches(file: pq.ParquetFile, names: Sequence[str], path: str) -> Iterator[Block]:
    """Yield the named columns in batches; nulls become NaN, −1, False or an empty string.

    Raises:
        InputError: a page is damaged.
    """
    try:
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(names), use_threads=False):
            yield {field.name: _numpy(batch.column(i)) for i, field in enumerate(batch.schema)}
    except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: Exception) -> InputError:
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{path}: damaged or truncated Parquet ({line}); write or fetch the file again", "truncated")


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = {
        "i": pa.types.is_integer,
        "f": pa.types.is_floating,
        "b": pa.types.is_boolean,
        "S": lambda t: pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_binary(t),
    }
    return next((name for name, test in tests.items() if test(kind)), "-")


def _numpy(values: pa.Array) -> NDArray[Any]:
    kind = _kind(values.type)
    if kind == "S":
        encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
        words = np.array(["", *(_word(v) for v in encoded.dictionary.to_pylist())], dtype="S")
        index: NDArray[np.int64] = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return words[index + 1]
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    null = {"f": float("nan"), "b": False}.get(kind, -1)
    if values.null_count and kind == "i" and pa.types.is_unsigned_integer(values.type):
        values = values.cast(pa.int64())
    return np.asarray(pc.fill_null(values, null).to_numpy(zero_copy_only=False))


def _word(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value or "").encode("utf-8")
