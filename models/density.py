"""Density of the latent space, given where and how well a spectrum was seen: a normalising flow.

Affine couplings (Dinh, Sohl-Dickstein & Bengio 2017, ICLR) whose networks see the conditions too. What an embedding
can be depends on redshift, as other lines are in range, and on S/N, as faint spectra are pulled to the middle.
Legend: B spectra, D latent dimensions, Q conditions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LAYERS = 6
HIDDEN = 64
BATCH = 512
STEPS = 1200  # of the fit,
EPOCHS = 40  # but no more rounds than these: few spectra then give little more than one Gaussian
PEAK_RATE = 2e-3
WEIGHT_DECAY = 1e-3
STRETCH = 1.5  # largest logarithm of a factor in one coupling
HELD = 200.0  # nat, beyond which a spectrum teaches nothing: it is no ordinary one


class Flow(nn.Module):
    """−log p(latent | conditions) through a chain of couplings to a unit normal."""

    latent_2D: Tensor  # mean and scatter
    condition_2Q: Tensor
    order_ND: Tensor  # int64, the dimensions in each coupling's own order

    def __init__(self, n_latent: int, n_conditions: int) -> None:
        super().__init__()
        self.register_buffer("latent_2D", torch.stack([torch.zeros(n_latent), torch.ones(n_latent)]))
        self.register_buffer("condition_2Q", torch.stack([torch.zeros(n_conditions), torch.ones(n_conditions)]))
        orders = [torch.randperm(n_latent, generator=torch.Generator().manual_seed(layer)) for layer in range(LAYERS)]
        self.register_buffer("order_ND", torch.stack(orders))
        self.kept = n_latent - n_latent // 2  # dimensions that each coupling leaves as they are
        moved = n_latent - self.kept
        self.nets = nn.ModuleList(_coupling(self.kept + n_conditions, 2 * moved) for _ in range(LAYERS))

    def neg_log_density(self, latent_BD: Tensor, condition_BQ: Tensor) -> Tensor:
        """Return −log p of each latent vector, [B]; larger is rarer."""
        mean_D, scatter_D = self.latent_2D
        given_BQ = (condition_BQ - self.condition_2Q[0]) / self.condition_2Q[1]
        value_BD, volume_B = (latent_BD - mean_D) / scatter_D, scatter_D.log().sum()
        for order_D, net in zip(self.order_ND, self.nets, strict=True):
            value_BD = value_BD.index_select(1, order_D)
            kept, moved = value_BD[:, : self.kept], value_BD[:, self.kept :]
            shift, stretch = net(torch.cat([kept, given_BQ], 1)).chunk(2, dim=1)
            stretch = STRETCH * torch.tanh(stretch)
            volume_B = volume_B - stretch.sum(1)
            value_BD = torch.cat([kept, (moved + shift) * torch.exp(stretch)], 1)
        constant = 0.5 * latent_BD.shape[1] * math.log(2.0 * math.pi)
        result: Tensor = 0.5 * value_BD.square().sum(1) + volume_B + constant
        return result

    @classmethod
    def fit(cls, latent_BD: Tensor, condition_BQ: Tensor, seed: int) -> Flow:
        """Fit by maximum likelihood, on the CPU and deterministically."""
        latent_BD, condition_BQ = latent_BD.detach().float().cpu(), condition_BQ.detach().float().cpu()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            flow = cls(latent_BD.shape[1], condition_BQ.shape[1])
            for moments, values in ((flow.latent_2D, latent_BD), (flow.condition_2Q, condition_BQ)):
                moments.copy_(torch.stack([values.mean(0), values.std(0).nan_to_num(1.0).clamp(min=1e-3)]))
            per_epoch = max(1, len(latent_BD) // BATCH)
            epochs = min(EPOCHS, -(-STEPS // per_epoch))
            optimizer = torch.optim.AdamW(flow.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=epochs * per_epoch + 1)
            for _ in range(epochs):
                for rows in torch.randperm(len(latent_BD)).tensor_split(per_epoch):
                    loss = flow.neg_log_density(latent_BD[rows], condition_BQ[rows]).clamp(max=HELD).mean()
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
                    optimizer.step()
                    schedule.step()
        return flow.eval().requires_grad_(False)


def _coupling(n_in: int, n_out: int) -> nn.Module:
    """A small network that begins as nothing."""
    last = nn.Linear(HIDDEN, n_out)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(n_in, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), last)
