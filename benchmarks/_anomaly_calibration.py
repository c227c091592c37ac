"""Scores of the baselines made comparable: against their nearest neighbours in (S/N, z), and as −ln p.

Legend: C calibration spectra, N spectra, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Array = NDArray[np.float64]
NEIGHBOURS = 200
MAD_TO_SIGMA = 1.4826
TAIL = 0.02  # of the calibration spectra, whose excesses give the slope beyond the largest


@dataclass
class Neighbours:
    """The calibration spectra nearest in (log S/N, z)."""

    tree: cKDTree
    scale: Array
    middle: Array

    @classmethod
    def of(cls, snr: Array, z: Array) -> Neighbours:
        """Prepare the calibration spectra's plane; both axes are put in units of their own spread."""
        plane = _plane(snr, z)
        middle = np.median(plane, axis=0)
        scale = np.percentile(plane, 84, axis=0) - np.percentile(plane, 16, axis=0)
        return cls(cKDTree((plane - middle) / scale), scale, middle)

    def find(self, snr: Array, z: Array, k: int = NEIGHBOURS) -> NDArray[np.int32]:
        """Return each spectrum's neighbours [N, k]."""
        points = (_plane(snr, z) - self.middle) / self.scale
        k = min(k, self.tree.n)
        return np.asarray(self.tree.query(points, k=np.arange(1, k + 1))[1], np.int32)


def _plane(snr: Array, z: Array) -> Array:
    return np.stack([np.log(np.maximum(snr, 0.0) + 0.3), np.log1p(np.clip(z, 0.0, 7.0))], axis=1)


def robust_z(score: Array, reference: Array, neighbours: NDArray[np.int32], block: int = 8192) -> Array:
    """Return (score − median) / σ of the neighbours' scores [N], σ from their median absolute deviation."""
    out = np.empty(len(score))
    for start in range(0, len(score), block):
        rows = slice(start, start + block)
        near = reference[neighbours[rows]]
        median = np.median(near, axis=1)
        sigma = MAD_TO_SIGMA * np.median(np.abs(near - median[:, None]), axis=1)
        out[rows] = (score[rows] - median) / np.maximum(sigma, 1e-12)
    return out


def surprise(score: Array, reference: Array) -> Array:
    """Return −ln p of scores [N] against the calibration spectra's [C].

    Beyond the largest of them it grows along an exponential tail in ln(score), fitted to the top ``TAIL``.
    """
    ordered = np.sort(reference)
    count = len(ordered)
    above = count - np.searchsorted(ordered, score, side="left")
    value = -np.log((1.0 + above) / (1.0 + count))
    size = max(20, int(TAIL * count))
    threshold = max(float(ordered[-size - 1]), 1e-6)
    slope = max(float(np.mean(np.log(np.maximum(ordered[-size:], threshold) / threshold))), 1e-3)
    beyond = above == 0
    excess = np.log(np.maximum(score[beyond], threshold) / max(float(ordered[-1]), threshold))
    value[beyond] += excess / slope
    return value


def combined(parts: list[Array]) -> Array:
    """Join components' −ln p by log-sum-exp, so that one strong reason suffices."""
    return np.logaddexp.reduce(parts, axis=0)
