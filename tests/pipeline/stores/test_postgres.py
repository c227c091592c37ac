"""Connections, transactions, migrations and COPY against a real PostgreSQL."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import psycopg2
import pyarrow as pa
import pytest

from pipeline.errors import StoreError
from pipeline.stores import postgres
from pipeline.stores.postgres import Connection, transaction

pytestmark = pytest.mark.servers


def _tables(conn: Connection) -> set[str]:
    with transaction(conn) as cur:
        cur.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
        return {name for (name,) in cur.fetchall()}


def test_migrating_again_changes_nothing(conn: Connection) -> None:
    assert postgres.migrate(conn) == []


def test_two_databases_of_one_server_can_both_be_migrated(conn: Connection, postgres_url: str) -> None:
    with transaction(conn) as cur:
        cur.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    done = postgres.migrate(conn)
    assert [name for name in done if name[:4].isdigit()] == [f"{v:04d}_{n}" for v, n, _ in postgres.migrations()]


def test_a_changed_migration_is_refused(conn: Connection) -> None:
    version, name, text = postgres.migrations()[0]
    with pytest.raises(StoreError, match=rf"{name} was applied with another text .* changes need a new migration"):
        postgres.migrate(conn, [(version, name, text + " "), *postgres.migrations()[1:]])


def test_a_database_newer_than_the_code_is_refused(conn: Connection) -> None:
    with pytest.raises(StoreError, match="which this skysift does not know; use the newer skysift"):
        postgres.migrate(conn, postgres.migrations()[:-1])


def test_a_failing_migration_leaves_nothing(conn: Connection) -> None:
    broken = (9999, "broken", "CREATE TABLE half (i int); SELECT 1 / 0;")
    with pytest.raises(StoreError, match="division by zero"):
        postgres.migrate(conn, [*postgres.migrations(), broken])
    assert "half" not in _tables(conn)
    assert postgres.migrate(conn) == []


def test_two_processes_migrating_at_once(postgres_url: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    first, second = postgres.connect(postgres_url), postgres.connect(postgres_url)
    steps = [*postgres.migrations(), (9998, "slow", "SELECT pg_sleep(0.3); CREATE TABLE slow (i int);")]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda conn: postgres.migrate(conn, steps), (first, second)))
    assert sorted(done) == [[], ["9998_slow"]]
    first.close()
    second.close()


def test_every_table_and_column_has_a_comment(conn: Connection) -> None:
    with transaction(conn) as cur:
        cur.execute(
            """SELECT c.relname, a.attname FROM pg_class c
               LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
               WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
                 AND (obj_description(c.oid) IS NULL OR col_description(c.oid, a.attnum) IS NULL)"""
        )
        assert cur.fetchall() == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://ada:hush@127.0.0.1:1/sky", r"ada@127\.0\.0\.1:1/sky: unreachable .*start the server"),
        ("postgresql://ada:hush@nowhere.invalid/sky", r"ada@nowhere\.invalid:5432/sky: unreachable"),
        ("postgresql://[", "cannot be parsed"),
    ],
)
def test_unreachable_server(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        postgres.connect(url, timeout=2)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_database_and_role(postgres_url: str) -> None:
    with pytest.raises(StoreError, match='database "nosuch" does not exist; create it'):
        postgres.connect(re.sub(r"/test_\d+", "/nosuch", postgres_url))
    with pytest.raises(StoreError, match='role "nobody" does not exist'):
        postgres.connect(postgres_url.replace("postgres@", "nobody@"))


def test_wrong_password(postgres_url: str, conn: Connection) -> None:
    """A role that pg_hba.conf asks for a password."""
    with transaction(conn) as cur:
        cur.execute("SHOW hba_file")
        hba = Path(postgres.scalar(cur))
        cur.execute("DROP ROLE IF EXISTS locked")
        cur.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    before = hba.read_text()
    try:
        hba.write_text(f"local all locked scram-sha-256\n{before}")
        _reload(conn)
        url = postgres_url.replace("postgres@", "locked:wrong@")
        with pytest.raises(StoreError, match="password is wrong or missing; set PGPASSWORD") as caught:
            postgres.connect(url)
        assert "wrong@" not in str(caught.value)
        with pytest.raises(StoreError, match="password is wrong or missing"):
            postgres.connect(postgres_url.replace("postgres@", "locked@"))
    finally:
        hba.write_text(before)
        _reload(conn)


def _reload(conn: Connection) -> None:
    with transaction(conn) as cur:
        cur.execute("SELECT pg_reload_conf()")
    time.sleep(0.3)


def test_permission_denied_names_the_way_out(postgres_url: str) -> None:
    reader = postgres.connect(postgres_url.replace("postgres@", "skysift_reader@"))
    with (
        pytest.raises(StoreError, match="permission denied for table runs; connect as a role with that right"),
        transaction(reader) as cur,
    ):
        cur.execute("SELECT * FROM runs")
    reader.close()


def test_read_only_server(conn: Connection) -> None:
    with transaction(conn) as cur:
        cur.execute("SET default_transaction_read_only = on")
    with pytest.raises(StoreError, match="it is read-only; use the primary"), transaction(conn) as cur:
        cur.execute("DELETE FROM runs")


def test_full_disk(conn: Connection) -> None:
    """The server's own error code for a full disk, raised by a function, as filling one is not a test."""
    with pytest.raises(StoreError, match="its disk is full; free space there"), transaction(conn) as cur:
        cur.execute("DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$")


