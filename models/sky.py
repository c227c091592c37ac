"""Where the night sky is bright, and what it leaves when it is subtracted a little wrong.

Learned from the errors of a survey's spectra: lines of the sky are where the variance rises above its surroundings.
They are looked at in native pixels, as a line slipped by a part of its width leaves nothing in wider bins.
Legend: B spectra, L native pixels, P pixels on sky lines, S segments of the observed range.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from models.features import pair_sums
from models.grid import native_wavelength
from models.rebin import to_native

SEGMENTS = 32  # of equal width in ln λ; patterns are looked for in each, in pairs, in fours … and in all
AROUND = 301  # pixels, 240 Å, whose median variance is the surroundings'
RUN = 8  # segments whose patterns are summed together
NEAR = 7  # pixels, 5.6 Å, in which the brightest line sets the scale
FAINT = 0.05  # share of the variance that a line makes, from which its pixels count as sky
BRIGHT = 0.3  # the same, from which they count as bright
TINY = 1e-20


class OnLines(NamedTuple):
    """Pixels of B spectra on lines of the sky."""

    pull_BP: Tensor  # ivar · flux
    ivar_BP: Tensor


@dataclass
class Sky:
    """Patterns of subtraction errors: too much or too little, and slipped in wavelength."""

    pixel_P: Tensor  # int64, native pixels on lines
    pattern_P2: Tensor  # in units of one flux error there: strength, slip
    bright_P: Tensor  # 1 on bright lines, else 0

    def to(self, device: torch.device) -> Sky:
        """Return the same on another device."""
        return Sky(self.pixel_P.to(device), self.pattern_P2.to(device), self.bright_P.to(device))

    @classmethod
    def none(cls) -> Sky:
        """Return a sky without lines."""
        return cls(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), torch.zeros(0))

    @classmethod
    def of(cls, ivar_BL: Tensor) -> Sky:
        """Learn from inverse variances in native pixels."""
        ivar_L = ivar_BL.median(0).values
        variance_L = 1.0 / ivar_L.clamp(min=float(ivar_L.max()) * 1e-6 + TINY)
        above_L = (variance_L - _padded(variance_L, AROUND).median(1).values).clamp(min=0.0)
        share_L = above_L / variance_L
        profile_L = above_L / _padded(above_L, NEAR).amax(1).clamp(min=TINY)
        strength_L = variance_L.sqrt() * profile_L * (share_L > FAINT)
        slip_L = torch.zeros_like(strength_L)
        slip_L[1:-1] = 0.5 * (strength_L[2:] - strength_L[:-2])
        pixel_P = torch.nonzero((strength_L != 0) | (slip_L != 0))[:, 0]
        pattern_P2 = torch.stack([strength_L, slip_L], 1)[pixel_P]
        return cls(pixel_P, pattern_P2, (share_L > BRIGHT).to(variance_L.dtype)[pixel_P])

    def on_lines(self, flux_BL: Tensor, ivar_BL: Tensor) -> OnLines:
        """Return the pixels on lines; where ivar is 0 the flux may be anything."""
        flux_BP, ivar_BP = flux_BL.index_select(1, self.pixel_P), ivar_BL.index_select(1, self.pixel_P)
        return OnLines(flux_BP.mul_(ivar_BP).nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0), ivar_BP)

    def features(self, seen: OnLines, model_BO: Tensor) -> Tensor:
        """Return the squared σ of the patterns in every run of segments, and the mean square on bright lines, [B, F].

        Args:
            seen: pixels on lines.
            model_BO: the model in the same units, in observed bins.
        """
        weighted_BP = torch.addcmul(seen.pull_BP, seen.ivar_BP, to_native(model_BO, self.pixel_P), value=-1.0)
        patterns, squares, bright, some_S = self._tables
        top, bottom = _sums(weighted_BP, patterns), _sums(seen.ivar_BP, squares)
        found = []
        while True:
            found.append((top.square() / bottom.clamp(min=TINY)).sum(1))
            if top.shape[2] == 1:
                break
            top, bottom = pair_sums(top), pair_sums(bottom)
        mean_BS = _sums(weighted_BP.square_() / seen.ivar_BP.clamp(min=TINY), bright)[:, 0]
        return torch.log1p(torch.cat([*found, (mean_BS - some_S).clamp(min=-0.9)], 1))

    @cached_property
    def _tables(self) -> tuple[_Table, _Table, _Table, Tensor]:
        """Patterns by segment [P, 2, S], their squares, bright pixels of mean 1 [P, 1, S], where some are [S]."""
        log = torch.as_tensor(native_wavelength(), device=self.pixel_P.device).log()
        place_P = ((log - log[0]) / (log[-1] - log[0] + 1e-9) * SEGMENTS).long()[self.pixel_P]
        segment_P1S = torch.nn.functional.one_hot(place_P, SEGMENTS).to(self.pattern_P2.dtype)[:, None]
        pattern_P2S = self.pattern_P2[:, :, None] * segment_P1S
        bright_P1S = self.bright_P[:, None, None] * segment_P1S
        bright_P1S = bright_P1S / bright_P1S.sum(0).clamp(min=1.0)
        some_S = bright_P1S.sum((0, 1)).sign()
        squares = _runs(pattern_P2S.square(), place_P)
        return _runs(pattern_P2S, place_P), squares, _runs(bright_P1S, place_P), some_S


_Table = list[tuple[slice, Tensor]]  # pixels of a run of segments, and what they count for in them, [p, K, RUN]


def _runs(table_PKS: Tensor, place_P: Tensor) -> _Table:
    """Cut a table into runs of segments: a pixel belongs to one segment, so all else is zeros."""
    first = torch.searchsorted(place_P, torch.arange(0, SEGMENTS + 1, RUN, device=place_P.device)).tolist()
    pixels = [slice(*ends) for ends in pairwise(first)]
    return [(run, table_PKS[run, :, at * RUN : (at + 1) * RUN]) for at, run in enumerate(pixels)]


def _sums(values_BP: Tensor, table: _Table) -> Tensor:
    """Return a table's sums of values, [B, K, S]."""
    parts = [(values_BP[:, run] @ part.flatten(1)).view(-1, *part.shape[1:]) for run, part in table]
    return torch.cat(parts, 2)


def _padded(values_L: Tensor, width: int) -> Tensor:
    """Return every pixel's surroundings, [L, width]."""
    edge = (width // 2, width // 2)
    return torch.nn.functional.pad(values_L[None, None], edge, mode="replicate")[0, 0].unfold(0, width, 1)
