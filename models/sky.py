"""Where the night sky is bright, and what it leaves when it is subtracted a little wrong.

Learned from the errors of a survey's spectra: lines of the sky are where the variance rises above its surroundings.
Legend: H half bins of the observed range, S segments of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.grid import N_FINE

SEGMENTS = 16
AROUND = 151  # half bins, 10,400 km/s, whose median variance is the surroundings'
BRIGHT = 0.3  # share of the variance that a line makes, from which its half bins count as sky
TINY = 1e-20


@dataclass
class Sky:
    """Patterns of subtraction errors: too much or too little, and slipped in wavelength."""

    pattern_H2: Tensor  # in units of one flux error there: strength, slip
    bright_H: Tensor  # 1 on lines, 0 between

    def to(self, device: torch.device) -> Sky:
        """Return the same on another device."""
        return Sky(self.pattern_H2.to(device), self.bright_H.to(device))

    @classmethod
    def none(cls) -> Sky:
        """Return a sky without lines."""
        return cls(torch.zeros(N_FINE, 2), torch.zeros(N_FINE))

    @classmethod
    def of(cls, weight_BH: Tensor) -> Sky:
        """Learn from inverse variances in half bins."""
        weight_H = weight_BH.median(0).values
        variance_H = 1.0 / weight_H.clamp(min=float(weight_H.max()) * 1e-6 + TINY)
        padded = torch.nn.functional.pad(variance_H[None, None], (AROUND // 2, AROUND // 2), mode="replicate")[0, 0]
        around_H = padded.unfold(0, AROUND, 1).median(1).values
        share_H = (1.0 - around_H / variance_H).clamp(min=0.0)
        strength_H = variance_H.sqrt() * share_H
        slip_H = torch.zeros_like(strength_H)
        slip_H[1:-1] = 0.5 * (strength_H[2:] - strength_H[:-2])
        return cls(torch.stack([strength_H, slip_H], 1), (share_H > BRIGHT).to(variance_H.dtype))

    def features(self, weighted_BH: Tensor, weight_BH: Tensor, sigma_BH: Tensor) -> Tensor:
        """Return in every segment the σ of both patterns, and the mean square on lines and in all of it, [B, 4 S].

        Args:
            weighted_BH: w r of half bins. weight_BH: w. sigma_BH: r in units of all its errors.
        """
        shape = (len(weighted_BH), SEGMENTS, -1)
        used = N_FINE // SEGMENTS * SEGMENTS
        weighted, weight, square = (
            values[:, :used].reshape(shape).transpose(0, 1) for values in (weighted_BH, weight_BH, sigma_BH.square())
        )
        pattern_SH2 = self.pattern_H2[:used].view(SEGMENTS, -1, 2)
        bright_SH1 = self.bright_H[:used].view(SEGMENTS, -1, 1)
        bottom = weight @ pattern_SH2.square()
        sigma = (weighted @ pattern_SH2) * bottom.clamp(min=TINY).rsqrt()
        on_lines = (square @ bright_SH1) / bright_SH1.sum(1, keepdim=True).clamp(min=1.0)
        spread = torch.cat([on_lines, square.mean(2, keepdim=True)], 2)
        return torch.cat([sigma, 10.0 * (spread - 1.0)], 2).transpose(0, 1).flatten(1)
