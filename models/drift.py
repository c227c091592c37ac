"""What redshift does to an embedding although the object is the same.

At a higher redshift a bluer part of a quasar is seen, and what fits best there is not quite what fits best elsewhere.
Spectra with their blue end hidden and then their red end are the same objects as seen at two redshifts: the mean change
between the two is taken off all embeddings.

Legend: B spectra, O observed bins, D latent dimensions.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from models.grid import N_OBSERVED, STEP
from models.trained import fitted_groups
from models.vae import VAE, Prepared

HIDDEN = N_OBSERVED // 5  # bins: as far as one redshift is from the other
MOST = 4096  # spectra that it is measured on


def drift(vae: VAE, spectra: Prepared) -> Tensor:
    """Return the embedding's mean change per unit of ln(1 + z), [D], 0 where it cannot be told from chance.

    Args:
        vae: the network.
        spectra: of any redshift, best none that it was trained on.
    """
    spectra = spectra.rows(torch.arange(min(MOST, len(spectra))))
    lower, higher = _seen(spectra, slice(HIDDEN, None)), _seen(spectra, slice(None, N_OBSERVED - HIDDEN))
    known_B = (lower.weight_BO.sum(1) > 0) & (higher.weight_BO.sum(1) > 0)
    if known_B.sum() < 2:
        return torch.zeros(vae.config.latent)
    change_BD = (_latents(vae, higher) - _latents(vae, lower))[known_B] / (HIDDEN * STEP * math.log(10.0))
    mean_D = change_BD.mean(0)
    square_D, chance_D = mean_D.square(), change_BD.var(0) / len(change_BD)
    return mean_D * square_D / (square_D + chance_D).clamp(min=1e-12)


def _seen(spectra: Prepared, part: slice) -> Prepared:
    weight_BO = torch.zeros_like(spectra.weight_BO)
    weight_BO[:, part] = spectra.weight_BO[:, part]
    return replace(spectra, flux_BO=torch.where(weight_BO > 0, spectra.flux_BO, 0.0), weight_BO=weight_BO)


def _latents(vae: VAE, spectra: Prepared) -> Tensor:
    out_BD = torch.empty(len(spectra), vae.config.latent)
    with torch.no_grad():
        for rows, _, latent_GD, _ in fitted_groups(vae, spectra):
            out_BD[rows] = latent_GD
    return out_BD
