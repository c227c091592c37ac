from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.catalog.gate import ROW_SCHEMA
from pipeline.catalog.rows import ordered
from pipeline.errors import InputError
from pipeline.manifest import build_manifest
from pipeline.stores.objects import ObjectStore


def rows_of(**columns: Any) -> pa.Table:
    n = len(columns["targetid"])
    arrays = []
    for field in ROW_SCHEMA:
        values = pa.array(columns[field.name]) if field.name in columns else pa.nulls(n)
        if pa.types.is_dictionary(field.type):
            values = values.cast(pa.string()).dictionary_encode()
        arrays.append(values.cast(field.type))
    return ordered(pa.table(arrays, schema=ROW_SCHEMA).to_batches())[0]


def sky(targetid: list[int], pixels: list[int]) -> pa.Table:
    n = len(targetid)
    return rows_of(targetid=targetid, z=[1.0] * n, survey=["main"] * n, program=["dark"] * n, healpix=pixels)


def put(root: Path, pixel: int, suffix: str = "", data: bytes = b"x") -> Path:
    path = root / f"healpix/main/dark/{pixel // 100}/{pixel}/coadd-main-dark-{pixel}.fits{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_chunks_hold_one_coadd_and_at_most_chunk_size_targets(tmp_path: Path) -> None:
    put(tmp_path, 9144, data=b"abc")
    store = ObjectStore.open(str(tmp_path))
    manifest = build_manifest(store, sky(list(range(1, 11)), [9144] * 7 + [205] * 3), 3)
    assert [(c.coadd.name, c.targets.num_rows) for c in manifest.chunks] == [
        ("healpix/main/dark/205", 3),
        ("healpix/main/dark/9144", 3),
        ("healpix/main/dark/9144", 3),
        ("healpix/main/dark/9144", 1),
    ]
    assert manifest.n_coadds == 2
    assert manifest.n_targets == 10
    assert [t for c in manifest.chunks for t in c.targets.column("targetid").to_pylist()] == [8, 9, 10, *range(1, 8)]
    coadd = manifest.chunks[1].coadd
    assert (coadd.size, coadd.etag) == (3, store.head(coadd.path).etag)
    assert (coadd.survey, coadd.program, coadd.healpix) == ("main", "dark", 9144)


def test_a_file_that_is_not_there_keeps_its_targets(tmp_path: Path) -> None:
    put(tmp_path, 5)
    manifest = build_manifest(ObjectStore.open(str(tmp_path)), sky([1, 2], [5, 6]), 10)
    assert manifest.missing == ("healpix/main/dark/6",)
    gone = manifest.chunks[1].coadd
    assert (gone.path, gone.size, gone.etag) == ("healpix/main/dark/0/6/coadd-main-dark-6.fits", None, None)


def test_gzipped_coadds_are_found(tmp_path: Path) -> None:
    put(tmp_path, 5, ".gz")
    put(tmp_path, 6)
    put(tmp_path, 6, ".gz")
    chunks = build_manifest(ObjectStore.open(str(tmp_path)), sky([1, 2], [5, 6]), 10).chunks
    assert [c.coadd.path.rpartition("/")[2] for c in chunks] == ["coadd-main-dark-5.fits.gz", "coadd-main-dark-6.fits"]


def test_names_change_with_the_file_and_with_nothing_else(tmp_path: Path) -> None:
    put(tmp_path, 5)
    put(tmp_path, 6)
    store, rows = ObjectStore.open(str(tmp_path)), sky([1, 2, 3], [5, 5, 6])
    before = [c.chunk_id for c in build_manifest(store, rows, 10).chunks]
    assert [c.chunk_id for c in build_manifest(store, sky([3, 2, 1], [6, 5, 5]), 10).chunks] == before
    put(tmp_path, 6, data=b"other content")
    after = [c.chunk_id for c in build_manifest(store, rows, 10).chunks]
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_tiles(tmp_path: Path) -> None:
    rows = rows_of(targetid=[3, 1, 2], z=[1.0] * 3, tile=[80693] * 3, night=[20210204] * 3, petal=[2, 1, 1])
    chunks = build_manifest(ObjectStore.open(str(tmp_path)), rows, 512).chunks
    assert [c.coadd.name for c in chunks] == ["tile/80693/1/20210204", "tile/80693/2/20210204"]
    assert chunks[0].coadd.path == "tiles/cumulative/80693/20210204/coadd-1-80693-thru20210204.fits"
    assert chunks[0].coadd.survey is None
    assert chunks[0].targets.column("targetid").to_pylist() == [1, 2]


def test_no_rows(tmp_path: Path) -> None:
    empty = pa.table([pa.nulls(0, f.type) for f in ROW_SCHEMA], schema=ROW_SCHEMA)
    assert build_manifest(ObjectStore.open(str(tmp_path)), empty, 512).chunks == ()


def test_a_survey_name_cannot_leave_the_root(tmp_path: Path) -> None:
    rows = rows_of(targetid=[1], z=[1.0], survey=["../../etc"], program=["dark"], healpix=[1])
    with pytest.raises(InputError, match="should be words"):
        build_manifest(ObjectStore.open(str(tmp_path)), rows, 512)


def test_a_quarter_million_rows_take_seconds(tmp_path: Path) -> None:
    """DR1's main survey has 1.6 million quasars in 27,425 pixels; this is a sixth of it."""
    rng = np.random.default_rng(1)
    n = 250_000
    start = time.perf_counter()
    rows = rows_of(
        targetid=np.arange(n), z=np.ones(n), healpix=rng.integers(0, 2000, n),
        survey=np.full(n, "main"), program=np.where(rng.random(n) < 0.5, "dark", "bright"),
    )  # fmt: skip
    manifest = build_manifest(ObjectStore.open(str(tmp_path)), rows, 512)
    assert manifest.n_targets == n
    assert manifest.n_coadds == len(manifest.chunks) == 4000
    assert time.perf_counter() - start < 10
