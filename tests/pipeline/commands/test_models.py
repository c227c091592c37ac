"""``skysift models`` and ``skysift db`` against real stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from click.testing import CliRunner

from pipeline.cli import skysift
from pipeline.errors import ModelError, StoreError
from pipeline.stores import catalog, postgres, registry, runs
from pipeline.stores.postgres import Connection, transaction
from pipeline.stores.vectors import ALIAS, VectorStore

pytestmark = pytest.mark.servers

Run = Callable[..., str]


@pytest.fixture
def store(conn: Connection, milvus_lite_uri: str) -> Iterator[VectorStore]:
    """Two calibrated models with a vector each, the second promoted last."""
    opened = VectorStore.open(milvus_lite_uri)
    with transaction(conn) as cur:
        cur.execute(
            """INSERT INTO spectra (spectrum_id, targetid, coadd, z, chunk_id, shard, row_group, row)
               VALUES (1, 1, 'x', 1, 'x', 'x', 0, 0)"""
        )
    for model in ("aa11", "bb22"):
        registry.register_model(conn, model, run_id="r", uri="x", data_hash="d", config={"latent": 4}, metrics={})
        with transaction(conn) as cur:
            catalog.upsert_scores(cur, model, pa.table({"spectrum_id": np.array([1])}))
        values = {"rank": pa.array([1], pa.int32()), "extrapolated": pa.array([False])}
        columns = {
            name: values[name] if name in values else pa.array([0.5 if pa.types.is_floating(kind) else None], kind)
            for name, kind in catalog.CALIBRATED.items()
        }
        catalog.write_calibration(conn, model, pa.table({"spectrum_id": pa.array([1], pa.int64()), **columns}))
        opened.ensure_collection(model, 4)
        vector = pa.FixedSizeListArray.from_arrays(np.ones(4, np.float32), 4)
        opened.upsert(model, pa.table({"spectrum_id": np.array([1]), "embedding": vector}))
        registry.promote(conn, model)
        opened.set_alias(model)
    yield opened
    for model in ("aa11", "bb22"):
        opened.drop(model)
    opened.close()


def _alias(store: VectorStore) -> str:
    return str(store._client.describe_collection(ALIAS)["collection_name"])


def test_an_empty_list_says_what_to_do(run: Run) -> None:
    assert "no models yet; `skysift run` trains one" in run("models", "list")
    assert json.loads(run("models", "list", "--json")) == []


@pytest.mark.usefixtures("store")
def test_list(run: Run) -> None:
    lines = run("models", "list").splitlines()
    assert lines[0].split() == ["model", "run", "registered", "scored"]
    assert lines[1].split()[:3] == ["bb22", "promoted", "r"]
    assert lines[2].split()[:2] == ["aa11", "r"]
    found = json.loads(run("models", "list", "--json"))
    assert [(model["model_id"], model["promoted"], model["scored"]) for model in found] == [
        ("bb22", True, 1),
        ("aa11", False, 1),
    ]


@pytest.mark.usefixtures("store")
def test_show(run: Run) -> None:
    output = run("models", "show", "promoted")
    for text in ("bb22 (promoted)", "1 spectra", '{"latent": 4}', "skysift_bb22", "promote by postgres"):
        assert text in output
    assert json.loads(run("models", "show", "aa", "--json"))["history"][0]["action"] == "promote"
    with pytest.raises(ModelError, match="'zz' names no model"):
        run("models", "show", "zz")


def test_promote_and_rollback_move_scores_and_vectors_together(run: Run, store: VectorStore, conn: Connection) -> None:
    assert "model aa11 is promoted" in run("models", "promote", "aa11")
    assert _alias(store) == "skysift_aa11"
    assert catalog.read_anomalies(conn, 1)["model_id"].to_pylist() == ["aa11"]
    assert "model bb22 is promoted again" in run("models", "rollback")
    assert _alias(store) == "skysift_bb22"
    assert catalog.read_anomalies(conn, 1)["model_id"].to_pylist() == ["bb22"]


@pytest.mark.usefixtures("store")
def test_each_promoted_run_has_its_catalogs_files(run: Run, conn: Connection, tmp_path: Path) -> None:
    for name, model in (("first", "aa11"), ("second", "bb22")):
        runs.register_run(conn, name, {"run": name}, "hash")
        runs.enter_stage(conn, name, "score", model)
    output = run("models", "promote", "aa11")
    reports = tmp_path / "workspace" / "reports"
    assert f"wrote {reports / 'first' / 'anomalies.fits'}" in output
    assert not (reports / "second").exists()
    assert fits.getheader(reports / "first" / "anomalies.fits", "CATALOG")["MODEL"] == "aa11"
    run("models", "rollback")
    assert pq.read_schema(reports / "second" / "anomalies.parquet").metadata[b"model"] == b"bb22"
    (reports / "first" / "anomalies.fits").unlink()
    (reports / "first" / "anomalies.fits").mkdir()
    with pytest.raises(StoreError, match=r"anomalies\.fits"):
        run("models", "promote", "aa11")


def test_delete(run: Run, store: VectorStore, conn: Connection) -> None:
    with pytest.raises(ModelError, match="model bb22 is promoted"):
        run("models", "delete", "bb22", "--yes")
    assert store.count("bb22") == 1
    with pytest.raises(click.Abort):
        run("models", "delete", "aa11", answer="n\n")
    assert store.count("aa11") == 1
    assert "model aa11 is deleted" in run("models", "delete", "aa11", "--yes")
    with pytest.raises(StoreError, match="collection is missing"):
        store.count("aa11")
    assert registry.scored(conn) == {"bb22": 1}
    assert "aa11   deleted" in run("models", "list", "--all")


def test_a_mistyped_model_is_no_failure_of_the_run(run: Run, conn: Connection, tmp_path: Path) -> None:
    runs.register_run(conn, "default", {}, "hash")
    runs.end_run(conn, "default")
    for verb in ("run", "score", "calibrate"):
        with pytest.raises(ModelError, match="'zz' names no model"):
            run(verb, str(tmp_path), "-m", "zz")
    assert runs.require_run(conn, "default").state == "finished"


def test_migrating_by_hand(run: Run) -> None:
    assert "nothing to do: the tables are up to date" in run("db", "migrate")


def test_servers_of_ones_own_are_left_alone(run: Run, postgres_url: str, tmp_path: Path) -> None:
    assert run("db", "url").strip() == postgres_url
    assert "nothing to start" in run("db", "start")
    assert run("db", "stop") == ""
    assert not (tmp_path / "workspace").exists()


def test_the_life_of_embedded_servers(server_folder: Path) -> None:
    def call(*arguments: str) -> Sequence[str]:
        result = CliRunner().invoke(skysift, [*arguments, "-w", str(server_folder / "by hand")], standalone_mode=False)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.output.splitlines()

    assert call("db", "migrate")[0] == "0001_runs"
    assert [line.split(":")[0] for line in call("db", "start")] == ["postgres", "milvus"]
    conn = postgres.connect(call("db", "url")[0])
    postgres.check_schema(conn)
    conn.close()
    assert call("db", "stop") == ["postgres: stopped", "milvus: stopped"]
