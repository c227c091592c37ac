"""Other people's SQL: answered, limited, refused; each refusal in one clear line."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import psycopg2
import pytest

from pipeline.errors import QueryError, StoreError
from pipeline.stores import reader as module
from pipeline.stores import registry
from pipeline.stores.postgres import Connection, transaction
from pipeline.stores.reader import Reader, reader_url

pytestmark = pytest.mark.servers


@pytest.fixture
def reader(conn: Connection, postgres_url: str) -> Iterator[Reader]:
    registry.register_model(conn, "m1", run_id="r", uri="", data_hash="", config={}, metrics={})
    opened = Reader(postgres_url, seconds=5)
    yield opened
    opened.close()


def test_rows_and_types(reader: Reader) -> None:
    found = reader.answer("SELECT 1 AS a, 2.5::float8 AS b, 'x;y' AS c, 3::numeric AS d, NULL::int AS e -- done\n;")
    assert found.rows.to_pylist() == [{"a": 1, "b": 2.5, "c": "x;y", "d": 3.0, "e": None}]
    assert not found.truncated
    assert reader.answer("VALUES (1), (2)").rows.num_rows == 2
    assert reader.answer("SELECT '100%' AS a").rows["a"].to_pylist() == ["100%"]
    assert reader.answer("SELECT * FROM anomaly_catalog").rows.num_rows == 0


def test_more_rows_than_asked_for_are_said_to_be_there(reader: Reader) -> None:
    found = reader.answer("SELECT i FROM generate_series(1, 11) i ORDER BY i DESC", limit=10)
    assert found.rows["i"].to_pylist() == list(range(11, 1, -1))
    assert found.truncated
    assert not reader.answer("SELECT i FROM generate_series(1, 10) i", limit=10).truncated


REFUSED = {
    "": "empty",
    "  ; ": "empty",
    "selec 1": "syntax error",
    "SELECT 1; SELECT 2": "multi-query",
    "SELECT 1; DROP TABLE spectra; --": "multi-query",
    "SELECT 1) TO STDOUT; DROP TABLE spectra; COPY (SELECT 1": "syntax error",
    "SELECT 1) AS q; ROLLBACK; SELECT (1": "syntax error",
    "SELECT * FROM nowhere": r"does not exist \(There are anomaly_catalog, anomalies, ",
    "SELECT nothing FROM anomaly_catalog": r"does not exist \(SELECT \* … LIMIT 1 shows",
    "SELECT 1/0": "division by zero",
    "SELECT 1 AS a, 2 AS a": "two columns of the answer are called a",
    "EXPLAIN SELECT 1": "SELECT",
    "COPY anomaly_catalog TO STDOUT": "cursor",
    "SET statement_timeout = 0": "cursor",
    "BEGIN": "cursor|EXECUTE",
    "COMMIT": "cursor|EXECUTE",
    "SELECT FROM anomaly_catalog": "without any column",
    "SELECT * FROM cone_search(10, 100, 1)": "dec is 100, expected -90 to 90",
    "SELECT 'a\0b'": "NUL",
}
FORBIDDEN = (
    "DELETE FROM anomaly_catalog", "INSERT INTO anomaly_catalog (z) VALUES (1)", "UPDATE anomaly_catalog SET z = 1",
    "DROP VIEW anomaly_catalog", "CREATE TABLE mine (i int)", "SELECT * FROM runs", "SELECT * FROM ledger",
    "SELECT * FROM quality_metrics", "SELECT config FROM models", "SELECT * FROM pg_authid",
    "WITH gone AS (DELETE FROM scores RETURNING *) SELECT * FROM gone", "SELECT lo_create(0)",
    "SELECT pg_read_file('/etc/passwd')", "SELECT query_to_xml('SELECT * FROM runs', true, true, '')",
    "SELECT pg_try_advisory_lock(1)", "SELECT cancel_overlong('0s')", "SELECT set_config('role', 'postgres', false)",
    "SELECT * FROM pg_stat_file('PG_VERSION')", "SELECT * FROM spectra FOR UPDATE",
)  # fmt: skip


@pytest.mark.parametrize("query", REFUSED)
def test_what_is_no_single_select_is_refused(reader: Reader, query: str) -> None:
    with pytest.raises(QueryError, match=REFUSED[query]) as caught:
        reader.answer(query)
    assert "\n" not in str(caught.value)
    assert reader.answer("SELECT 1 AS a").rows["a"].to_pylist() == [1]


@pytest.mark.parametrize("query", FORBIDDEN)
def test_nothing_can_be_written_nor_what_is_not_published_read(reader: Reader, conn: Connection, query: str) -> None:
    with pytest.raises(QueryError):
        reader.answer(query)
    with transaction(conn) as cur:
        cur.execute("SELECT count(*) FROM models")
        assert cur.fetchone() == (1,)


def test_a_statement_is_cancelled_though_the_query_lifts_its_limit(reader: Reader) -> None:
    start = time.monotonic()
    query = "SELECT set_config('statement_timeout', '0', false) AS lifted, pg_sleep(20)"
    for _ in range(2):  # the second one finds the session as the first one left it
        with pytest.raises(QueryError, match=r"longer than 0.3 s and was cancelled") as caught:
            reader.answer(query, seconds=0.3)
        assert caught.value.reason == "timeout"
    with pytest.raises(QueryError, match="longer than 5 s"):
        reader.answer("SELECT pg_sleep(20)", seconds=99)  # the reader's own limit is the highest
    assert time.monotonic() - start < 15


def test_an_answer_that_is_too_large_is_refused(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    with pytest.raises(QueryError, match="larger than 1 MiB") as caught:
        reader.answer("SELECT repeat('x', 1000) AS a FROM generate_series(1, 5000)")
    assert caught.value.reason == "too_large"
    assert reader.answer("SELECT 1 AS a").rows.num_rows == 1


def test_many_threads_at_once(reader: Reader) -> None:
    found: list[int] = []

    def ask(number: int) -> None:
        found.append(reader.rows("SELECT %s AS n, pg_sleep(0.05)::text", (number,))["n"][0].as_py())

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(12))


def test_a_lost_connection_is_made_anew(reader: Reader, conn: Connection) -> None:
    assert reader.rows("SELECT 1 AS a").num_rows == 1
    with transaction(conn) as cur:
        cur.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'skysift_reader'")
    assert reader.rows("SELECT 1 AS a").num_rows == 1


def test_overlong_queries_of_any_session_are_cancelled(conn: Connection, postgres_url: str) -> None:
    astronomer = psycopg2.connect(reader_url(postgres_url))
    with astronomer.cursor() as cur:
        cur.execute("SET statement_timeout = 0")
    astronomer.commit()
    failed: list[str] = []

    def wait() -> None:
        try:
            with astronomer.cursor() as cur:
                cur.execute("SELECT pg_sleep(30)")
        except psycopg2.Error as error:
            failed.append(str(error.pgcode))

    thread = threading.Thread(target=wait)
    thread.start()
    cancelled = 0
    for _ in range(100):
        time.sleep(0.1)
        with transaction(conn) as cur:
            cur.execute("SELECT cancel_overlong('0.5s')")
            cancelled += (cur.fetchone() or (0,))[0]
        if not thread.is_alive():
            break
    thread.join()
    astronomer.close()
    assert cancelled >= 1
    assert failed == ["57014"]


def test_a_server_that_is_down_is_named() -> None:
    with pytest.raises(StoreError, match=r"PostgreSQL at skysift_reader@127.0.0.1:1/sky: unreachable"):
        Reader("postgresql://someone@127.0.0.1:1/sky").rows("SELECT 1")
    with pytest.raises(StoreError, match="cannot be parsed"):
        Reader("postgresql://[a")
