"""Known shapes of the instrument in a residual: arms, sky lines, and places where the calibration fails.

The places are those of DESI's known artefacts (docs: the B arm's ramp, the seams at 5,780 and 7,570 Å, the [O I] line
at 5,578 Å, the reflectivity dip near 4,390 Å, false absorption at 8,630 Å, OH lines beyond 7,200 Å).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline.desi.grid import ARMS, N_PIXELS, OVERLAP_BR, WAVELENGTH
from pipeline.simulate.instrument import LSF_SIGMA
from pipeline.simulate.night_sky import LINE_VARIANCE, LINE_WAVELENGTH
from pipeline.verdicts.residual import TINY, Residual, coarse_wavelength

SEAMS = (5780.0, 7570.0)  # Å, middles of the arms' overlaps
N_BLUE = OVERLAP_BR.stop - OVERLAP_BR.start  # pixels of the first overlap among the arms' differences
R_STEPS = tuple(np.arange(6650.0, 7560.0, 45.0).tolist())  # Å, where steps within R are tried
BANDS = ((3600.0, 5900.0), (5900.0, 7200.0), (7200.0, 8300.0), (8300.0, 9300.0), (9300.0, 9600.0), (9600.0, 9824.0))
SHAPE_NAMES = (
    "b_ramp", "b_scale", "r_scale", "z_scale", "dip_4390", "absorption_8630", "spike_5578",
    "r_step", "r_step_wavelength",
)  # fmt: skip
SKY_NAMES = tuple(
    f"sky_{what}_{low:.0f}" for low, _ in BANDS for what in ("lines", "between", "common", "slip", "blue_wing")
)
OVERLAP_NAMES = tuple(f"overlap_{arms}_{what}" for arms in ("br", "rz") for what in ("mean", "slope", "chi2"))


def shapes(residual: Residual) -> Tensor:
    """Return σ of every known broad shape [B, 9], signed; the last is where the best step within R is, Å."""
    scaled = residual.gain(residual.model_BC, _model_shapes())
    added = residual.gain(torch.ones_like(residual.model_BC), _flux_shapes())
    steps = added[:, 1:]
    best = steps.abs().max(1).indices
    step = steps.gather(1, best[:, None])
    place = torch.tensor(R_STEPS)[best][:, None]
    return torch.cat([scaled, added[:, :1], step, place], 1)


@lru_cache(maxsize=1)
def _model_shapes() -> Tensor:
    """Shapes that multiply the model, [6, C]."""
    wave = coarse_wavelength()
    in_b, in_z = wave < SEAMS[0], wave > SEAMS[1]
    shapes = [
        ((wave - 5000) / 800).clamp(0, 1) * in_b, in_b.float(), (~in_b & ~in_z).float(), in_z.float(),
        torch.exp(-0.5 * ((wave - 4390) / 55) ** 2), torch.exp(-0.5 * ((wave - 8630) / 14) ** 4),
    ]  # fmt: skip
    return torch.stack(shapes)


@lru_cache(maxsize=1)
def _flux_shapes() -> Tensor:
    """Shapes that are added, [1 + steps, C]: the spike, then steps within R, which end where R does."""
    wave = coarse_wavelength()
    in_r = (wave > SEAMS[0]) & (wave < SEAMS[1])
    steps = [0.5 * (1 + torch.tanh((wave - place) / 6.0)) * in_r for place in R_STEPS]
    return torch.stack([torch.exp(-0.5 * ((wave - 5578.4) / 4.0) ** 2), *steps])


def sky(residual: Residual) -> Tensor:
    """Return how the misfit sits on the sky's lines [B, 5 × bands].

    Of each band: excess of χ² on sky lines and between them (in its own σ), of what all lines share in strength and
    in wavelength slip (σ, absolute), and the share of the lines' excess that is in their blue wings.
    """
    pull = residual.pull_BL
    known = residual.w_BL > 0
    excess = torch.where(known, pull.square().clamp(max=1e4) - 1.0, 0.0)
    on, common, slip, band = _line_templates()
    columns = []
    for i in range(len(BANDS)):
        span = band[i]
        part, seen = excess[:, span], known[:, span].float()
        is_on = on[span]
        columns.append((part * is_on).sum(1) / (2 * (seen * is_on).sum(1)).clamp(min=1).sqrt())
        columns.append((part * (1 - is_on)).sum(1) / (2 * (seen * (1 - is_on)).sum(1)).clamp(min=1).sqrt())
        for template in (common, slip):
            shape = template[span] * seen
            columns.append((pull[:, span] * shape).sum(1).abs() / shape.square().sum(1).clamp(min=TINY).sqrt())
        wing = (slip[span] < 0).float() * is_on
        columns.append((part * wing).sum(1) / (part * is_on).sum(1).abs().clamp(min=10.0))
    return torch.stack(columns, 1)


@lru_cache(maxsize=1)
def _line_templates() -> tuple[Tensor, Tensor, Tensor, list[slice]]:
    """Pixels on sky lines [L]; unit lines g(x) and slips x g(x) of all lines [L]; pixels of each band."""
    width = np.array([LSF_SIGMA["B" if line < SEAMS[0] else "R" if line < SEAMS[1] else "Z"]
                      for line in LINE_WAVELENGTH])  # fmt: skip
    x = (WAVELENGTH[:, None] - LINE_WAVELENGTH) / width
    line = np.exp(-0.5 * x * x)
    strong = LINE_VARIANCE > 1.5
    on = ((np.abs(x) < 2.0) & strong).any(1)
    band = [slice(*np.searchsorted(WAVELENGTH, edges).tolist()) for edges in BANDS]
    arrays = (on, line.sum(1), (x * line).sum(1))
    return *(torch.from_numpy(np.asarray(a, np.float32)) for a in arrays), band  # type: ignore[return-value]


def overlaps(difference_BN: Tensor) -> Tensor:
    """Return mean, slope (both in σ) and χ² excess (in its own σ) of the arms' differences, [B, 6]."""
    columns = []
    for part in (difference_BN[:, :N_BLUE], difference_BN[:, N_BLUE:]):
        known = torch.isfinite(part) & (part != 0)
        value = torch.where(known, part, 0.0).clamp(-1e3, 1e3)
        n = known.sum(1).clamp(min=1).float()
        x = torch.linspace(-1.7, 1.7, part.shape[1]) * known
        mean = value.sum(1) / n.sqrt()
        slope = (value * x).sum(1) / x.square().sum(1).clamp(min=1.0).sqrt()
        chi2 = (value.square() * known).sum(1)
        columns += [mean, slope, (chi2 - known.sum(1)) / (2 * n).sqrt()]
    return torch.stack(columns, 1)


def arm_power(residual: Residual) -> Tensor:
    """Return each arm's χ² excess of the unfitted residual (in its own σ) and share of the whole, [B, 6]."""
    known = residual.w_BL > 0
    excess = torch.where(known, residual.raw_BL.square().clamp(max=1e4) - 1.0, 0.0)
    sums = torch.stack([excess[:, span].sum(1) for span in ARMS.values()], 1)
    counts = torch.stack([known[:, span].sum(1) for span in ARMS.values()], 1)
    positive = sums.clamp(min=0.0)
    share = positive / positive.sum(1, keepdim=True).clamp(min=float(np.sqrt(2 * N_PIXELS)))
    return torch.cat([sums / (2 * counts.clamp(min=1)).sqrt(), share], 1)
