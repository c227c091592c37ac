"""The table of completeness: stored once, replaced by the same classes only, read by astronomers."""

from __future__ import annotations

import numpy as np
import psycopg2
import pyarrow as pa
import pytest

from pipeline.injection.completeness import Objects, tabulate
from pipeline.stores import postgres, registry, runs
from pipeline.stores.completeness import read_completeness, replace_completeness
from pipeline.stores.postgres import Connection, transaction

pytestmark = pytest.mark.servers


@pytest.fixture
def ready(conn: Connection) -> Connection:
    """A run and a promoted model."""
    with runs.run_lock(conn, "r"):
        runs.register_run(conn, "r", {}, "hash")
    registry.register_model(conn, "m1", run_id="r", uri="", data_hash="", config={}, metrics={})
    with transaction(conn) as cur:
        cur.execute("INSERT INTO promotion (model_id) VALUES ('m1')")
    return conn


def measured(*classes: str, recovered: bool = True, kind: str = "physical") -> pa.Table:
    n = 40 * len(classes)
    label = np.repeat(classes, 40)
    return tabulate(Objects(label, np.full(n, kind), np.geomspace(5, 50, n), np.ones(n), np.ones(n),
                            {"p<0.01": np.full(n, recovered)}))  # fmt: skip


def test_what_is_stored_is_read_back(ready: Connection) -> None:
    table = measured("reddened", "felobal")
    replace_completeness(ready, "r", "m1", table, seed=3)
    found = read_completeness(ready, "r", "m1")
    assert found.num_rows == table.num_rows
    assert set(found["seed"].to_pylist()) == {3}
    key = ("class", "threshold", "sigma_low", "snr_low", "z_low")
    rows = {tuple(row[name] for name in key): row for row in found.to_pylist()}
    for row in table.to_pylist():
        stored = rows[tuple(row[name] for name in key)]
        assert {name: stored[name] for name in row} == row


def test_measuring_again_replaces_the_same_classes_only(ready: Connection) -> None:
    replace_completeness(ready, "r", "m1", measured("reddened", "felobal"), seed=1)
    replace_completeness(ready, "r", "m1", measured("bal", kind="catalog"))
    replace_completeness(ready, "r", "m1", measured("felobal", recovered=False), seed=2)
    rows = read_completeness(ready, "r", "m1").to_pylist()
    whole = {row["class"]: row["completeness"] for row in rows
             if row["sigma_low"] is None and row["snr_low"] is None and row["z_low"] is None}  # fmt: skip
    assert whole["reddened"] == 1.0
    assert whole["felobal"] == 0.0
    assert whole["bal"] == 1.0
    assert {row["seed"] for row in rows if row["kind"] == "catalog"} == {None}


def test_a_cell_cannot_be_there_twice(ready: Connection) -> None:
    replace_completeness(ready, "r", "m1", measured("reddened"), seed=1)
    with pytest.raises(psycopg2.errors.UniqueViolation), ready.cursor() as cur:
        cur.execute("INSERT INTO completeness SELECT * FROM completeness")
    ready.rollback()


def test_the_reader_quotes_the_promoted_models_selection_function(ready: Connection, postgres_url: str) -> None:
    replace_completeness(ready, "r", "m1", measured("reddened"), seed=1)
    registry.register_model(ready, "m2", run_id="r", uri="", data_hash="", config={}, metrics={})
    replace_completeness(ready, "r", "m2", measured("reddened", recovered=False), seed=1)
    reader = postgres.connect(postgres_url.replace("postgres@", "skysift_reader@"))
    try:
        with reader.cursor() as cur:
            cur.execute("SELECT count(*) FROM completeness")
            assert cur.fetchone() != (0,)
            cur.execute(
                """SELECT percent, error_minus, error_plus, n FROM selection_function WHERE class = 'reddened'
                   AND threshold = 'p<0.01' AND sigma_low IS NULL AND snr_low IS NULL AND z_low IS NULL"""
            )
            ((percent, minus, plus, n),) = cur.fetchall()
            assert (float(percent), float(plus), n) == (100.0, 0.0, 40)
            assert float(minus) > 0
            with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
                cur.execute("DELETE FROM completeness")
    finally:
        reader.close()


def test_the_pipelines_own_role_may_write(ready: Connection, postgres_url: str) -> None:
    worker = postgres.connect(postgres_url.replace("postgres@", "skysift_pipeline@"))
    try:
        replace_completeness(worker, "r", "m1", measured("reddened"), seed=1)
    finally:
        worker.close()
