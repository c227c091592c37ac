"""The sky map: number density of the spectra and the top anomalies, ICRS."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from pipeline.report.contents import Floats
from pipeline.report.style import BLUE, DENSITY, MUTED, VERMILLION, styled, tidy

_ZOOM = 50.0  # deg: a survey narrower than this is shown zoomed
_CENTRE = 120.0  # deg, right ascension at the middle of the full map, DESI's custom
_POLE_RA, _POLE_DEC, _NODE = 192.85948, 27.12825, 122.93192  # deg, J2000 (ESA 1997, Hipparcos vol. 1, sect. 1.5.3)


@styled
def sky_map(ra: Floats, dec: Floats, top: NDArray[np.bool_]) -> Figure:
    """Draw positions [N] (deg, ICRS): the whole sky in Mollweide's projection, or the part that is covered."""
    known = np.isfinite(ra) & np.isfinite(dec)
    ra, dec, top = ra[known], dec[known], top[known]
    middle, width = _extent(ra)
    height = float(np.ptp(dec)) if len(dec) else 0.0
    figure = Figure(figsize=(6.0, 3.7))
    if len(ra) and max(width * np.cos(np.radians(np.median(dec))), height) < _ZOOM:
        _zoomed(figure, (ra - middle + 180.0) % 360.0 - 180.0 + middle, dec, top)
    else:
        _whole(figure, ra, dec, top)
    return figure


def _extent(ra: Floats) -> tuple[float, float]:
    """Middle and width (deg) of the shortest arc of right ascension that holds all."""
    if not len(ra):
        return _CENTRE, 360.0
    ordered = np.sort(ra % 360.0)
    gaps = np.diff(ordered, append=ordered[0] + 360.0)
    widest = int(np.argmax(gaps))
    width = 360.0 - float(gaps[widest])
    start = float(ordered[(widest + 1) % len(ordered)])
    return (start + 0.5 * width) % 360.0, width


def _zoomed(figure: Figure, ra: Floats, dec: Floats, top: NDArray[np.bool_]) -> None:
    ax = figure.add_axes((0.1, 0.135, 0.77, 0.8))
    if len(ra) >= 300:
        scale = float(np.cos(np.radians(np.median(dec))))
        spans = np.maximum([np.ptp(ra) * scale, np.ptp(dec)], 0.1)
        side = max(spans.max() / 60.0, float(np.sqrt(12.0 * spans.prod() / len(ra))))  # a dozen spectra a cell
        edges = [_edges(ra, side / scale), _edges(dec, side)]
        count, _, _ = np.histogram2d(ra, dec, bins=edges)
        area = scale * np.diff(edges[0])[0] * np.diff(edges[1])[0]
        mesh = ax.pcolormesh(*edges, np.where(count > 0, count / area, np.nan).T, cmap=DENSITY, rasterized=True)
        bar = figure.colorbar(mesh, cax=figure.add_axes((0.89, 0.135, 0.02, 0.8)))
        bar.outline.set_linewidth(0.5)
        bar.set_label("spectra deg$^{-2}$")
    else:
        ax.scatter(ra, dec, s=9, color=BLUE, lw=0)
    _mark(ax, ra[top], dec[top])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value % 360.0:g}"))
    ax.set_aspect(1.0 / max(np.cos(np.radians(np.median(dec))), 0.1), adjustable="datalim")
    ax.invert_xaxis()
    tidy(ax, "right ascension / deg (ICRS)", "declination / deg (ICRS)")


def _mark(ax: Axes, x: Floats, y: Floats) -> None:
    """The top anomalies, named above the map's corner where nothing lies."""
    if len(x):
        ax.scatter(x, y, s=24, facecolor="none", edgecolor=VERMILLION, lw=1.1, label=f"top {len(x)}")
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 0.99), handletextpad=0.2, borderaxespad=0.0)


def _edges(values: Floats, side: float) -> Floats:
    return np.linspace(values.min(), values.max() + 1e-9, max(2, round(float(np.ptp(values)) / side) + 1))


def _whole(figure: Figure, ra: Floats, dec: Floats, top: NDArray[np.bool_]) -> None:
    ax = figure.add_axes((0.07, 0.15, 0.9, 0.8), projection="mollweide")
    x, y = _mollweide(ra), np.radians(dec)
    if len(ra):
        edges = np.radians(np.linspace(-180, 180, 181)), np.arcsin(np.linspace(-1, 1, 91))  # equal areas, 4.6 deg²
        count, _, _ = np.histogram2d(x, y, bins=edges)
        density = np.where(count > 0, count / (41252.96 / 180 / 90), np.nan)
        norm = LogNorm(np.nanmin(density), max(np.nanmax(density), 1.001 * np.nanmin(density)))
        mesh = ax.pcolormesh(*edges, density.T, norm=norm, cmap=DENSITY, rasterized=True)
        bar = figure.colorbar(mesh, cax=figure.add_axes((0.3, 0.105, 0.4, 0.02)), orientation="horizontal")
        bar.outline.set_linewidth(0.5)
        bar.set_label("spectra deg$^{-2}$", labelpad=1)
        _mark(ax, x[top], y[top])
    _galactic_plane(ax)
    ax.grid(True)
    ticks = np.arange(-120, 121, 60)
    ax.set_xticks(np.radians(ticks), [])
    for tick in ticks:  # below most surveys' footprints
        degrees = f"{(_CENTRE - tick) % 360:.0f}°"
        ax.text(np.radians(tick), np.radians(-45), degrees, ha="center", fontsize=7, color=MUTED)
    ax.set_yticks(np.radians([-60, -30, 0, 30, 60]))
    ax.tick_params(labelsize=7)


def _mollweide(ra: Floats) -> Floats:
    """Radians from the map's middle, east to the left."""
    return -np.radians((ra - _CENTRE + 180.0) % 360.0 - 180.0)


def _galactic_plane(ax: Axes) -> None:
    longitude = np.radians(_NODE) - np.radians(np.linspace(0.0, 360.0, 361))
    pole = np.radians(_POLE_DEC)
    dec = np.arcsin(np.cos(pole) * np.cos(longitude))
    ra = _POLE_RA + np.degrees(np.arctan2(np.sin(longitude), -np.sin(pole) * np.cos(longitude)))
    x = _mollweide(ra)
    order = np.argsort(x)
    ax.plot(x[order], dec[order], color=MUTED, lw=0.9, ls=(0, (4, 2)))
