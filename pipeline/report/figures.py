"""Figures of a whole run: training curves, scores, p-values and the map of the embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from pipeline.report.contents import Catalog, Embedding, Floats
from pipeline.report.style import BLUE, DENSITY, MUTED, RAW, VERMILLION, styled, tidy

TOP = 24  # anomalies marked in the figures, and shown in the gallery


def top_mask(rank: NDArray[np.integer], count: int = TOP) -> NDArray[np.bool_]:
    """Say which spectra are the ``count`` best ranked ones here (0 is no rank)."""
    ranked = np.sort(rank[rank > 0])
    return (rank > 0) & (rank <= (ranked[min(count, len(ranked)) - 1] if len(ranked) else 0))


@styled
def training_curves(history: Sequence[dict[str, float]], names: Sequence[tuple[str, str]], label: str) -> Figure:
    """Draw the curves ``names`` (key, name) of a history with one entry a segment; ``label`` is their axis."""
    figure = Figure(figsize=(6.0, 3.1))
    ax = figure.add_axes((0.115, 0.15, 0.86, 0.79))
    for (key, name), colour, marker in zip(names, (BLUE, VERMILLION), "os", strict=False):
        values = np.array([entry.get(key, np.nan) for entry in history], dtype=float)
        ax.plot(np.arange(1, len(values) + 1), values, color=colour, marker=marker, ms=3.5, lw=1.2, label=name)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(True, axis="y")
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=2, borderaxespad=0.2)
    tidy(ax, "segment", label)
    return figure


LABELS = {
    "snr": "median S/N per 0.8 Å pixel",
    "z": "redshift",
    "score": "anomaly score",
    "chi2_reduced": "χ² a bin of the reconstruction",
}
_LOGARITHMIC = ("snr", "chi2_reduced")


@styled
def against(catalog: Catalog, x: str, y: str) -> Figure:
    """Draw one column of the catalog against another as a density, with the top anomalies marked."""
    figure = Figure(figsize=(6.0, 3.6))
    ax = figure.add_axes((0.1, 0.135, 0.77, 0.83))
    tidy(ax, LABELS[x], LABELS[y])
    pair = [np.asarray(getattr(catalog, name), dtype=float) for name in (x, y)]
    known = np.all([np.isfinite(v) & ((v > 0) | (n not in _LOGARITHMIC)) for n, v in zip((x, y), pair, strict=True)], 0)
    top = top_mask(catalog.rank)[known]
    first, second = (values[known] for values in pair)  # the lowest few of a logarithmic axis go to its edge
    if not len(first):
        return nothing(figure, ax)
    if x in _LOGARITHMIC:
        ax.set_xscale("log")
        _ticks(ax.xaxis, first)
    if y in _LOGARITHMIC:
        ax.set_yscale("log")
        _ticks(ax.yaxis, second)
    across, along = _edges(first, x, 70), _edges(second, y, 56)
    first, second = np.maximum(first, across[0]), np.maximum(second, along[0])
    _density(figure, ax, across, along, (first, second))
    if top.any():
        ax.scatter(
            first[top], second[top], s=24, facecolor="none", edgecolor=VERMILLION, lw=1.1, label=f"top {top.sum()}"
        )
        ax.legend(loc="upper left", handletextpad=0.2)
    return figure


def _ticks(axis: Axis, values: Floats) -> None:
    narrow = values.max() < 8.0 * values.min()
    axis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _edges(values: Floats, name: str, count: int) -> Floats:
    low, high = float(values.min()), float(values.max())
    if name in _LOGARITHMIC:
        low, high = max(low, float(np.percentile(values, 0.5)) / 2.0), high * 1.05
        return np.geomspace(min(low, 0.99 * high), high, count + 1)
    return np.linspace(low, high + max(0.02 * (high - low), 1e-9), count + 1)


def _density(figure: Figure, ax: Axes, x: Floats, y: Floats, values: tuple[Floats, Floats]) -> None:
    if len(values[0]) < 300:
        ax.scatter(*values, s=9, color=BLUE, lw=0)
        return
    count, _, _ = np.histogram2d(*values, bins=[x, y])
    norm = LogNorm(1, max(2.0, count.max()))
    mesh = ax.pcolormesh(x, y, np.where(count > 0, count, np.nan).T, norm=norm, cmap=DENSITY, rasterized=True)
    bar = figure.colorbar(mesh, cax=figure.add_axes((0.89, 0.135, 0.02, 0.83)))
    bar.outline.set_linewidth(0.5)
    bar.set_label("spectra a cell")


@styled
def p_values(p_value: Floats, training: NDArray[np.bool_]) -> Figure:
    """Draw the histogram of p-values over its uniform expectation, of all spectra and of those not trained on."""
    figure = Figure(figsize=(6.0, 3.6))
    ax = figure.add_axes((0.1, 0.135, 0.87, 0.79))
    tidy(ax, "p-value", "spectra a bin over the expected number")
    known = np.isfinite(p_value)
    if not known.any():
        return nothing(figure, ax)
    edges = np.linspace(0.0, 1.0, 41 if known.sum() > 1000 else 11)
    ax.stairs(_relative(p_value[known], edges), edges, fill=True, color=RAW, label=f"all {known.sum():,}")
    fresh = p_value[known & ~training]
    if 0 < len(fresh) < known.sum():
        ax.stairs(_relative(fresh, edges), edges, color=BLUE, lw=1.3, label=f"not trained on, {len(fresh):,}")
    spread = 2.0 * ((len(edges) - 1) / (len(fresh) or known.sum())) ** 0.5
    ax.axhspan(1.0 - spread, 1.0 + spread, color=VERMILLION, alpha=0.16, lw=0)
    ax.axhline(1.0, color=VERMILLION, lw=1.2, label="uniform ± 2σ")
    ax.set_xlim(-0.005, 1.005)
    ax.set_ylim(0.0, None)
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def _relative(values: Floats, edges: Floats) -> Floats:
    return np.histogram(values, edges)[0] * (len(edges) - 1) / len(values)


def principal_plane(vectors: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return the two principal components [M, 2] of vectors [M, D], and the variance each explains (0 to 1).

    Signs are fixed by making the largest loading of each component positive.
    """
    centred = np.asarray(vectors, dtype=float) - np.mean(vectors, axis=0, dtype=float)
    values, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(axes.shape[1])])
    return centred @ axes, values[::-1][:2] / max(values.sum(), 1e-30)


