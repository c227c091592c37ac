"""The table ``completeness``: what `skysift evaluate` measured."""

from __future__ import annotations

import pyarrow as pa

from pipeline.stores.postgres import Connection, copy_rows, fetch_table, transaction


def replace_completeness(
    conn: Connection, run_id: str, model_id: str, rows: pa.Table, *, seed: int | None = None
) -> None:
    """Store completeness in one transaction; what was measured of the same classes and kinds before gives way.

    Args:
        conn: connection.
        run_id, model_id: whose it is.
        rows: of ``pipeline.injection.completeness.SCHEMA``.
        seed: of the injections; None for catalogs.
    """
    whole = {name: rows[name] for name in rows.column_names}
    same = {"run_id": run_id, "model_id": model_id}
    n = rows.num_rows
    whole |= {name: pa.repeat(value, n) for name, value in same.items()}
    whole["seed"] = pa.repeat(pa.scalar(seed, pa.int64()), n)
    with transaction(conn) as cur:
        cur.execute(
            "DELETE FROM completeness WHERE run_id = %s AND model_id = %s AND (kind, class) IN "
            "(SELECT * FROM unnest(%s::text[], %s::text[]))",
            (run_id, model_id, rows["kind"].to_pylist(), rows["class"].to_pylist()),
        )
        copy_rows(cur, "completeness", pa.table(whole))


def read_completeness(conn: Connection, run_id: str, model_id: str) -> pa.Table:
    """Return all that was measured for a run and a model, in the order of kind, class, threshold and cell."""
    with transaction(conn) as cur:
        return fetch_table(
            cur,
            """SELECT kind, class, threshold, sigma_low, sigma_high, snr_low, snr_high, z_low, z_high, n, recovered,
                      completeness, low, high, seed, created_at
               FROM completeness WHERE run_id = %s AND model_id = %s
               ORDER BY kind, class, threshold, sigma_low NULLS FIRST, snr_low NULLS FIRST, z_low NULLS FIRST""",
            (run_id, model_id),
        )
