"""A variational autoencoder of rest-frame spectra, built around a linear model that is solved exactly.

The encoder begins with the posterior of that linear model, which takes every bin's noise and every gap into account
exactly, and corrects it by what a network sees in the residual, damped by how little is known of each bin. The
decoder adds a curved part to the linear reconstruction, in the span of the next principal components. The amplitude
is solved by weighted least squares, so the latents carry shape alone.

Layers from the whole rest-frame grid to the network and back, tried first, learned the noise of 9,000 spectra: their
validation loss never fell below the linear model's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.basis import DETAIL, SCATTER, Linear, pairs, posterior, soften
from models.config import VAEConfig
from models.grid import BLOCK, N_OBSERVED, RestGrid
from models.losses import divergence, misfit
from models.rebin import place, run_sums
from models.redshift import Scan

SCALE_BLOCK = 64  # bins of a block whose mean flux enters the normalisation
EACH = 4  # bins that share a weight in the linear model's normal equations
CLIP = 30.0  # departures beyond this many times the spectrum's scale are held there


@dataclass
class Prepared:
    """Normalised spectra on the observed log grid, and where that lies on the rest-frame grid."""

    flux_BO: Tensor  # in units of scale_B, 0 where nothing is known
    weight_BO: Tensor  # inverse variance in those units, 0 where nothing is known
    scale_B: Tensor  # 1e-17 erg/s/cm²/Å
    offset_B: Tensor  # int64, rest-frame bin of the first observed bin
    slip_B: Tensor  # int64, bins by which offset_B was moved from the catalogued redshift's, see ``models.redshift``

    def __len__(self) -> int:
        return len(self.scale_B)

    def rows(self, index: Tensor) -> Prepared:
        """Return the spectra at ``index``."""
        return Prepared(*self._each(lambda part: part[index]))

    def to(self, device: torch.device) -> Prepared:
        """Return the same on another device."""
        return Prepared(*self._each(lambda part: part.to(device, non_blocking=True)))

    def moved(self, shift_B: Tensor) -> Prepared:
        """Return the same at other redshifts: ``shift_B`` bins further on the rest-frame grid."""
        return replace(self, offset_B=self.offset_B + shift_B, slip_B=self.slip_B + shift_B)

    def _each(self, change: Callable[[Tensor], Tensor]) -> list[Tensor]:
        return [change(part) for part in (self.flux_BO, self.weight_BO, self.scale_B, self.offset_B, self.slip_B)]

    @classmethod
    def cat(cls, parts: list[Prepared]) -> Prepared:
        """Return all of ``parts`` as one."""
        together = zip(*(part._each(lambda values: values) for part in parts), strict=True)
        return cls(*(torch.cat(same) for same in together))


def prepare(flux_BO: Tensor, ivar_BO: Tensor, offset_B: Tensor) -> Prepared:
    """Normalise rebinned spectra by a robust positive scale: the median of their blocks' mean flux.

    One wild pixel cannot move a median of blocks, and the blocks' noise is added in quadrature, so that the
    scale of a spectrum without signal is its noise and never 0.
    """
    n_used = N_OBSERVED // SCALE_BLOCK * SCALE_BLOCK
    shape = (len(flux_BO), n_used // SCALE_BLOCK, SCALE_BLOCK)
    ivar_BKS = ivar_BO[:, :n_used].reshape(shape)
    flux_BKS = flux_BO[:, :n_used].reshape(shape)
    known_BK = ivar_BKS.sum(2)
    nothing = torch.tensor(torch.nan, device=flux_BO.device)
    mean_BK = torch.where(known_BK > 0, (ivar_BKS * flux_BKS).sum(2) / known_BK, nothing)
    noise_BK = torch.where(known_BK > 0, known_BK.rsqrt(), nothing)
    scale_B = torch.hypot(mean_BK.nanmedian(1).values, noise_BK.nanmedian(1).values)
    scale_B = torch.where(scale_B > 0, scale_B, 1.0)  # also when no block has information
    weight_BO = ivar_BO * (scale_B * scale_B)[:, None]
    return Prepared(flux_BO / scale_B[:, None], weight_BO, scale_B, offset_B, torch.zeros_like(offset_B))


class VAE(nn.Module):
    """The network. All its methods take a window [low, low + width) of the rest-frame grid in whole blocks.

    Spectra of similar redshift share most of their window, which is a third of the grid: working on windows
    makes scoring three times cheaper than working on the whole grid.
    """

    mean_R: Tensor
    basis_RD: Tensor
    scatter_R: Tensor
    detail_RE: Tensor
    size_E: Tensor
    pairs_CP: Tensor
    solved: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = RestGrid(config.z_max)
        n_rest, hidden, latent = self.grid.n_rest, config.hidden, config.latent
        self.register_buffer("mean_R", torch.ones(n_rest))
        self.register_buffer("basis_RD", torch.zeros(n_rest, latent))
        self.register_buffer("scatter_R", torch.full((n_rest,), SCATTER[0]))
        self.register_buffer("detail_RE", torch.zeros(n_rest, DETAIL))
        self.register_buffer("size_E", torch.ones(DETAIL))
        self.register_buffer("solved", torch.tensor(False))  # whether the linear model has been set
        self.register_buffer(
            "pairs_CP", torch.zeros(n_rest // EACH, (latent + 1) * (latent + 2) // 2), persistent=False
        )
        self.enter = nn.Linear(2 * latent + DETAIL + n_rest // BLOCK, hidden)
        self.encode_1 = nn.Linear(hidden, hidden)
        self.encode_2 = nn.Linear(hidden, 2 * latent)
        self.decode_1 = nn.Linear(latent, hidden)
        self.decode_2 = nn.Linear(hidden, hidden)
        self.leave = nn.Linear(hidden, DETAIL)
        for last in (self.encode_2, self.leave):  # begin as the linear model
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda module, _: module.set_pairs()
        )

    @torch.no_grad()
    def set_linear(self, linear: Linear) -> None:
        """Set the linear model that the network corrects, see ``models.basis``."""
        self.mean_R.copy_(linear.mean_R)
        self.basis_RD.copy_(linear.basis_RK)
        self.scatter_R.copy_(linear.scatter_R)
        self.detail_RE.copy_(linear.detail_RE)
        self.size_E.copy_(linear.size_E)
        self.solved.fill_(True)
        self.set_pairs()

    def set_pairs(self) -> None:
        """Recompute what follows from mean and basis."""
        self.pairs_CP.copy_(pairs(self.mean_R, self.basis_RD, EACH))
        self._scan = Scan.of(self.mean_R, self.basis_RD, self.scatter_R)

    def shifts(self, spectra: Prepared) -> Tensor:
        """Return the bins to add to the offsets of spectra of similar redshift, see ``models.redshift``; int64 [B].

        Until the linear model has been solved for there is nothing to judge by, and all are 0.
        """
        if not self.solved:
            return torch.zeros_like(spectra.offset_B)
        if self._scan.terms_CJ.device != spectra.offset_B.device:
            self.set_pairs()
        return self._scan.shifts(spectra.flux_BO, spectra.weight_BO, spectra.offset_B)

    def softened(self, spectra: Prepared) -> Tensor:
        """Return weights with ordinary quasars' scatter added to the noise, [B, O]."""
        return soften(spectra.weight_BO, self.scatter_of(spectra))

    def scatter_of(self, spectra: Prepared) -> Tensor:
        """Return the variance of ordinary quasars about the linear model, noise apart, [B, O]."""
        return self.scatter_R.unfold(0, N_OBSERVED, 1).index_select(0, spectra.offset_B)

    def encode(self, window: Window) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of the latent posterior, [B, D] each."""
        span = slice(window.low, window.low + window.flux_BR.shape[1])
        mean_R, basis_RD = self.mean_R[span], self.basis_RD[span]
        with torch.no_grad(), torch.autocast(window.flux_BR.device.type, enabled=False):
            flux_BR = window.flux_BR.clamp(-CLIP, CLIP)
            linear = posterior(
                flux_BR,
                self.soft_window(window),
                mean_R,
                basis_RD,
                self.pairs_CP[span.start // EACH : span.stop // EACH],
            )
            level_B1 = linear.level_B[:, None]
            weight_BR = window.weight_BR * level_B1.square()
            known_BR = weight_BR / (weight_BR + 1.0)
            rest_BR = (flux_BR / level_B1 - torch.addmm(mean_R, linear.mean_BK, basis_RD.T)).mul_(known_BR)
            detail_BE = rest_BR @ self.detail_RE[span] / self.size_E
            known_BC = run_sums(known_BR, BLOCK) / BLOCK
            padding = (span.start // BLOCK, (len(self.mean_R) - span.stop) // BLOCK)
            known_BC = functional.pad(known_BC, padding)
            log_variance_BD = linear.covariance_BKK.diagonal(dim1=1, dim2=2).clamp(min=1e-6).log()
            seen = torch.cat([linear.mean_BK, log_variance_BD, detail_BE.clamp(-CLIP, CLIP), known_BC], 1)
        hidden = functional.silu(self.encode_1(functional.silu(self.enter(seen))))
        mean_change, log_variance_change = self.encode_2(hidden).chunk(2, dim=1)
        return linear.mean_BK + mean_change, (log_variance_BD + log_variance_change).clamp(-14.0, 6.0)

    def decode(self, latent_BD: Tensor, low: int, high: int) -> Tensor:
        """Return spectra in units of the amplitude, [B, high − low]."""
        hidden = functional.silu(self.decode_1(latent_BD))
        hidden = functional.silu(self.decode_2(hidden))
        detail_BE = self.leave(hidden) * self.size_E
        weights = torch.cat([latent_BD, detail_BE.to(latent_BD.dtype)], 1)
        spectra = torch.cat([self.basis_RD[low:high], self.detail_RE[low:high]], 1)
        return torch.addmm(self.mean_R[low:high], weights, spectra.T)

    def forward(self, spectra: Prepared, seen: Prepared, noise_BD: Tensor) -> tuple[Tensor, Tensor]:
        """Return half the χ² of each spectrum and its KL divergence, [B] each.

        Args:
            spectra: what is to be reconstructed.
            seen: the same spectra as the encoder is to see them.
            noise_BD: unit normal, for the reparameterisation.
        """
        target = self.window(spectra)
        mean_BD, log_variance_BD = self.encode(self.window(seen))
        latent_BD = mean_BD + noise_BD * torch.exp(0.5 * log_variance_BD)
        model_BR = self.decode(latent_BD, target.low, target.low + target.flux_BR.shape[1]).float()
        weight_BR = self.soft_window(target)
        best_B1 = amplitude(target.flux_BR, weight_BR, model_BR)[:, None]
        return misfit(target.flux_BR, weight_BR, best_B1 * model_BR), divergence(mean_BD, log_variance_BD)

    def soft_window(self, window: Window) -> Tensor:
        """Return a window's weights with ordinary quasars' scatter added to the noise."""
        return soften(window.weight_BR, self.scatter_R[window.low : window.low + window.weight_BR.shape[1]])

    def window(self, spectra: Prepared) -> Window:
        """Place spectra in the smallest window of whole blocks that holds them all."""
        low = int(spectra.offset_B.min()) // BLOCK * BLOCK
        width = -(-(int(spectra.offset_B.max()) + N_OBSERVED - low) // BLOCK) * BLOCK
        start_B = spectra.offset_B - low
        return Window(low, place(spectra.flux_BO, start_B, width), place(spectra.weight_BO, start_B, width))


@dataclass
class Window:
    """Spectra in a window of the rest-frame grid; 0 outside their own range."""

    low: int  # first bin, a multiple of the block
    flux_BR: Tensor
    weight_BR: Tensor


def amplitude(flux: Tensor, weight: Tensor, model: Tensor) -> Tensor:
    """Return the amplitude a that minimises Σ w (f − a m)² + (a − 1)², shape [B].

    The last term, worth one 1σ measurement, keeps a finite where nothing is known.
    """
    weighted = weight * model
    return ((weighted * flux).sum(1) + 1.0) / ((weighted * model).sum(1) + 1.0)
