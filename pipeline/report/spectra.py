"""Figures of single spectra: flux, error and reconstruction, the residual in σ, and a close-up of the reason.

Legend: L native pixels, K bins of ``BIN`` native pixels. NaN marks a bin or pixel without information: a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipeline.report.contents import Floats, Reason, Spectrum
from pipeline.report.lines import C_KMS, named, place
from pipeline.report.reasons import chance, judged, words
from pipeline.report.style import INK, MUTED, PURPLE, RAW, RULE, SKY, VERMILLION, styled, tidy

FIRST, PIXEL, N_PIXELS = 3600.0, 0.8, 7781  # Å, Å: DESI's joined grid
BIN = 8  # native pixels averaged into a point of the curve
WAVELENGTH: Floats = np.asarray(FIRST + PIXEL * np.arange(N_PIXELS), dtype=np.float64)
_EDGES = (FIRST - 20.0, float(WAVELENGTH[-1]) + 20.0)
_LABEL_SIZE = 7.2  # points
_SENTENCE = 165  # characters of the explanation that fit a line
_FLUX_UNIT = r"flux / $10^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$"


@dataclass(frozen=True)
class Binned:
    """A spectrum in K bins: the mean by inverse variance, and the range of the pixels behind it."""

    wavelength: Floats
    mean: Floats
    error: Floats  # typical 1 σ of one native pixel
    low: Floats
    high: Floats
    pull: Floats  # residual of the bin's mean, σ
    pull_low: Floats
    pull_high: Floats


def binned(
    flux_L: NDArray[np.floating], ivar_L: NDArray[np.floating], model_L: NDArray[np.floating] | None, size: int = BIN
) -> Binned:
    """Bin a spectrum; pixels with ivar = 0 enter nothing, and bins of such pixels alone are NaN."""
    count = len(flux_L) // size
    known = ivar_L[: count * size].reshape(count, size) > 0
    with np.errstate(all="ignore"):
        ivar = np.where(known, ivar_L[: count * size].reshape(count, size).astype(float), 0.0)
        flux = np.where(known, flux_L[: count * size].reshape(count, size).astype(float), 0.0)
        model = np.zeros_like(flux) if model_L is None else model_L[: count * size].reshape(count, size).astype(float)
        weight = ivar.sum(1)
        some = weight > 0
        nothing = np.where(some, 0.0, np.nan)
        pull = np.where(known, (flux - model) * np.sqrt(ivar), 0.0)
        return Binned(
            wavelength=WAVELENGTH[: count * size].reshape(count, size).mean(1),
            mean=(ivar * flux).sum(1) / weight + nothing,
            error=np.sqrt(known.sum(1) / weight) + nothing,
            low=np.min(flux, axis=1, where=known, initial=np.inf) + nothing,
            high=np.max(flux, axis=1, where=known, initial=-np.inf) + nothing,
            pull=(ivar * (flux - model)).sum(1) / np.sqrt(weight) + nothing,
            pull_low=np.min(pull, axis=1, where=known, initial=np.inf) + nothing,
            pull_high=np.max(pull, axis=1, where=known, initial=-np.inf) + nothing,
        )


@styled
def spectrum(source: Spectrum) -> Figure:
    """Draw one spectrum, with a close-up when its reason is local."""
    reason = source.reason if source.reason is not None and source.reason.local else None
    figure = Figure(figsize=(10.4, 3.95))
    main = 0.675 if reason else 0.935
    top = figure.add_axes((0.05, 0.342, main, 0.445))
    below = figure.add_axes((0.05, 0.108, main, 0.22), sharex=top)
    bins = binned(source.flux, source.ivar, source.model)
    _flux(top, source, bins)
    _residual(below, source, bins)
    figure.legend(*top.get_legend_handles_labels(), loc="lower right", bbox_to_anchor=(0.05 + main, -0.012), ncols=3,
                  fontsize=7.2, labelcolor=MUTED, borderaxespad=0.0)  # fmt: skip
    if reason:
        _shade((top, below), reason)
        _close_up(figure, source, reason)
    _rest_axis(top, source.z)
    figure.text(0.05, 0.968, _title(source), fontsize=9.6, fontweight="bold", va="center")
    said = source.explanation or (words(source.reason, source.z) if source.reason is not None else "")
    figure.text(0.05, 0.935, fill(said, _SENTENCE), fontsize=8.6, va="top", linespacing=1.15)
    return figure


def _title(source: Spectrum) -> str:
    rank = f"{source.rank}.  " if source.rank else ""
    chances = "" if np.isnan(source.p_value) else f"   p {_sign(chance(source.p_value, source.extrapolated))}"
    false = "" if np.isnan(source.q_value) else f"   q {_sign(chance(source.q_value))}"
    verdict = judged(source.verdict, source.artefact_probability)
    return f"{rank}{source.targetid}   z {source.z:.3f}   S/N {source.snr:.1f}{chances}{false}   {verdict}".rstrip()


def _sign(text: str) -> str:
    return text if text.startswith("≈") else f"= {text}"


def _flux(ax: Axes, source: Spectrum, bins: Binned) -> None:
    ax.plot(*_bars(bins.wavelength, bins.low, bins.high), color=RAW, lw=0.75, solid_capstyle="butt")
    ax.plot(bins.wavelength, bins.error, color=SKY, lw=0.8, label="error, 1σ a pixel")
    ax.plot(bins.wavelength, bins.mean, color=INK, lw=0.8, label=f"flux, {BIN * PIXEL:.1f} Å means, pixels behind")
    if source.model is not None:
        ax.plot(WAVELENGTH[::4], source.model[::4], color=VERMILLION, lw=1.1, label="reconstruction")
    tidy(ax, "", _FLUX_UNIT)
    ax.yaxis.label.set_fontsize(7.6)
    ax.spines["top"].set_visible(True)
    ax.set_xlim(*_EDGES)
    ax.set_ylim(*_range(bins, source.model))
    ax.tick_params(labelbottom=False)
    _lines(ax, source.z, _EDGES)


def _bars(x: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Vertical bars as one broken line: what the pixels' own line covers at this scale, in a tenth of the points."""
    nothing = np.full(len(x), np.nan)
    return np.stack([x, x, nothing], 1).ravel(), np.stack([low, high, nothing], 1).ravel()


