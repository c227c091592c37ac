"""The catalog's tables: spectra and scores, rows in and out, and the writing of calibrated columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from psycopg2 import sql

from pipeline.errors import RunError
from pipeline.stores.postgres import Connection, Cursor, copy_upsert, fetch_table, scalar, stage, transaction

CALIBRATED = {  # columns that calibrate writes
    "anomaly_score": pa.float64(),
    "p_value": pa.float64(),
    "q_value": pa.float64(),
    "rank": pa.int32(),
    "extrapolated": pa.bool_(),
    "global_surprise": pa.float32(),
    "emission_surprise": pa.float32(),
    "absorption_surprise": pa.float32(),
    "density_surprise": pa.float32(),
    "detection_surprise": pa.float32(),
    "blend_surprise": pa.float32(),
    "instrument_surprise": pa.float32(),
    "redshift_surprise": pa.float32(),
    "features": pa.list_(pa.float32()),
    "other_z": pa.float64(),
    "other_z_gain": pa.float32(),
    "other_z_lines": pa.string(),
    "verdict": pa.string(),
    "artefact_probability": pa.float32(),
    "why": pa.string(),  # JSON
    "explanation": pa.string(),
    "disagreement": pa.float32(),  # null: ranks are new, and what was compared were the old ones
}


def upsert_spectra(cur: Cursor, rows: pa.Table) -> None:
    """Insert or update spectra; ``rows`` bears the names of columns of ``spectra``, NaN means unknown.

    Raises:
        StoreError: two keys (targetid, coadd) have the same spectrum_id.
    """
    copy_upsert(cur, "spectra", rows, ("spectrum_id",), fixed=("targetid", "coadd"), touch="updated_at")


def upsert_scores(cur: Cursor, model_id: str, rows: pa.Table) -> None:
    """Insert or update raw scores of a model; its partition must exist (``create_partition``).

    Scoring a spectrum again clears its calibrated columns, which only calibrate can give back.
    """
    rows = rows.append_column("model_id", pa.repeat(model_id, rows.num_rows))
    copy_upsert(cur, partition(model_id), rows, ("spectrum_id", "model_id"), clear=tuple(CALIBRATED))


def partition(model_id: str) -> str:
    """Return the name of a model's partition of ``scores``."""
    return f"scores_{model_id}"


def create_partition(cur: Cursor, model_id: str) -> None:
    """Make a model's partition of ``scores`` where there is none."""
    cur.execute(
        sql.SQL("CREATE TABLE IF NOT EXISTS {} PARTITION OF scores FOR VALUES IN ({})").format(
            sql.Identifier(partition(model_id)), sql.Literal(model_id)
        )
    )


def drop_partition(cur: Cursor, model_id: str) -> None:
    """Drop a model's scores, all at once."""
    cur.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(partition(model_id))))


def write_calibration(conn: Connection, model_id: str, rows: pa.Table) -> None:
    """Write the calibrated columns over a model's whole partition, in one transaction.

    A fresh partition is built beside the old one, candidates in the order of rank and all others in that of the sky,
    and takes its place at the end: readers see the old ranks until they see the new ones. At 1.6 million rows this is
    several times as fast as an UPDATE of three indexed columns, and leaves no dead rows.

    Args:
        conn: connection.
        model_id: the model.
        rows: Arrow table (spectrum_id and ``CALIBRATED``), one row for each of the partition's.

    Raises:
        RunError: ``rows`` are not exactly the partition's spectra.
    """
    with transaction(conn) as cur:
        _rewrite(cur, model_id, rows.select(["spectrum_id", *CALIBRATED]))


def write_disagreement(conn: Connection, rows: Mapping[str, pa.Table]) -> None:
    """Write how far compared models disagree, over each one's whole partition, all in one transaction.

    Args:
        conn: connection.
        rows: model → Arrow table (spectrum_id, disagreement), one row for each of its partition's.

    Raises:
        RunError: the rows of a model are not exactly its partition's spectra.
    """
    with transaction(conn) as cur:
        for model_id in sorted(rows):  # always in the same order: two at once cannot wait for each other
            _rewrite(cur, model_id, rows[model_id].select(["spectrum_id", "disagreement"]))


def _rewrite(cur: Cursor, model_id: str, rows: pa.Table) -> None:
    old = sql.Identifier(partition(model_id))
    new = sql.Identifier(f"{partition(model_id)}_new")
    cur.execute(sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(old))
    staging = stage(cur, "scores", rows)
    cur.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(staging)))
    cur.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING COMMENTS, CHECK (model_id = {}))").format(
            new, old, sql.Literal(model_id)
        )
    )
    _fill(cur, old, new, staging, frozenset(rows.column_names[1:]))
    written = cur.rowcount
    cur.execute(sql.SQL("SELECT count(*) FROM {}").format(old))
    total = int(scalar(cur))
    if not written == total == rows.num_rows:
        raise RunError(
            f"calibration of model {model_id} covers {written} of its {total} scores (given {rows.num_rows}); "
            "calibrate again, and let no other run score with this model meanwhile"
        )
    _swap(cur, model_id, old, new)


