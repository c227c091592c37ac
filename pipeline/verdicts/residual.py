"""What a spectrum leaves over its model, prepared once for all measurements of it.

Shapes: B spectra, L=7781 native pixels, C=972 coarse bins of eight pixels (6.4 Å), P polynomials, T templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.desi.grid import N_PIXELS, WAVELENGTH, WAVELENGTH_STEP

COARSE = 8  # pixels a coarse bin
N_COARSE = N_PIXELS // COARSE
ORDER = 5  # polynomials that stand for broad misfits: of calibration, reddening, the model's own error
CLIP = 1e4  # σ, beyond which a pixel's pull is held
TINY = 1e-20


@dataclass
class Residual:
    """B spectra, torch tensors: ``r`` is flux less model, ``w`` inverse variance, both 0 where nothing is known."""

    w_BL: Tensor
    root_BL: Tensor  # √w
    raw_BL: Tensor  # r √w as it is
    pull_BL: Tensor  # r √w, of what broad polynomials leave
    flux_BC: Tensor
    model_BC: Tensor
    w_BC: Tensor
    r_BC: Tensor  # of what broad polynomials leave
    terms_BPC: Tensor  # polynomials times the model
    inverse_BPP: Tensor  # of their normal matrix
    broad_BP: Tensor  # their coefficients
    broad_gain_B: Tensor  # their Δχ²

    @classmethod
    def of(cls, flux_BL: Any, ivar_BL: Any, model_BL: Any) -> Residual:
        """Prepare spectra; flux may be anything where ivar is 0."""
        w_BL, model_BL = _tensor(ivar_BL), _tensor(model_BL)
        flux_BL = torch.where(w_BL > 0, _tensor(flux_BL), 0.0)
        root_BL = w_BL.sqrt()
        raw_BL = ((flux_BL - model_BL) * root_BL).clamp_(-CLIP, CLIP)
        w_BC, flux_BC, model_BC = coarse(w_BL, flux_BL, model_BL)
        r_BC = flux_BC - model_BC
        terms_BPC = model_BC[:, None] * polynomials()
        inverse_BPP = inverse_normal(terms_BPC, w_BC)
        right_BP = (terms_BPC @ (w_BC * r_BC)[:, :, None])[:, :, 0]
        broad_BP = (inverse_BPP @ right_BP[:, :, None])[:, :, 0]
        broad_BC = (broad_BP[:, None] @ terms_BPC)[:, 0]
        pull_BL = raw_BL - root_BL * broad_BC.repeat_interleave(COARSE, 1)[:, _STRETCH]
        return cls(w_BL, root_BL, raw_BL, pull_BL, flux_BC, model_BC, w_BC, r_BC - broad_BC, terms_BPC, inverse_BPP,
                   broad_BP, (broad_BP * right_BP).sum(1))  # fmt: skip

    def gain(self, level_BC: Tensor, templates_TC: Tensor) -> Tensor:
        """Return σ [B, T] of each template, times a spectrum's own level, fitted with the broad polynomials."""
        top_BT = (self.w_BC * self.r_BC * level_BC) @ templates_TC.T
        own_BT = (self.w_BC * level_BC.square()) @ templates_TC.square().T
        cross_BPT = (self.terms_BPC * (self.w_BC * level_BC)[:, None]) @ templates_TC.T
        taken_BT = (cross_BPT * (self.inverse_BPP @ cross_BPT)).sum(1)
        left_BT = (own_BT - taken_BT).clamp(min=0.0)
        return torch.where(left_BT > 1e-3 * own_BT, top_BT * left_BT.clamp(min=TINY).rsqrt(), 0.0)


_STRETCH = torch.arange(N_PIXELS).clamp(max=N_COARSE * COARSE - 1)


def _tensor(values: Any) -> Tensor:
    return values.float() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, np.float32))


def coarse(w_BL: Tensor, *values_BL: Tensor) -> tuple[Tensor, ...]:
    """Sum ``w`` in coarse bins and average values by it, [B, C] each; plain means where nothing is known."""
    shape = (len(w_BL), N_COARSE, COARSE)
    w = w_BL[:, : N_COARSE * COARSE].reshape(shape)
    total = w.sum(2)
    scale = total.clamp(min=TINY).reciprocal()
    parts = [part[:, : N_COARSE * COARSE].reshape(shape) for part in values_BL]
    return total, *(torch.where(total > 0, (part * w).sum(2) * scale, part.mean(2)) for part in parts)


def inverse_normal(terms_BPC: Tensor, w_BC: Tensor) -> Tensor:
    """Invert the normal matrices of terms in float64, with a ridge of 1e-6 of the largest diagonal element."""
    wide = ((terms_BPC * w_BC[:, None]) @ terms_BPC.transpose(1, 2)).double()
    ridge = 1e-6 * wide.diagonal(dim1=1, dim2=2).amax(1).clamp(min=TINY)
    inverse: Tensor = torch.linalg.inv(wide + ridge[:, None, None] * torch.eye(wide.shape[1]))
    return inverse.float()


@lru_cache(maxsize=1)
def coarse_wavelength() -> Tensor:
    """Centres of the coarse bins, Å, [C]."""
    first = WAVELENGTH[: N_COARSE * COARSE : COARSE] + 0.5 * (COARSE - 1) * WAVELENGTH_STEP
    return torch.from_numpy(np.asarray(first, np.float32))


@lru_cache(maxsize=1)
def polynomials() -> Tensor:
    """Legendre polynomials in log λ, [P, C]."""
    x = torch.log(coarse_wavelength())
    x = 2 * (x - x[0]) / (x[-1] - x[0]) - 1
    basis = np.polynomial.legendre.legvander(x.numpy(), ORDER - 1).T
    return torch.from_numpy(np.ascontiguousarray(basis, np.float32))
