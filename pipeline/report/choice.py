"""Which spectra the report shows, and the strongest reason of each; all of it repeatable."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import RunError
from pipeline.report.contents import Catalog, Integers, Reason
from pipeline.significance import calibrate_scores

COMPONENTS = {
    "global_score": "global",
    "local_emission": "emission",
    "local_absorption": "absorption",
    "density": "density",
}  # column of scores → kind of reason
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


def reasons(table: pa.Table, wanted: Integers) -> dict[int, Reason]:
    """Return the strongest reason of each wanted spectrum that has scores.

    A component's strength is its −ln p against the calibration spectra near in (z, S/N), as in the anomaly score;
    where they are too few, the largest in σ counts.

    Args:
        table: spectrum_id, z, snr, calibration, the components and their places, of calibration and wanted spectra.
        wanted: int64 [W], spectrum ids.
    """
    columns = {name: np.asarray(table[name].to_numpy(), dtype=np.float64) for name in table.column_names[1:]}
    key = np.asarray(table["spectrum_id"].to_numpy(), dtype=np.int64)
    strength = _strength(columns, key)
    strongest = np.argmax(np.nan_to_num(strength, nan=-np.inf), axis=0)
    scored = np.isfinite(strength).any(axis=0)
    kinds = list(COMPONENTS.values())
    rows = np.flatnonzero(np.isin(key, wanted) & scored)
    return {int(key[row]): _reason(columns, kinds[strongest[row]], int(row)) for row in rows}


def _strength(columns: dict[str, NDArray[np.float64]], key: Integers) -> NDArray[np.float64]:
    parts = {name: columns[name] for name in COMPONENTS}
    try:
        done = calibrate_scores(parts, columns["z"], columns["snr"], columns["calibration"] > 0, key)
    except RunError:
        parts["density"] = np.full(len(key), np.nan)  # not in σ
        return np.stack(list(parts.values()))
    return np.stack([done.components[name] for name in COMPONENTS])


def _reason(columns: dict[str, NDArray[np.float64]], kind: str, row: int) -> Reason:
    names = {kind: name for name, kind in COMPONENTS.items()}
    strength, chi2 = float(columns[names[kind]][row]), float(columns["chi2_reduced"][row])
    if kind not in ("emission", "absorption"):
        return Reason(kind, strength, chi2_reduced=chi2)
    wavelength, width = (float(columns[f"{kind}_{what}"][row]) for what in ("wavelength", "width"))
    return Reason(kind, strength, wavelength, width, chi2)
