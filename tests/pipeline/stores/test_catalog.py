"""Scores, their calibration and the view that astronomers read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipeline.chunks import Chunk
from pipeline.errors import RunError, StoreError
from pipeline.stores import catalog, postgres, registry
from pipeline.stores.postgres import Connection, scalar, transaction

pytestmark = pytest.mark.servers

N = 40
Calibration = Callable[..., pa.Table]


@pytest.fixture
def ids(conn: Connection, make_chunk: Callable[..., Chunk], spectra_of: Callable[..., pa.Table]) -> NDArray[np.int64]:
    """N spectra, scored by models m1 and m2."""
    chunk = make_chunk(9144, range(N))
    rows = spectra_of(chunk)
    with transaction(conn) as cur:
        catalog.upsert_spectra(cur, rows)
    ids = rows["spectrum_id"].to_numpy()
    for model in ("m1", "m2"):
        registry.register_model(conn, model, run_id="r", uri="", data_hash="", config={}, metrics={})
        with transaction(conn) as cur:
            catalog.upsert_scores(cur, model, pa.table({"spectrum_id": ids, "density": np.arange(N, dtype=np.float32)}))
    return ids


def _ranking(conn: Connection) -> list[int]:
    with transaction(conn) as cur:
        cur.execute("SELECT spectrum_id FROM anomaly_catalog ORDER BY rank")
        return [one for (one,) in cur.fetchall()]


def test_the_catalog_has_what_is_promised(conn: Connection) -> None:
    with transaction(conn) as cur:
        cur.execute("SELECT * FROM anomaly_catalog")
        names = [column.name for column in cur.description or ()]
    assert names[:13] == [
        "spectrum_id", "targetid", "coadd", "survey", "program", "healpix", "ra", "dec", "z", "snr",
        "anomaly_score", "p_value", "rank",
    ]  # fmt: skip


def test_the_catalog_shows_the_promoted_model_alone(
    conn: Connection, ids: NDArray[np.int64], calibration: Calibration
) -> None:
    score = np.linspace(0, 1, N)
    catalog.write_calibration(conn, "m1", calibration(ids, score))
    catalog.write_calibration(conn, "m2", calibration(ids, score[::-1]))
    assert _ranking(conn) == []
    registry.promote(conn, "m1")
    assert _ranking(conn) == ids[::-1].tolist()
    registry.promote(conn, "m2")
    assert _ranking(conn) == ids.tolist()
    top = catalog.read_anomalies(conn, 3)
    assert top["rank"].to_pylist() == [1, 2, 3]
    assert top["spectrum_id"].to_pylist() == ids[:3].tolist()
    assert set(top["model_id"].to_pylist()) == {"m2"}
    assert {"shard", "row_group", "row"} <= set(top.column_names)


def test_calibrating_keeps_the_raw_scores_and_repeats(
    conn: Connection, ids: NDArray[np.int64], calibration: Calibration
) -> None:
    for score in (np.linspace(0, 1, N), np.linspace(1, 0, N)):
        catalog.write_calibration(conn, "m1", calibration(ids, score))
        rows = catalog.read_scores(conn, "m1", columns=["spectrum_id", "density", "anomaly_score", "z", "extrapolated"])
        order = np.argsort(ids)
        assert rows["spectrum_id"].to_pylist() == ids[order].tolist()
        np.testing.assert_array_equal(rows["density"].to_numpy(), order.astype(np.float32))
        np.testing.assert_allclose(rows["anomaly_score"].to_numpy(), score[order])
        assert sum(rows["extrapolated"].to_pylist()) == (score > 0.9).sum()
    assert catalog.read_scores(conn, "m2")["rank"].null_count == N


def test_the_new_partition_is_like_any_other(
    conn: Connection, ids: NDArray[np.int64], calibration: Calibration
) -> None:
    """After the swap: upserts work by key, indexes are the parent's, no second table is left."""
    catalog.write_calibration(conn, "m1", calibration(ids, np.linspace(0, 1, N)))
    with transaction(conn) as cur:
        catalog.upsert_scores(cur, "m1", pa.table({"spectrum_id": ids[:1], "density": np.float32([7])}))
        cur.execute("SELECT relname FROM pg_class WHERE relname ~ '^scores_m1' AND relkind = 'r'")
        assert cur.fetchall() == [("scores_m1",)]
        cur.execute("SELECT count(*) FROM pg_index WHERE indrelid = 'scores_m1'::regclass")
        assert scalar(cur) == 3
        cur.execute("SELECT count(*) FROM pg_constraint WHERE conrelid = 'scores_m1'::regclass AND contype = 'c'")
        assert scalar(cur) == 0
    rows = catalog.read_scores(conn, "m1", columns=["spectrum_id", "density", "rank"]).to_pylist()
    (row,) = [row for row in rows if row["rank"] is None]  # scored again: its rank is no longer known
    assert (row["spectrum_id"], row["density"]) == (ids[0], 7.0)
    with transaction(conn) as cur:
        catalog.drop_partition(cur, "m1")


