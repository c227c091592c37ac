"""Which spectra the report shows, and the strongest reason of each; all of it repeatable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.report.contents import Catalog, Integers, Reason

# kind of reason → its raw score and its −ln p
COMPONENTS = {
    "emission": ("local_emission", "emission_surprise"),
    "absorption": ("local_absorption", "absorption_surprise"),
    "global": ("global_score", "global_surprise"),
    "density": ("density", "density_surprise"),
    "detection": ("detection", "detection_surprise"),
    "blend": ("blend", "blend_surprise"),
    "instrument": ("instrument", "instrument_surprise"),
    "redshift": ("redshift_gain", "redshift_surprise"),
}
IN_SIGMA = ("emission", "absorption", "global")
LOCAL = 5.0  # σ from which a window is worth a close-up, whatever drove the score
_SOURCE = {"blend": "blend_kind", "instrument": "instrument_kind"}

_NORMAL = 0.1  # p-value above which a spectrum is called ordinary
_SEED = 1


def best(rank: Integers, count: int) -> Integers:
    """Return the places of the ``count`` best ranked of N spectra, best first; rank 0 is none."""
    order = np.argsort(np.where(rank > 0, rank, np.iinfo(np.int64).max), kind="stable")
    return order[: min(count, int((rank > 0).sum()))]


def ordinary(catalog: Catalog, count: int) -> Integers:
    """Return the places of ``count`` ordinary spectra, one drawn from each of as many quantiles of redshift.

    They are drawn from the better half in S/N, where a fit can be judged by eye. Before calibration any will do.
    """
    calm = np.flatnonzero(~(catalog.p_value <= _NORMAL) & np.isfinite(catalog.z))
    if not len(calm):
        return np.empty(0, np.int64)
    calm = calm[np.argsort(catalog.z[calm], kind="stable")]
    rng = np.random.default_rng(_SEED)
    snr = np.nan_to_num(catalog.snr, nan=-np.inf)
    groups = [group for group in np.array_split(calm, count) if len(group)]
    return np.array([rng.choice(group[snr[group] >= np.median(snr[group])]) for group in groups], np.int64)


def sample(catalog: Catalog, count: int, top: int) -> Integers:
    """Return the sorted places of at most ``count`` scored spectra at random, the ``top`` best ones included."""
    scored = np.flatnonzero(np.isfinite(catalog.chi2_reduced) | np.isfinite(catalog.score))
    if len(scored) > count:
        first = best(catalog.rank, top)
        others = np.setdiff1d(scored, first)
        drawn = np.random.default_rng(_SEED).choice(others, count - len(first), replace=False)
        scored = np.concatenate([first, drawn])
    return np.sort(scored)


def reasons(table: pa.Table) -> dict[int, Reason]:
    """Return the strongest reason of each spectrum, by spectrum_id.

    That is the component with the largest −ln p. Before calibration the largest of those in σ counts.

    Args:
        table: rows of ``scores``.
    """
    found = {row["spectrum_id"]: _reason(row) for row in table.to_pylist()}
    return {key: reason for key, reason in found.items() if reason is not None}


def _reason(row: dict[str, Any]) -> Reason | None:
    column = 1 if any(row.get(surprise) is not None for _, surprise in COMPONENTS.values()) else 0
    weights = {kind: row.get(names[column]) for kind, names in COMPONENTS.items() if column or kind in IN_SIGMA}
    known = {kind: weight for kind, weight in weights.items() if weight is not None}
    if not known:
        return None
    kind = max(known, key=lambda one: float(known[one]))
    wavelength, width = (_number(row.get(f"{kind}_{what}")) for what in ("wavelength", "width"))
    return Reason(
        kind,
        _number(row[COMPONENTS[kind][0]]),
        wavelength,
        width,
        chi2_reduced=_number(row["chi2_reduced"]),
        template=row.get(_SOURCE.get(kind, "")) or "",
    )


def close_up(reason: Reason | None, windows: Sequence[float] | None) -> Reason | None:
    """Return what to draw close up: a local reason, else the strongest window where it is worth it, else the reason.

    Args:
        reason: the strongest one.
        windows: σ (signed), observed Å and km/s of each window, one after the other, the strongest first.
    """
    if (reason is not None and reason.local) or not windows or abs(windows[0]) < LOCAL:
        return reason
    chi2 = reason.chi2_reduced if reason else float("nan")
    return Reason("emission" if windows[0] > 0 else "absorption", abs(windows[0]), windows[1], windows[2], chi2)


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
