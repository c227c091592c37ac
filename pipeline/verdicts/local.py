"""Local misfits of a residual in the observed frame: peaks and steps of every width from one pixel to 300 Å.

A peak of width σ measures S / √Σ w k² with S = Σ w k r, k a Gaussian: unit normal in pure noise. Octaves of widths
come from a pyramid in which neighbouring pixels are joined two by two, so all of them cost as much as two. On the two
finest levels neighbours' errors are taken as equal, S = Σ k pull / √Σ k²: half the time, and the same in noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.desi.grid import WAVELENGTH_START, WAVELENGTH_STEP
from pipeline.verdicts.residual import TINY

N_LEVELS = 9  # 0.8 Å to 205 Å
NATIVE = (0.45, 0.72, 1.05)  # σ of the Gaussians in pixels, native level
SHAPES = (0.72, 1.05)  # the same on the others
FINE = 2  # levels below it take neighbours' errors as equal
STEP_LEVELS = (3, 4, 5)  # levels on which steps are looked for
STEP_HALF = 4  # pixels of a level on either side of a step


@dataclass(frozen=True)
class Peaks:
    """The highest (sign 1) and deepest (sign −1) peak of W widths; every tensor is [B, W, 2]."""

    sigma: Tensor  # positive: how much it stands out
    wavelength: Tensor  # Å
    width: Tensor  # [W], Å, the Gaussian's σ


def widths() -> list[float]:
    """Return the widths (σ, Å) of the peaks looked for, increasing."""
    return [shape * 2**level * WAVELENGTH_STEP for level in range(N_LEVELS) for shape in (SHAPES if level else NATIVE)]


def _joined(values_BL: Tensor) -> Tensor:
    even = values_BL.shape[1] // 2 * 2
    return values_BL[:, 0:even:2] + values_BL[:, 1:even:2]


def _kernel(sigma: float) -> Tensor:
    reach = max(1, round(2.6 * sigma))
    x = torch.arange(-reach, reach + 1, dtype=torch.float32)
    return torch.exp(-0.5 * (x / sigma) ** 2)


def _slide(values_BL: Tensor, kernel: Tensor) -> Tensor:
    """Correlate rows with a short odd kernel, zeros beyond the ends; shifted sums beat conv1d on a CPU."""
    reach, width = len(kernel) // 2, values_BL.shape[1]
    padded = functional.pad(values_BL, (reach, reach))
    out = padded[:, :width] * float(kernel[0])
    for i in range(1, len(kernel)):
        out.add_(padded[:, i : i + width], alpha=float(kernel[i]))
    return out


def _stands_out(top: Tensor, total: Tensor, kernel: Tensor) -> Tensor:
    spread = _slide(total, kernel.square()).clamp_(min=TINY)
    value: Tensor = _slide(top, kernel) * spread.rsqrt_()
    return value


def _centre(index: Tensor, level: int) -> Tensor:
    return WAVELENGTH_START + WAVELENGTH_STEP * ((index + 0.5) * float(1 << level) - 0.5)


def peaks(pull_BL: Tensor, root_BL: Tensor) -> tuple[Peaks, Tensor]:
    """Return the peaks of all widths, and the best step [B, S, 3] of each step level: σ (positive), Å, sign.

    ``pull_BL`` is r √w, ``root_BL`` √w.
    """
    sigma, wavelength, steps = [], [], []
    pull, top, total = pull_BL, pull_BL * root_BL, root_BL.square()
    for level in range(N_LEVELS):
        if level:
            pull, top, total = _joined(pull) * 0.5**0.5, _joined(top), _joined(total)
        for shape in SHAPES if level else NATIVE:
            kernel = _kernel(shape)
            if level < FINE:
                value = _slide(pull, kernel / kernel.square().sum().sqrt())
            else:
                value = _stands_out(top, total, kernel)
            best = torch.stack([value.argmax(1), value.argmin(1)], 1)
            sigma.append(value.gather(1, best) * torch.tensor([1.0, -1.0]))
            wavelength.append(_centre(best, level))
        if level in STEP_LEVELS:
            steps.append(_step(top, total, level))
    found = Peaks(torch.stack(sigma, 1).clamp(min=0.0), torch.stack(wavelength, 1), torch.tensor(widths()))
    return found, torch.stack(steps, 1)


def _step(top: Tensor, total: Tensor, level: int) -> Tensor:
    """The sharpest step between the means of a few pixels on either side, [B, 3]."""
    ones = torch.ones(STEP_HALF)
    left = torch.cat([ones, torch.zeros(STEP_HALF + 1)])
    right = torch.cat([torch.zeros(STEP_HALF + 1), ones])
    sums = [(_slide(top, side), _slide(total, side)) for side in (left, right)]
    (top_l, w_l), (top_r, w_r) = sums
    known = (w_l > 0) & (w_r > 0)
    jump = top_r / w_r.clamp(min=TINY) - top_l / w_l.clamp(min=TINY)
    value = torch.where(known, jump * (w_l * w_r / (w_l + w_r).clamp(min=TINY)).sqrt(), 0.0)
    best = value.abs().max(1).indices[:, None]
    found = value.gather(1, best)[:, 0]
    return torch.stack([found.abs(), _centre(best[:, 0], level), found.sign()], 1)
