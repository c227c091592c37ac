"""Tables that the page and the terminal share: header and rows of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from pipeline.report.contents import STAGES, Contents, Metric, Step

Table = tuple[list[str], list[list[str]]]  # a header that ends in ">" is of a right-aligned column


def funnel(contents: Contents) -> Table:
    """How many rows are left after each cut of the science gate and each stage."""
    known = {(row.stage, row.name): row for row in contents.metrics}
    catalog, kept = contents.catalog, known.get(("plan", "rows kept"))
    rows: list[tuple[str, str]] = []
    if first := known.get(("plan", "rows in catalog")):
        rows.append(("rows in the catalog", value(first)))
    rows += [(f"removed by {rule(row)}", _removed(row)) for row in contents.metrics if is_cut(row)]
    if kept:
        rows.append(("kept by the science gate", value(kept)))
    rows.append(("planned", f"{contents.planned:,}"))
    rows += [
        ("in quarantine", f"{sum(row.spectra for row in contents.quarantine):,}"),
        ("ingested", f"{len(catalog):,}"),
    ]
    if contents.facts.trained_on is not None:
        rows.append(("trained on", f"{contents.facts.trained_on:,}"))
    rows += [
        ("scored", f"{int(np.isfinite(catalog.chi2_reduced).sum()):,}"),
        ("calibrated and ranked", f"{int((catalog.rank > 0).sum()):,}"),
    ]
    return ["spectra", "count>"], [list(row) for row in rows]


def is_cut(metric: Metric) -> bool:
    """Whether a metric is what one cut of the gate removed."""
    return metric.stage == "plan" and metric.name.startswith("cut ")


def rule(metric: Metric) -> str:
    """The rule of a cut, such as "ZWARN in 0"."""
    return metric.name.split(": ", 1)[-1]


def _removed(metric: Metric) -> str:
    if metric.value is None:
        return "not applied: no such column"
    return f"−{metric.value:,.0f}" if metric.value else "0"


def stages(planned: int, steps: Sequence[Step], metrics: Sequence[Metric], trained_on: int | None) -> Table:
    """Rows in and out of each stage, how long it took and how fast it was when it last worked."""
    known = {(row.stage, row.name): row for row in metrics}
    catalog, calibrated = known.get(("plan", "rows in catalog")), known.get(("calibrate", "spectra calibrated"))
    rows = {"plan": [value(catalog) if catalog else "", f"{planned:,}", ""]}
    if trained_on is not None:
        rows["train"] = [f"{trained_on:,}", "", ""]
    if calibrated and calibrated.value is not None:
        rows["calibrate"] = ["", value(calibrated), ""]
    for step in steps:
        rows[step.stage] = [f"{step.rows_in:,}", f"{step.rows_out:,}", f"{step.quarantined:,}"]
    work = {step.stage: _work(step) for step in steps}
    header = ["stage", "rows in>", "rows out>", "quarantined>", "time>", "rate>", "read>", "requests>", "chunks"]
    return header, [
        [stage, *rows[stage], *_pace(known, stage), *work.get(stage, [""] * 3)] for stage in STAGES if stage in rows
    ]


def _pace(known: dict[tuple[str, str], Metric], stage: str) -> list[str]:
    seconds, rate = (known.get((stage, name)) for name in ("seconds", "rate"))
    return [
        duration(seconds.value) if seconds and seconds.value is not None else "",
        f"{rate.value:,.0f}/s" if rate and rate.value is not None else "",
    ]


def _work(step: Step) -> list[str]:
    return [
        size(step.bytes_read) if step.bytes_read else "",
        f"{step.requests:,}" if step.requests else "",
        ", ".join(f"{number:,} {state}" for state, number in step.chunks.items() if number),
    ]


_TOLD = {"seconds", "rate", "spectra", "quarantined", "chunks", "rows in catalog", "rows kept", "spectra calibrated"}


def metrics(contents: Contents) -> Table:
    """The quality metrics that no other table tells, in the order of the stages."""
    rows = [row for row in contents.metrics if row.name not in _TOLD and not is_cut(row)]
    return ["stage", "metric", "value>", "unit"], [
        [row.stage, row.name.replace("_", " "), value(row), row.unit] for row in rows
    ]


def value(metric: Metric) -> str:
    """Write a metric's value with as many figures as it deserves."""
    found = metric.value
    if found is None:
        return "not measured"
    if found == int(found) and abs(found) < 1e15:
        return f"{found:,.0f}"
    return f"{found:,.1f}" if abs(found) >= 1000 else f"{found:.4g}"


def quarantine(contents: Contents) -> Table:
    """What was kept back, by reason."""
    return ["stage", "reason", "spectra>", "coadds>", "for example"], [
        [row.stage, row.reason, f"{row.spectra:,}", f"{row.coadds:,}", row.example] for row in contents.quarantine
    ]


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table of plain text, escaped."""
    classes = [' class="n"' if name.endswith(">") else "" for name in header]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name.rstrip(">"))}</th>' for name, kind in zip(header, classes, strict=True)
    )
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{escape(cell)}</td>' for cell, kind in zip(row, classes, strict=True))}</tr>"
        for row in rows
    )
    kind = "scroll narrow" if len(header) == 2 else "scroll"
    return f'<div class="{kind}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def duration(seconds: float) -> str:
    """Write a time: 8.2 s, 4 min 10 s, 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(number: int) -> str:
    """Write a number of bytes: 3.2 GB."""
    amount = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")
