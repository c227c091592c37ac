"""PostgreSQL: connections, transactions, migrations and the COPY path that loads Arrow tables."""

from __future__ import annotations

import hashlib
import io
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import pyarrow as pa
from psycopg2 import sql

from pipeline.errors import StoreError
from pipeline.stores.complaints import describe as describe  # part of this module, for others
from pipeline.stores.complaints import explain, refusal
from pipeline.stores.copying import csv_buffer, read_csv

Connection = psycopg2.extensions.connection
Cursor = psycopg2.extensions.cursor

_MIGRATION_LOCK = 0x736B7973696674  # "skysift": any constant that no other program uses
_MIGRATION_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


def connect(url: str, *, timeout: int = 10) -> Connection:
    """Open a connection that names this process to the server and is not in autocommit.

    Raises:
        StoreError: unreachable, refused, or the database does not exist; the message has no password in it.
    """
    where = describe(url)
    name = f"skysift pid {os.getpid()} on {socket.gethostname()}"
    try:
        return psycopg2.connect(
            url,
            connect_timeout=timeout,
            application_name=name[:63],
            keepalives=1,
            keepalives_idle=60,
        )
    except psycopg2.Error as error:
        raise StoreError(f"PostgreSQL at {where}: {refusal(error)}") from None


@contextmanager
def transaction(conn: Connection) -> Iterator[Cursor]:
    """Yield a cursor; commit at the end, or roll back and turn database errors into one clear line.

    Raises:
        StoreError: whatever the database refused; nothing of the transaction remains.
    """
    try:
        with conn.cursor() as cur:
            yield cur
        conn.commit()
    except BaseException as error:
        _rollback(conn)
        if isinstance(error, psycopg2.Error):
            raise StoreError(explain(conn, error)) from error
        raise


def _rollback(conn: Connection) -> None:
    try:
        conn.rollback()
    except psycopg2.Error:
        conn.close()


def migrations() -> list[tuple[int, str, str]]:
    """Return (version, name, text) of every migration shipped in ``sql/``, in order."""
    # importlib.resources cannot read a namespace package of an editable install (a placeholder is on its path).
    folders = {Path(folder).resolve() for folder in import_module("sql").__path__}  # one may be on the path twice
    files = [file for folder in folders if folder.is_dir() for file in folder.iterdir()]
    matches = [(file, _MIGRATION_NAME.fullmatch(file.name)) for file in files]
    return sorted((int(m[1]), m[2], file.read_text(encoding="utf-8")) for file, m in matches if m)


def migrate(conn: Connection, steps: Sequence[tuple[int, str, str]] | None = None) -> list[str]:
    """Apply the migrations that are not yet there, each in its own transaction; safe to call at any time.

    Returns:
        Names of the migrations applied by this call, then the notices that they raised.

    Raises:
        StoreError: an applied migration has changed, or the database is newer than this skysift.
    """
    steps = migrations() if steps is None else steps
    with transaction(conn) as cur:
        cur.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
        cur.execute("SELECT to_regclass('schema_migrations')")
        if scalar(cur) is None:
            cur.execute(_SCHEMA_MIGRATIONS)
    done: list[str] = []
    for version, name, text in steps:
        with transaction(conn) as cur:
            cur.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            if version in _checked(cur, conn, steps):
                continue
            del conn.notices[:]
            cur.execute(text)
            cur.execute(
                "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
                (version, name, _sha256(text)),
            )
        done += [f"{version:04d}_{name}", *(notice.strip() for notice in conn.notices)]
    return done


def check_schema(conn: Connection) -> None:
    """See that the database has exactly the migrations of this skysift, and change nothing.

    Raises:
        StoreError: it lacks some, has newer ones, or one was changed; the message says what to do.
    """
    steps = migrations()
    with transaction(conn) as cur:
        cur.execute("SELECT to_regclass('schema_migrations')")
        done = _checked(cur, conn, steps) if scalar(cur) is not None else set()
    missing = [f"{version:04d}_{name}" for version, name, _ in steps if version not in done]
    if missing:
        raise StoreError(
            f"PostgreSQL at {describe(conn.dsn)}: the database lacks {', '.join(missing)}; run `skysift db migrate`"
        )


_SCHEMA_MIGRATIONS = """
CREATE TABLE schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE schema_migrations IS 'Migrations applied to this database';
COMMENT ON COLUMN schema_migrations.version IS 'Number of the migration';
COMMENT ON COLUMN schema_migrations.name IS 'Its name';
COMMENT ON COLUMN schema_migrations.sha256 IS 'Checksum of its text; a changed one is refused';
COMMENT ON COLUMN schema_migrations.applied_at IS 'When it was applied';
"""


def _checked(cur: Cursor, conn: Connection, steps: Sequence[tuple[int, str, str]]) -> set[int]:
    known = {version: (name, _sha256(text)) for version, name, text in steps}
    cur.execute("SELECT version, name, sha256 FROM schema_migrations ORDER BY version")
    applied = cur.fetchall()
    for version, name, sha in applied:
        if version not in known:
            raise StoreError(
                f"PostgreSQL at {describe(conn.dsn)}: the database has migration {version:04d}_{name}, which this "
                "skysift does not know; use the newer skysift that made it"
            )
        if known[version][1] != sha:
            raise StoreError(
                f"PostgreSQL at {describe(conn.dsn)}: migration {version:04d}_{name} was applied with another text "
                f"(sha256 {sha[:12]}, now {known[version][1][:12]}); restore sql/, changes need a new migration"
            )
    return {version for version, _, _ in applied}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def scalar(cur: Cursor) -> Any:
    """Return the single value of a query's single row."""
    row = cur.fetchone()
    if row is None:
        raise LookupError("the query returned no row")
    return row[0]


