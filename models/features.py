"""What a spectrum leaves behind when a model has explained what it can: the detector's inputs, F numbers a spectrum.

All of them are in units of their own noise and of order one: the residual in blocks of the observed frame and of the
rest frame, the flux itself, the excess scatter, coefficients of the model, the best boxes, and how much was known.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.grid import BLOCK, N_OBSERVED
from models.rebin import place, run_sums
from models.vae import CLIP, Prepared

QUAD = 4  # bins; N_OBSERVED is a multiple
FINE = 8  # bins of an observed-frame block
TINY = 1e-20
N_CONDITIONS = N_CONTEXT = 4  # last columns of the features: the context's, then the conditions'


def compressed(values: Tensor) -> Tensor:
    """Return sign(x) ln(1 + |x|): linear within the noise, and no spectrum is too loud."""
    return torch.sign(values) * torch.log1p(values.abs())


def pair_sums(fine: Tensor) -> Tensor:
    """Return sums of neighbouring pairs in the last dimension; an odd one at the end is left out."""
    used = fine.shape[-1] // 2 * 2
    return fine[..., 0:used:2] + fine[..., 1:used:2]


def block_sums(values_BO: Tensor, size: int) -> Tensor:
    """Return sums over whole blocks of bins, [B, O // size]; ``size`` is a power of two from 4."""
    sums, reached = run_sums(values_BO, QUAD), QUAD
    while reached < size:
        sums, reached = pair_sums(sums), 2 * reached
    return sums


def count(weight_BO: Tensor) -> Tensor:
    """Return how many bins are known, a float [B]; signs are added several times as fast as truths are counted."""
    return torch.sign(weight_BO).sum(1)


def residual_features(spectra: Prepared, weighted_BO: Tensor, pull_BO: Tensor, n_rest: int) -> Tensor:
    """Return what the bins tell, [B, F'].

    Args:
        spectra: as the model saw them.
        weighted_BO: w r, with r the residual.
        pull_BO: w r².
        n_rest: bins of the rest-frame grid.
    """
    weight_BO = spectra.weight_BO
    fine_weight = block_sums(weight_BO, FINE)
    fine_pull = block_sums(weighted_BO, FINE)
    fine = fine_pull * fine_weight.clamp(min=TINY).rsqrt()
    weight = pair_sums(fine_weight)
    scale = weight.clamp(min=TINY).rsqrt()
    wide = pair_sums(fine_pull) * scale
    n_blocks = n_rest // BLOCK
    start_B = ((spectra.offset_B + BLOCK // 2) // BLOCK).clamp(0, n_blocks - wide.shape[1])
    flux = block_sums(weight_BO * spectra.flux_BO.clamp(-CLIP, CLIP), BLOCK) * scale
    known = block_sums(torch.sign(weight_BO), BLOCK)
    excess = (block_sums(pull_BO, BLOCK) - known) * (2.0 * known).clamp(min=1.0).rsqrt()
    loud = compressed(torch.cat([fine, wide, flux, excess], 1))
    rest = place(loud[:, fine.shape[1] : fine.shape[1] + wide.shape[1]], start_B, n_blocks)
    return torch.cat([loud, rest, 0.25 * torch.log1p(weight)], 1)


def conditions(spectra: Prepared, redshift_B: Tensor) -> Tensor:
    """Return where and how well spectra were seen, [B, 4]: ln(1 + z), S/N, mean weight and how much of the range."""
    total_B, known_B = spectra.weight_BO.sum(1), count(spectra.weight_BO).clamp(min=1)
    signal_B = (spectra.weight_BO * spectra.flux_BO).sum(1) * total_B.clamp(min=TINY).rsqrt()
    parts = [torch.log1p(redshift_B), compressed(signal_B), torch.log(total_B / known_B + 1e-3), known_B / N_OBSERVED]
    return torch.stack(parts, 1)


def embedded(features_BF: Tensor, n_latent: int) -> tuple[Tensor, Tensor]:
    """Return the embeddings [B, D] and conditions [B, 4] that are the last of all features but for the context."""
    end = -N_CONTEXT - N_CONDITIONS
    return features_BF[:, end - n_latent : end].float(), features_BF[:, -N_CONDITIONS:].float()


def context_features(
    spectra: Prepared, redshift_B: Tensor, chi2_B: Tensor, n_bins_B: Tensor, global_B: Tensor
) -> Tensor:
    """Return what the whole spectrum tells besides its ``conditions``, [B, 4]."""
    slip_B = spectra.slip_B.to(chi2_B.dtype) / 10.0
    return torch.stack([redshift_B, slip_B, compressed(global_B), torch.log(chi2_B / n_bins_B.clamp(min=1) + 0.1)], 1)
