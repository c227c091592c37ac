"""Rest-frame lines for naming what is seen, and the places where the instrument and the sky leave their marks.

Wavelengths are vacuum Å: emission lines from the SDSS composite quasar's laboratory values (Vanden Berk et al. 2001,
AJ 122, 549, table 2), absorption lines from Morton 2003 (ApJS 149, 205), optical ones from NIST.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

C_KMS = 299792.458  # km/s, exact
BAL_REACH = 25_000.0  # km/s, how far a broad trough lies from its line (Weymann et al. 1991, ApJ 373, 23)
LYA_LIMIT = 1215.67  # Å, the forest begins blueward of Lyα


@dataclass(frozen=True)
class Line:
    """A line: vacuum wavelength at rest (Å) and rank of importance when labels compete, 0 first."""

    name: str
    wavelength: float
    order: int
    kinds: str = "ea"  # e: named in emission, a: named in absorption


def _table(text: str) -> tuple[Line, ...]:
    rows = (row.rsplit(None, 3) for row in text.strip().splitlines())
    return tuple(Line(name.strip(), float(wave), int(order), kinds) for name, wave, order, kinds in rows)


LINES = _table("""
C III       977.02  6 ea
Lyβ        1025.72  7 a
O VI       1033.82  4 ea
Lyα        1215.67  0 ea
N V        1240.81  3 ea
Si II      1260.42  9 a
O I        1304.35  6 ea
C II       1335.30  6 ea
Si IV      1396.76  2 ea
Si II      1526.71  9 a
C IV       1549.06  0 ea
Fe II      1608.45  9 a
He II      1640.42  3 e
O III]     1663.48  7 e
Al II      1670.79  8 a
Al III     1857.40  7 ea
Si III]    1892.03  8 e
C III]     1908.73  1 e
Fe II      2344.21  8 a
Fe II      2382.76  8 a
[Ne IV]    2424.20  7 e
Fe II      2600.17  7 a
Mg II      2799.12  0 ea
Mg I       2852.96  8 a
[Ne V]     3426.84  4 e
[O II]     3728.48  2 e
[Ne III]   3869.86  5 e
Ca K       3934.78  6 a
Ca H       3969.59  7 a
Hδ         4102.89  5 ea
Hγ         4341.68  3 ea
He II      4687.02  7 e
Hβ         4862.68  0 ea
[O III]    4960.30  6 e
[O III]    5008.24  1 e
Mg b       5176.00  7 a
He I       5877.25  5 e
Na D       5894.57  6 a
[O I]      6302.05  6 e
Hα         6564.61  0 ea
[N II]     6585.27  8 e
[S II]     6725.48  5 e
""")

# observed vacuum Å: low, high, what is there (design notes on DESI's known artefacts)
MARKS: tuple[tuple[float, float, str], ...] = (
    (5570.0, 5587.0, "sky line [O I]"),
    (5760.0, 5800.0, "B/R seam"),
    (5886.0, 5903.0, "sky line Na D"),
    (6296.0, 6308.0, "sky line [O I]"),
    (6868.0, 6945.0, "telluric B band"),
    (7520.0, 7620.0, "R/Z seam, telluric A band"),
    (7620.0, 7700.0, "telluric A band"),
    (9300.0, 9824.0, "OH sky lines"),
)


def named(z: float, low: float, high: float, most: int = 7) -> list[Line]:
    """Return the emission lines that a spectrum at ``z`` shows between ``low`` and ``high`` observed Å."""
    inside = (line for line in LINES if low <= line.wavelength * (1.0 + z) <= high)
    return [line for line in inside if line.order <= most and "e" in line.kinds]


def identify(rest: float, width_kms: float, kind: str) -> str:
    """Name a feature at ``rest`` Å: a line, a line at a velocity, the forest, or nothing ("").

    A line is named within half the feature's width plus 1,000 km/s, more than quasar redshift errors (DESI's
    scatter is a few hundred km/s). Absorption further to the blue of a line that makes broad troughs is named by
    its velocity from that line.

    Args:
        rest: wavelength at rest, Å.
        width_kms: width of the feature, km/s.
        kind: "emission" or "absorption".
    """
    candidates = [line for line in LINES if kind[0] in line.kinds]
    velocity = C_KMS * (rest / np.array([line.wavelength for line in candidates]) - 1.0)
    near = np.flatnonzero(np.abs(velocity) <= 0.5 * width_kms + 1000.0)
    if len(near):
        best = min(near, key=lambda i: (abs(velocity[i]) + 150.0 * candidates[i].order, i))
        return candidates[best].name
    if kind != "absorption":
        return ""
    for name in ("C IV", "Si IV", "Mg II"):
        line = next(line for line in candidates if line.name == name)
        shift = C_KMS * (rest / line.wavelength - 1.0)
        if -BAL_REACH <= shift < 0.0:
            return f"{name} at −{-shift:,.0f} km/s"
    return "in the Lyα forest" if rest < LYA_LIMIT else ""


def mark(observed: float) -> str:
    """Say which known trouble spot of the instrument or the sky an observed wavelength (Å) lies in, or ""."""
    return next((what for low, high, what in MARKS if low <= observed < high), "")


def place(
    wanted: Sequence[float], widths: Sequence[float], order: Sequence[int], low: float, high: float, reach: float
) -> dict[int, float]:
    """Place labels along an axis so that none overlap, leaving out those that do not fit.

    Labels come in by importance; each one stays if all can then be placed without overlap, inside
    [low, high], none further than ``reach`` from where it wants to be.

    Args:
        wanted: K centres wanted, in any unit of length, in increasing order.
        widths: K widths, with the gap to the next label included.
        order: K importances, the smallest first.
        low, high, reach: limits, same unit.

    Returns:
        Index of each label that stays → its centre.
    """
    kept: list[int] = []
    centres: NDArray[np.float64] = np.empty(0)
    for index in sorted(range(len(wanted)), key=lambda i: (order[i], i)):
        trial = sorted([*kept, index])
        aim = np.array([wanted[i] for i in trial])
        found = _spread(aim, np.array([widths[i] for i in trial]), low, high)
        if found is not None and np.all(np.abs(found - aim) <= reach):
            kept, centres = trial, found
    return dict(zip(kept, centres.tolist(), strict=True))


def _spread(
    aim: NDArray[np.float64], width: NDArray[np.float64], low: float, high: float
) -> NDArray[np.float64] | None:
    """Least squares centres without overlap: isotonic regression by pooling adjacent violators; None: no room."""
    if width.sum() > high - low:
        return None
    before = np.concatenate([[0.0], np.cumsum(0.5 * (width[:-1] + width[1:]))])
    pools: list[tuple[float, int]] = []
    for value in aim - before:
        mean, count = float(value), 1
        while pools and pools[-1][0] >= mean:
            other, size = pools.pop()
            mean, count = (mean * count + other * size) / (count + size), count + size
        pools.append((mean, count))
    base = np.repeat([mean for mean, _ in pools], [count for _, count in pools])
    bottom = low + 0.5 * width[0]
    top = high - 0.5 * width[-1] - before[-1]
    return np.asarray(np.clip(base, bottom, top) + before)
