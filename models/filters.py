"""Matched filters over residuals: boxes from one bin to 5,000 km/s, with the model's own error.

A box of k bins measures A / √(W + e² W²): A = Σ w r and W = Σ w over the box, e the model's own error there.
Without model error that is the residual's signal-to-noise ratio, unit normal in pure noise; with it, a smooth
misfit that the model also leaves in ordinary quasars no longer counts as a discovery.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.grid import BIN_KMS, FIRST_WAVELENGTH, N_OBSERVED, STEP

WIDTHS = (1, 2, 4, 8, 16, 36)  # bins: 138 to 4,970 km/s
STRIDES = tuple(max(1, width // 4) for width in WIDTHS)  # bins between neighbouring boxes of a width
CELL = 64  # rest-frame bins that share one model error
MIN_SAMPLES = 200  # boxes needed to estimate a cell's model error
MEDIAN_ABS = 0.67449  # median |x| of a unit normal


def box_sums(values_BO: Tensor) -> list[Tensor]:
    """Return the sums over the boxes of each width, each [B, number of boxes], by repeated doubling.

    Every sum is a tree of additions of its own bins, so a wild bin spoils only the boxes that hold it
    (differences of cumulative sums would lose digits everywhere after it).
    """
    doubled = {1: values_BO}
    size = 1
    while size * 2 <= max(WIDTHS):
        doubled[size * 2] = doubled[size][:, :-size] + doubled[size][:, size:]
        size *= 2
    return [_composed(doubled, width, stride) for width, stride in zip(WIDTHS, STRIDES, strict=True)]


def _composed(doubled: dict[int, Tensor], width: int, stride: int) -> Tensor:
    """Add the powers of two that make up ``width``, at every ``stride``-th place."""
    n_boxes = N_OBSERVED - width + 1
    parts = []
    start = 0
    for size in (size for size in doubled if width & size):
        parts.append(doubled[size][:, start : start + n_boxes : stride])
        start += size
    return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def middle_bins() -> list[Tensor]:
    """Return the middle bin of every box of each width, int64."""
    return [
        torch.arange(0, N_OBSERVED - width + 1, stride) + width // 2
        for width, stride in zip(WIDTHS, STRIDES, strict=True)
    ]


def width_kms(index: Tensor) -> Tensor:
    """Return the velocity widths of boxes given by their index in ``WIDTHS``, km/s."""
    return torch.tensor(WIDTHS, device=index.device)[index] * BIN_KMS


def centre_wavelengths(first: Tensor, index: Tensor) -> Tensor:
    """Return the observed wavelengths of boxes' centres, vacuum Å, from their first bins and width indices."""
    middle = first + 0.5 * torch.tensor(WIDTHS, device=index.device)[index]
    return FIRST_WAVELENGTH * torch.pow(10.0, middle.double() * STEP).float()


@dataclass
class ModelError:
    """What the model cannot fit even in ordinary quasars: a fraction of its flux, by box width and rest bin."""

    fraction_WR: Tensor  # constant in cells of 64 bins

    def to(self, device: torch.device) -> ModelError:
        """Return the same on another device."""
        return ModelError(self.fraction_WR.to(device))

    def observed(self, offset_B: Tensor) -> list[Tensor]:
        """Return the error of every box of each width, [B, number of boxes] each."""
        out = []
        for fraction_R, width, stride in zip(self.fraction_WR, WIDTHS, STRIDES, strict=True):
            rows = fraction_R.unfold(0, N_OBSERVED - width + 1, 1)[:, ::stride]
            out.append(rows.index_select(0, offset_B + width // 2))
        return out

    @classmethod
    def none(cls, n_rest: int) -> ModelError:
        """Return a model error of 0."""
        return cls(torch.zeros(len(WIDTHS), n_rest))

    @classmethod
    def estimate(
        cls, weighted_BO: Tensor, weight_BO: Tensor, level_BO: Tensor, offset_B: Tensor, n_rest: int
    ) -> ModelError:
        """Estimate it from validation spectra: in every cell the median |box| is to be a unit normal's.

        The median keeps the real anomalies among them from inflating it.

        Args:
            weighted_BO: w r. weight_BO: w. level_BO: the flux of which the error is a fraction.
            offset_B: rest-frame bin of each spectrum's first observed bin.
            n_rest: bins of the rest-frame grid.
        """
        n_cells = -(-n_rest // CELL)
        table = torch.zeros(len(WIDTHS), n_cells)
        sums = zip(box_sums(weighted_BO), box_sums(weight_BO), middle_bins(), strict=True)
        for index, (top, total, middle) in enumerate(sums):
            cell = ((offset_B[:, None] + middle) // CELL).reshape(-1)
            table[index] = _cells(top.reshape(-1), total.reshape(-1), level_BO[:, middle].reshape(-1), cell, n_cells)
        return cls(table.repeat_interleave(CELL, 1)[:, :n_rest].contiguous())


def _cells(top: Tensor, total: Tensor, level: Tensor, cell: Tensor, n_cells: int) -> Tensor:
    """Return the model error of each cell; cells with few boxes take the median of the others."""
    known = total > 0
    noise = top[known] * total[known].rsqrt()  # unit normal if the model were perfect
    relative = level[known] * total[known].sqrt()  # signal-to-noise ratio of the model's flux there
    order = torch.argsort(cell[known], stable=True)
    counts = torch.bincount(cell[known], minlength=n_cells).tolist()
    pieces = zip(torch.split(noise[order].abs(), counts), torch.split(relative[order], counts), strict=True)
    found = torch.tensor([_solve(*piece) if len(piece[0]) >= MIN_SAMPLES else torch.nan for piece in pieces])
    return torch.where(found.isnan(), found.nanmedian().nan_to_num(0.0), found)


def _solve(noise: Tensor, relative: Tensor) -> float:
    """Return e such that the median of |noise| / √(1 + e² relative²) is a unit normal's, by bisection."""
    low, high = 0.0, 1.0
    if float(noise.median()) <= MEDIAN_ABS:
        return 0.0
    for _ in range(12):
        middle = 0.5 * (low + high)
        small = float((noise * torch.rsqrt(1.0 + (middle * relative).square())).median()) < MEDIAN_ABS
        low, high = (low, middle) if small else (middle, high)
    return high
