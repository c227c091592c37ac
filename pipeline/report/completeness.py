"""Completeness as pictures and as a table to quote: curves, maps over S/N and redshift, ranks of known objects."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from pipeline.injection.completeness import ALL
from pipeline.injection.hosts import CONTROL
from pipeline.injection.recovery import THRESHOLDS
from pipeline.report.style import BLUE, DENSITY, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, VERMILLION, styled, tidy

COLOURS: Final = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
FEWEST: Final = 5  # objects that a cell of a map must hold
MAPPED: Final = "p<0.01"  # the threshold whose completeness the maps show
AXES: Final = {"sigma": "significance, σ", "snr": "median S/N per 0.8 Å pixel", "z": "redshift"}
_COLUMNS = 4

Row = dict[str, Any]


def _rows(table: pa.Table, cut: Sequence[str], **chosen: str) -> list[Row]:
    """Rows cut along exactly these axes."""
    return [
        row
        for row in table.to_pylist()
        if all((row[f"{axis}_low"] is not None) == (axis in cut) for axis in AXES)
        and all(row[name] == value for name, value in chosen.items())
    ]


def _name(text: str) -> str:
    return "untouched" if text == CONTROL else text.replace("_", " ")


def _pooled(name: str) -> bool:
    return name.startswith(ALL)


@styled
def curves(table: pa.Table, kind: str) -> Figure:
    """Draw completeness against significance, a panel a class of a kind and one for all of them."""
    found = _rows(table, ("sigma",), kind=kind)
    names = sorted({row["class"] for row in found}, key=lambda name: (_pooled(name), name))
    thresholds = sorted({row["threshold"] for row in found}, key=THRESHOLDS.index)
    height = -(-max(len(names), 1) // _COLUMNS)
    figure = Figure(figsize=(8.4, 1.75 * height + 0.7))
    grid = figure.subplots(height, _COLUMNS, squeeze=False, sharex=True, sharey=True)
    figure.subplots_adjust(0.07, 0.42 / (1.75 * height + 0.7), 0.985, 1 - 0.5 / (1.75 * height + 0.7), 0.1, 0.28)
    for ax, name in zip(grid.flat, names, strict=False):
        for number, threshold in enumerate(thresholds):
            rows = [row for row in found if row["class"] == name and row["threshold"] == threshold]
            _curve(ax, rows, COLOURS[number % len(COLOURS)], 1.0 + 0.035 * (number - 1), threshold)
        n = sum(row["n"] for row in found if row["class"] == name and row["threshold"] == thresholds[0])
        ax.set_title(f"{_name(name)}  ({n})", fontweight="bold" if _pooled(name) else "normal", pad=3)
        _significance_axis(ax)
    for ax in grid.flat[len(names) :]:
        ax.set_visible(False)
    for at in range(len(names)):
        ax = grid.flat[at]
        ax.tick_params(labelbottom=at + _COLUMNS >= len(names))
    figure.supxlabel("noiseless significance of the injection, σ", y=0.0, va="bottom", fontsize=9)
    figure.supylabel("share recovered", x=0.0, ha="left", fontsize=9)
    if names:
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=len(labels), bbox_to_anchor=(0.99, 1.0))
    return figure


def _curve(ax: Axes, rows: Sequence[Row], colour: str, shift: float, label: str) -> None:
    x = np.array([np.sqrt(row["sigma_low"] * row["sigma_high"]) for row in rows]) * shift
    y, low, high = (np.array([row[name] for row in rows], float) for name in ("completeness", "low", "high"))
    error = [np.maximum(y - low, 0), np.maximum(high - y, 0)]
    ax.errorbar(x, y, error, color=colour, lw=1.2, elinewidth=0.9, marker="o", ms=3, label=label)


def _significance_axis(ax: Axes) -> None:
    tidy(ax)
    ax.set_xscale("log")
    ax.set_xlim(4.8, 52)
    ax.set_ylim(-0.03, 1.03)
    ax.xaxis.set_major_locator(FixedLocator([5, 8, 15, 25, 50]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.grid(True, axis="y")


@styled
def bands(table: pa.Table) -> Figure:
    """Draw maps of completeness: classes against significance, S/N and redshift, with the numbers in their cells."""
    chosen = {"threshold": MAPPED}
    classes = {(row["kind"], row["class"]) for row in _rows(table, (), **chosen) if row["kind"] != "catalog"}
    names = [name for _, name in sorted(classes, key=lambda p: (_KINDS.index(p[0]), not _pooled(p[1]), p[1]))]
    figure = Figure(figsize=(9.6, 0.24 * len(names) + 1.1))
    top, bottom = 0.75 / (0.24 * len(names) + 1.1), 0.35 / (0.24 * len(names) + 1.1)
    for number, axis in enumerate(AXES):
        ax = figure.add_axes((0.145 + 0.285 * number, bottom, 0.275, 1 - top - bottom))
        _map(ax, _rows(table, (axis,), **chosen), axis, names)
        ax.set_title(AXES[axis], pad=18)
        if number:
            ax.set_yticks([])
    figure.text(0.005, 0.01, f"percent with {MAPPED}; grey: fewer than {FEWEST}", color=MUTED, fontsize=8)
    return figure


_KINDS = ("physical", "artefact", "control")


def _map(ax: Axes, rows: Sequence[Row], axis: str, names: Sequence[str]) -> None:
    edges = sorted({(row[f"{axis}_low"], row[f"{axis}_high"]) for row in rows})
    share = np.full((len(names), len(edges)), np.nan)
    for row in rows:
        if row["class"] in names and row["n"] >= FEWEST:
            share[names.index(row["class"]), edges.index((row[f"{axis}_low"], row[f"{axis}_high"]))] = row[
                "completeness"
            ]
    ax.imshow(share, cmap=DENSITY, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_facecolor("#e8ebef")
    for (line, column), value in np.ndenumerate(share):
        if np.isfinite(value):
            colour = "white" if value < 0.6 else INK
            ax.text(column, line, f"{100 * value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
    ax.set_xticks(range(len(edges)), [_band(*pair) for pair in edges], fontsize=7.5)
    ax.set_yticks(range(len(names)), [_name(name) for name in names])
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if _pooled(name) else "normal")
    ax.xaxis.tick_top()
    ax.tick_params(length=0, pad=2)
    ax.spines[:].set_visible(False)


def _band(low: float, high: float) -> str:
    return f"{low:g}–{high:g}" if np.isfinite(high) else f"> {low:g}"


@styled
def known_ranks(shares: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Draw which share of each label's known objects lies among the first ranks, given as shares of the survey."""
    figure = Figure(figsize=(6.0, 3.6))
    ax = figure.add_axes((0.1, 0.135, 0.87, 0.82))
    smallest = min((float(values.min()) for values in shares.values() if len(values)), default=1e-3)
    first = max(min(smallest, 1e-2), 1e-7)
    for colour, (label, values) in zip(COLOURS, shares.items(), strict=False):
        ordered = np.sort(values)
        steps = np.arange(1, len(ordered) + 1) / max(len(ordered), 1)
        ax.step([first, *ordered, 1.0], [0.0, *steps, 1.0], where="post", color=colour, lw=1.4,
                label=f"{_name(label)} ({len(values):,})")  # fmt: skip
    chance = np.geomspace(first, 1, 100)
    ax.plot(chance, chance, color=MUTED, lw=1, ls="--", label="by chance")
    ax.set_xscale("log")
    ax.set_xlim(first, 1)
    ax.set_ylim(0, 1.02)
    ax.grid(True, axis="y")
    ax.legend(loc="upper left")
    tidy(ax, "place in the survey's ranks, as a share of it", "share of the known objects")
    return figure


