"""Arrow tables as the CSV that PostgreSQL's COPY reads and writes; lists of numbers are its arrays, ``{1,2}``."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv


def csv_buffer(rows: pa.Table) -> pa.BufferReader:
    """Return the rows as CSV without a header: NaN and null as nothing, every string in quotes, lists as arrays."""
    # One chunk a column: pyarrow 26 writes stray bytes for strings when an empty chunk of pa.repeat is among them.
    whole = rows.combine_chunks()
    plain = pa.table([_plain(column) for column in whole.columns], names=rows.column_names)
    sink = pa.BufferOutputStream()
    csv.write_csv(plain, sink, csv.WriteOptions(include_header=False, batch_size=8192))
    return pa.BufferReader(sink.getvalue())


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if _is_list(column.type):
        return pa.chunked_array([_array_text(chunk) for chunk in column.chunks], pa.string())
    return column


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _array_text(lists: pa.Array) -> pa.Array:
    """Write each list of numbers as ``{1,2}``; a null list stays null."""
    if pa.types.is_fixed_size_list(lists.type):
        lists = lists.cast(pa.list_(lists.type.value_type))
    inner = lists.cast(pa.list_(pa.string()))
    return pc.binary_join_element_wise("{", pc.binary_join(inner, ","), "}", "")


def _lists(text: pa.ChunkedArray, kind: pa.ListType) -> pa.ChunkedArray:
    """Read arrays of one dimension."""
    inner = pc.utf8_slice_codeunits(text, 1, -1)
    found = pc.split_pattern(inner, ",")
    empty = pa.scalar([], pa.list_(pa.string()))
    return pc.if_else(pc.equal(inner, ""), empty, found).cast(kind)


def read_csv(data: memoryview, schema: pa.Schema) -> pa.Table:
    """Read what ``COPY … TO STDOUT (FORMAT csv)`` wrote: nothing is null, ``""`` is an empty string."""
    if not len(data):
        return schema.empty_table()
    flat = pa.schema([pa.field(f.name, pa.string()) if _is_list(f.type) else f for f in schema])
    table = csv.read_csv(
        pa.BufferReader(pa.py_buffer(data)),
        read_options=csv.ReadOptions(column_names=schema.names),
        parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),  # a lone null is one
        convert_options=csv.ConvertOptions(
            column_types=flat,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
    for at, field in enumerate(schema):
        if _is_list(field.type):
            table = table.set_column(at, field, _lists(table.column(at), field.type))
    return table
