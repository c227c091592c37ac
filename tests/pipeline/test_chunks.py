"""Chunks are named by what goes into them."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from pipeline.chunks import TARGET_SCHEMA, Chunk, Coadd

COADD = Coadd("healpix/main/dark/9144", "healpix/main/dark/91/9144/coadd-main-dark-9144.fits", 1000, "abc")


def _targets(z: float = 2.0) -> pa.Table:
    return pa.table(
        {
            "targetid": [1, 2],
            "z": [z, 3.0],
            "zerr": [None, 0.1],
            "zwarn": [0, None],
            "ra": [1.0, None],
            "dec": [2.0, 0.0],
        },
        schema=TARGET_SCHEMA,
    )


def test_equal_contents_give_equal_names() -> None:
    assert Chunk.of(COADD, _targets()).chunk_id == Chunk.of(COADD, _targets()).chunk_id


def test_any_change_gives_another_name() -> None:
    names = {
        Chunk.of(COADD, _targets()).chunk_id,
        Chunk.of(COADD, _targets(z=2.1)).chunk_id,
        Chunk.of(replace(COADD, etag="abd"), _targets()).chunk_id,
        Chunk.of(replace(COADD, size=None), _targets()).chunk_id,
        Chunk.of(replace(COADD, name="healpix/main/bright/9144"), _targets()).chunk_id,
        Chunk.of(COADD, _targets().slice(0, 1)).chunk_id,
    }
    assert len(names) == 6


def test_shard_is_named_by_the_chunk() -> None:
    chunk = Chunk.of(COADD, _targets())
    assert chunk.shard == f"shards/{chunk.chunk_id[:2]}/{chunk.chunk_id}.parquet"