def ecsv(table: pa.Table, about: Mapping[str, Any]) -> str:
    """Return completeness as ECSV (astropy's CSV with descriptions in its header), ``about`` in its metadata."""
    from astropy.table import MaskedColumn, Table

    done = Table(meta=dict(about))
    for name in table.column_names:
        column = table[name]
        values = (column.cast(pa.string()) if pa.types.is_timestamp(column.type) else column).to_pylist()
        mask = [value is None for value in values]
        filler = "" if any(isinstance(value, str) for value in values) else 0
        data = [filler if value is None else value for value in values]
        done[name] = MaskedColumn(data, mask=mask, description=DESCRIPTIONS.get(name, ""))
    sink = io.StringIO()
    done.write(sink, format="ascii.ecsv", delimiter=",")
    return sink.getvalue()


DESCRIPTIONS: Final = {
    "kind": "physical or artefact: injected; control: held-out spectra as they are; catalog: known objects",
    "class": "class injected, all_ and a kind: all of it, none: control; else a catalog's label",
    "threshold": "what counts as recovered; q is the false discovery rate over the survey",
    "sigma_low": "noiseless significance beside 20 components of ordinary quasars, lower edge, sigma; empty: any",
    "sigma_high": "upper edge, sigma",
    "snr_low": "median S/N per 0.8 Angstrom pixel, lower edge; the lowest band takes all below; empty: any",
    "snr_high": "upper edge",
    "z_low": "catalogued redshift, lower edge; empty: any",
    "z_high": "upper edge",
    "n": "objects",
    "recovered": "objects beyond the threshold",
    "completeness": "recovered / n",
    "low": "lower end of the 68.3% Wilson interval",
    "high": "upper end",
}
