"""Scores, their calibration and the view that astronomers read."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from numpy.typing import NDArray

from pipeline.chunks import Chunk
from pipeline.errors import RunError, StoreError
from pipeline.stores import catalog, postgres, registry
from pipeline.stores.postgres import Connection, Cursor, scalar, transaction

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
        assert scalar(cur) == 5
        cur.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent IN ('scores_verdict'::regclass, 'scores_q'::regclass)"
        )
        assert scalar(cur) == 4  # of two models each: the parent's own
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
        _bare_spectra(cur, len(many))
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


def test_lists_come_back_as_they_were(conn: Connection, ids: NDArray[np.int64], calibration: Calibration) -> None:
    windows = np.arange(15 * N, dtype=np.float32).reshape(N, 15) / 7
    lists = pa.FixedSizeListArray.from_arrays(pa.array(windows.reshape(-1)), 15)
    with transaction(conn) as cur:
        catalog.upsert_scores(cur, "m1", pa.table({"spectrum_id": ids, "windows": lists}))
    rows = calibration(ids, np.linspace(0, 1, N))
    features = pa.array([[1.5, -2e-30]] + [None] * (N - 1), pa.list_(pa.float32()))
    catalog.write_calibration(conn, "m1", rows.set_column(rows.column_names.index("features"), "features", features))
    columns = ("spectrum_id", "windows", "features", "fiber", "night")
    found = catalog.read_scores_of(conn, "m1", ids[3::-1], columns)
    place = {key: at for at, key in enumerate(ids.tolist())}
    assert found["spectrum_id"].to_pylist() == sorted(ids[:4].tolist())
    for row in found.to_pylist():
        at = place[row["spectrum_id"]]
        assert np.array_equal(np.float32(row["windows"]), windows[at])
        assert row["fiber"] == [at, at + 500]
        assert row["night"] == [20210204, 20210205]
        assert row["features"] == (None if at else np.float32([1.5, -2e-30]).tolist())


def test_disagreement_is_written_beside_all_else(
    conn: Connection, ids: NDArray[np.int64], calibration: Calibration
) -> None:
    for model in ("m1", "m2"):
        catalog.write_calibration(conn, model, calibration(ids, np.linspace(0, 1, N)))
    before = catalog.read_scores(conn, "m1").drop_columns("disagreement")
    value = np.where(np.arange(N) == 3, -4.5, 0.0).astype(np.float32)
    rows = pa.table({"spectrum_id": ids, "disagreement": value})
    catalog.write_disagreement(conn, {"m2": rows, "m1": rows})
    after = catalog.read_scores(conn, "m1")
    assert after.drop_columns("disagreement").equals(before)
    flagged = after.filter(pa.compute.not_equal(after["disagreement"], 0.0))
    assert flagged["spectrum_id"].to_pylist() == [ids[3]]
    with pytest.raises(RunError, match=f"covers 3 of its {N} scores"):
        catalog.write_disagreement(conn, {"m1": rows.slice(0, 3)})
    with transaction(conn) as cur:  # scored again: what was compared is no longer so
        catalog.upsert_scores(cur, "m2", pa.table({"spectrum_id": ids[3:4], "density": np.float32([1])}))
    assert catalog.read_scores(conn, "m2", columns=["disagreement"])["disagreement"].null_count == 1


def test_candidates_are_found_by_their_verdict_and_by_q(
    conn: Connection, ids: NDArray[np.int64], calibration: Calibration
) -> None:
    many = np.arange(5_000)
    with transaction(conn) as cur:
        _bare_spectra(cur, len(many))
        catalog.upsert_scores(cur, "m1", pa.table({"spectrum_id": many}))
    rows = calibration(np.concatenate([ids, many]), np.linspace(0, 1, N + len(many)))
    verdict = pa.array([None] * len(many) + ["physical"] * N, pa.string())
    rows = rows.set_column(rows.column_names.index("verdict"), "verdict", verdict)
    catalog.write_calibration(conn, "m1", rows)
    registry.promote(conn, "m1")
    for condition, index in (("verdict = 'physical' ORDER BY rank", "verdict_rank"), ("q_value < 0.001", "q_value")):
        with transaction(conn) as cur:
            cur.execute(f"EXPLAIN SELECT targetid FROM anomaly_catalog WHERE {condition} LIMIT 10")
            plan = "\n".join(line for (line,) in cur.fetchall())
        assert f"scores_m1_new_{index}_idx" in plan, plan


def test_a_database_with_scores_can_be_brought_up_to_date(conn: Connection) -> None:
    """From the tables of before verdicts, with rows, grants and somebody's own view of the catalog."""
    steps = postgres.migrations()
    with transaction(conn) as cur:
        cur.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    postgres.migrate(conn, steps[:4])
    with transaction(conn) as cur:
        cur.execute(
            """INSERT INTO spectra (spectrum_id, targetid, coadd, z, chunk_id, shard, row_group, row)
               VALUES (1, 11, 'x', 2.5, 'x', 'x', 0, 0);
               INSERT INTO models VALUES ('m1', 'r', 'ready', '', 'c', '', '{}');
               INSERT INTO promotion (model_id) VALUES ('m1');
               CREATE TABLE scores_m1 PARTITION OF scores FOR VALUES IN ('m1');
               INSERT INTO scores (model_id, spectrum_id, density, rank, anomaly_score) VALUES ('m1', 1, 7, 1, 3.5);
               CREATE VIEW mine AS SELECT * FROM anomaly_catalog WHERE z > 2"""
        )
    postgres.migrate(conn)
    with transaction(conn) as cur:
        cur.execute("SELECT targetid, rank, density, q_value, verdict, why, windows, fiber FROM anomaly_catalog")
        assert cur.fetchall() == [(11, 1, 7.0, None, None, None, None, None)]
        cur.execute("SELECT targetid FROM mine")
        assert scalar(cur) == 11
        cur.execute("SELECT has_table_privilege('skysift_reader', 'anomaly_catalog', 'SELECT')")
        assert scalar(cur) is True
    values = {name: pa.array([None], kind) for name, kind in catalog.CALIBRATED.items()}
    values |= {"rank": pa.array([1], pa.int32()), "why": pa.array(['{"drove": "blend"}'])}
    catalog.write_calibration(conn, "m1", pa.table({"spectrum_id": pa.array([1], pa.int64()), **values}))
    with transaction(conn) as cur:
        cur.execute("SELECT why ->> 'drove' FROM anomaly_catalog")
        assert scalar(cur) == "blend"


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


def _bare_spectra(cur: Cursor, n: int) -> None:
    """Insert spectra 0 to n − 1 with nothing about them."""
    cur.execute(
        """INSERT INTO spectra (spectrum_id, targetid, coadd, z, chunk_id, shard, row_group, row)
           SELECT i, i, 'x', 1, 'x', 'x', 0, 0 FROM generate_series(0, %s) i""",
        (n - 1,),
    )
