"""A variational autoencoder from damped, mask-aware rest-frame spectra to a rest-frame spectrum.

The encoder sees each bin's departure from the mean quasar, damped by how little is known of it, and a coarse
channel that says what is known. The decoder's last layer is a learned basis on the rest-frame grid; the
amplitude is solved by inverse-variance-weighted least squares, so the latents carry shape alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.config import VAEConfig
from models.grid import BLOCK, N_OBSERVED, RestGrid
from models.losses import divergence, misfit
from models.rebin import place

SCALE_BLOCK = 64  # bins of a block whose mean flux enters the normalisation
CLIP = 30.0  # departures beyond this many times the spectrum's scale are held there
MODEL_FLOOR = 0.03  # fraction of the spectrum's scale below which training asks for no better fit


@dataclass
class Prepared:
    """Normalised spectra on the observed log grid, and where that lies on the rest-frame grid."""

    flux_BO: Tensor  # in units of scale_B, 0 where nothing is known
    weight_BO: Tensor  # inverse variance in those units, 0 where nothing is known
    scale_B: Tensor  # 1e-17 erg/s/cm²/Å
    offset_B: Tensor  # int64, rest-frame bin of the first observed bin

    def __len__(self) -> int:
        return len(self.scale_B)

    def rows(self, index: Tensor) -> Prepared:
        """Return the spectra at ``index``."""
        return Prepared(self.flux_BO[index], self.weight_BO[index], self.scale_B[index], self.offset_B[index])

    def to(self, device: torch.device) -> Prepared:
        """Return the same on another device."""
        parts = (self.flux_BO, self.weight_BO, self.scale_B, self.offset_B)
        return Prepared(*(part.to(device, non_blocking=True) for part in parts))

    @classmethod
    def cat(cls, parts: list[Prepared]) -> Prepared:
        """Return all of ``parts`` as one."""
        return cls(
            torch.cat([part.flux_BO for part in parts]),
            torch.cat([part.weight_BO for part in parts]),
            torch.cat([part.scale_B for part in parts]),
            torch.cat([part.offset_B for part in parts]),
        )


def prepare(flux_BO: Tensor, ivar_BO: Tensor, offset_B: Tensor) -> Prepared:
    """Normalise rebinned spectra by a robust positive scale: the median of their blocks' mean flux.

    One wild pixel cannot move a median of blocks, and the blocks' noise is added in quadrature, so that the
    scale of a spectrum without signal is its noise and never 0.
    """
    n_used = N_OBSERVED // SCALE_BLOCK * SCALE_BLOCK
    shape = (len(flux_BO), -1, SCALE_BLOCK)
    ivar_BKS = ivar_BO[:, :n_used].reshape(shape)
    flux_BKS = flux_BO[:, :n_used].reshape(shape)
    known_BK = ivar_BKS.sum(2)
    nothing = torch.tensor(torch.nan, device=flux_BO.device)
    mean_BK = torch.where(known_BK > 0, (ivar_BKS * flux_BKS).sum(2) / known_BK, nothing)
    noise_BK = torch.where(known_BK > 0, known_BK.rsqrt(), nothing)
    scale_B = torch.hypot(mean_BK.nanmedian(1).values, noise_BK.nanmedian(1).values)
    scale_B = torch.where(scale_B > 0, scale_B, 1.0)  # also when no block has information
    return Prepared(flux_BO / scale_B[:, None], ivar_BO * (scale_B * scale_B)[:, None], scale_B, offset_B)


class VAE(nn.Module):
    """The network. All its methods take a window [low, low + width) of the rest-frame grid in whole blocks.

    Spectra of similar redshift share most of their window, which is a third of the grid: working on windows
    makes scoring three times cheaper than working on the whole grid.
    """

    mean_R: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = RestGrid(config.z_max)
        n_rest, hidden = self.grid.n_rest, config.hidden
        self.enter = nn.Linear(n_rest, hidden)
        self.enter_known = nn.Linear(n_rest // BLOCK, hidden, bias=False)
        self.encode_1 = nn.Linear(hidden, hidden)
        self.encode_2 = nn.Linear(hidden, 2 * config.latent)
        self.decode_1 = nn.Linear(config.latent, hidden // 2)
        self.decode_2 = nn.Linear(hidden // 2, hidden // 2)
        self.leave = nn.Linear(hidden // 2, n_rest)
        self.register_buffer("mean_R", torch.ones(n_rest))
        nn.init.zeros_(self.leave.bias)
        with torch.no_grad():
            self.encode_2.weight.mul_(0.1)
            self.leave.weight.mul_(0.3)

    def encode(self, damped_BR: Tensor, known_BC: Tensor, low: int) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the latent posterior, [B, D] each.

        Args:
            damped_BR: departures from the mean spectrum × known fraction, in the window.
            known_BC: mean known fraction of each block, in the window.
            low: first rest-frame bin of the window, a multiple of the block.
        """
        high = low + damped_BR.shape[1]
        hidden = functional.linear(damped_BR, self.enter.weight[:, low:high], self.enter.bias)
        hidden = hidden + functional.linear(known_BC, self.enter_known.weight[:, low // BLOCK : high // BLOCK])
        hidden = functional.silu(hidden)
        hidden = functional.silu(self.encode_1(hidden))
        mean, log_variance = self.encode_2(hidden).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 6.0)

    def decode(self, latent_BD: Tensor, low: int, high: int) -> Tensor:
        """Return spectra in units of the amplitude, [B, high − low]."""
        hidden = functional.silu(self.decode_1(latent_BD))
        hidden = functional.silu(self.decode_2(hidden))
        out = functional.linear(hidden, self.leave.weight[low:high], self.leave.bias[low:high])
        return out + self.mean_R[low:high]

    def inputs(self, spectra: Prepared, low: int, width: int) -> tuple[Tensor, Tensor]:
        """Return the encoder's two inputs for spectra inside a window, [B, width] and [B, width / 16].

        Spectra are first brought to the mean quasar's amplitude, which makes those of different redshift, whose
        scales come from different parts of the quasar, alike.
        """
        start_B = spectra.offset_B - low
        mean_BO = self.mean_R.unfold(0, N_OBSERVED, 1).index_select(0, spectra.offset_B)
        flux_BO = spectra.flux_BO.clamp(-CLIP, CLIP)
        level_B1 = amplitude(flux_BO, softened(spectra.weight_BO), mean_BO).clamp(0.1, 10.0)[:, None]
        weight_BO = spectra.weight_BO * torch.square(level_B1)
        known_BO = weight_BO / (weight_BO + 1.0)
        damped_BO = flux_BO.div_(level_B1).sub_(mean_BO).mul_(known_BO)
        known_BR = place(known_BO, start_B, width)
        return place(damped_BO, start_B, width), known_BR.view(len(spectra), -1, BLOCK).mean(2)

    def forward(self, spectra: Prepared, seen: Prepared, noise_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return half the χ² of each spectrum and its KL divergence, [B] each.

        Args:
            spectra: what is to be reconstructed.
            seen: the same spectra as the encoder is to see them.
            noise_BD: unit normal, for the reparameterisation.
        """
        low, width = self.window(spectra.offset_B)
        mean_BD, log_variance_BD = self.encode(*self.inputs(seen, low, width), low)
        latent_BD = mean_BD + noise_BD * torch.exp(0.5 * log_variance_BD)
        model_BR = self.decode(latent_BD, low, low + width)
        start_B = spectra.offset_B - low
        flux_BR = place(spectra.flux_BO, start_B, width)
        weight_BR = place(softened(spectra.weight_BO), start_B, width)
        best_B = amplitude(flux_BR, weight_BR, model_BR)
        return misfit(flux_BR, weight_BR, best_B[:, None] * model_BR), divergence(mean_BD, log_variance_BD)

    def window(self, offset_B: Tensor) -> tuple[int, int]:
        """Return (low, width) of the smallest window of whole blocks that holds these spectra."""
        low = int(offset_B.min()) // BLOCK * BLOCK
        high = -(-(int(offset_B.max()) + N_OBSERVED) // BLOCK) * BLOCK
        return low, high - low


def amplitude(flux: Tensor, weight: Tensor, model: Tensor) -> Tensor:
    """Return the amplitude a that minimises Σ w (f − a m)² + (a − 1)², shape [B].

    The last term, worth one 1σ measurement, keeps a finite where nothing is known.
    """
    weighted = weight * model
    return ((weighted * flux).sum(1) + 1.0) / ((weighted * model).sum(1) + 1.0)


def softened(weight: Tensor) -> Tensor:
    """Return weights with the model's own floor added in quadrature to the noise."""
    return weight / (1.0 + MODEL_FLOOR * MODEL_FLOOR * weight)
