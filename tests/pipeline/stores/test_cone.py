"""Cones on the sky and the views that astronomers read, on a real PostgreSQL."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.access.catalog import TABLES
from pipeline.access.columns import COLUMNS, vo_unit
from pipeline.stores import catalog, postgres, registry
from pipeline.stores.postgres import Connection, fetch_table, transaction

pytestmark = pytest.mark.servers

N = 4000


@pytest.fixture
def sky(conn: Connection, calibration: object) -> tuple[np.ndarray, np.ndarray]:
    """N spectra all over the sky, crowded at both poles and at right ascension 0; model m1 promoted."""
    rng = np.random.default_rng(3)
    ra = rng.uniform(0, 360, N)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, N)))
    ra[:1000] = np.mod(rng.normal(0, 0.3, 1000), 360)
    dec[:1000] = rng.normal(20, 0.3, 1000)
    dec[1000:1500], dec[1500:2000] = 90 - rng.exponential(0.5, 500), -90 + rng.exponential(0.5, 500)
    ra[0], dec[0], ra[1], dec[1], dec[2], dec[3] = 0.0, 20.0, 359.9999999, 20.0, 90.0, -90.0
    with transaction(conn) as cur:
        ids = pa.array(np.arange(N))
        fixed = {"coadd": "x", "chunk_id": "x", "shard": "x"}
        zeros = pa.array(np.zeros(N, np.int32))
        rows = {"spectrum_id": ids, "targetid": ids, "z": np.full(N, 2.0), "ra": ra, "dec": dec, "row": zeros}
        rows |= {"row_group": zeros} | {name: pa.repeat(value, N) for name, value in fixed.items()}
        postgres.copy_rows(cur, "spectra", pa.table(rows))
    registry.register_model(conn, "m1", run_id="r", uri="", data_hash="", config={}, metrics={})
    with transaction(conn) as cur:
        catalog.upsert_scores(cur, "m1", pa.table({"spectrum_id": ids}))
    catalog.write_calibration(conn, "m1", calibration(np.arange(N), rng.permutation(N) / N))  # type: ignore[operator]
    registry.promote(conn, "m1")
    return ra, dec


def _apart(ra: np.ndarray, dec: np.ndarray, at: tuple[float, float]) -> np.ndarray:
    """Angles in deg by another formula than the database's: between unit vectors, exact at all angles."""

    def vector(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        ra, dec = np.radians(ra), np.radians(dec)
        return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], -1)

    a, b = vector(ra, dec), vector(*map(np.asarray, at))
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), a @ b))


PLACES = [(0.0, 20.0), (360.0, 20.0), (359.9, 20.1), (0.2, 19.9), (10.0, 90.0), (200.0, 89.9), (77.0, -90.0),
          (300.0, -89.6), (180.0, 0.0), (123.4, 89.0), (45.0, -30.0)]  # fmt: skip


@pytest.mark.parametrize("radius", [0.0, 1 / 60, 0.3, 1.0, 25.0, 89.0, 120.0, 180.0])
def test_cones_hold_exactly_what_is_inside(conn: Connection, sky: tuple[np.ndarray, np.ndarray], radius: float) -> None:
    ra, dec = sky
    for place in PLACES:
        with transaction(conn) as cur:
            query = "SELECT spectrum_id, separation FROM cone_search(%s, %s, %s) ORDER BY spectrum_id"
            found = fetch_table(cur, query, (*place, radius))
        apart = _apart(ra, dec, place)
        clear = np.abs(apart - radius) > 1e-9  # on the edge itself rounding decides
        expected = np.flatnonzero((apart <= radius) & clear)
        ids = found["spectrum_id"].to_numpy()
        assert len(ids) == len(set(ids.tolist())), place
        assert set(expected.tolist()) <= set(ids.tolist()), (place, radius)
        assert not set(ids.tolist()) & set(np.flatnonzero((apart > radius) & clear).tolist()), (place, radius)
        np.testing.assert_allclose(found["separation"].to_numpy(), apart[ids], atol=2e-6)
        np.testing.assert_allclose(
            found["separation"].to_numpy()[apart[ids] < 90], apart[ids][apart[ids] < 90], atol=1e-9
        )