@styled
def embedding_map(embedding: Embedding) -> Figure:
    """Draw the embeddings on their principal plane, coloured by redshift, with the top anomalies marked."""
    figure = Figure(figsize=(6.0, 3.6))
    ax = figure.add_axes((0.1, 0.135, 0.77, 0.83))
    plane, share = principal_plane(embedding.vectors)
    shown = ~embedding.top
    limits = np.percentile(embedding.z, [1, 99]) if len(embedding.z) else (0.0, 1.0)
    norm = Normalize(*limits)
    for mask, size, label in ((shown, 2.2 if len(plane) > 2000 else 10.0, None), (embedding.top, 26.0, "top")):
        ax.scatter(plane[mask, 0], plane[mask, 1], c=embedding.z[mask], s=size, lw=1.1 if label else 0.0, cmap=DENSITY,
                   norm=norm, edgecolor=VERMILLION, rasterized=label is None,
                   label=label and f"top {embedding.top.sum()}")  # fmt: skip
    _frame(ax, plane)
    bar = figure.colorbar(ScalarMappable(norm, DENSITY), cax=figure.add_axes((0.89, 0.135, 0.02, 0.83)))
    bar.outline.set_linewidth(0.5)
    bar.set_label("redshift")
    ax.legend(loc="upper left", handletextpad=0.2)
    tidy(ax, *(f"principal component {i + 1} ({part:.0%} of the variance)" for i, part in enumerate(share)))
    return figure


def _frame(ax: Axes, plane: Floats) -> None:
    """Limits that a few far outliers do not set."""
    low, high = np.percentile(plane, [0.1, 99.9], axis=0)
    margin = 0.18 * np.maximum(high - low, 1e-9)
    low = np.maximum(low - margin, plane.min(0) - 0.3 * margin)
    high = np.minimum(high + margin, plane.max(0) + 0.3 * margin)
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])


def nothing(figure: Figure, ax: Axes) -> Figure:
    ax.text(0.5, 0.5, "nothing is scored yet", transform=ax.transAxes, ha="center", color=MUTED)
    ax.set_xticks([])
    ax.set_yticks([])
    return figure
