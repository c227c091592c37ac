"""Matched filters over residuals: boxes from one bin to 5,000 km/s, with the model's own error.

A box of k bins measures A / √(W + e² W²): A = Σ w r and W = Σ w over the box, e the model's own error there.
Without model error that is the residual's signal-to-noise ratio, unit normal in pure noise; with it, a smooth
misfit that the model also leaves in ordinary quasars no longer counts as a discovery.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from models.grid import BIN_KMS, FIRST_WAVELENGTH, N_OBSERVED, STEP

WIDTHS = (1, 2, 4, 8, 16, 36)  # bins: 138 to 4,970 km/s
STRIDES = tuple(max(1, width // 4) for width in WIDTHS)  # bins between neighbouring boxes of a width
BOX_WIDTHS = (0.5, *WIDTHS)  # of the boxes looked at, 69 to 4,970 km/s; half bins have the error of whole ones
CELL = 64  # rest-frame bins that share one model error
MIN_SAMPLES = 500  # boxes needed to estimate a cell's model error
RARE, RARE_SIGMA = 0.002, 2.878  # an upper tail probability, and where a unit normal has it
MOST_ERROR = 3.0


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
    """Return the velocity widths of boxes given by their index in ``BOX_WIDTHS``, km/s."""
    return torch.tensor(BOX_WIDTHS, device=index.device)[index] * BIN_KMS


def centre_wavelengths(first: Tensor, index: Tensor) -> Tensor:
    """Return the observed wavelengths of boxes' centres, vacuum Å, from their first bins and width indices."""
    middle = first + 0.5 * torch.tensor(BOX_WIDTHS, device=index.device)[index]
    return FIRST_WAVELENGTH * torch.pow(10.0, middle.double() * STEP).float()


@dataclass
class ModelError:
    """What the model cannot fit in ordinary quasars: a fraction of its flux, by sign, box width and rest bin."""

    fraction_SWR: Tensor  # emission, absorption; constant in cells of 64 bins

    def to(self, device: torch.device) -> ModelError:
        """Return the same on another device."""
        return ModelError(self.fraction_SWR.to(device))

    @cached_property
    def _parts(self) -> Tensor:
        """Signs' mean and half their difference, [2, W, R]."""
        up_WR, down_WR = self.fraction_SWR
        return torch.stack([0.5 * (up_WR + down_WR), 0.5 * (up_WR - down_WR)])

    def observed(self, offset_B: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the signs' mean error and half their difference for all boxes of each width, [B, boxes] each.

        Mean + sign · half is the error of a box of that sign.
        """
        out = []
        for index, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True)):
            mean, half = self._parts[:, index].unfold(1, N_OBSERVED - width + 1, 1)[:, :, ::stride]
            rows = offset_B + width // 2
            out.append((mean.index_select(0, rows), half.index_select(0, rows)))
        return out

    @classmethod
    def none(cls, n_rest: int) -> ModelError:
        """Return a model error of 0."""
        return cls(torch.zeros(2, len(WIDTHS), n_rest))

    @classmethod
    def estimate(
        cls, weighted_BO: Tensor, weight_BO: Tensor, level_BO: Tensor, offset_B: Tensor, n_rest: int
    ) -> ModelError:
        """Estimate it from validation spectra: in every cell the rarest box in 500 is to be where a unit normal's is.

        A rare quantile and not the scatter is matched because what ordinary quasars do beyond the model (broad
        absorption, odd line shapes) has tails: errors that match the median left them the top of every list.

        Args:
            weighted_BO: w r. weight_BO: w. level_BO: the flux of which the error is a fraction.
            offset_B: rest-frame bin of each spectrum's first observed bin.
            n_rest: bins of the rest-frame grid.
        """
        n_cells = -(-n_rest // CELL)
        table = torch.zeros(2, len(WIDTHS), n_cells)
        sums = zip(box_sums(weighted_BO), box_sums(weight_BO), middle_bins(), strict=True)
        for index, (top, total, middle) in enumerate(sums):
            cell = ((offset_B[:, None] + middle) // CELL).reshape(-1)
            flat = (top.reshape(-1), total.reshape(-1), level_BO[:, middle].reshape(-1), cell, n_cells)
            table[:, index] = _cells(*flat)
        return cls(table.repeat_interleave(CELL, 2)[:, :, :n_rest].contiguous())


def _cells(top: Tensor, total: Tensor, level: Tensor, cell: Tensor, n_cells: int) -> Tensor:
    """Return the model errors of each cell, [2, cells]; cells with few boxes take the median of the others."""
    known = total > 0
    noise = top[known] * total[known].rsqrt()  # unit normal if the model were perfect
    relative = level[known].abs() * total[known].sqrt()  # signal-to-noise ratio of the model's flux there
    order = torch.argsort(cell[known], stable=True)
    counts = torch.bincount(cell[known], minlength=n_cells).tolist()
    pieces = zip(torch.split(noise[order], counts), torch.split(relative[order], counts), strict=True)
    nothing = [torch.nan, torch.nan]
    found = torch.tensor([_solve(*piece) if len(piece[0]) >= MIN_SAMPLES else nothing for piece in pieces]).T
    return torch.where(found.isnan(), found.nanmedian(1, keepdim=True).values.nan_to_num(0.0), found)


def _solve(noise: Tensor, relative: Tensor) -> list[float]:
    """Return e of both signs such that the rare quantile of ±noise / √(1 + e² relative²) is a unit normal's."""
    rank = max(1, round(RARE * len(noise)))
    return [_bisected(noise[side], relative[side], sign, rank) for sign, side in ((1.0, noise > 1), (-1.0, noise < -1))]


def _bisected(noise: Tensor, relative: Tensor, sign: float, rank: int) -> float:
    """Find e by bisection; only boxes beyond 1σ are given, as no other decides."""
    if len(noise) < rank:
        return 0.0
    size, squared = sign * noise, relative.square()

    def too_far(error: float) -> bool:
        return float(torch.topk(size * torch.rsqrt(1.0 + error**2 * squared), rank).values[-1]) > RARE_SIGMA

    low, high = 0.0, MOST_ERROR
    if not too_far(low):
        return 0.0
    for _ in range(12):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if too_far(middle) else (low, middle)
    return high