@pytest.mark.usefixtures("sky")
@pytest.mark.parametrize("wrong", [(-1, 0, 1), (361, 0, 1), (0, 91, 1), (0, -90.1, 1), (0, 0, -1), (0, 0, 181),
                                   ("NaN", 0, 1), (0, 0, "NaN"), (None, 0, 1)])  # fmt: skip
def test_impossible_cones_are_errors(conn: Connection, wrong: tuple[object, ...]) -> None:
    with pytest.raises(postgres.StoreError, match=r"expected|integer out of range"), transaction(conn) as cur:
        cur.execute("SELECT count(*) FROM cone_search(%s::float8, %s::float8, %s::float8)", wrong)


@pytest.mark.usefixtures("sky")
def test_cones_use_the_index(conn: Connection) -> None:
    looks = """SELECT (SELECT sum(seq_scan) FROM pg_stat_xact_user_tables WHERE relname ~ '^(spectra|scores)')::integer,
                      pg_stat_get_xact_numscans('spectra_zone_ra'::regclass)::integer"""
    with transaction(conn) as cur:
        cur.execute(looks)
        whole, zones = cur.fetchone() or (0, 0)
        cur.execute("SELECT count(*) FROM cone_search(10, 20, 0.01) WHERE z > 1")
        cur.execute(looks)
        after = cur.fetchone() or (0, 0)
    assert after[0] == whole
    assert after[1] > zones


@pytest.mark.usefixtures("sky")
def test_pages_by_rank_neither_overlap_nor_leave_gaps(conn: Connection) -> None:
    seen: list[int] = []
    while True:
        with transaction(conn) as cur:
            query = "SELECT rank FROM anomaly_catalog WHERE rank > %s ORDER BY rank LIMIT 700"
            page = fetch_table(cur, query, (seen[-1] if seen else 0,))["rank"].to_pylist()
        if not page:
            break
        seen += page
    assert seen == list(range(1, N + 1))


def test_every_published_column_has_a_comment(conn: Connection) -> None:
    with transaction(conn) as cur:
        query = """
            SELECT c.relname || '.' || a.attname AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE c.relname = ANY(%s) AND a.attnum > 0 AND coalesce(col_description(c.oid, a.attnum), '') = ''"""
        assert fetch_table(cur, query, (list(TABLES),))["name"].to_pylist() == []
        query = """SELECT c.relname::text AS name FROM pg_class c
                   WHERE c.relname = ANY(%s) AND obj_description(c.oid, 'pg_class') IS NOT NULL ORDER BY 1"""
        assert fetch_table(cur, query, (list(TABLES),))["name"].to_pylist() == sorted(TABLES)


def test_tap_schema_has_the_units_of_the_python_side(conn: Connection) -> None:
    with transaction(conn) as cur:
        rows = fetch_table(cur, "SELECT name, unit, ucd FROM column_units").to_pylist()
        assert {row["name"]: (row["unit"], row["ucd"]) for row in rows} == {
            name: (vo_unit(name), known.ucd) for name, known in COLUMNS.items()
        }
        listed = fetch_table(cur, "SELECT table_name FROM tap_schema.tables ORDER BY table_index, table_name")
        own = [f"tap_schema.{name}" for name in ("columns", "key_columns", "keys", "schemas", "tables")]
        assert listed["table_name"].to_pylist() == [*TABLES, *own]
        found = fetch_table(cur, "SELECT * FROM tap_schema.columns WHERE table_name = 'anomalies'").to_pylist()
    assert {"rank", "targetid", "ra"} <= {row["column_name"] for row in found}
    ra = next(row for row in found if row["column_name"] == "ra")
    assert (ra["datatype"], ra["unit"], ra["indexed"]) == ("double", "deg", 1)
