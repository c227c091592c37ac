"""The catalog as files beside the report, for people without a database: FITS and Parquet with full headers."""

from __future__ import annotations

from pathlib import Path

from pipeline.access import catalog, formats
from pipeline.access.export import QUERY, header
from pipeline.session import Session
from pipeline.stores import registry, runs
from pipeline.stores.postgres import fetch_table, transaction

NAMES = ("anomalies.fits", "anomalies.parquet")


def write_catalog(session: Session) -> list[Path]:
    """Write the promoted catalog where the run's model is the promoted one; return the files.

    Raises:
        StoreError: PostgreSQL does not answer, or a file cannot be written.
    """
    run, model = runs.find_run(session.conn, session.config.run), registry.promoted_model(session.conn)
    if run is None or model is None or model.model_id != run.model_id:
        return []
    with transaction(session.conn) as cur:
        rows = fetch_table(cur, QUERY)
        tables = catalog.described_tables(fetch_table(cur, catalog.DESCRIBED, (list(catalog.TABLES),)))
        cur.execute("SELECT inputs_hash FROM runs WHERE run_id = %s", (run.run_id,))
        found = cur.fetchone() or ("",)
    survey = run.config.get("survey", {})
    source = {"run_id": run.run_id, "survey_root": survey.get("root"), "survey_catalog": survey.get("catalog")}
    about = header(vars(model), source | {"inputs_hash": found[0]}, run.config)
    folder = session.config.workspace / "reports" / run.run_id
    folder.mkdir(parents=True, exist_ok=True)
    told = catalog.descriptions(tables)
    return [formats.write(rows, folder / name, descriptions=told, header=about) for name in NAMES]
