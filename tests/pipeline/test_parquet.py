"""The Parquet writer against pyarrow's reader: every supported type, null pattern and list shape."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parquet import encode


def read(table: pa.Table, row_group: int) -> pa.Table:
    return pq.read_table(pa.BufferReader(b"".join(encode(table, row_group))))


def items(kind: pa.DataType) -> pa.Field:
    return pa.field("element", kind, nullable=False)


COLUMNS = {
    "int32": pa.array([1, -2, 2**31 - 1, 0, 5], pa.int32()),
    "int64": pa.array([1, None, -(2**63), None, 2**63 - 1], pa.int64()),
    "float32": pa.array([1.5, float("nan"), None, -0.0, float("inf")], pa.float32()),
    "float64": pa.array([None, None, None, None, 1e300], pa.float64()),
    "all_null": pa.nulls(5, pa.int32()),
    "text": pa.array(["", "σ", None, "x" * 300, "y"], pa.string()),
    "lists": pa.array([[], [1, 2], [], [], [3]], pa.list_(items(pa.int16()))),
    "empty_lists": pa.array([[], [], [], [], []], pa.list_(items(pa.int32()))),
    "vectors": pa.array([[float(i), 2, 3] for i in range(5)], pa.list_(items(pa.float32()), 3)),
    "scalars": pa.array([[float(i)] for i in range(5)], pa.list_(items(pa.float32()), 1)),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("row_group", [1, 2, 5, 100])
def test_round_trip(name: str, row_group: int) -> None:
    nullable = COLUMNS[name].null_count > 0
    schema = pa.schema([pa.field(name, COLUMNS[name].type, nullable)], {"key": "value"})
    table = pa.table([COLUMNS[name]], schema=schema)
    found = read(table, row_group)
    found.validate(full=True)
    assert found.schema.equals(schema, check_metadata=True)
    assert found.to_pydict().__repr__() == table.to_pydict().__repr__()  # NaN equals itself in text


def test_many_columns_together() -> None:
    table = pa.table({f"{name}{i}": column for name, column in COLUMNS.items() for i in range(3)})
    fields = [pa.field(f.name, f.type, table[f.name].null_count > 0) for f in table.schema]
    table = table.cast(pa.schema(fields))
    assert read(table, 2).to_pydict().__repr__() == table.to_pydict().__repr__()


def test_slices_and_chunks_of_a_table() -> None:
    schema = pa.schema([pa.field(n, COLUMNS[n].type, False) for n in ("int32", "lists", "vectors")])
    table = pa.table([COLUMNS[name] for name in schema.names], schema=schema)
    parts = pa.concat_tables([table.slice(3), table.slice(1, 2)])
    assert read(parts, 2).equals(parts.combine_chunks())


def test_unsupported_type() -> None:
    with pytest.raises((TypeError, KeyError)):
        encode(pa.table({"x": pa.array([True])}), 1)


def test_nulls_where_there_must_be_none() -> None:
    schema = pa.schema([pa.field("x", pa.int32(), nullable=False)])
    with pytest.raises(TypeError, match="column x has nulls"):
        encode(pa.Table.from_arrays([pa.array([1, None], pa.int32())], schema=schema), 1)
