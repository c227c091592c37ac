"""PostgreSQL for those who only read: other people's SELECTs, each in a READ ONLY transaction with its own time limit.

The role is the wall: ``skysift_reader`` may read the promoted catalog and nothing else. A limit that a role has by
default can be lifted by any session, so here each statement is given its own.
"""

from __future__ import annotations

import io
import os
import queue
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
import pyarrow as pa
from psycopg2 import errors, extensions

from pipeline.errors import QueryError, StoreError
from pipeline.stores.complaints import describe, explain
from pipeline.stores.copying import read_csv
from pipeline.stores.postgres import Connection, Cursor, connect, schema_of

ROLE = "skysift_reader"
TABLES = ("anomaly_catalog", "anomalies", "selection_function", "spectrum_files", "promoted_model", "catalog_runs",
          "catalog_quality", "other_redshifts")  # fmt: skip
PASSWORD = "SKYSIFT_READER_PASSWORD"  # variable of the environment
SECONDS = 60.0  # time limit of a statement
MAX_ROWS = 2_000_000
MAX_BYTES = 1 << 30  # of an answer as text
KEPT = 8  # idle connections

Arguments = Sequence[Any] | Mapping[str, Any]

_FORBIDDEN = (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction, errors.ObjectNotInPrerequisiteState)
# Classes 21, 22, 42 and feature_not_supported: what the author of the query can mend.
_MALFORMED = (errors.DataError, errors.ProgrammingError, errors.NotSupportedError, errors.InvalidCursorDefinition,
              errors.StatementTooComplex)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """Rows of a query; ``truncated`` where there were more of them than was asked for."""

    rows: pa.Table
    truncated: bool


def reader_url(url: str) -> str:
    """Return the URL of the same database for the read-only role, its password from the environment."""
    try:
        secret = {"password": os.environ[PASSWORD]} if PASSWORD in os.environ else {}
        return str(extensions.make_dsn(url, user=ROLE, **secret))
    except psycopg2.ProgrammingError:
        raise StoreError(
            "the PostgreSQL URL cannot be parsed: it should read postgresql://user@host:5432/database"
        ) from None


