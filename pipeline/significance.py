"""Significance: raw scores to scores given (z, S/N), to p-values against calibration spectra, to ranks.

Legend: N spectra, C calibration spectra. Every raw component is larger for a stranger spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from pipeline.errors import RunError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_CALIBRATION = 10  # with C of them p-values below 1/(C + 1) are extrapolated; with fewer, meaningless
_CELL = 150  # calibration spectra a cell of the (z, S/N) grid holds, at least
_MAX_CELLS = 12  # cells along one axis
_TAIL = 0.05  # fraction of calibration spectra that fits the generalised-Pareto tail
_MAD_TO_SIGMA = 1.4826  # median absolute deviation to σ of a Gaussian


@dataclass(frozen=True)
class Calibrated:
    """Significance of N spectra; NaN (rank 0) where a spectrum has no raw score."""

    anomaly_score: Floats
    p_value: Floats
    extrapolated: Mask  # p is below 1/(C+1) and comes from the generalised-Pareto tail
    rank: NDArray[np.int64]  # 1 is the strangest
    components: dict[str, Floats]  # −ln p of each component


def calibrate_scores(
    components: dict[str, Floats], z: Floats, snr: Floats, calibration: Mask, key: NDArray[np.int64]
) -> Calibrated:
    """Calibrate the components and their combination.

    Each component is standardised by the median and MAD of the calibration spectra near it in (z, S/N),
    turned into −ln p by its conformal p-value, and the components are combined by log-sum-exp, which lets
    one strong reason suffice. The combination's own conformal p-value, (1 + #{C ≥ score})/(C + 1), is
    marginally valid when calibration and tested spectra are exchangeable (Vovk, Gammerman & Shafer 2005).

    Args:
        components: name → float64 [N]; NaN where a spectrum could not be scored.
        z, snr: float64 [N].
        calibration: bool [N], spectra in the sky pixels set aside for this.
        key: int64 [N], breaks ties of the rank so that it is stable.

    Raises:
        RunError: fewer than ``MIN_CALIBRATION`` calibration spectra have scores.
    """
    scored = np.all([np.isfinite(values) for values in components.values()], axis=0)
    reference = calibration & scored
    if reference.sum() < MIN_CALIBRATION:
        raise RunError(
            f"only {reference.sum()} scored spectra lie in calibration sky pixels, at least {MIN_CALIBRATION} are "
            "needed: use a larger survey, or score with the promoted model of one (--model promoted)"
        )
    plane = _Plane(z[reference], snr[reference])
    where = plane.coordinates(z, snr)
    surprise = {
        name: _surprise(plane.standardise(values, reference, where), reference) for name, values in components.items()
    }
    with np.errstate(invalid="ignore"):  # unscored spectra stay NaN
        score = np.where(scored, np.logaddexp.reduce(list(surprise.values()), axis=0), np.nan)
    log_p, extrapolated = conformal(score, score[reference])
    p_value = np.maximum(np.exp(log_p), np.finfo(float).tiny)  # NaN stays NaN
    return Calibrated(score, p_value, extrapolated, _ranks(score, key), surprise)


def conformal(score: Floats, reference: Floats) -> tuple[Floats, Mask]:
    """Return ln of the conformal p-values [N] of ``score`` against ``reference`` [C], and which are extrapolated.

    Beyond the largest reference score the p-value falls along a generalised-Pareto tail fitted to the top
    ``_TAIL`` of the reference by probability-weighted moments (Hosking & Wallis 1987).
    """
    ordered = np.sort(reference)
    count = len(ordered)
    above = count - np.searchsorted(ordered, score, side="left")
    log_p = np.log((1.0 + above) / (count + 1.0))
    size = min(max(20, int(_TAIL * count)), count // 2)
    tail = _Pareto.fit(ordered[-size:], ordered[-size - 1])
    beyond = above == 0
    log_p[beyond] += tail.log_survival(score[beyond]) - tail.log_survival(ordered[-1:])
    missing = np.isnan(score)
    log_p[missing] = np.nan
    return log_p, beyond & ~missing


@dataclass(frozen=True)
class _Pareto:
    threshold: float
    scale: float
    shape: float  # ≥ 0: a bounded tail would call every new extreme impossible

    @classmethod
    def fit(cls, exceeding: Floats, threshold: float) -> _Pareto:
        excess = np.sort(exceeding - threshold)
        mean = max(float(excess.mean()), 1e-12)
        weights = (np.arange(len(excess))[::-1]) / max(len(excess) - 1, 1)
        moment = float((weights * excess).mean())
        shape = 2.0 - mean / max(mean - 2.0 * moment, 1e-12)
        shape = float(np.clip(shape, 0.0, 0.9))
        return cls(float(threshold), mean * (1.0 - shape), shape)

    def log_survival(self, score: Floats) -> Floats:
        excess = np.maximum(score - self.threshold, 0.0) / self.scale
        if self.shape < 1e-6:
            return -excess
        return np.asarray(-np.log1p(self.shape * excess) / self.shape)


class _Plane:
    """A grid over (z, S/N) with calibration spectra in near-equal numbers along each axis."""

    def __init__(self, z: Floats, snr: Floats) -> None:
        cells = int(np.clip(np.sqrt(len(z) / _CELL), 1, _MAX_CELLS))
        self.edges = tuple(_edges(axis, cells) for axis in (z, _log_snr(snr)))

    def coordinates(self, z: Floats, snr: Floats) -> Floats:
        return np.stack([np.nan_to_num(z), _log_snr(snr)], axis=1)

    def standardise(self, values: Floats, reference: Mask, where: Floats) -> Floats:
        """Return (value − median) / σ of the calibration spectra around each point, interpolated [N]."""
        median, sigma = self._cell_statistics(values[reference], where[reference])
        return (values - self._interpolate(median, where)) / self._interpolate(sigma, where)

    def _cell_statistics(self, values: Floats, where: Floats) -> tuple[Floats, Floats]:
        shape = tuple(len(edges) - 1 for edges in self.edges)
        cell = np.ravel_multi_index(tuple(_cell(where[:, axis], self.edges[axis]) for axis in range(2)), shape)
        overall = _location_scale(values)
        median, sigma = (np.full(np.prod(shape), value) for value in overall)
        order = np.argsort(cell, kind="stable")
        groups = np.split(order, np.searchsorted(cell[order], np.arange(1, len(median))))
        for index, members in enumerate(groups):
            if len(members) >= 30:
                median[index], sigma[index] = _location_scale(values[members])
        return median.reshape(shape), sigma.reshape(shape)

    def _interpolate(self, table: Floats, where: Floats) -> Floats:
        centres = [0.5 * (edges[1:] + edges[:-1]) for edges in self.edges]
        kept = [axis for axis in range(2) if len(centres[axis]) > 1]
        if not kept:
            return np.full(len(where), table.item())
        grid = table.squeeze(axis=tuple(axis for axis in range(2) if axis not in kept))
        points = np.stack([np.clip(where[:, a], centres[a][0], centres[a][-1]) for a in kept], axis=1)
        return np.asarray(RegularGridInterpolator([centres[a] for a in kept], grid)(points))


def _log_snr(snr: Floats) -> Floats:
    return np.log(np.maximum(np.nan_to_num(snr), 0.0) + 0.3)


def _edges(values: Floats, cells: int) -> Floats:
    edges = np.unique(np.quantile(values, np.linspace(0.0, 1.0, cells + 1)))
    return edges if len(edges) > 1 else np.array([edges[0] - 0.5, edges[0] + 0.5])


def _cell(values: Floats, edges: Floats) -> NDArray[np.int64]:
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def _location_scale(values: Floats) -> tuple[float, float]:
    median = float(np.median(values))
    sigma = _MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
    return median, max(sigma, 1e-9 * max(1.0, abs(median)))


def _surprise(standardised: Floats, reference: Mask) -> Floats:
    return -conformal(standardised, standardised[reference])[0]


def _ranks(score: Floats, key: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.lexsort((key, np.where(np.isnan(score), np.inf, -score)))
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(1, len(score) + 1)
    rank[np.isnan(score)] = 0
    return rank
