"""A chunk: the unit of work, some targets of one coadd file, named by a hash of what goes into it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.keys import content_hash

TARGET_SCHEMA = pa.schema(
    [
        pa.field("targetid", pa.int64(), nullable=False),
        pa.field("z", pa.float64(), nullable=False),
        pa.field("zerr", pa.float64()),
        pa.field("zwarn", pa.int64()),
        pa.field("ra", pa.float64()),  # deg, ICRS
        pa.field("dec", pa.float64()),  # deg, ICRS
    ]
)


@dataclass(frozen=True)
class Coadd:
    """One coadd file of the survey.

    ``name`` is the logical name used in keys, ``path`` is relative to the survey's root; ``size`` in bytes
    and ``etag`` are what planning saw, None when the file was not there.
    """

    name: str
    path: str
    size: int | None
    etag: str | None
    survey: str | None = None
    program: str | None = None
    healpix: int | None = None


@dataclass(frozen=True)
class Chunk:
    """Some targets of one coadd; ``targets`` has ``TARGET_SCHEMA``, one row a target."""

    chunk_id: str
    coadd: Coadd
    targets: pa.Table

    @classmethod
    def of(cls, coadd: Coadd, targets: pa.Table) -> Chunk:
        """Build a chunk and name it: equal contents give equal names on every machine."""
        targets = targets.select(TARGET_SCHEMA.names).cast(TARGET_SCHEMA).combine_chunks()
        numbers = (np.ascontiguousarray(column.to_numpy()).tobytes() for column in targets.columns)
        where = f"{coadd.name}|{coadd.path}|{coadd.size}|{coadd.etag}"
        return cls(content_hash(where, *numbers), coadd, targets)

    @property
    def shard(self) -> str:
        """Path of the chunk's Parquet shard."""
        return shard_path(self.chunk_id)


def shard_path(chunk_id: str) -> str:
    """Path of a chunk's Parquet shard in the object store of results."""
    return f"shards/{chunk_id[:2]}/{chunk_id}.parquet"
