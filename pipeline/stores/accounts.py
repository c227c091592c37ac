"""Accounts of a run: counts at each stage, whether they add up, and why a spectrum has no score."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import RunError
from pipeline.stores.postgres import Connection, Cursor, fetch_table, scalar, transaction


@dataclass(frozen=True)
class StageCounts:
    """Chunks and rows of a run at one stage."""

    chunks: dict[str, int] = field(default_factory=dict)  # state -> number of chunks; pending included
    n_in: int = 0  # rows
    n_out: int = 0
    n_quarantined: int = 0
    seconds: float = 0.0  # of work, summed over workers
    bytes_read: int = 0
    requests: int = 0
    quarantine: dict[str, int] = field(default_factory=dict)  # reason -> rows; a refused file counts its rows


def counts(conn: Connection, run_id: str, stage: str, model_id: str = "") -> StageCounts:
    """Return what the ledger says of a run at a stage."""
    with transaction(conn) as cur:
        return _counts(cur, run_id, stage, model_id)


def _counts(cur: Cursor, run_id: str, stage: str, model_id: str) -> StageCounts:
    cur.execute(
        f"""
        SELECT coalesce(l.state, 'pending'), count(*), coalesce(sum(l.n_in), 0), coalesce(sum(l.n_out), 0),
               coalesce(sum(l.n_quarantined), 0), coalesce(sum(l.seconds), 0), coalesce(sum(l.bytes_read), 0)::bigint,
               coalesce(sum(l.requests), 0)::bigint
        FROM run_chunks r {_READY[stage]}
        LEFT JOIN ledger l ON l.chunk_id = r.chunk_id AND l.stage = %s AND l.model_id = %s
        WHERE r.run_id = %s GROUP BY 1 ORDER BY 1""",
        (stage, model_id, run_id),
    )
    rows = cur.fetchall()
    sums = [sum(row[i] for row in rows) for i in range(2, 8)]
    cur.execute(
        """
        SELECT q.reason, sum(CASE WHEN q.targetid IS NULL THEN l.n_quarantined ELSE 1 END)
        FROM quarantine q JOIN run_chunks r USING (chunk_id)
        JOIN ledger l ON l.chunk_id = q.chunk_id AND l.stage = q.stage AND l.model_id = q.model_id
        WHERE r.run_id = %s AND q.stage = %s AND q.model_id = %s GROUP BY 1 ORDER BY 2 DESC, 1""",
        (run_id, stage, model_id),
    )
    reasons = {reason: int(n) for reason, n in cur.fetchall()}
    n_in, n_out, n_quarantined, seconds, bytes_read, requests = sums
    return StageCounts(
        {row[0]: row[1] for row in rows}, n_in, n_out, n_quarantined, seconds, bytes_read, requests, reasons
    )


_READY = {
    "ingest": "",
    "score": "JOIN ledger up ON up.chunk_id = r.chunk_id AND up.stage = 'ingest' AND up.state = 'done'",
}


def reconcile(conn: Connection, run_id: str, stage: str, model_id: str = "") -> StageCounts:
    """Check that a stage has dealt with every row: rows in = rows out + rows quarantined, in fact and in the ledger.

    Call it after ``catalog.delete_spectra`` has removed what the run superseded.

    Raises:
        RunError: chunks are still pending, or a count does not add up; the message has the counts.
    """
    with transaction(conn) as cur:
        found = _counts(cur, run_id, stage, model_id)
        cur.execute(_EXPECTED[stage], (run_id,))
        expected = int(scalar(cur))
        cur.execute(_PRESENT[stage], {"run": run_id, "model": model_id})
        present = int(scalar(cur))
    waiting = found.chunks.get("pending", 0)
    named = sum(found.quarantine.values())
    if waiting:
        raise RunError(f"{stage} of run {run_id} is not complete: {waiting} chunks are pending; run the stage again")
    faults = [
        text
        for wrong, text in (
            (found.n_in != expected, f"{expected} rows were to go in, {found.n_in} did"),
            (present != found.n_out, f"{found.n_out} rows came out, {present} are in the database"),
            (named != found.n_quarantined, f"{found.n_quarantined} were quarantined, {named} have a reason"),
        )
        if wrong
    ]
    if faults:
        raise RunError(f"{stage} of run {run_id} does not add up: {'; '.join(faults)}; see `skysift status`")
    return found


_EXPECTED = {
    "ingest": "SELECT coalesce(sum(n_targets), 0) FROM run_chunks JOIN chunks USING (chunk_id) WHERE run_id = %s",
    "score": """SELECT coalesce(sum(n_out), 0) FROM run_chunks JOIN ledger USING (chunk_id)
                WHERE run_id = %s AND stage = 'ingest'""",
}
# The targets that a stage says came out, looked up in its table. Those it kept back are not looked for: another run
# of an earlier version of the file may have put them there.
_CAME_OUT = """
    SELECT DISTINCT s.spectrum_id
    FROM run_chunks r JOIN chunks c USING (chunk_id) JOIN targets t USING (chunk_id)
    JOIN ledger l ON l.chunk_id = c.chunk_id AND l.stage = '{stage}' AND l.model_id = %(model)s AND l.state = 'done'
    JOIN spectra s ON s.targetid = t.targetid AND s.coadd = c.coadd
    LEFT JOIN quarantine q ON q.chunk_id = t.chunk_id AND q.targetid = t.targetid
                          AND q.model_id IN ('', l.model_id)
    WHERE r.run_id = %(run)s AND q.id IS NULL"""
_PRESENT = {
    "ingest": f"SELECT count(*) FROM ({_CAME_OUT.format(stage='ingest')}) AS came_out",
    "score": f"""SELECT count(*) FROM ({_CAME_OUT.format(stage="score")}) AS came_out
                 JOIN scores USING (spectrum_id) WHERE model_id = %(model)s""",
}


def unscored(conn: Connection, run_id: str, model_id: str) -> pa.Table:
    """Return every planned target of a run that the model has not scored, and why.

    Returns:
        Table (chunk_id, coadd, targetid, stage, state, reason, detail): ``stage`` is where it stopped, ``state``
        is pending, failed or quarantined.
    """
    with transaction(conn) as cur:
        return fetch_table(cur, _UNSCORED, {"run": run_id, "model": model_id})


# Only chunks that did not get through in full are looked at; a refused file stands for all of its targets.
_UNSCORED = """
    WITH open_chunks AS MATERIALIZED (
        SELECT c.chunk_id, c.coadd, c.path, i.state AS ingested, i.reason AS ingest_reason,
               s.state AS scored, s.reason AS score_reason
        FROM run_chunks r JOIN chunks c USING (chunk_id)
        LEFT JOIN ledger i ON i.chunk_id = c.chunk_id AND i.stage = 'ingest'
        LEFT JOIN ledger s ON s.chunk_id = c.chunk_id AND s.stage = 'score' AND s.model_id = %(model)s
        WHERE r.run_id = %(run)s
          AND (i.state IS DISTINCT FROM 'done' OR s.state IS DISTINCT FROM 'done'
               OR i.n_quarantined > 0 OR s.n_quarantined > 0)
    ), kept_back AS MATERIALIZED (
        SELECT DISTINCT ON (chunk_id, targetid) chunk_id, targetid, stage, reason, detail
        FROM quarantine q JOIN open_chunks USING (chunk_id)
        WHERE q.model_id IN ('', %(model)s)
        ORDER BY chunk_id, targetid, stage, q.id
    )
    SELECT o.chunk_id, o.coadd, t.targetid,
           coalesce(q.stage, f.stage, CASE WHEN o.ingested = 'done' THEN 'score' ELSE 'ingest' END) AS stage,
           CASE WHEN coalesce(q.reason, f.reason) IS NOT NULL THEN 'quarantined'
                WHEN o.ingested = 'done' THEN coalesce(o.scored, 'pending')
                ELSE coalesce(o.ingested, 'pending') END AS state,
           coalesce(q.reason, f.reason, o.ingest_reason, o.score_reason) AS reason,
           coalesce(q.detail, f.detail) AS detail
    FROM open_chunks o JOIN targets t USING (chunk_id)
    LEFT JOIN kept_back q ON q.chunk_id = o.chunk_id AND q.targetid = t.targetid
    LEFT JOIN kept_back f ON f.chunk_id = o.chunk_id AND f.targetid IS NULL
    WHERE q.reason IS NOT NULL OR f.reason IS NOT NULL
       OR o.ingested IS DISTINCT FROM 'done' OR o.scored IS DISTINCT FROM 'done'
    ORDER BY o.path, o.chunk_id, t.ordinal"""
