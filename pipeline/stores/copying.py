"""Arrow tables as the CSV that PostgreSQL's COPY reads and writes."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv


def csv_buffer(rows: pa.Table) -> pa.BufferReader:
    """Return the rows as CSV without a header: NaN and null as nothing, every string in quotes."""
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
    return column


def read_csv(data: memoryview, schema: pa.Schema) -> pa.Table:
    """Read what ``COPY … TO STDOUT (FORMAT csv)`` wrote: nothing is null, ``""`` is an empty string."""
    if not len(data):
        return schema.empty_table()
    return csv.read_csv(
        pa.BufferReader(pa.py_buffer(data)),
        read_options=csv.ReadOptions(column_names=schema.names),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            true_values=["t"],
            false_values=["f"],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
