"""Smooth location and scale of a score over (z, S/N), robust to outliers.

Legend: N spectra, K terms of the basis. Planes [N, 2] hold z and ln(S/N + 0.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SOFTENING = 0.3  # added to S/N before its logarithm: below it, noise is all there is
KNOTS = (3, 4)  # of the natural splines in z and in ln(S/N); more followed the noise at S/N above 12
FEWEST = 300  # spectra that a surface is fitted to; fewer share one location and scale
ENDS = (0.01, 0.995)  # quantiles where the outer knots lie; beyond them the surface is linear
# How far the surface is followed, in units of the outer knots' distance from the first: hardly beyond them in z; not
# at all below in S/N, where sky fibers would bend it; some way above.
REACH = ((-0.1, 1.1), (0.0, 1.3))
ROUNDS = 25  # of reweighting
RIDGE = 1e-4  # of the mean diagonal: keeps corners without spectra from bending
HALF_NORMAL = 0.6745  # median |x| of a unit normal
TINY = 1e-9


def plane_of(z: Floats, snr: Floats) -> Floats:
    """Return the coordinates in which scores vary smoothly: z and ln(S/N + 0.3), [N, 2]."""
    return np.stack([np.nan_to_num(z), np.log(np.maximum(np.nan_to_num(snr), 0.0) + SOFTENING)], axis=1)


@dataclass(frozen=True)
class Surface:
    """Location and scale of a score: tensor products of natural cubic splines."""

    knots: tuple[Floats, Floats] | None  # None: constant
    location_K: Floats
    log_scale_K: Floats

    @classmethod
    def fit(cls, value_N: Floats, plane_N2: Floats) -> Surface:
        """Fit the median, and the median excess of what lies above it, by reweighted least squares.

        Only the upper half tells the scale: it is the one that is judged, and scores with many zeros have no other.
        """
        enough = len(value_N) >= FEWEST
        knots = (_knots(plane_N2[:, 0], KNOTS[0]), _knots(plane_N2[:, 1], KNOTS[1])) if enough else None
        basis_NK = _basis(plane_N2, knots)
        location_K = _median_fit(basis_NK, value_N)
        above = value_N - basis_NK @ location_K
        upper = above > 1e-6 * (float(np.abs(above).mean()) + TINY)
        if not upper.any():
            return cls(knots, location_K, np.zeros_like(location_K))
        return cls(knots, location_K, _median_fit(basis_NK[upper], np.log(above[upper] / HALF_NORMAL)))

    def standardise(self, value_N: Floats, plane_N2: Floats) -> Floats:
        """Return (value − location) / scale, [N]."""
        basis_NK = _basis(plane_N2, self.knots)
        return np.asarray((value_N - basis_NK @ self.location_K) * np.exp(-(basis_NK @ self.log_scale_K)))


def _knots(values: Floats, count: int) -> Floats:
    low, high = np.quantile(values, ENDS)
    return np.linspace(low, high, count) if high > low + TINY else low + np.arange(count, dtype=np.float64)


def _basis(plane_N2: Floats, knots: tuple[Floats, Floats] | None) -> Floats:
    if knots is None:
        return np.ones((len(plane_N2), 1))
    along_z, along_snr = (_natural(plane_N2[:, axis], knots[axis], REACH[axis]) for axis in range(2))
    return np.asarray((along_z[:, :, None] * along_snr[:, None, :]).reshape(len(plane_N2), -1))


def _natural(values: Floats, knots: Floats, reach: tuple[float, float]) -> Floats:
    """Return a natural cubic spline basis, [N, knots] (Hastie, Tibshirani & Friedman 2009, eqs. 5.4 and 5.5)."""
    span = knots[-1] - knots[0]
    at = np.clip((values - knots[0]) / span, *reach)
    place = (knots - knots[0]) / span
    cubes = np.maximum(at[:, None] - place, 0.0) ** 3
    bends = (cubes[:, :-1] - cubes[:, -1:]) / (place[-1] - place[:-1])
    return np.concatenate([np.ones((len(at), 1)), at[:, None], bends[:, :-1] - bends[:, -1:]], axis=1)


def _median_fit(basis_NK: Floats, value_N: Floats) -> Floats:
    """Return the terms of the conditional median, by iteratively reweighted least squares (Schlossmacher 1973)."""
    middle = float(np.median(value_N))
    centred = value_N - middle
    least = 0.05 * float(np.abs(centred).mean()) + TINY
    term_K, pull = np.zeros(basis_NK.shape[1]), np.ones(len(value_N))
    for _ in range(ROUNDS):
        weighted = basis_NK * pull[:, None]
        normal = weighted.T @ basis_NK
        ridge = RIDGE * np.trace(normal) / len(normal) * np.eye(len(normal))
        term_K = np.linalg.solve(normal + ridge, weighted.T @ centred)
        pull = 1.0 / np.maximum(np.abs(centred - basis_NK @ term_K), least)
    term_K[0] += middle
    return term_K