def _range(bins: Binned, model: NDArray[np.floating] | None) -> tuple[float, float]:
    """Limits that hold the curve where it is well known and the model, with room for labels above."""
    noise = bins.error / np.sqrt(BIN)
    with np.errstate(invalid="ignore"):
        good = bins.mean[noise < 4.0 * np.nanmedian(noise)] if np.isfinite(noise).any() else np.empty(0)
    if not len(good):
        return -1.0, 1.0
    low, high = np.percentile(good, 0.3), max(np.percentile(good, 99.9), 0.0)
    high = max(high, min(float(good.max()), 3.0 * high))
    if model is not None:
        limits = np.percentile(model, [0.5, 99.95])
        low, high = min(low, float(limits[0])), max(high, float(limits[1]))
    low = min(low, 0.0)
    span = max(high - low, 1e-6)
    return low - 0.06 * span, high + 0.2 * span


def _residual(ax: Axes, source: Spectrum, bins: Binned) -> None:
    if source.model is None:
        ax.text(0.5, 0.5, "no reconstruction", transform=ax.transAxes, ha="center", va="center", color=MUTED)
    else:
        ax.plot(*_bars(bins.wavelength, bins.pull_low, bins.pull_high), color=RAW, lw=0.75, solid_capstyle="butt")
        ax.axhline(0.0, color=VERMILLION, lw=0.8)
        ax.plot(bins.wavelength, bins.pull, color=INK, lw=0.7)
        ax.set_ylim(*_pull_range(bins))
    ax.grid(True, axis="y")
    ax.yaxis.set_major_locator(MaxNLocator(4))
    tidy(ax, "", "residual / σ")
    ax.set_xlabel("observed wavelength, vacuum / Å", loc="left")
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_fontsize(7.6)


