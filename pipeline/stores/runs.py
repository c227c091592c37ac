"""Runs: their registration, the lock that keeps them to one driver, their end, and their quality metrics."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

import psycopg2
from psycopg2.extras import Json

from pipeline import logs
from pipeline.errors import RunError
from pipeline.stores.postgres import Connection, Cursor, scalar, transaction


@dataclass(frozen=True)
class Run:
    """A row of ``runs``."""

    run_id: str
    state: str  # planned, running, finished or failed
    stage: str | None
    model_id: str | None
    message: str | None
    config: dict[str, Any]
    inputs_hash: str
    created_at: datetime
    finished_at: datetime | None


def find_run(conn: Connection, run_id: str) -> Run | None:
    """Return the run of that name, or None."""
    with transaction(conn) as cur:
        return _find(cur, run_id)


def require_run(conn: Connection, run_id: str) -> Run:
    """Return the run of that name.

    Raises:
        RunError: there is none; the message names those there are.
    """
    run = find_run(conn, run_id)
    if run is None:
        known = ", ".join(other.run_id for other in list_runs(conn)[:5])
        hint = f"known runs: {known}" if known else "no run is planned yet; start one with `skysift run`"
        raise RunError(f"there is no run {run_id}: {hint}")
    return run


def list_runs(conn: Connection) -> list[Run]:
    """Return all runs, the newest first."""
    with transaction(conn) as cur:
        cur.execute(f"SELECT {_COLUMNS} FROM runs ORDER BY created_at DESC, run_id")
        return [Run(*row) for row in cur.fetchall()]


_COLUMNS = "run_id, state, stage, model_id, message, config, inputs_hash, created_at, finished_at"


def _find(cur: Cursor, run_id: str) -> Run | None:
    cur.execute(f"SELECT {_COLUMNS} FROM runs WHERE run_id = %s FOR UPDATE", (run_id,))
    row = cur.fetchone()
    return Run(*row) if row else None


def register_run(
    conn: Connection,
    run_id: str,
    config: Mapping[str, Any],
    inputs_hash: str,
    *,
    input_sections: Sequence[str] = ("survey", "gate"),
) -> Run:
    """Register a run, or take up one of that name again.

    A finished run may come back with other inputs: it is planned anew. An unfinished one may not, once its
    manifest is stored.

    Args:
        conn: connection; hold ``run_lock`` on it.
        run_id: name of the run.
        config: its configuration as plain values, without secrets.
        inputs_hash: hash of all that decides what the run reads.
        input_sections: sections of the config that are inputs; named when they are what changed.

    Raises:
        RunError: the run is unfinished and its inputs have changed; the message names what.
    """
    with transaction(conn) as cur:
        before = _find(cur, run_id)
        if before and before.inputs_hash != inputs_hash and before.state != "finished" and _planned(cur, run_id):
            changed = _changes(before.config, config, input_sections)
            what = "; ".join(changed) or "the survey's catalog or files are others than before"
            raise RunError(
                f"run {run_id} is unfinished and its inputs have changed ({what}); "
                "finish it with its earlier inputs, or give the new ones another --run name"
            )
        same = before is not None and before.inputs_hash == inputs_hash and before.state != "finished"
        cur.execute(
            """
            INSERT INTO runs AS r (run_id, config, inputs_hash, skysift_version) VALUES (%s, %s, %s, %s)
            ON CONFLICT (run_id) DO UPDATE SET
                config = excluded.config, inputs_hash = excluded.inputs_hash, state = 'planned',
                skysift_version = excluded.skysift_version, message = NULL, finished_at = NULL""",
            (run_id, Json(dict(config)), inputs_hash, version("skysift")),
        )
        if not same:
            audit(cur, "run", run_id, {"inputs_hash": inputs_hash})
        after = _find(cur, run_id)
        assert after is not None
        return after


def _planned(cur: Cursor, run_id: str) -> bool:
    cur.execute("SELECT EXISTS (SELECT FROM run_chunks WHERE run_id = %s)", (run_id,))
    return bool(scalar(cur))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], sections: Sequence[str]) -> list[str]:
    old, new = _flat(before, sections), _flat(after, sections)
    keys = [key for key in old | new if old.get(key) != new.get(key)]
    return [f"{key} was {old.get(key)!r}, now {new.get(key)!r}" for key in keys]


def _flat(config: Mapping[str, Any], sections: Sequence[str]) -> dict[str, Any]:
    return {
        f"{section}.{key}": list(value) if isinstance(value, tuple) else value
        for section in sections
        for key, value in dict(config.get(section, {})).items()
    }


def enter_stage(conn: Connection, run_id: str, stage: str, model_id: str | None = None) -> None:
    """Note that the run is in a stage now, and with which model once that is known."""
    logs.bind(stage=stage)
    with transaction(conn) as cur:
        cur.execute(
            """UPDATE runs SET state = 'running', stage = %s, model_id = coalesce(%s, model_id), message = NULL
               WHERE run_id = %s""",
            (stage, model_id, run_id),
        )


def end_run(conn: Connection, run_id: str, *, failure: str | None = None) -> None:
    """Note that the run is finished, or that it failed and why."""
    with transaction(conn) as cur:
        cur.execute(
            "UPDATE runs SET state = %s, message = %s, finished_at = now() WHERE run_id = %s",
            ("failed" if failure else "finished", failure, run_id),
        )


@contextmanager
def run_lock(conn: Connection, run_id: str) -> Iterator[None]:
    """Hold the run for this driver; the server frees it when the connection ends, however that comes.

    Raises:
        RunError: another driver holds it; the message says which process.
    """
    key = int.from_bytes(hashlib.blake2b(f"skysift run {run_id}".encode(), digest_size=8).digest(), "big", signed=True)
    with transaction(conn) as cur:
        cur.execute("SELECT pg_try_advisory_lock(%s)", (key,))
        if not scalar(cur):
            raise RunError(
                f"run {run_id} is already driven by {_holder(cur, key)}; wait for it, stop it, or use another --run"
            )
    try:
        yield
    finally:
        with suppress(psycopg2.Error):  # a connection that is gone has freed the lock already
            conn.rollback()
            with conn.cursor() as cur:
                cur.execute("SELECT pg_advisory_unlock(%s)", (key,))
            conn.commit()


def _holder(cur: Cursor, key: int) -> str:
    cur.execute(
        """
        SELECT coalesce(nullif(a.application_name, ''), 'server process ' || a.pid)
        FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
          AND l.classid = ((%(key)s >> 32) & 4294967295)::oid AND l.objid = (%(key)s & 4294967295)::oid""",
        {"key": key},
    )
    row = cur.fetchone()
    return str(row[0]) if row else "another process"


def record_metrics(
    conn: Connection,
    run_id: str,
    stage: str,
    metrics: Mapping[str, float | tuple[float, str]],
    *,
    model_id: str = "",
) -> None:
    """Store quality metrics, each a value or a (value, unit) pair; earlier values of the same names are replaced."""
    pairs = {name: value if isinstance(value, tuple) else (value, "") for name, value in metrics.items()}
    rows = [
        (run_id, stage, model_id, name, None if value != value else float(value), unit)  # NaN has no row value
        for name, (value, unit) in pairs.items()
    ]
    with transaction(conn) as cur:
        cur.executemany(
            """
            INSERT INTO quality_metrics (run_id, stage, model_id, name, value, unit) VALUES (%s, %s, %s, %s, %s, %s)
            ON CONFLICT (run_id, stage, model_id, name)
            DO UPDATE SET value = excluded.value, unit = excluded.unit, at = now()""",
            rows,
        )


def forget_metrics(conn: Connection, stage: str, model_id: str) -> None:
    """Delete a stage's metrics of a model from all runs: what they were measured on is no more."""
    with transaction(conn) as cur:
        cur.execute("DELETE FROM quality_metrics WHERE stage = %s AND model_id = %s", (stage, model_id))


def audit(cur: Cursor, action: str, thing: str, detail: Mapping[str, Any] | None = None) -> None:
    """Add a row to the audit table in the caller's transaction: who, when, what."""
    cur.execute(
        """INSERT INTO audit (who, action, object, detail)
           VALUES (current_user || ' (' || %s || ')', %s, %s, %s)""",
        (_person(), action, thing, Json(dict(detail or {}))),
    )


def _person() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
