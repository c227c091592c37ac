"""The run's summary on the terminal: at most 80 columns where it goes to a pipe."""

from __future__ import annotations

from textwrap import fill, indent
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.report import data, tables
from pipeline.report.contents import Facts, Metric, Quarantined, Reason, Step
from pipeline.report.reasons import chance, judged, words
from pipeline.stores import runs
from pipeline.stores.postgres import Connection, fetch_table, transaction

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pipeline.session import Session

TOP = 10
WIDTH = 80


def print_summary(session: Session, console: Console | None = None) -> None:
    """Print the run's counts, rates, model and ten strangest spectra.

    Raises:
        RunError: there is no such run.
    """
    from rich.console import Console

    out = console or Console(highlight=False)
    if not out.is_terminal:
        out.width = WIDTH
    conn = session.conn
    run = runs.require_run(conn, session.config.run)
    model_id = run.model_id or ""
    facts, metrics = data.facts(conn, run), data.metrics(conn, run.run_id, model_id)
    out.print(heading(facts))
    steps = data.steps(conn, run.run_id, model_id)
    out.print(stages(data.planned(conn, run.run_id), steps, metrics, facts.trained_on))
    kept = data.quarantine(conn, run.run_id, model_id)
    if kept:
        out.print(quarantined(kept))
    found = best(conn, run.run_id, model_id)
    if found:
        ids = np.array([row["spectrum_id"] for row in found], np.int64)
        out.print(anomalies(found, data.read_reasons(conn, model_id, ids), out.width))


def heading(facts: Facts) -> Table:
    """The run, its survey and its model."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, said in {"run": f"{facts.run}, {facts.state}", "survey": facts.survey, "model": facts.model_id,
                       **facts.model}.items():  # fmt: skip
        if said:
            table.add_row(f"[dim]{name}[/]", _plain(said))
    return table


def stages(planned: int, steps: list[Step], metrics: list[Metric], trained_on: int | None) -> Table:
    """What went in and came out, stage by stage, and how fast."""
    header, rows = tables.stages(planned, steps, metrics, trained_on)
    table = _table(*header[:_SHOWN])
    for row in rows:
        table.add_row(*row[:_SHOWN])
    return table


_SHOWN = 6  # columns that fit the terminal


def quarantined(rows: list[Quarantined]) -> Table:
    """What was kept back, by reason."""
    table = _table("quarantined at", "reason", "spectra>", "coadds>")
    for row in rows:
        table.add_row(row.stage, _plain(row.reason), f"{row.spectra:,}", f"{row.coadds:,}")
    return table


def anomalies(rows: list[dict[str, Any]], reasons: dict[int, Reason], width: int) -> Text:
    """The strangest spectra, two lines each: what they are, and why."""
    from rich.text import Text

    text = Text(no_wrap=True)
    text.append(_LINE.format("rank", "TARGETID", "RA", "Dec", "z", "S/N", "score", "p") + "\n", "bold")
    for row in rows:
        numbers = (f"{row[name]:{form}}" for name, form in _FORMS.items())
        text.append(_LINE.format(*numbers, chance(row["p_value"], row["extrapolated"])) + "\n")
        said = explained(row, reasons.get(row["spectrum_id"]))
        text.append(indent(fill(said, width - _INDENT), " " * _INDENT) + "\n", "cyan")
    text.rstrip()
    return text


def explained(row: dict[str, Any], reason: Reason | None) -> str:
    """Verdict, false discovery rate and explanation; the strongest reason of a spectrum that was not judged."""
    if not row["explanation"]:
        return words(reason, row["z"]) if reason else "no reason"
    verdict = judged(row["verdict"], row["artefact_probability"])
    return f"q {chance(row['q_value'])}, {verdict}: {row['explanation']}"


_LINE = "{:>4}  {:>17}  {:>8}  {:>8}  {:>6}  {:>5}  {:>5}  {:>8}"
_FORMS = {"rank": "d", "targetid": "d", "ra": ".4f", "dec": "+.4f", "z": ".3f", "snr": ".1f", "anomaly_score": ".1f"}
_INDENT = 6


def _table(*header: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in header:
        table.add_column(name.rstrip(">"), justify="right" if name.endswith(">") else "left", no_wrap=True)
    return table


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def best(conn: Connection, run_id: str, model_id: str) -> list[dict[str, Any]]:
    """Return the run's ``TOP`` best ranked spectra, unknown numbers as NaN."""
    with transaction(conn) as cur:
        rows = fetch_table(cur, _BEST, {"run": run_id, "model": model_id, "top": TOP}).to_pylist()
    return [
        {name: float("nan") if found is None and name not in _TEXTS else found for name, found in row.items()}
        for row in rows
    ]


_TEXTS = ("verdict", "explanation")

# Ranks are walked in order until enough of them are the run's own.
_BEST = """
    SELECT x.rank, s.spectrum_id, s.targetid, s.ra, s.dec, s.z, s.snr, x.anomaly_score, x.p_value, x.extrapolated,
           x.q_value, x.verdict, x.artefact_probability, x.explanation
    FROM scores x JOIN spectra s USING (spectrum_id)
    WHERE x.model_id = %(model)s AND x.rank IS NOT NULL AND EXISTS (
        SELECT FROM targets t JOIN chunks c USING (chunk_id) JOIN run_chunks r USING (chunk_id)
        WHERE t.targetid = s.targetid AND c.coadd = s.coadd AND r.run_id = %(run)s)
    ORDER BY x.rank LIMIT %(top)s"""
