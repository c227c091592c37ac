"""How far a calibration can be believed: quality metrics of p-values and q-values, over the whole survey and in parts.

Legend: N spectra.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Metrics = dict[str, float | tuple[float, str]]

CELLS = 5  # along redshift and along S/N
MIN_CELL = 100  # spectra in a cell whose distribution means something
DR1 = 1_600_000  # quasar spectra of DESI DR1: the survey that look-elsewhere statements are made for
LEVELS = (0.05, 0.1)  # false discovery rates that lists are cut at
BEYOND = "normal spectra in 1.6 million beyond all calibration spectra"
CELL = "p-values in cell z {} S/N {}: distance from uniform"
PARTS = ("trained on", "calibrated by", "neither")
P_VALUES = (0.01, 0.1, 0.5)
SPECTRA, DISTANCE, SHARE = "{}: spectra", "{}: p-values' distance from uniform", "{}: share with p < {:g}"


def discoveries(p_value: Floats, q_value: Floats, n_calibration: int) -> Metrics:
    """Count what is found at each false discovery rate, and beyond the whole survey's look-elsewhere effect.

    Args:
        p_value: float64 [N], NaN where there is none.
        q_value: float64 [N], likewise.
        n_calibration: spectra that p-values were calibrated by.
    """
    known = np.isfinite(p_value)
    total = int(known.sum())
    found: Metrics = {f"spectra with q < {level:g}": (int((q_value < level).sum()), "spectra") for level in LEVELS}
    lowest = float(p_value[known].min()) if total else float("nan")
    return found | {
        "spectra with p < 0.05 / survey": (int((p_value < 0.05 / max(total, 1)).sum()), "spectra"),
        "smallest p-value": lowest,
        BEYOND: (DR1 / (n_calibration + 1), "spectra"),
    }


def look_elsewhere(p_value: Floats, q_value: Floats, n_calibration: int) -> str:
    """Say in one sentence what is left of the list once the number of spectra looked at is counted."""
    known = p_value[np.isfinite(p_value)]
    if not len(known):
        return "no spectrum has a p-value"
    kept = int((q_value < LEVELS[0]).sum())
    strict = int((known < 0.05 / len(known)).sum())
    return (
        f"{kept:,} with q < {LEVELS[0]:g}, of which {LEVELS[0]:.0%} may be normal; {strict:,} with a 5% chance of any "
        f"normal one among {len(known):,}; of 1.6 million normal spectra {DR1 / (n_calibration + 1):,.0f} would be "
        f"stranger than all {n_calibration:,} calibration spectra, and what is rarer is extrapolated"
    )


def uniformity(p_value: Floats, z: Floats, snr: Floats, training: Mask, calibration: Mask) -> Metrics:
    """Measure how uniform p-values are: in training apart from the rest, and in cells of redshift and S/N.

    Cells hold equally many spectra that neither trained nor calibrated the model; where those are too few, all
    spectra that did not train it. Distances are Kolmogorov and Smirnov's. Anomalies, too, keep them from 0.

    Args:
        p_value, z, snr: float64 [N].
        training: the model was trained on the spectrum, bool [N].
        calibration: the p-values were calibrated by it, bool [N].
    """
    known = np.isfinite(p_value) & np.isfinite(z) & np.isfinite(snr)
    fresh = known & ~training & ~calibration
    done: Metrics = {}
    for name, members in zip(PARTS, (known & training, known & calibration, fresh), strict=True):
        found = p_value[members]
        done[SPECTRA.format(name)] = (len(found), "spectra")
        done[DISTANCE.format(name)] = distance(found)
        for level in P_VALUES:
            done[SHARE.format(name, level)] = float(np.mean(found < level)) if len(found) else float("nan")
    tested = fresh if fresh.sum() >= CELLS**2 * MIN_CELL else known & ~training
    return done | _cells(p_value[tested], z[tested], snr[tested])


def _cells(p_value: Floats, z: Floats, snr: Floats) -> Metrics:
    found = np.full((CELLS, CELLS), np.nan)
    for at, row in enumerate(np.array_split(np.argsort(z, kind="stable"), CELLS)):
        for along, cell in enumerate(np.array_split(row[np.argsort(snr[row], kind="stable")], CELLS)):
            if len(cell) >= MIN_CELL:
                found[at, along] = distance(p_value[cell])
    largest = float(np.nanmax(found)) if np.isfinite(found).any() else float("nan")
    cells: Metrics = {CELL.format(i + 1, j + 1): float(found[i, j]) for i in range(CELLS) for j in range(CELLS)}
    return {"p-values in 25 cells: largest distance from uniform": largest} | cells


def distance(p_value: Floats) -> float:
    """Return the largest distance of the cumulative distribution from a uniform one; NaN of fewer than ten."""
    ordered = np.sort(p_value)
    steps = np.arange(len(ordered) + 1) / max(len(ordered), 1)
    if len(ordered) < 10:
        return float("nan")
    return float(max(np.max(steps[1:] - ordered), np.max(ordered - steps[:-1])))
