"""The training objective: an outlier-resistant weighted misfit and the KL divergence to the prior."""

from __future__ import annotations

import torch
from torch import Tensor

OUTLIER = 6.0  # σ beyond which the misfit grows linearly instead of quadratically


def misfit(flux: Tensor, weight: Tensor, model: Tensor) -> Tensor:
    """Return half the pseudo-Huber χ² of each spectrum, [B]; bins of weight 0 add nothing.

    Σ c² (√(1 + r²/c²) − 1) with r = √w (f − m) is ½ Σ r² for small r and c Σ |r| for large, so a cosmic ray or
    a real anomaly among the training spectra pulls no harder than a 6σ outlier (Charbonnier et al. 1994).
    """
    squared = weight * torch.square(flux - model) / OUTLIER**2
    return OUTLIER**2 * (torch.sqrt(1.0 + squared) - 1.0).sum(1)


def divergence(mean_BD: Tensor, log_variance_BD: Tensor) -> Tensor:
    """Return the KL divergence of each diagonal Gaussian from the unit one, [B] (Kingma & Welling 2014)."""
    return 0.5 * (torch.square(mean_BD) + log_variance_BD.exp() - 1.0 - log_variance_BD).sum(1)