def copy_rows(cur: Cursor, table: str, rows: pa.Table) -> None:
    """COPY an Arrow table into the columns of the same names; NaN becomes NULL, lists become arrays."""
    if rows.num_rows:
        columns = sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(sql.Identifier(table), columns)
        cur.copy_expert(query, csv_buffer(rows), size=1 << 20)


def copy_upsert(
    cur: Cursor,
    table: str,
    rows: pa.Table,
    key: Sequence[str],
    *,
    fixed: Sequence[str] = (),
    clear: Sequence[str] = (),
    touch: str | None = None,
) -> None:
    """Insert or update the rows of an Arrow table by their key, through a staging table.

    Args:
        cur: cursor of the caller's transaction.
        table: name of the table; the Arrow columns bear its columns' names, others get their defaults.
        rows: Arrow table [B]; NaN becomes NULL; no key may occur twice.
        key: columns of the unique constraint.
        fixed: columns that say what the key stands for; they never change.
        clear: columns set to NULL when a row is updated.
        touch: a timestamp column set to now() when a row is updated.

    Raises:
        StoreError: a row's key is there already and stands for something else.
    """
    if not rows.num_rows:
        return
    changing = [name for name in rows.column_names if name not in (*key, *fixed)]
    changes = [sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in changing]
    changes += [sql.SQL("{} = NULL").format(sql.Identifier(name)) for name in clear]
    if touch:
        changes.append(sql.SQL("{} = now()").format(sql.Identifier(touch)))
    action = sql.SQL("UPDATE SET {}").format(sql.SQL(", ").join(changes)) if changes else sql.SQL("NOTHING")
    same = [sql.SQL("{0}.{1} = excluded.{1}").format(sql.Identifier(table), sql.Identifier(name)) for name in fixed]
    # In the key's order, index pages are filled one after the other: a fifth faster.
    cur.execute(
        sql.SQL(
            "INSERT INTO {table} ({names}) SELECT {names} FROM {staging} ORDER BY {key} "
            "ON CONFLICT ({key}) DO {action} {where}"
        ).format(
            table=sql.Identifier(table),
            names=sql.SQL(", ").join(map(sql.Identifier, rows.column_names)),
            staging=sql.Identifier(stage(cur, table, rows)),
            key=sql.SQL(", ").join(map(sql.Identifier, key)),
            action=action,
            where=sql.SQL("WHERE {}").format(sql.SQL(" AND ").join(same)) if same else sql.SQL(""),
        )
    )
    if fixed and cur.rowcount != rows.num_rows:
        raise StoreError(
            f"{rows.num_rows - cur.rowcount} rows of {table} have the {', '.join(key)} of others with another "
            f"{' or '.join(fixed)}: a collision of hashes; please report it"
        )


def stage(cur: Cursor, table: str, rows: pa.Table) -> str:
    """COPY rows into a temporary table typed like ``table`` and return its name; it empties at commit."""
    columns = ",".join(rows.column_names)
    name = f"staging_{table[:40]}_{hashlib.blake2b(columns.encode(), digest_size=4).hexdigest()}"
    cur.execute("SELECT to_regclass(%s) IS NULL", (f"pg_temp.{name}",))
    if scalar(cur):
        cur.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DELETE ROWS AS SELECT {} FROM {} WITH NO DATA").format(
                sql.Identifier(name),
                sql.SQL(", ").join(map(sql.Identifier, rows.column_names)),
                sql.Identifier(table),
            )
        )
    else:
        # Empty already unless this transaction used it before: far cheaper than TRUNCATE, which makes a new file.
        cur.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
    copy_rows(cur, name, rows)
    return name


def fetch_table(cur: Cursor, query: str, arguments: Sequence[Any] | dict[str, Any] = ()) -> pa.Table:
    """Run a query through COPY and return its rows as an Arrow table, types taken from the database's."""
    query = cur.mogrify(query, arguments or None).decode()
    cur.execute(f"SELECT * FROM ({query}) AS q LIMIT 0")
    schema = schema_of(cur)
    sink = io.BytesIO()
    cur.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv)", sink, size=1 << 20)
    return read_csv(sink.getbuffer(), schema)


def schema_of(cur: Cursor) -> pa.Schema:
    """Return the Arrow types of the columns that a cursor has just described; other types come as text."""
    return pa.schema([pa.field(one.name, _ARROW.get(one.type_code, pa.string())) for one in cur.description or ()])


_ARROW = {  # OIDs of PostgreSQL's built-in types (src/include/catalog/pg_type.dat)
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    700: pa.float32(),
    701: pa.float64(),
    1007: pa.list_(pa.int32()),
    1021: pa.list_(pa.float32()),
    1184: pa.timestamp("us", "UTC"),
    1700: pa.float64(),
}