def test_missing_tables(conn: Connection) -> None:
    with pytest.raises(StoreError, match="run `skysift db migrate`"), transaction(conn) as cur:
        cur.execute("SELECT * FROM nosuch")


def test_lost_connection(postgres_url: str, conn: Connection) -> None:
    victim = postgres.connect(postgres_url)
    with transaction(conn) as cur:
        cur.execute("SELECT pg_terminate_backend(%s)", (victim.info.backend_pid,))
    time.sleep(0.2)
    with pytest.raises(StoreError, match=r"being shut down|connection was lost"), transaction(victim) as cur:
        cur.execute("SELECT 1")
    with pytest.raises(StoreError, match="connection was lost"), transaction(victim) as cur:
        cur.execute("SELECT 1")


def test_a_failure_undoes_the_whole_transaction(conn: Connection) -> None:
    def act(then: str) -> None:
        with transaction(conn) as cur:
            cur.execute("INSERT INTO audit (who, action, object) VALUES ('me', 'run', 'x')")
            cur.execute(then)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        act("SELECT 1")
    with pytest.raises(StoreError, match="broken"):
        act("SELECT broken")
    with transaction(conn) as cur:
        cur.execute("SELECT count(*) FROM audit")
        assert postgres.scalar(cur) == 0


ODD = pa.table(
    {
        "id": pa.array([1, 2, 3], pa.int64()),
        "x": pa.array([0.1, float("nan"), None], pa.float32()),
        "y": pa.array([1e-300, float("inf"), -0.0], pa.float64()),
        "t": pa.array(['a "quoted",\nline \\N', "", None]).dictionary_encode(),
        "b": pa.array([True, False, None]),
    }
)


@pytest.fixture
def odd(conn: Connection) -> Connection:
    with transaction(conn) as cur:
        cur.execute("CREATE TABLE odd (id bigint PRIMARY KEY, x real, y float8, t text, b bool, at timestamptz)")
    return conn


def test_copied_rows_come_back_as_they_were(odd: Connection) -> None:
    with transaction(odd) as cur:
        postgres.copy_upsert(cur, "odd", ODD, ("id",))
        back = postgres.fetch_table(cur, "SELECT id, x, y, t, b FROM odd ORDER BY id")
    expected = ODD.set_column(3, "t", ODD["t"].cast(pa.string()))
    expected = expected.set_column(1, "x", pa.array([0.1, None, None], pa.float32()))  # NaN is no number: NULL
    assert back.to_pydict() == expected.to_pydict()
    assert back.schema.types == [pa.int64(), pa.float32(), pa.float64(), pa.string(), pa.bool_()]


def test_upserting_again_updates_and_adds_nothing(odd: Connection) -> None:
    changed = pa.table({"id": pa.array([2, 4], pa.int64()), "t": ["new", "four"]})
    with transaction(odd) as cur:
        postgres.copy_upsert(cur, "odd", ODD, ("id",))
        postgres.copy_upsert(cur, "odd", ODD, ("id",))
        postgres.copy_upsert(cur, "odd", changed, ("id",), touch="at")
        cur.execute("SELECT id, t, b, at IS NOT NULL FROM odd ORDER BY id")
        rows = cur.fetchall()
    assert rows == [
        (1, 'a "quoted",\nline \\N', True, False),
        (2, "new", False, True),
        (3, None, None, False),
        (4, "four", None, False),
    ]


def test_empty_tables_pass(odd: Connection) -> None:
    with transaction(odd) as cur:
        postgres.copy_upsert(cur, "odd", ODD.slice(0, 0), ("id",))
        assert postgres.fetch_table(cur, "SELECT id, t FROM odd").num_rows == 0


def test_query_arguments_are_never_text(odd: Connection) -> None:
    with transaction(odd) as cur:
        nasty = "'; DROP TABLE odd; --"
        assert postgres.fetch_table(cur, "SELECT %s::text AS t", (nasty,))["t"].to_pylist() == [nasty]


def test_the_rate_of_loading(odd: Connection) -> None:
    """Far below what benchmarks/ shows, and far above what a row at a time gives: it guards the COPY path."""
    n = 50_000
    rows = pa.table({"id": np.arange(n), "x": np.ones(n, np.float32), "y": np.ones(n), "t": pa.repeat("abc", n)})
    start = time.monotonic()
    with transaction(odd) as cur:
        postgres.copy_upsert(cur, "odd", rows, ("id",))
    assert n / (time.monotonic() - start) > 40_000


def test_duplicate_keys_in_one_table_are_an_error_not_a_choice(odd: Connection) -> None:
    rows = pa.table({"id": pa.array([1, 1], pa.int64()), "t": ["a", "b"]})
    with pytest.raises(StoreError, match="second time"), transaction(odd) as cur:
        postgres.copy_upsert(cur, "odd", rows, ("id",))


def test_the_process_is_named_to_the_server(conn: Connection) -> None:
    with transaction(conn) as cur:
        cur.execute("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        assert str(postgres.scalar(cur)).startswith("skysift pid ")
    assert isinstance(conn, psycopg2.extensions.connection)


def test_empty_pieces_of_repeated_text_leave_no_stray_bytes() -> None:
    import pyarrow as pa

    from pipeline.stores.copying import csv_buffer

    pieces = [pa.table({"name": pa.repeat("healpix/main/dark/9144", n)}) for n in (0, 3, 0, 2, 0)]
    pa.array(["x" * 50] * 1000)  # memory that a stray read would find
    assert bytes(csv_buffer(pa.concat_tables(pieces)).read()) == b'"healpix/main/dark/9144"\n' * 5
