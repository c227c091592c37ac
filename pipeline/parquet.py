"""Parquet files of wide float vectors, written at the speed of the disk.

pyarrow spends 75 µs on writing one spectrum (2 × 7,781 float32), nearly all of it on repetition levels that
are the same for every spectrum. Here a column of a row group is one PLAIN, uncompressed data page whose values
are the array's own memory; they start at a multiple of 64 bytes in the file, so a reader may map them.
Format: https://parquet.apache.org/docs/file-format/ and parquet.thrift of apache/parquet-format 2.11.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.thrift import Item, binary, closed, i32, i64, listing, members, struct, varint

Part: TypeAlias = "bytes | memoryview"

MAGIC = b"PAR1"
ALIGNMENT = 64  # bytes

# Arrow type: Parquet physical type, converted type (None: none), numpy type of the stored values
_TYPES: dict[pa.DataType, tuple[int, int | None, Any]] = {
    pa.int16(): (1, 16, np.dtype("<i4")),
    pa.int32(): (1, None, np.dtype("<i4")),
    pa.int64(): (2, None, np.dtype("<i8")),
    pa.float32(): (4, None, np.dtype("<f4")),
    pa.float64(): (5, None, np.dtype("<f8")),
    pa.string(): (6, 0, np.dtype("u1")),
}
_REQUIRED, _OPTIONAL, _REPEATED = 0, 1, 2
_CONVERTED_LIST = 3
_PLAIN, _RLE = 0, 3
_DATA_PAGE = 0
_UNCOMPRESSED = 0


@dataclass(frozen=True)
class _Layout:
    """What all files of one schema have in common."""

    fields: list[pa.Field]
    kinds: list[bytes]  # the first members of each column's metadata: all but sizes and places
    elements: Item
    key_values: Item


@dataclass(frozen=True)
class _Page:
    """One column of one row group: encoded levels and values."""

    n_levels: int
    levels: bytes
    values: Part


def encode(table: pa.Table, row_group: int) -> list[Part]:
    """Parts of a Parquet file holding ``table``, to be written one after the other.

    Columns may be int32, int64, float32, float64 or string, nullable or not, and lists (fixed length or not)
    without nulls of int16, int32 or float32. Equal tables give equal bytes. The parts refer to the table's
    memory. The table has at least one row.

    Raises:
        TypeError: a column of another type, or nulls in a list.
    """
    layout = _layout(table.schema)
    # combine_chunks copies even what is in one chunk
    columns = [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns]
    parts: list[Part] = [MAGIC]
    size = len(MAGIC)
    groups: list[Item] = []
    for start in range(0, table.num_rows, row_group):
        chunks: list[Item] = []
        total = 0
        for field, kind, column in zip(layout.fields, layout.kinds, columns, strict=True):
            page = _page(field, column.slice(start, row_group))
            head = _page_header(page) + page.levels
            gap = -(size + len(head)) % ALIGNMENT
            parts += [bytes(gap), head, page.values]
            length = len(head) + len(page.values)
            chunks.append(_column_chunk(kind, page, size + gap, length))
            size += gap + length
            total += length
        groups.append(struct({1: listing(chunks), 2: i64(total), 3: i64(min(row_group, table.num_rows - start))}))
    footer = _footer(layout, table.num_rows, groups)
    return [*parts, footer, len(footer).to_bytes(4, "little"), MAGIC]


def _page(field: pa.Field, column: pa.Array) -> _Page:
    kind = field.type
    if pa.types.is_fixed_size_list(kind):
        _refuse_nulls(field, column)
        length = kind.list_size
        count = len(column) * length
        repetition = (_run(1, False) + (_run(length - 1, True) if length > 1 else b"")) * len(column)
        return _Page(count, _sized(repetition) + _sized(_run(count, True)), _plain(column.flatten()))
    if pa.types.is_list(kind):
        _refuse_nulls(field, column)
        lengths = np.diff(column.offsets.to_numpy())
        width = np.maximum(lengths, 1)  # an empty list takes one level too
        first = np.cumsum(width) - width
        repetition_L, definition_L = np.ones((2, int(width.sum())), bool)
        repetition_L[first] = False
        definition_L[first[lengths == 0]] = False
        levels = _sized(_packed(repetition_L)) + _sized(_packed(definition_L))
        return _Page(len(repetition_L), levels, _plain(column.flatten()))
    levels = b""
    if not field.nullable:
        _refuse_nulls(field, column)
    elif column.null_count in (0, len(column)):
        levels = _sized(_run(len(column), not column.null_count))
    else:
        levels = _sized(_packed(column.is_valid().to_numpy(zero_copy_only=False)))
    return _Page(len(column), levels, _plain(column.drop_null() if column.null_count else column))


def _refuse_nulls(field: pa.Field, column: pa.Array) -> None:
    if column.null_count:
        raise TypeError(f"column {field.name} has nulls")


def _plain(values: pa.Array) -> Part:
    if pa.types.is_string(values.type):
        encoded = (text.encode() for text in values.to_pylist())
        return b"".join(len(text).to_bytes(4, "little") + text for text in encoded)
    stored = _TYPES[values.type][2]
    array = np.ascontiguousarray(values.to_numpy(), dtype=stored)
    return memoryview(array.view(np.uint8).data) if len(array) else b""


def _packed(bits: NDArray[np.bool_]) -> bytes:
    """Levels of one bit each as one bit-packed run of the RLE/bit-packing hybrid."""
    packed = np.packbits(bits, bitorder="little").tobytes()
    return varint(len(packed) << 1 | 1) + packed


def _run(count: int, level: bool) -> bytes:
    """``count`` equal levels as one run of the same hybrid."""
    return varint(count << 1) + bytes([level])


def _sized(levels: bytes) -> bytes:
    return len(levels).to_bytes(4, "little") + levels


def _page_header(page: _Page) -> bytes:
    size = len(page.levels) + len(page.values)
    data = struct({1: i32(page.n_levels), 2: i32(_PLAIN), 3: i32(_RLE), 4: i32(_RLE)})
    return struct({1: i32(_DATA_PAGE), 2: i32(size), 3: i32(size), 5: data})[1]


def _column_chunk(kind: bytes, page: _Page, offset: int, length: int) -> Item:
    sizes = members({5: i64(page.n_levels), 6: i64(length), 7: i64(length), 9: i64(offset)}, after=4)
    return struct({2: i64(offset), 3: closed(kind + sizes)})


@lru_cache(maxsize=8)
def _layout(schema: pa.Schema) -> _Layout:
    fields = list(schema)
    elements = [struct({4: binary(b"schema"), 5: i32(len(fields))})]
    for field in fields:
        elements += _elements(field)
    arrow = base64.b64encode(schema.serialize().to_pybytes())
    pairs = [*(schema.metadata or {}).items(), (b"ARROW:schema", arrow)]
    key_values = listing([struct({1: binary(key), 2: binary(value)}) for key, value in pairs])
    return _Layout(fields, [_column_kind(field) for field in fields], listing(elements), key_values)


def _column_kind(field: pa.Field) -> bytes:
    is_list = field.type.num_fields > 0
    path = [field.name.encode(), *([b"list", b"element"] if is_list else [])]
    physical = _TYPES[field.type.value_type if is_list else field.type][0]
    encodings = listing([i32(_PLAIN), i32(_RLE)])
    return members({1: i32(physical), 2: encodings, 3: listing([binary(name) for name in path]), 4: i32(_UNCOMPRESSED)})


def _footer(layout: _Layout, rows: int, groups: list[Item]) -> bytes:
    members_ = {1: i32(2), 2: layout.elements, 3: i64(rows), 4: listing(groups), 5: layout.key_values}
    return struct(members_ | {6: binary(b"skysift")})[1]


def _elements(field: pa.Field) -> Iterator[Item]:
    kind, name = field.type, field.name.encode()
    if kind.num_fields:
        yield struct({3: i32(_REQUIRED), 4: binary(name), 5: i32(1), 6: i32(_CONVERTED_LIST)})
        yield struct({3: i32(_REPEATED), 4: binary(b"list"), 5: i32(1)})
        yield _leaf(kind.value_type, b"element", _REQUIRED)
    else:
        yield _leaf(kind, name, _OPTIONAL if field.nullable else _REQUIRED)


def _leaf(kind: pa.DataType, name: bytes, repetition: int) -> Item:
    if kind not in _TYPES:
        raise TypeError(f"column {name.decode()}: type {kind} is not supported")
    physical, converted, _ = _TYPES[kind]
    element = {1: i32(physical), 3: i32(repetition), 4: binary(name)}
    return struct(element | ({6: i32(converted)} if converted is not None else {}))
