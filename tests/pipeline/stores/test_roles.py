"""The read-only astronomer tries to get out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg2
import pytest

from pipeline.stores import catalog, postgres, registry
from pipeline.stores.postgres import Connection, transaction

pytestmark = pytest.mark.servers


@pytest.fixture
def reader(conn: Connection, postgres_url: str) -> Iterator[Connection]:
    registry.register_model(conn, "m1", run_id="r", uri="", data_hash="", config={}, metrics={})
    connection = postgres.connect(postgres_url.replace("postgres@", "skysift_reader@"))
    connection.autocommit = True
    yield connection
    connection.close()


@pytest.fixture
def worker(conn: Connection, postgres_url: str) -> Iterator[Connection]:
    connection = postgres.connect(postgres_url.replace("postgres@", "skysift_pipeline@"))
    yield connection
    connection.close()


def test_the_reader_reads_the_catalog(reader: Connection) -> None:
    with reader.cursor() as cur:
        cur.execute("SELECT * FROM anomaly_catalog ORDER BY rank LIMIT 10")
        assert cur.fetchall() == []
        cur.execute("SHOW statement_timeout")
        assert cur.fetchone() == ("1min",)
        cur.execute("SHOW default_transaction_read_only")
        assert cur.fetchone() == ("on",)


ATTEMPTS = (
    *(f"SELECT * FROM {table}" for table in ("spectra", "scores", "scores_m1", "ledger", "runs", "audit", "models")),
    *(f"SELECT * FROM {table}" for table in ("targets", "quarantine", "promotion", "schema_migrations", "chunks")),
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_largeobject",
    "DELETE FROM anomaly_catalog",
    "UPDATE promotion SET model_id = 'x'",
    "INSERT INTO audit (who, action, object) VALUES ('me', 'run', 'x')",
    "CREATE TABLE mine (i int)",
    "CREATE TEMPORARY TABLE mine (i int)",
    "SELECT 1 AS i INTO mine",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION plpgsql",
    "CREATE ROLE accomplice",
    "ALTER ROLE skysift_reader SUPERUSER",
    "SET ROLE postgres",
    "SET ROLE skysift_pipeline",
    "SET SESSION AUTHORIZATION postgres",
    "GRANT SELECT ON runs TO skysift_reader",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('.')",
    "COPY anomaly_catalog TO '/tmp/out.csv'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(1)",
    "SELECT pg_advisory_xact_lock_shared(1)",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    "SELECT refuse_change()",
    "BEGIN; LOCK TABLE anomaly_catalog IN ACCESS EXCLUSIVE MODE",
    "COMMENT ON VIEW anomaly_catalog IS 'mine'",
    "ALTER SYSTEM SET work_mem = '1GB'",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
)
REFUSALS = ("42501", "55000", "42710")  # no right, a view without a rule for writing, an extension that is there


def test_no_break_out_succeeds(reader: Connection) -> None:
    """Every attempt fails for want of the right, though the read-only default has been lifted."""
    found = {}
    with reader.cursor() as cur:
        cur.execute("SET default_transaction_read_only = off")
        cur.execute("SET statement_timeout = '5s'")
        for attempt in ATTEMPTS:
            try:
                cur.execute(attempt)
                found[attempt] = "succeeded"
            except psycopg2.Error as error:
                found[attempt] = error.pgcode
            cur.execute("ROLLBACK")
    assert {attempt: code for attempt, code in found.items() if code not in REFUSALS} == {}


def test_the_pipeline_role_can_do_the_work(worker: Connection) -> None:
    registry.register_model(worker, "m1", run_id="r", uri="", data_hash="", config={}, metrics={})
    with transaction(worker) as cur:
        catalog.drop_partition(cur, "m1")
        catalog.create_partition(cur, "m1")
        cur.execute("SELECT count(*) FROM anomaly_catalog")


def test_even_the_pipeline_role_cannot_rewrite_the_audit(worker: Connection, conn: Connection) -> None:
    with transaction(worker) as cur:
        cur.execute("INSERT INTO audit (who, action, object) VALUES ('me', 'run', 'x')")
    statements = ("UPDATE audit SET who = 'you'", "DELETE FROM audit", "TRUNCATE audit", "DROP TABLE audit",
                  "ALTER TABLE audit DISABLE TRIGGER ALL")  # fmt: skip
    for statement in statements:
        with pytest.raises(postgres.StoreError), transaction(worker) as cur:
            cur.execute(statement)
    for statement in statements[:3]:  # nor does its owner by mistake
        with pytest.raises(postgres.StoreError, match="audit is insert-only"), transaction(conn) as cur:
            cur.execute(statement)
    with transaction(conn) as cur:
        cur.execute("SELECT who FROM audit")
        assert cur.fetchall() == [("me",)]


@pytest.fixture
def bare_url(postgres_url: str) -> Iterator[str]:
    """A database that skysift has not seen, to be migrated by other roles than the server's owner."""
    server = postgres.connect(re.sub(r"/test_\d+", "/postgres", postgres_url))
    server.autocommit = True
    with server.cursor() as cur:
        cur.execute("CREATE DATABASE bare TEMPLATE template0")
        yield re.sub(r"/test_\d+", "/bare", postgres_url)
        cur.execute("DROP DATABASE bare WITH (FORCE)")
    server.close()


@pytest.fixture
def bare(bare_url: str) -> Iterator[Connection]:
    connection = postgres.connect(bare_url)
    yield connection
    connection.close()


def test_without_createrole_the_roles_are_skipped_with_a_notice(bare: Connection, bare_url: str) -> None:
    with transaction(bare) as cur:
        cur.execute("DROP ROLE IF EXISTS humble; CREATE ROLE humble LOGIN; ALTER SCHEMA public OWNER TO humble")
    humble = postgres.connect(bare_url.replace("postgres@", "humble@"))
    done = postgres.migrate(humble)
    assert any("may not create roles" in line for line in done)
    registry.register_model(humble, "m1", run_id="r", uri="", data_hash="", config={}, metrics={})
    postgres.check_schema(humble)
    humble.close()


def test_with_createrole_but_no_superuser(bare: Connection, bare_url: str) -> None:
    """As managed servers give it; here another database has made the roles already."""
    with transaction(bare) as cur:
        cur.execute("DROP ROLE IF EXISTS manager; CREATE ROLE manager LOGIN CREATEROLE")
        cur.execute("ALTER DATABASE bare OWNER TO manager")
    manager = postgres.connect(bare_url.replace("postgres@", "manager@"))
    done = postgres.migrate(manager)
    assert any("large objects and advisory locks stay open" in line for line in done)
    registry.register_model(manager, "m1", run_id="r", uri="", data_hash="", config={}, metrics={})
    with transaction(manager) as cur:
        cur.execute("SELECT count(*) FROM anomaly_catalog")
    manager.close()
