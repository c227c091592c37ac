"""How far the list can be believed: false discoveries, verdicts, fairness of the p-values, agreement of models."""

from __future__ import annotations

from html import escape

from pipeline.credibility import BEYOND, CELL, CELLS, DISTANCE, P_VALUES, PARTS, SHARE, SPECTRA
from pipeline.report.contents import Contents, Metric
from pipeline.report.tables import html_table, value
from pipeline.verdicts.kinds import MEANING

FRACTION, ALLOWED = "models disagree on strange spectra", "models may disagree on strange spectra"
_VERDICT = "verdict "


def alarm(metrics: list[Metric]) -> str:
    """Say loudly that compared models disagree more than they may; nothing when they do not."""
    known = {metric.name: metric.value for metric in metrics if metric.stage == "compare"}
    found, allowed = known.get(FRACTION), known.get(ALLOWED)
    if found is None or allowed is None or found <= allowed:
        return ""
    return (
        f"MODELS DISAGREE strongly on {found:.0%} of the spectra that any of them finds strange, {allowed:.0%} are "
        "allowed: believe only what all of them find. `scores.disagreement` is not 0 where they differ."
    )


def banner(contents: Contents) -> str:
    """The alarm as HTML."""
    text = alarm(contents.metrics)
    return f'<p class="alarm" role="alert">{escape(text)}</p>' if text else ""


def discoveries(contents: Contents) -> str:
    """What is left of the list once the number of spectra looked at is counted, in HTML."""
    known = {metric.name: metric for metric in contents.metrics if metric.stage == "calibrate"}
    names = ("spectra with q < 0.05", "spectra with q < 0.1", "spectra with p < 0.05 / survey", BEYOND)
    if any(name not in known for name in names):
        return ""
    low, high, strict, dr1 = (value(known[name]) for name in names)
    return (
        f'<p class="note">{low} spectra have q &lt; 0.05 and {high} q &lt; 0.1: of a list cut there, 5% or 10% are '
        f"expected to be normal. {strict} would be unexpected (5%) among as many normal spectra as were looked at. Of "
        f"1.6 million normal spectra {dr1} would be stranger than all that calibrate this model: what is rarer than "
        "that is extrapolated.</p>"
    )


def verdicts(contents: Contents) -> str:
    """How many candidates got which verdict, in HTML."""
    found = [metric for metric in contents.metrics if metric.stage == "calibrate" and metric.name.startswith(_VERDICT)]
    rows = sorted(((m.value or 0.0, m.name.removeprefix(_VERDICT)) for m in found), reverse=True)
    if not rows:
        return ""
    table = [[name.replace("_", " "), f"{count:,.0f}", MEANING.get(name, "")] for count, name in rows if count]
    return "<h3>Verdicts on the candidates</h3>" + html_table(["verdict", "candidates>", "meaning"], table)


def parts(contents: Contents) -> str:
    """p-values of spectra that trained the model, that calibrate it, and that do neither, in HTML."""
    known = {metric.name: metric for metric in contents.metrics if metric.stage == "calibrate"}
    if SPECTRA.format(PARTS[0]) not in known:
        return ""
    names = (SPECTRA, DISTANCE)
    rows = [
        [part, *(value(known[name.format(part)]) for name in names)]
        + [value(known[SHARE.format(part, level)]) for level in P_VALUES]
        for part in PARTS
    ]
    header = ["the model was", "spectra>", "distance from uniform>", *(f"share with p < {p:g}>" for p in P_VALUES)]
    return "<h3>p-values, trained on and held out</h3>" + html_table(header, rows)


def told(metric: Metric) -> bool:
    """Whether one of these tables tells a metric, so that no other need."""
    starts = (_VERDICT, "p-values in cell", *(f"{part}: " for part in PARTS))
    return metric.stage == "calibrate" and metric.name.startswith(starts)


def uniformity(contents: Contents) -> str:
    """Distances of the p-values from uniform ones, by fifths of redshift and of S/N, in HTML."""
    known = {metric.name: metric.value for metric in contents.metrics if metric.stage == "calibrate"}
    cells = [[known.get(CELL.format(i + 1, j + 1)) for j in range(CELLS)] for i in range(CELLS)]
    if not any(cell is not None for row in cells for cell in row):
        return ""
    header = ["redshift", *(f"S/N {_FIFTHS[j]}>" for j in range(CELLS))]
    rows = [[_FIFTHS[i], *("–" if one is None else f"{one:.3f}" for one in row)] for i, row in enumerate(cells)]
    return (
        "<h3>p-values' distance from uniform, by redshift and S/N</h3>"
        + html_table(header, rows)
        + '<p class="note">Fifths of redshift, and of S/N within each. The p-values\' guarantee is for the survey as a '
        "whole; this table tests, and does not promise, that it holds in its parts.</p>"
    )


_FIFTHS = ("lowest", "second", "third", "fourth", "highest")