class Reader:
    """The promoted catalog as ``skysift_reader`` sees it. It may be used by several threads at once."""

    def __init__(self, url: str, *, seconds: float = SECONDS) -> None:
        self._url = reader_url(url)
        self._seconds = seconds
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()
        self._columns: dict[str, list[str]] = {}
        self._schemas: dict[str, pa.Schema] = {}  # of our own queries that name their columns: asked for once

    def rows(self, query: str, arguments: Arguments = (), *, seconds: float | None = None) -> pa.Table:
        """Return the rows of a query of our own.

        Raises:
            StoreError: PostgreSQL is down, or lacks the read-only role or the views.
            QueryError: it ran too long, or an argument is out of range.
        """
        with self._statement(seconds) as cur:
            text = cur.mogrify(query, arguments or None).decode()
            schema = self._schemas.get(query) or _described(cur, text, self._limit(seconds))
            found = _copied(cur, text, schema, self._limit(seconds))
        if "*" not in query:
            self._schemas[query] = schema
        return found

    def columns(self, view: str) -> list[str]:
        """Return the names of a published view's columns; they are asked for once."""
        if view not in self._columns:
            self._columns[view] = self.rows(f"SELECT * FROM {view} LIMIT 0").column_names
        return self._columns[view]

    def answer(self, query: str, *, limit: int = MAX_ROWS, seconds: float | None = None) -> Answer:
        """Return at most ``limit`` rows of somebody's SELECT.

        Raises:
            StoreError: PostgreSQL is down.
            QueryError: it is not one SELECT, is malformed, wants what the role may not read, runs too long or
                answers with too much.
        """
        text = query.strip().rstrip(";").rstrip()
        if not text or "\0" in text:
            raise QueryError("the query is empty or holds a NUL character; write one SELECT")
        with self._statement(seconds) as cur:
            _limited(cur, "SELECT check_query(%s)", self._limit(seconds), (text,))
            schema = _described(cur, text, self._limit(seconds))
            bounded = f"SELECT * FROM (\n{text}\n) AS q LIMIT {int(limit) + 1}"
            found = _copied(cur, bounded, schema, self._limit(seconds))
        return Answer(found.slice(0, limit), found.num_rows > limit)

    def close(self) -> None:
        """Close all connections."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _limit(self, seconds: float | None) -> float:
        return self._seconds if seconds is None else min(seconds, self._seconds)

    @contextmanager
    def _statement(self, seconds: float | None) -> Iterator[Cursor]:
        conn = self._take()
        try:
            with conn.cursor() as cur:
                yield cur
            conn.rollback()
        except psycopg2.Error as error:
            raise _complaint(conn, error, self._limit(seconds)) from error
        finally:
            self._give(conn)

    def _take(self) -> Connection:
        while True:
            try:
                conn = self._idle.get_nowait()
            except queue.Empty:
                return self._connect()
            if _alive(conn):
                return conn
            conn.close()

    def _connect(self) -> Connection:
        try:
            conn = connect(self._url)
        except StoreError as error:
            if "password" in str(error) or "does not exist" in str(error):
                hint = f"give {ROLE} a password and set {PASSWORD}; `skysift db migrate` makes the role"
                raise StoreError(f"{error} ({hint})") from None
            raise
        conn.set_session(isolation_level="REPEATABLE READ", readonly=True)
        return conn

    def _give(self, conn: Connection) -> None:
        try:
            conn.rollback()
        except psycopg2.Error:
            conn.close()
        if not conn.closed and self._idle.qsize() < KEPT:
            self._idle.put(conn)
        else:
            conn.close()


def _alive(conn: Connection) -> bool:
    """Whether the server still knows a connection that was idle: it may have been restarted since."""
    try:
        with conn.cursor() as cur:
            cur.execute("SELECT 1")
        conn.rollback()
    except psycopg2.Error:
        return False
    return True


def _limited(cur: Cursor, statement: str, seconds: float, arguments: Arguments = ()) -> None:
    cur.execute("SET LOCAL statement_timeout = %s", (max(1, int(1000 * seconds)),))
    cur.execute(statement, arguments or None)


def _described(cur: Cursor, query: str, seconds: float) -> pa.Schema:
    _limited(cur, f"SELECT * FROM (\n{query}\n) AS q LIMIT 0", seconds)
    schema = schema_of(cur)
    if not len(schema):
        raise QueryError("the query answers without any column; select at least one")
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
    if twice:
        raise QueryError(f"two columns of the answer are called {twice[0]}; name one of them with AS")
    return schema


def _copied(cur: Cursor, query: str, schema: pa.Schema, seconds: float) -> pa.Table:
    sink = _Bounded()
    cur.execute("SET LOCAL statement_timeout = %s", (max(1, int(1000 * seconds)),))
    cur.copy_expert(f"COPY (\n{query}\n) TO STDOUT (FORMAT csv)", sink, size=1 << 20)
    return read_csv(sink.getbuffer(), schema)


class _Bounded(io.BytesIO):
    """Memory for an answer, up to ``MAX_BYTES``."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > MAX_BYTES:
            raise QueryError(
                f"the answer is larger than {MAX_BYTES >> 20:,} MiB; select fewer rows or columns", "too_large"
            )
        return super().write(data)


def _hint(error: psycopg2.Error) -> str:
    if isinstance(error, errors.UndefinedTable):
        return f"There are {', '.join(TABLES)}, and the function cone_search(ra, dec, radius)."
    if isinstance(error, errors.UndefinedColumn):
        return "SELECT * … LIMIT 1 shows a table's columns."
    if isinstance(error, errors.InvalidCursorDefinition):
        return "Write one SELECT; nothing can be written."
    return ""


def _complaint(conn: Connection, error: psycopg2.Error, seconds: float) -> StoreError | QueryError:
    said = (error.diag.message_primary or str(error)).strip().splitlines()[0]
    if isinstance(error, errors.QueryCanceled):
        return QueryError(
            f"the query ran longer than {seconds:g} s and was cancelled; select less, or use columns that have an "
            "index: rank, anomaly_score, q_value, (verdict, rank), spectrum_id, and positions through cone_search",
            "timeout",
        )
    if isinstance(error, _FORBIDDEN):
        return QueryError(f"{said}; only the published tables can be read, and nothing can be written", "forbidden")
    if isinstance(error, errors.UndefinedTable | errors.UndefinedFunction) and "check_query" in said:
        return StoreError(f"PostgreSQL at {describe(conn.dsn)}: its tables are older; run `skysift db migrate`")
    if isinstance(error, _MALFORMED):
        hint = error.diag.message_hint or _hint(error)
        return QueryError(f"the query is not a SELECT that can be answered: {said}{f' ({hint})' if hint else ''}")
    return StoreError(explain(conn, error))
