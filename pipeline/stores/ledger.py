"""The ledger: which (chunk, stage, model) is done, empty or failed, and which still waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from psycopg2.extras import execute_values

from pipeline.errors import RunError
from pipeline.stores.postgres import Connection, Cursor, copy_rows, transaction

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("coadd", pa.string(), nullable=False),
        pa.field("targetid", pa.int64()),  # null: the whole file
        pa.field("spectrum_id", pa.int64()),
        pa.field("reason", pa.string(), nullable=False),  # short code
        pa.field("detail", pa.string()),  # one line
    ]
)


@dataclass(frozen=True)
class Outcome:
    """How one chunk ended one stage; n_in = n_out + n_quarantined."""

    chunk_id: str
    state: str  # done, empty or failed
    n_in: int
    n_out: int
    n_quarantined: int
    reason: str | None = None  # short code, when failed
    seconds: float | None = None
    bytes_read: int | None = None
    requests: int | None = None


@dataclass(frozen=True)
class Work:
    """A chunk that waits for a stage; ``n_rows`` are its targets (ingest) or its ingested spectra (score)."""

    chunk_id: str
    coadd: str
    path: str
    size: int | None
    n_rows: int


def pending(conn: Connection, run_id: str, stage: str, model_id: str = "", *, retry_failed: bool = False) -> list[Work]:
    """Return the run's chunks that still wait for a stage, in the order of their coadds.

    Scoring waits for the chunks whose ingest is done. A failed chunk is left alone, for its file is bad and a
    repaired one makes another chunk, unless ``retry_failed``.
    """
    final = ("done", "empty") if retry_failed else ("done", "empty", "failed")
    query = f"""
        SELECT c.chunk_id, c.coadd, c.path, c.size, {_ROWS_IN[stage]}
        FROM run_chunks r JOIN chunks c USING (chunk_id) {_UPSTREAM[stage]}
        LEFT JOIN ledger l ON l.chunk_id = c.chunk_id AND l.stage = %s AND l.model_id = %s
        WHERE r.run_id = %s AND (l.state IS NULL OR l.state NOT IN %s)
        ORDER BY c.path, c.chunk_id"""
    with transaction(conn) as cur:
        cur.execute(query, (stage, model_id, run_id, final))
        return [Work(*row) for row in cur.fetchall()]


_ROWS_IN = {"ingest": "c.n_targets", "score": "up.n_out"}
_UPSTREAM = {
    "ingest": "",
    "score": "JOIN ledger up ON up.chunk_id = c.chunk_id AND up.stage = 'ingest' AND up.state = 'done'",
}


def finished(conn: Connection, run_id: str, stage: str = "ingest", model_id: str = "") -> list[Work]:
    """Return the run's chunks with rows out of a stage; ``n_rows`` is their number."""
    with transaction(conn) as cur:
        cur.execute(
            """
            SELECT c.chunk_id, c.coadd, c.path, c.size, l.n_out
            FROM run_chunks r JOIN chunks c USING (chunk_id) JOIN ledger l USING (chunk_id)
            WHERE r.run_id = %s AND l.stage = %s AND l.model_id = %s AND l.state = 'done'
            ORDER BY c.path, c.chunk_id""",
            (run_id, stage, model_id),
        )
        return [Work(*row) for row in cur.fetchall()]


def finish(
    cur: Cursor,
    run_id: str,
    stage: str,
    outcomes: Sequence[Outcome],
    *,
    model_id: str = "",
    quarantined: pa.Table | None = None,
) -> None:
    """Record how chunks ended, in the caller's transaction, beside the rows that came out of them.

    What was quarantined in these chunks before is forgotten: running a chunk again is the same as running it once.

    Args:
        cur: cursor of the transaction that also writes the rows.
        run_id: the run.
        stage: ingest or score.
        outcomes: one for each chunk.
        model_id: the model, when the stage is score.
        quarantined: rows of ``QUARANTINE_SCHEMA`` of these chunks; a failed chunk needs one with a null targetid.

    Raises:
        RunError: a chunk's rows in are not its rows out plus those quarantined.
    """
    for o in outcomes:
        if o.n_in != o.n_out + o.n_quarantined:
            raise RunError(
                f"{stage} of chunk {o.chunk_id}: {o.n_in} rows went in, but {o.n_out} came out and "
                f"{o.n_quarantined} were quarantined; this is a fault of skysift, please report it"
            )
    ids = [o.chunk_id for o in outcomes]
    cur.execute(
        "DELETE FROM quarantine WHERE chunk_id = ANY(%s) AND stage = %s AND model_id = %s", (ids, stage, model_id)
    )
    if quarantined is not None and quarantined.num_rows:
        n = quarantined.num_rows
        extra = {"run_id": run_id, "stage": stage, "model_id": model_id}
        for name, value in extra.items():
            quarantined = quarantined.append_column(name, pa.repeat(value, n))
        copy_rows(cur, "quarantine", quarantined)
    execute_values(cur, _FINISH, [(stage, model_id, *_ledger_row(o)) for o in outcomes])


_FINISH = """
    INSERT INTO ledger AS l (stage, model_id, chunk_id, state, n_in, n_out, n_quarantined, reason, seconds,
                             bytes_read, requests)
    VALUES %s
    ON CONFLICT (chunk_id, stage, model_id) DO UPDATE SET
        state = excluded.state, attempts = l.attempts + 1, n_in = excluded.n_in, n_out = excluded.n_out,
        n_quarantined = excluded.n_quarantined, reason = excluded.reason, seconds = excluded.seconds,
        bytes_read = excluded.bytes_read, requests = excluded.requests, updated_at = now()"""


def _ledger_row(o: Outcome) -> tuple[object, ...]:
    return (o.chunk_id, o.state, o.n_in, o.n_out, o.n_quarantined, o.reason, o.seconds, o.bytes_read, o.requests)
