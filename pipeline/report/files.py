"""The catalog as files beside the report, for people without a database: FITS and Parquet with full headers."""

from __future__ import annotations

from pathlib import Path

from pipeline.access import catalog, formats
from pipeline.access.export import QUERY, header
from pipeline.session import Session
from pipeline.stores import registry, runs
from pipeline.stores.postgres import fetch_table, transaction

NAMES = ("anomalies.fits", "anomalies.parquet")


def write_catalog(session: Session, *, run_id: str = "") -> list[Path]:
    """Write the promoted catalog beside the report of each run that the promoted model scored; return the files.

    Args:
        session: the stores and the workspace.
        run_id: of this run alone; nothing is written where another model scored it.

    Raises:
        StoreError: PostgreSQL does not answer, or a file cannot be written.
    """
    model = registry.promoted_model(session.conn)
    if model is None:
        return []
    scored = [run for run in runs.list_runs(session.conn) if run.model_id == model.model_id]
    chosen = [run for run in scored if run_id in ("", run.run_id)]
    if not chosen:
        return []
    with transaction(session.conn) as cur:
        rows = fetch_table(cur, QUERY)
        tables = catalog.described_tables(fetch_table(cur, catalog.DESCRIBED, (list(catalog.TABLES),)))
    told = catalog.descriptions(tables)
    files = []
    for run in chosen:
        survey = run.config.get("survey", {})
        source = {"run_id": run.run_id, "survey_root": survey.get("root"), "survey_catalog": survey.get("catalog"),
                  "inputs_hash": run.inputs_hash}  # fmt: skip
        about = header(vars(model), source, run.config)
        folder = session.config.workspace / "reports" / run.run_id
        folder.mkdir(parents=True, exist_ok=True)
        files += [formats.write(rows, folder / name, descriptions=told, header=about) for name in NAMES]
    return files
