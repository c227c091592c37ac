"""Quality metrics of a scored run, from its catalog: how good the fit is, and how fair the scores are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.report.contents import Catalog

Metrics = dict[str, float | tuple[float, str]]


def measure(catalog: Catalog) -> Metrics:
    """Return the metrics, name → value or (value, unit); NaN where too little is known to measure one.

    Fair scores do not follow S/N or redshift (rank correlations near 0) and give spectra that the model has not
    seen uniform p-values (Kolmogorov–Smirnov distance near 0).
    """
    fresh = catalog.p_value[~catalog.training]
    return {
        "spectra ingested": (len(catalog), "spectra"),
        "spectra with a score": (int(np.isfinite(catalog.score).sum()), "spectra"),
        "redshift, median": _median(catalog.z),
        "S/N a pixel, median": _median(catalog.snr),
        "reduced χ² of the fit, median": _median(catalog.chi2_reduced),
        "p-values not trained on: distance from uniform": _uniform_distance(fresh),
        "p-values not trained on: share below 0.01": _share(fresh, 0.01),
        "score against S/N: rank correlation": _rank_correlation(catalog.score, catalog.snr),
        "score against redshift: rank correlation": _rank_correlation(catalog.score, catalog.z),
    }


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _share(p_value: NDArray[np.float64], limit: float) -> float:
    known = p_value[np.isfinite(p_value)]
    return float(np.mean(known < limit)) if len(known) else float("nan")


def _uniform_distance(p_value: NDArray[np.float64]) -> float:
    known = np.sort(p_value[np.isfinite(p_value)])
    count = len(known)
    if count < 10:
        return float("nan")
    steps = np.arange(count + 1) / count
    return float(max(np.max(steps[1:] - known), np.max(known - steps[:-1])))


def _rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    from scipy.stats import spearmanr

    known = np.isfinite(first) & np.isfinite(second)
    if known.sum() < 10 or np.ptp(first[known]) == 0.0 or np.ptp(second[known]) == 0.0:
        return float("nan")
    return float(spearmanr(first[known], second[known]).statistic)