def _fill(cur: Cursor, old: sql.Identifier, new: sql.Identifier, staging: str, given: Set[str]) -> None:
    # Candidates by rank, as lists ask for them; all others by the sky, so that a cone is a few runs of pages.
    cur.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'scores'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    names = [name for (name,) in cur.fetchall()]
    source = {name: sql.Identifier("c" if name in given else "s", name) for name in names}
    cur.execute(
        sql.SQL(
            "INSERT INTO {} ({}) SELECT {} FROM {} s JOIN {} c USING (spectrum_id) "
            "LEFT JOIN spectra p USING (spectrum_id) "
            "ORDER BY CASE WHEN {} IS NOT NULL THEN {} END, floor(p.dec), p.ra, s.spectrum_id"
        ).format(
            new,
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join(source.values()),
            old,
            sql.Identifier(staging),
            source["verdict"],
            source["rank"],
        )
    )


def _swap(cur: Cursor, model_id: str, old: sql.Identifier, new: sql.Identifier) -> None:
    # The CHECK spares ATTACH a scan; the indexes must be like the parent's for ATTACH to adopt them.
    steps = (
        "ALTER TABLE {new} ADD PRIMARY KEY (spectrum_id, model_id)",
        "CREATE INDEX ON {new} (rank)",
        "CREATE INDEX ON {new} (anomaly_score)",
        "CREATE INDEX ON {new} (verdict, rank) WHERE verdict IS NOT NULL",
        "CREATE INDEX ON {new} (q_value) WHERE q_value IS NOT NULL",
        "ALTER TABLE scores DETACH PARTITION {old}",
        "DROP TABLE {old}",
        "ALTER TABLE {new} RENAME TO {old}",
        "ALTER TABLE scores ATTACH PARTITION {old} FOR VALUES IN ({model})",
        "ALTER TABLE {old} DROP CONSTRAINT {check}",
        "ANALYZE {old}",
    )
    check = sql.Identifier(f"{partition(model_id)}_new_model_id_check")
    for step in steps:
        cur.execute(sql.SQL(step).format(old=old, new=new, model=sql.Literal(model_id), check=check))


def read_scores(conn: Connection, model_id: str, *, columns: Sequence[str] = ("*",)) -> pa.Table:
    """Return a model's scores joined with their spectra, in the order of spectrum_id.

    Args:
        conn: connection.
        model_id: the model.
        columns: names of columns of ``scores`` or ``spectra``; all of them by default.
    """
    with transaction(conn) as cur:
        what = "*" if tuple(columns) == ("*",) else sql.SQL(", ").join(map(sql.Identifier, columns)).as_string(cur)
        return fetch_table(
            cur,
            f"SELECT {what} FROM scores JOIN spectra USING (spectrum_id) WHERE model_id = %s ORDER BY spectrum_id",
            (model_id,),
        )


def read_scores_of(conn: Connection, model_id: str, spectrum_id: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
    """Return a model's scores of some spectra joined with those spectra, in the order of spectrum_id."""
    with transaction(conn) as cur:
        wanted = stage(cur, "spectra", pa.table({"spectrum_id": pa.array(spectrum_id, pa.int64())}))
        return fetch_table(
            cur,
            f"SELECT {sql.SQL(', ').join(map(sql.Identifier, columns)).as_string(cur)} FROM {wanted} "
            "JOIN scores USING (spectrum_id) JOIN spectra USING (spectrum_id) WHERE model_id = %s ORDER BY spectrum_id",
            (model_id,),
        )


def read_anomalies(conn: Connection, limit: int) -> pa.Table:
    """Return the first rows of ``anomaly_catalog`` by rank, those without a rank last, with their shards."""
    with transaction(conn) as cur:
        return fetch_table(
            cur,
            """SELECT a.*, s.shard, s.row_group, s.row FROM (
                   SELECT * FROM anomaly_catalog ORDER BY rank LIMIT %s) a
               JOIN spectra s USING (spectrum_id) ORDER BY a.rank""",
            (limit,),
        )


def stale_spectra(conn: Connection) -> NDArray[np.int64]:
    """Return the ids of spectra that nothing stands for any more, int64 [B].

    They came from a chunk that is in no run now (its file changed, or its target left the catalog), and no chunk
    of any run still has their target, save where that target or the whole file has been quarantined since.
    """
    with transaction(conn) as cur:
        table = fetch_table(cur, _STALE)
    return np.asarray(table["spectrum_id"].to_numpy(), dtype=np.int64)


_STALE = """
    SELECT s.spectrum_id FROM spectra s
    WHERE NOT EXISTS (SELECT FROM run_chunks r WHERE r.chunk_id = s.chunk_id)
      AND NOT EXISTS (
        SELECT FROM targets t JOIN chunks c USING (chunk_id) JOIN run_chunks r USING (chunk_id)
        LEFT JOIN ledger l ON l.chunk_id = t.chunk_id AND l.stage = 'ingest'
        WHERE t.targetid = s.targetid AND c.coadd = s.coadd AND l.state IS DISTINCT FROM 'failed'
          AND NOT EXISTS (SELECT FROM quarantine q WHERE q.chunk_id = t.chunk_id AND q.stage = 'ingest'
                                                     AND q.targetid = t.targetid))
    ORDER BY 1"""


def delete_spectra(conn: Connection, spectrum_id: NDArray[np.int64]) -> None:
    """Delete spectra and all their scores; delete their vectors from Milvus first, as that cannot be undone here."""
    with transaction(conn) as cur:
        staging = stage(cur, "spectra", pa.table({"spectrum_id": pa.array(spectrum_id, pa.int64())}))
        for table in ("scores", "spectra"):
            cur.execute(
                sql.SQL("DELETE FROM {0} USING {1} WHERE {0}.spectrum_id = {1}.spectrum_id").format(
                    sql.Identifier(table), sql.Identifier(staging)
                )
            )
