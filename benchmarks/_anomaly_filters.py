"""Box matched filters over residuals of principal components, with a floor for what the components never fit.

A box of k bins measures A / √(W (1 + e² l² W / k)): A = Σ w r, W = Σ w over the box, l the model's flux, e the floor.
Legend as in ``benchmarks._anomaly_linear``; W widths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks._anomaly_linear import GRID, Components, Spectra
from models.grid import N_OBSERVED

WIDTHS = (3, 5, 9, 16, 28, 50, 90, 140, 200)  # bins of 2e-4 dex
CELL = 64  # rest-frame bins that share a floor
MEDIAN_ABS = 0.67449  # of a unit normal
FAINT = 0.1  # of the mean flux, below which the floor shrinks no further
MOST = 400  # values of a cell that a spectrum's floor is estimated from, per group of spectra


@dataclass
class Floor:
    """Model error as a fraction of the model's flux, by width (1 first) and rest-frame cell."""

    table_WC: Tensor

    def boxes(self, offset_B: Tensor, index: int, middle_M: Tensor) -> Tensor:
        """Return the floor of boxes of one width whose middles are the observed bins given, [B, M]."""
        return self.table_WC[index][(offset_B[:, None] + middle_M) // CELL]


@dataclass
class Measured:
    """Raw scores of spectra under components and their floor."""

    chi2: Tensor  # reduced, against the noise alone
    soft_chi2: Tensor  # reduced, with the floor
    box: Tensor  # largest |σ| of all boxes
    coefficient_BK: Tensor  # in units of the mean's
    rows: np.ndarray


def no_floor() -> Floor:
    """Return a floor of 0."""
    return Floor(torch.zeros(1 + len(WIDTHS), -(-GRID.n_rest // CELL)))


def estimate_floor(spectra: Spectra, components: Components) -> Floor:
    """Make the median |σ| of every width and cell that of a unit normal, over ordinary spectra."""
    floor, pairs_RP = no_floor(), components.pairs()
    noise, relative, cell = ([[] for _ in range(1 + len(WIDTHS))] for _ in range(3))
    for group in spectra.groups():
        _, model_BO = components.fitted(group, pairs_RP)
        for index, (top, total, level, middle) in enumerate(_boxes(group, model_BO)):
            step = slice(None, None, max(1, (1, *WIDTHS)[index] // 2))
            top, total, level, middle = top[:, step], total[:, step], level[:, step], middle[step]
            known = total > 0
            place = ((group.offset_B[:, None] + middle) // CELL).expand_as(total)[known]
            noise[index].append((top[known] * total[known].rsqrt()).abs())
            relative[index].append((level[known] * total[known].sqrt()).square() / (1, *WIDTHS)[index])
            cell[index].append(place)
    for index in range(1 + len(WIDTHS)):
        parts = (torch.cat(values[index]) for values in (noise, relative, cell))
        floor.table_WC[index] = _cells(*parts, floor.table_WC.shape[1])
    return floor


def measure(group: Spectra, components: Components, pairs_RP: Tensor, floor: Floor) -> Measured:
    """Return the raw scores of spectra of similar redshift."""
    coefficient_BK, model_BO = components.fitted(group, pairs_RP)
    n_bins = (group.weight_BO > 0).sum(1).clamp(min=1)
    largest = torch.zeros(len(group.rows))
    for index, (top, total, level, middle) in enumerate(_boxes(group, model_BO)):
        error = floor.boxes(group.offset_B, index, middle)
        relative = (level * error).square() * total / (1, *WIDTHS)[index]
        spread = total * (1.0 + relative)
        sigma = torch.where(total > 0, top * spread.clamp(min=1e-30).rsqrt(), 0.0)
        if index == 0:
            soft, plain = sigma.square().sum(1) / n_bins, (top.square() / total.clamp(min=1e-30)).sum(1) / n_bins
        else:
            largest = torch.maximum(largest, sigma.abs().amax(1))
    ratio_BK = coefficient_BK[:, 1:] / coefficient_BK[:, :1].abs().clamp(min=0.05)
    return Measured(plain, soft, largest, ratio_BK, group.rows)


def _boxes(group: Spectra, model_BO: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yield Σ w r, Σ w, the flux of which the floor is a fraction and the middle bins of the boxes of every width."""
    level_BO = torch.maximum(model_BO, FAINT * model_BO.mean(1, keepdim=True).abs())
    weighted_BO = (group.flux_BO - model_BO) * group.weight_BO
    yield weighted_BO, group.weight_BO, level_BO, torch.arange(N_OBSERVED)
    sums = [torch.nn.functional.pad(v.double().cumsum(1), (1, 0)) for v in (weighted_BO, group.weight_BO)]
    for width in WIDTHS:
        top, total = ((run[:, width:] - run[:, :-width]).float() for run in sums)
        total = torch.where(total > 1e-9, total, 0.0)  # cumulative sums leave crumbs where there is nothing
        first = torch.arange(0, N_OBSERVED - width + 1, max(1, width // 5))
        middle = first + width // 2
        yield top[:, first], total[:, first], level_BO[:, middle], middle


def _cells(noise: Tensor, relative: Tensor, cell: Tensor, n_cells: int) -> Tensor:
    """Return every cell's e such that the median of noise / √(1 + e² relative) is a unit normal's, by bisection."""
    order = torch.argsort(cell, stable=True)
    counts = torch.bincount(cell, minlength=n_cells).tolist()
    found = torch.full((n_cells,), torch.nan)
    pieces = zip(torch.split(noise[order], counts), torch.split(relative[order], counts), strict=True)
    for index, (some, scale) in enumerate(pieces):
        if len(some) < MOST:
            continue
        every = max(1, len(some) // 20_000)
        some, scale = some[::every], scale[::every]
        low, high = 0.0, 3.0
        for _ in range(14):
            middle = 0.5 * (low + high)
            small = float((some * torch.rsqrt(1.0 + middle**2 * scale)).median()) < MEDIAN_ABS
            low, high = (low, middle) if small else (middle, high)
        found[index] = high if high > 1e-3 else 0.0
    return torch.where(found.isnan(), found.nanmedian().nan_to_num(0.0), found)