def _pull_range(bins: Binned) -> tuple[float, float]:
    finite = bins.pull[np.isfinite(bins.pull)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    return max(min(1.15 * low, -5.0), -40.0), min(max(1.15 * high, 5.0), 40.0)


def _rest_axis(ax: Axes, z: float) -> None:
    def to_rest(observed: Any) -> Any:
        return observed / (1.0 + z)

    def to_observed(at_rest: Any) -> Any:
        return at_rest * (1.0 + z)

    rest = ax.secondary_xaxis("top", functions=(to_rest, to_observed))
    rest.set_xlabel("rest wavelength / Å", fontsize=7.6, labelpad=2.0, color=MUTED)
    rest.tick_params(labelsize=7.5, pad=1.0, direction="out", length=2.5)


def _lines(ax: Axes, z: float, edges: tuple[float, float]) -> None:
    """Name the lines in one row along the top, moved apart where they would touch."""
    lines = named(z, edges[0] + 10.0, edges[1] - 10.0)
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    points = ax.get_position().width * figure.get_figwidth() * 72.0
    scale = points / (edges[1] - edges[0])
    wanted = [(line.wavelength * (1.0 + z) - edges[0]) * scale for line in lines]
    widths = [text_width(line.name, _LABEL_SIZE) + 5.0 for line in lines]
    for index, centre in place(wanted, widths, [line.order for line in lines], 2.0, points - 2.0, 26.0).items():
        observed = lines[index].wavelength * (1.0 + z)
        at = edges[0] + centre / scale
        ax.plot([observed, observed, at], [0.0, 0.885, 0.915], transform=ax.get_xaxis_transform(), color=MUTED,
                lw=0.55, ls=(0, (2, 2)), zorder=0.6)  # fmt: skip
        ax.text(at, 0.922, lines[index].name, transform=ax.get_xaxis_transform(), fontsize=_LABEL_SIZE,
                ha="center", va="bottom", color=INK, gid="line")  # fmt: skip


def text_width(text: str, size: float) -> float:
    """Width of a text in points."""
    width, _, _ = TextToPath().get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width)


def _shade(axes: Sequence[Axes], reason: Reason) -> None:
    half = max(0.5 * reason.width / C_KMS * reason.wavelength, 8.0)
    for ax in axes:
        ax.axvspan(reason.wavelength - half, reason.wavelength + half, color=PURPLE, alpha=0.35, lw=0, zorder=0.5)


def _close_up(figure: Figure, source: Spectrum, reason: Reason) -> None:
    """The reason at native pixels, in km/s around its centre."""
    flux_ax, pull_ax = figure.add_axes((0.765, 0.342, 0.22, 0.445)), figure.add_axes((0.765, 0.108, 0.22, 0.22))
    reach = float(np.clip(2.2 * reason.width, 1500.0, 12_000.0))
    velocity = C_KMS * (WAVELENGTH / reason.wavelength - 1.0)
    near = np.abs(velocity) <= reach
    known = source.ivar[near] > 0
    velocity = velocity[near]
    with np.errstate(all="ignore"):
        flux = np.where(known, source.flux[near], np.nan).astype(float)
        error = np.where(known, 1.0 / np.sqrt(source.ivar[near]), np.nan).astype(float)
    flux_ax.plot(velocity, error, color=SKY, lw=0.8, drawstyle="steps-mid")
    flux_ax.plot(velocity, flux, color=INK, lw=0.8, drawstyle="steps-mid")
    if source.model is not None:
        model = source.model[near].astype(float)
        flux_ax.plot(velocity, model, color=VERMILLION, lw=1.2)
        pull_ax.plot(velocity, (flux - model) / error, color=INK, lw=0.8, drawstyle="steps-mid")
    pull_ax.axhline(0.0, color=VERMILLION, lw=0.8)
    pull_ax.grid(True, axis="y")
    flux_ax.set_title(f"{reason.wavelength:.0f} Å, native pixels", fontsize=8.2, pad=5)
    for ax in (flux_ax, pull_ax):
        ax.axvspan(-0.5 * reason.width, 0.5 * reason.width, color=PURPLE, alpha=0.25, lw=0, zorder=0.5)
        ax.set_xlim(-reach, reach)
        ax.axvline(0.0, color=RULE, lw=0.6, zorder=0.5)
        tidy(ax)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_locator(MaxNLocator(4))
    _limit(flux_ax, flux, error, None if source.model is None else source.model[near])
    flux_ax.tick_params(labelbottom=False)
    pull_ax.set_xlabel("velocity from its centre / km s$^{-1}$", fontsize=7.6)


def _limit(ax: Axes, flux: Floats, error: Floats, model: NDArray[np.floating] | None) -> None:
    with np.errstate(invalid="ignore"):
        good = flux[error < 6.0 * np.nanmedian(error)] if np.isfinite(error).any() else np.empty(0)
    if len(good):
        low, high = min(float(good.min()), 0.0), float(good.max())
        high = high if model is None else max(high, float(model.max()))
        span = max(high - low, 1e-6)
        ax.set_ylim(low - 0.06 * span, high + 0.08 * span)
