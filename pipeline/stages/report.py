"""Report: the run's quality metrics to PostgreSQL, its HTML page and its catalog's files to the workspace."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.report import data
from pipeline.report.metrics import measure
from pipeline.session import Session
from pipeline.stores import runs


def report(session: Session) -> Path:
    """Measure the run and write its page; returns the page's path, ``{workspace}/reports/{run}/report.html``.

    A run with the promoted model leaves its catalog beside it, as FITS and Parquet.

    Raises:
        RunError: there is no such run.
        StoreError: a store does not answer, or the page cannot be written.
    """
    from pipeline.report.files import write_catalog
    from pipeline.report.page import render

    contents = data.gather(session)
    run, model_id = contents.facts.run, contents.facts.model_id or ""
    runs.record_metrics(session.conn, run, "report", measure(contents.catalog), model_id=model_id)
    write_catalog(session, run_id=session.config.run)
    text = render(replace(contents, metrics=data.metrics(session.conn, run, model_id)))
    return write_file(session.config.workspace / "reports" / run / "report.html", text.encode())


def write_file(path: Path, data: bytes) -> Path:
    """Write under a temporary name first: a reader sees the old file or the new one.

    Raises:
        StoreError: the file cannot be written.
    """
    draft = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        os.replace(draft, path)
    except OSError as error:
        raise StoreError(f"cannot write the report {path}: {error.strerror}; free or change the workspace") from None
    return path
