"""A score's distribution given (z, S/N): local quantiles of the standardised score, interpolated between nodes.

Legend: N spectra, G nodes of the grid over the plane (z, ln S/N), Q levels, M neighbours. The result is on the scale
of −ln p: a unit exponential for spectra like those it was fitted to, at every redshift and S/N.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.significance.surface import Surface

Floats = NDArray[np.float64]

# Levels of the quantiles. Beyond the last one the score goes on as it rose from the tenth: levels up to 0.99 would
# follow anomalies among the calibration spectra, up to 0.9 they missed normal tails.
LEVELS = np.array([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97])
RISE_FROM = 9
LEAST_RISE = 0.05  # of the standardised score between those two levels: scores of few values have steep places
NODES = (12, 9)  # along z and along ln(S/N)
STRETCH = np.array([2.5, 1.0])  # neighbours count as nearer in S/N than in z, in units of the standard deviation
FEWEST = 1500  # neighbours of a node, at least: with 300, p-values below 0.01 came 1.8 times too often
ATOM = 0.005  # share of spectra with one and the same lowest value from which that value is treated apart
BLOCK = 131_072  # spectra worked on at once
_SURPRISE = -np.log1p(-LEVELS)


@dataclass(frozen=True)
class Conditional:
    """The distribution of a score given redshift and S/N, anything above its lowest value if many share that."""

    atom: float  # the lowest value that many spectra share; −inf where there is none
    surface: Surface  # location and scale of scores above it
    axes: tuple[Floats, Floats]  # nodes
    table: Floats  # [nodes in z, nodes in ln S/N, Q + 2]: quantiles, ln of the rise beyond them, −ln P(above atom)

    @classmethod
    def fit(cls, value_N: Floats, plane_N2: Floats, share: float) -> Conditional:
        """Fit to calibration spectra; ``share`` of them, the nearest ones, speak for a node."""
        atom = float(value_N.min())
        above = value_N > atom
        if not above.any() or np.mean(~above) < ATOM:
            atom, above = -np.inf, np.ones(len(value_N), bool)
        surface = Surface.fit(value_N[above], plane_N2[above])
        standard = surface.standardise(value_N[above], plane_N2[above])
        axes = (_nodes(plane_N2[:, 0], NODES[0]), _nodes(plane_N2[:, 1], NODES[1]))
        near = _Neighbours.of(axes, plane_N2[above], share)
        quantile_GQ = near.quantiles(standard)
        rise_G = np.maximum(quantile_GQ[:, -1] - quantile_GQ[:, RISE_FROM], LEAST_RISE)
        rise_G = np.log((_SURPRISE[-1] - _SURPRISE[RISE_FROM]) / rise_G)
        rare_G = np.zeros(len(rise_G))
        if np.isfinite(atom):
            present_G = _Neighbours.of(axes, plane_N2, share).mean(above.astype(np.float64))
            rare_G = -np.log(np.maximum(present_G, 0.5 / len(value_N)))
        table = np.concatenate([quantile_GQ, rise_G[:, None], rare_G[:, None]], axis=1)
        return cls(atom, surface, axes, table.reshape(len(axes[0]), len(axes[1]), -1))

    def surprise(self, value_N: Floats, plane_N2: Floats) -> Floats:
        """Return −ln of the share of spectra at (z, S/N) with a score as high, as far as the fit tells, [N]."""
        out = np.empty(len(value_N))
        for start in range(0, len(value_N), BLOCK):
            rows = slice(start, start + BLOCK)
            out[rows] = self._surprise(value_N[rows], plane_N2[rows])
        return out

    def _surprise(self, value_N: Floats, plane_N2: Floats) -> Floats:
        standard_N = self.surface.standardise(value_N, plane_N2)
        local = self._interpolate(plane_N2)
        quantile_NQ, rise_N, rare_N = local[:, : len(LEVELS)], np.exp(local[:, -2]), local[:, -1]
        right = np.clip((quantile_NQ < standard_N[:, None]).sum(1), 1, len(LEVELS) - 1)
        rows = np.arange(len(value_N))
        low, high = quantile_NQ[rows, right - 1], quantile_NQ[rows, right]
        between = np.minimum((standard_N - low) / np.maximum(high - low, 1e-9), 1.0)
        inside = _SURPRISE[right - 1] + between * (_SURPRISE[right] - _SURPRISE[right - 1])
        beyond = np.maximum(standard_N - quantile_NQ[:, -1], 0.0) * rise_N
        above = rare_N + np.where(beyond > 0, _SURPRISE[-1] + beyond, inside)
        return np.where(value_N > self.atom, above, 0.0)

    def _interpolate(self, plane_N2: Floats) -> Floats:
        """Interpolate the table bilinearly; outside the nodes the nearest ones hold."""
        first, part = [], []
        for axis, nodes in enumerate(self.axes):
            at = np.clip(plane_N2[:, axis], nodes[0], nodes[-1])
            left = np.clip(np.searchsorted(nodes, at, side="right") - 1, 0, len(nodes) - 2)
            first.append(left)
            part.append(((at - nodes[left]) / (nodes[left + 1] - nodes[left]))[:, None])
        (i, j), (a, b) = first, part
        lower = self.table[i, j] * (1.0 - b) + self.table[i, j + 1] * b
        upper = self.table[i + 1, j] * (1.0 - b) + self.table[i + 1, j + 1] * b
        return np.asarray(lower * (1.0 - a) + upper * a)


@dataclass(frozen=True)
class _Neighbours:
    """The spectra nearest to every node, weighted by the tricube of their distance."""

    member_GM: NDArray[np.int64]
    weight_GM: Floats

    @classmethod
    def of(cls, axes: tuple[Floats, Floats], plane_N2: Floats, share: float) -> _Neighbours:
        count = int(np.clip(share * len(plane_N2), min(FEWEST, len(plane_N2)), len(plane_N2)))
        unit = (plane_N2.std(axis=0) + 1e-9) / STRETCH
        node_G2 = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        distance, member = cKDTree(plane_N2 / unit).query(node_G2 / unit, k=np.arange(1, count + 1))
        return cls(member, (1.0 - (distance / (distance[:, -1:] * 1.0001 + 1e-12)) ** 3) ** 3)

    def mean(self, value_N: Floats) -> Floats:
        """Weighted means, [G]."""
        return np.asarray((self.weight_GM * value_N[self.member_GM]).sum(1) / self.weight_GM.sum(1))

    def quantiles(self, value_N: Floats) -> Floats:
        """Weighted quantiles at LEVELS, [G, Q]."""
        value = value_N[self.member_GM]
        order = np.argsort(value, axis=1)
        value, weight = (np.take_along_axis(array, order, axis=1) for array in (value, self.weight_GM))
        level = (np.cumsum(weight, axis=1) - 0.5 * weight) / weight.sum(axis=1, keepdims=True)
        return np.stack([np.interp(LEVELS, at, rising) for at, rising in zip(level, value, strict=True)])


def _nodes(values: Floats, count: int) -> Floats:
    """Place nodes half as the spectra lie and half evenly, so that thinly filled ends have some too."""
    level = np.linspace(0.0, 1.0, count)
    low, high = np.quantile(values, [0.002, 0.998])
    nodes = 0.5 * np.quantile(values, np.clip(level, 0.01, 0.99)) + 0.5 * (low + (high - low) * level)
    return np.asarray(nodes + 1e-9 * np.arange(count))  # distinct even where all values are one
