"""Rows that passed the gate: their order, their duplicates, and their Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.catalog.gate import ROW_SCHEMA, GateReport

if TYPE_CHECKING:
    from pipeline.stores.objects import ObjectStore

_REPORT = b"gate_report"


def ordered(batches: Iterable[pa.RecordBatch]) -> tuple[pa.Table, int]:
    """Sort by coadd and target and drop repeats of (target, coadd), the catalog's first row staying.

    Returns:
        The rows (``ROW_SCHEMA``) and how many repeats were dropped.
    """
    table = pa.Table.from_batches(list(batches), ROW_SCHEMA).unify_dictionaries().combine_chunks()
    if not table.num_rows:
        return table, 0
    coadd, target = coadd_key(table), table.column("targetid").to_numpy()
    order = np.lexsort((target, coadd))
    coadd, target = coadd[order], target[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (coadd[1:] != coadd[:-1]) | (target[1:] != target[:-1])
    return table.take(pa.array(order[first])).combine_chunks(), int(len(order) - first.sum())


def coadd_key(table: pa.Table) -> NDArray[np.int64]:
    """Return an int64 a row, equal for rows of one coadd and ordered as survey, program, pixel (or tile,
    night, petal) are."""

    def number(name: str) -> NDArray[np.int64]:
        values: NDArray[np.int64] = pc.fill_null(table.column(name), 0).to_numpy().astype(np.int64)
        return values

    if table.column("tile").null_count:
        return (_rank(table, "survey") << 48) | (_rank(table, "program") << 32) | number("healpix")
    return (number("tile") << 31) | (number("night") << 4) | number("petal")  # 31, 27 and 4 bits


def _rank(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Alphabetical rank of each row's word."""
    column = table.column(name).combine_chunks()
    words = np.array(column.dictionary.to_pylist(), dtype=str)
    _, rank = np.unique(words, return_inverse=True)  # equal words of two blocks get one rank
    ranks: NDArray[np.int64] = rank.astype(np.int64)[column.indices.to_numpy()]
    return ranks


def write_rows(store: ObjectStore, path: str, rows: pa.Table, report: GateReport) -> None:
    """Keep gated rows, with the gate's report beside them in the schema's metadata."""
    sink = pa.BufferOutputStream()
    metadata = {_REPORT: json.dumps(report.as_dict()).encode()}
    pq.write_table(rows.replace_schema_metadata(metadata), sink, compression="zstd")
    store.write(path, sink.getvalue().to_pybytes())


def read_rows(store: ObjectStore, path: str) -> tuple[pa.Table, GateReport]:
    """Read what ``write_rows`` wrote."""
    table = pq.read_table(pa.BufferReader(store.read(path)))
    report: dict[str, Any] = json.loads(table.schema.metadata[_REPORT])
    return table.replace_schema_metadata(None).cast(ROW_SCHEMA), GateReport.from_dict(report)
