"""One chunk from its coadd to its shard: what an ingest task does."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.chunks import Chunk
from pipeline.desi.coadd import read_coadd
from pipeline.shards import ROW_GROUP, SCALARS, build_table, write_shard
from pipeline.stores.objects import ObjectStore

FIBERS = ("fiber", "night")  # lists that go with the small columns: fibers of one petal or night are judged together


@dataclass(frozen=True)
class IngestResult:
    """What became of one chunk; targets in = ``spectra.num_rows`` + ``len(missing)``."""

    chunk_id: str
    shard: str | None  # path of the shard, None when no target was in the coadd
    spectra: pa.Table  # the shard's small columns, then shard, row_group, row (within its group)
    missing: NDArray[np.int64]  # targets the coadd does not hold: quarantine reason "not_in_coadd"
    missing_detail: str  # one line for the quarantine table, empty when nothing is missing
    bytes_read: int
    bytes_written: int
    requests: int
    seconds: dict[str, float]  # read, join, write


def ingest_chunk(survey: ObjectStore, shards: ObjectStore, chunk: Chunk) -> IngestResult:
    """Reads the chunk's spectra from its coadd, joins their arms and writes them as one shard.

    Raises:
        InputError: the coadd is unusable; ``reason`` says how (see `read_coadd`).
        StoreError: one of the stores fails.
    """
    targetid = chunk.targets["targetid"].to_numpy()
    rows = read_coadd(survey, chunk.coadd.path, targetid, etag=chunk.coadd.etag)
    began = time.perf_counter()
    table = build_table(rows, chunk)
    written = write_shard(shards, chunk.shard, table) if table.num_rows else 0
    detail = f"{survey.locate(chunk.coadd.path)}: FIBERMAP lacks {len(rows.missing)} of {len(targetid)} targets"
    return IngestResult(
        chunk.chunk_id,
        chunk.shard if table.num_rows else None,
        _with_place(table.select([*SCALARS, *FIBERS]), chunk.shard),
        rows.missing,
        detail if len(rows.missing) else "",
        rows.bytes_read,
        written,
        rows.requests,
        {"read": rows.read_seconds, "join": rows.join_seconds, "write": time.perf_counter() - began},
    )


def _with_place(spectra: pa.Table, shard: str) -> pa.Table:
    row = np.arange(spectra.num_rows, dtype=np.int32)
    places = {"shard": pa.repeat(pa.scalar(shard), len(row)), "row_group": row // ROW_GROUP, "row": row % ROW_GROUP}
    for name, values in places.items():
        spectra = spectra.append_column(name, pa.array(values))
    return spectra
