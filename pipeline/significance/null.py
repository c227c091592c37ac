"""The null: what normal spectra score, told from calibration spectra among which there are real anomalies.

Legend: N spectra, C calibration spectra, J components of the mixture. Scores are on the scale of −ln p, where a
normal spectrum's is about unit exponential.

Above ``START`` the calibration scores are fitted by a mixture of exponentials. Anomalies fall off far more slowly
than normal spectra, so components slower than ``SLOW`` of the fastest are theirs (the two-groups model of Efron
2008, Statist. Sci. 23, 1), and each calibration spectrum counts in the conformal p-value by the probability that it
is normal. Tried and turned down: no correction (2.7% of anomalies left 0.02–0.4% of normal spectra below p = 0.01
and no discovery at all); a generalised-Pareto null with one exponential for the anomalies (p-values below 0.001
were five to fifteen times too frequent); a second round with the conditional fits weighted by the first (three times).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

START = 1.25  # score above which the mixture is fitted, −ln p: 29% of spectra
RATES = (1.3, 0.5, 0.12)  # of the components, to begin with
SHARES = (0.9, 0.05, 0.05)
SLOW = 0.3  # of the fastest rate; slower components are anomalies
ROUNDS = 400  # of expectation and maximisation
BINS = 2000  # of ln(1 + score) in the fit
FEWEST = 300  # calibration spectra above START that a mixture is fitted to; fewer have one exponential, all normal
TAIL, LEAST_TAIL = 0.02, 20.0  # share, and number, of weighed spectra that the exponential tail is fitted to
RANKED = 20.0  # calibration spectra beyond a score for which they are counted; nearer the end, the tail is smoother


@dataclass(frozen=True)
class Null:
    """The distribution of normal spectra's scores."""

    score_C: Floats  # ascending
    beyond: Floats  # [C + 1] normal calibration spectra from the one of that index on
    share_J: Floats  # of the normal components above START
    rate_J: Floats
    anomalous: float  # share of calibration spectra that are anomalies above START
    tail_from: float  # score from which the tail is the mixture's

    @classmethod
    def fit(cls, score_C: Floats) -> Null:
        """Fit to calibration spectra's scores."""
        ordered = np.sort(score_C)
        share_J, rate_J = _mixture(ordered)
        normal_J = rate_J >= SLOW * rate_J.max()
        weight_C = _probability(ordered, share_J, rate_J, normal_J)
        beyond = np.append(np.cumsum(weight_C[::-1])[::-1], 0.0)
        anomalous = float(share_J[~normal_J].sum() * np.mean(ordered > START))
        ranked = int(np.searchsorted(-beyond[:-1], -min(RANKED, 0.1 * len(ordered)), side="right")) - 1
        parts = (share_J[normal_J] / share_J[normal_J].sum(), rate_J[normal_J], anomalous)
        return cls(ordered, beyond, *parts, float(ordered[max(ranked, 0)]))

    @classmethod
    def weighed(cls, score_C: Floats, normal_C: Floats) -> Null:
        """Take calibration spectra's scores, each with the probability that the spectrum is normal.

        The tail beyond the last ``TAIL`` of them is one exponential.
        """
        order = np.argsort(score_C, kind="stable")
        ordered, weight_C = score_C[order], normal_C[order]
        beyond = np.append(np.cumsum(weight_C[::-1])[::-1], 0.0)
        first = max(int(np.searchsorted(-beyond[:-1], -max(TAIL * beyond[0], LEAST_TAIL), side="right")) - 1, 0)
        excess_C = ordered[first:] - ordered[first]
        mean = (float(weight_C[first:] @ excess_C) + 1.0) / (float(weight_C[first:].sum()) + 1.0)  # as if one more at 1
        return cls(ordered, beyond, np.ones(1), np.array([1.0 / mean]), 1.0 - float(normal_C.mean()), ordered[first])

    def surprise(self, score_N: Floats) -> Floats:
        """Return −ln p of spectra, [N]: the conformal (1 + #{normal ≥ score}) / (1 + #{normal}), then the tail."""
        at = np.minimum(score_N, self.tail_from)
        beyond = self.beyond[np.searchsorted(self.score_C, at, side="left")]
        ranked = np.log(1.0 + self.beyond[0]) - np.log(1.0 + beyond)
        far = self._tail(np.maximum(score_N, self.tail_from)) - self._tail(np.array([self.tail_from]))
        return np.asarray(ranked + far)

    def extrapolated(self, surprise_N: Floats) -> Mask:
        """Return which p-values are below 1 / (C + 1), which no rank among the calibration spectra could show, [N]."""
        return np.asarray(surprise_N > np.log(1.0 + self.beyond[0]))

    def _tail(self, score_N: Floats) -> Floats:
        """Return −ln of the mixture's survival function, [N]."""
        depth_JN = -self.rate_J[:, None] * (score_N - START) + np.log(self.share_J)[:, None]
        return np.asarray(-np.logaddexp.reduce(depth_JN, axis=0))


def _mixture(score_C: Floats) -> tuple[Floats, Floats]:
    """Return shares and rates of exponentials above START, [J] each, by expectation and maximisation over bins."""
    excess = score_C[score_C > START] - START
    if len(excess) < FEWEST:
        return np.ones(1), np.array([len(excess) + 1.0]) / (excess.sum() + 1.0)  # as if one more had been at 1
    place = (np.log1p(excess) * (BINS / np.log1p(excess.max()))).astype(np.int64)
    count = np.bincount(place)
    height = np.bincount(place, weights=excess)[count > 0] / count[count > 0]
    count = count[count > 0]
    share_J, rate_J = np.array(SHARES), np.array(RATES)
    for _ in range(ROUNDS):
        density_JB = (share_J * rate_J)[:, None] * np.exp(-rate_J[:, None] * height)
        belongs_JB = count * density_JB / np.maximum(density_JB.sum(0), 1e-300)
        share_J = np.maximum(belongs_JB.sum(1), 1e-12)
        rate_J = share_J / np.maximum((belongs_JB * height).sum(1), 1e-12)
        share_J = share_J / share_J.sum()
    return share_J, rate_J


def _probability(score_C: Floats, share_J: Floats, rate_J: Floats, normal_J: Mask) -> Floats:
    """Return the probability that spectra are normal, [C]."""
    log_JC = np.log(share_J * rate_J)[:, None] - rate_J[:, None] * np.maximum(score_C - START, 0.0)
    normal = np.logaddexp.reduce(log_JC[normal_J], axis=0)
    return np.where(score_C > START, np.exp(normal - np.logaddexp.reduce(log_JC, axis=0)), 1.0)
