"""Waiting for the server and its tables, and the roles that migrating was not allowed to make."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg2
import pytest

from pipeline.config import load
from pipeline.doctor import check_schema
from pipeline.errors import StoreError
from pipeline.servers.embedded import EmbeddedPostgres
from pipeline.stores import launches, postgres, waiting
from pipeline.stores.postgres import Connection, transaction

pytestmark = pytest.mark.servers


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAUSE", 0.05)


def test_a_server_that_is_not_there_is_named(quick: None) -> None:
    said: list[str] = []
    with pytest.raises(StoreError, match=r"PostgreSQL at me@127.0.0.1:9/x: unreachable"):
        waiting.wait_for_server("postgresql://me@127.0.0.1:9/x", 0.3, said.append)
    assert len(said) == 1  # once, not at every attempt


def test_tables_that_come_later_are_waited_for(conn: Connection, postgres_url: str, quick: None) -> None:
    with transaction(conn) as cur:
        cur.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    said: list[str] = []
    with pytest.raises(StoreError, match="run `skysift db migrate`"):
        waiting.wait_for_schema(postgres_url, 0.2, said.append)
    threading.Timer(0.5, postgres.migrate, (conn,)).start()
    waiting.wait_for_schema(postgres_url, 60, said.append)
    assert all("waiting: " in line for line in said)


def test_launches_are_recorded_in_a_pod_only(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load(None, ["run=mine", "gate.z_max=4"])
    monkeypatch.delenv("RAY_CLUSTER_NAME", raising=False)
    launches.record(conn, config)
    monkeypatch.setenv("RAY_CLUSTER_NAME", "my-run-abcde")
    monkeypatch.setenv("SKYSIFT_NAMESPACE", "sky")
    monkeypatch.setattr("sys.argv", ["skysift", "score", "--run", "mine"])
    launches.record(conn, config)
    with transaction(conn) as cur:
        cur.execute("SELECT run_id, rayjob, namespace, command, config -> 'gate' -> 'z_max' FROM launches")
        assert cur.fetchall() == [("mine", "my-run", "sky", "score", 4.0)]


def test_the_doctors_sql_makes_the_roles(tmp_path_factory: pytest.TempPathFactory) -> None:
    """On a server of its own: roles are the whole server's, and others have made them on the shared one."""
    server = EmbeddedPostgres(Path(tmp_path_factory.mktemp("pg")))
    server.start()
    try:
        _roles(server.url)
    finally:
        server.stop()


def _roles(url: str) -> None:
    admin = psycopg2.connect(url)
    admin.autocommit = True
    with admin.cursor() as cur:
        cur.execute("CREATE ROLE app LOGIN; ALTER SCHEMA public OWNER TO app")
        cur.execute("GRANT ALL ON DATABASE skysift TO app")
        app_url = url.replace("postgres@", "app@")
        app = postgres.connect(app_url)
        assert any("may not create roles" in line for line in postgres.migrate(app))
        check = check_schema(lambda: app_url)
        assert check.ok
        assert check.found == "up to date, without skysift_pipeline and skysift_reader"
        statements = check.note.partition("\n")[2]
        cur.execute(statements)
    assert check_schema(lambda: app_url).note == ""
    reader = postgres.connect(url.replace("postgres@", "skysift_reader@"))
    with reader.cursor() as cur:
        cur.execute("SELECT count(*) FROM anomaly_catalog")
        assert cur.fetchone() == (0,)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cur.execute("SELECT * FROM spectra")
    worker = postgres.connect(url.replace("postgres@", "skysift_pipeline@"))
    with worker.cursor() as cur:
        cur.execute("SELECT count(*) FROM spectra")
        cur.execute("INSERT INTO launches VALUES ('r', 'j', 'n', 'c', 'run', '{}', '1')")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cur.execute("DELETE FROM audit")
    for connection in (admin, app, reader, worker):
        connection.close()
