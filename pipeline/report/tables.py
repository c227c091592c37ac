"""Tables that the page and the terminal share: header and rows of plain text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipeline.report.contents import Contents, Metric, Step

Table = tuple[list[str], list[list[str]]]  # a header that ends in ">" is of a right-aligned column


def counts(contents: Contents) -> Table:
    """Rows in and out of each stage, and how fast."""
    header = ["stage", "rows in>", "rows out>", "quarantined>", "chunks", "worker time>", "rate>", "read>", "requests>"]
    return header, [_step(step) for step in contents.steps]


def _step(step: Step) -> list[str]:
    worked = step.seconds > 0
    return [
        step.stage,
        f"{step.rows_in:,}",
        f"{step.rows_out:,}",
        f"{step.quarantined:,}",
        ", ".join(f"{number:,} {state}" for state, number in step.chunks.items() if number) or "–",
        duration(step.seconds) if worked else "–",
        f"{step.rows_in / step.seconds:,.0f}/s" if worked else "–",
        size(step.bytes_read) if step.bytes_read else "–",
        f"{step.requests:,}" if step.requests else "–",
    ]


def metrics(contents: Contents) -> Table:
    """Every quality metric, in the order of the stages."""
    return ["stage", "metric", "value>", "unit"], [
        [row.stage, row.name.replace("_", " "), value(row), row.unit] for row in contents.metrics
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
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


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