@pytest.mark.parametrize("rows", [slice(1, None), slice(0, 0)])
def test_a_calibration_must_cover_all(
    conn: Connection, ids: NDArray[np.int64], calibration: Calibration, rows: slice
) -> None:
    full = calibration(ids, np.linspace(0, 1, N))
    catalog.write_calibration(conn, "m1", full)
    with pytest.raises(RunError, match=f"covers {len(ids[rows])} of its {N} scores"):
        catalog.write_calibration(conn, "m1", calibration(ids[rows], np.zeros(len(ids[rows]))))
    assert catalog.read_scores(conn, "m1", columns=["rank"])["rank"].null_count == 0


def test_readers_see_old_ranks_or_new_ones(
    conn: Connection, ids: NDArray[np.int64], calibration: Calibration, postgres_url: str
) -> None:
    score = np.linspace(0, 1, N)
    catalog.write_calibration(conn, "m1", calibration(ids, score))
    registry.promote(conn, "m1")
    reader = postgres.connect(postgres_url)
    valid = {tuple(ids.tolist()), tuple(ids[::-1].tolist())}
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(
            lambda: [catalog.write_calibration(conn, "m1", calibration(ids, s)) for s in (score[::-1], score) * 4]
        )
        seen = set()
        while not writing.done():
            seen.add(tuple(_ranking(reader)))
        writing.result()
    assert seen <= valid
    reader.close()


def test_the_top_of_the_catalog_is_read_from_an_index(
    conn: Connection, ids: NDArray[np.int64], calibration: Calibration
) -> None:
    """Of many models' partitions, only the promoted one's index is touched, and only its first entries."""
    many = np.arange(20_000)
    with transaction(conn) as cur:
        cur.execute(
            """INSERT INTO spectra (spectrum_id, targetid, coadd, z, chunk_id, shard, row_group, row)
               SELECT i, i, 'x', 1, 'x', 'x', 0, 0 FROM generate_series(0, 19999) i"""
        )
    for model in ("m1", "m2"):
        with transaction(conn) as cur:
            catalog.upsert_scores(cur, model, pa.table({"spectrum_id": many}))
        everything = np.concatenate([ids, many])
        catalog.write_calibration(conn, model, calibration(everything, np.linspace(0, 1, len(everything))))
    registry.promote(conn, "m2")
    with transaction(conn) as cur:
        cur.execute("ANALYZE")
        cur.execute("EXPLAIN (ANALYZE, COSTS OFF) SELECT * FROM anomaly_catalog ORDER BY rank LIMIT 10")
        plan = "\n".join(line for (line,) in cur.fetchall())
    assert "Index Scan using scores_m2_new_rank_idx on scores_m2" in plan
    assert "Sort" not in plan
    (other,) = [line for line in plan.splitlines() if " on scores_m1 " in line]
    assert "never executed" in other


def test_a_hash_collision_is_caught(
    conn: Connection, make_chunk: Callable[..., Chunk], spectra_of: Callable[..., pa.Table]
) -> None:
    """The same id for another key, and the same key under another id."""
    rows = spectra_of(make_chunk(1, [1]))
    with transaction(conn) as cur:
        catalog.upsert_spectra(cur, rows)
    other_id = rows.set_column(rows.column_names.index("spectrum_id"), "spectrum_id", pa.array([5], pa.int64()))
    with pytest.raises(StoreError, match="two different rows claim one key"), transaction(conn) as cur:
        catalog.upsert_spectra(cur, other_id)
    other_key = rows.set_column(rows.column_names.index("targetid"), "targetid", pa.array([2], pa.int64()))
    with pytest.raises(StoreError, match="collision of hashes"), transaction(conn) as cur:
        catalog.upsert_spectra(cur, other_key)
