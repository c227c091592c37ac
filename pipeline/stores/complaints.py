"""What went wrong with PostgreSQL, in one line that names the server and says what to do."""

from __future__ import annotations

import os
import re

import psycopg2
import psycopg2.extensions
from psycopg2 import errors

from pipeline.errors import StoreError


def describe(url: str) -> str:
    """Return ``user@host:port/database`` of a PostgreSQL URL, never its password.

    Raises:
        StoreError: the URL cannot be parsed.
    """
    try:
        parts = psycopg2.extensions.parse_dsn(url)
    except psycopg2.ProgrammingError:
        raise StoreError(
            "the PostgreSQL URL cannot be parsed: it should read postgresql://user@host:5432/database"
        ) from None
    host = parts.get("host") or os.environ.get("PGHOST", "localhost")
    port = parts.get("port") or os.environ.get("PGPORT", "5432")
    where = host if host.startswith("/") else f"{host}:{port}"
    return f"{parts.get('user') or os.environ.get('PGUSER', '')}@{where}/{parts.get('dbname', '')}"


def refusal(error: psycopg2.Error) -> str:
    """Return why a connection was refused, and what to do."""
    text = " ".join(str(error).split())
    if "password" in text:
        return "the password is wrong or missing; set PGPASSWORD (and PGUSER) in the environment"
    if "does not exist" in text:
        return f"{_last(text)}; create it, or correct stores.postgres"
    if re.search(r"could not translate|Connection refused|timeout|No such file|Network|No route", text):
        return f"unreachable ({_last(text)}); start the server, or correct stores.postgres"
    return f"the connection was refused ({_last(text)})"


def _last(text: str) -> str:
    text = text.split(" Is the server running")[0]
    return text.split("FATAL: ")[-1].rsplit("failed: ", 1)[-1].strip()


_HINTS: tuple[tuple[type[psycopg2.Error], str], ...] = (
    (errors.DiskFull, "its disk is full; free space there and run the same command again"),
    (errors.ReadOnlySqlTransaction, "it is read-only; use the primary server and a role that may write"),
    (errors.UndefinedTable, "the tables are missing; run `skysift db migrate`"),
    (errors.UndefinedColumn, "the tables are older than this skysift; run `skysift db migrate`"),
    (errors.QueryCanceled, "the statement ran longer than its timeout"),
    (errors.TooManyConnections, "it has no connection left; close other clients or raise max_connections"),
    (errors.OutOfMemory, "it is out of memory"),
    (errors.AdminShutdown, "it is being shut down; start it and run the same command again"),
    (errors.CrashShutdown, "it crashed; start it and run the same command again"),
    (errors.UniqueViolation, "two different rows claim one key"),
)


def explain(conn: psycopg2.extensions.connection, error: psycopg2.Error) -> str:
    """Return one line that names the server, what failed and what to do."""
    where = describe(conn.dsn)
    said = (error.diag.message_primary or "").strip() or " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, errors.InsufficientPrivilege):
        return f"PostgreSQL at {where}: {said}; connect as a role with that right, such as skysift_pipeline"
    for kind, hint in _HINTS:
        if isinstance(error, kind):
            return f"PostgreSQL at {where}: {hint} ({said})"
    if conn.closed or isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return f"PostgreSQL at {where}: the connection was lost; see that it runs, then repeat the command ({said})"
    return f"PostgreSQL at {where}: {said}"
