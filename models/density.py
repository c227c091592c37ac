"""Density of the latent space: a mixture of Gaussians with full covariances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

COMPONENTS = 8
ITERATIONS = 60
RIDGE = 1e-3  # added to the diagonal of every covariance


@dataclass
class GaussianMixture:
    """K Gaussians in D dimensions, kept as whitening matrices so that scoring is one matrix product."""

    log_weight_K: Tensor
    mean_KD: Tensor
    whiten_KDD: Tensor  # upper triangular U with U Uᵀ = inverse covariance: y = (x − mean) U is unit normal

    def neg_log_density(self, latent_BD: Tensor) -> Tensor:
        """Return −log p of each latent vector, [B]; larger is rarer."""
        return -torch.logsumexp(self._log_joint(latent_BD), 1)

    def to(self, device: torch.device) -> GaussianMixture:
        """Return the same mixture on another device."""
        parts = (self.log_weight_K, self.mean_KD, self.whiten_KDD)
        return GaussianMixture(*(part.to(device) for part in parts))

    def _log_joint(self, latent_BD: Tensor) -> Tensor:
        n_components, n_latent = self.mean_KD.shape
        flat_DE = self.whiten_KDD.permute(1, 0, 2).reshape(n_latent, -1)
        shift_E = (self.mean_KD[:, None, :] @ self.whiten_KDD).reshape(-1)
        white_BKD = (latent_BD @ flat_DE - shift_E).view(-1, n_components, n_latent)
        log_det_K = self.whiten_KDD.diagonal(dim1=1, dim2=2).log().sum(1)
        constant_K = self.log_weight_K + log_det_K - 0.5 * n_latent * math.log(2.0 * math.pi)
        return constant_K - 0.5 * torch.square(white_BKD).sum(2)

    @classmethod
    def fit(cls, latent_BD: Tensor, seed: int, components: int = COMPONENTS) -> GaussianMixture:
        """Fit by expectation–maximisation from k-means++ seeds, in float64 and deterministically.

        Fewer components are used when there are fewer than 20 vectors a dimension for each.
        """
        data = latent_BD.detach().double().cpu()
        n_rows, n_latent = data.shape
        components = max(1, min(components, n_rows // (20 * n_latent)))
        generator = torch.Generator().manual_seed(seed)
        responsibility = _nearest(data, _spread(data, components, generator))
        mixture = cls._maximise(data, responsibility)
        for _ in range(ITERATIONS if components > 1 else 0):
            mixture = cls._maximise(data, torch.softmax(mixture._log_joint(data), 1))
        return cls(*(part.float() for part in (mixture.log_weight_K, mixture.mean_KD, mixture.whiten_KDD)))

    @classmethod
    def _maximise(cls, data: Tensor, responsibility_BK: Tensor) -> GaussianMixture:
        count_K = responsibility_BK.sum(0) + 1e-6
        mean_KD = responsibility_BK.T @ data / count_K[:, None]
        second_KDD = torch.einsum("bk,bd,be->kde", responsibility_BK, data, data) / count_K[:, None, None]
        eye = torch.eye(data.shape[1], dtype=data.dtype)
        covariance = second_KDD - mean_KD[:, :, None] * mean_KD[:, None, :]
        # shrink towards a sphere while a component holds few vectors
        mean_variance = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp(min=RIDGE)
        share = (data.shape[1] / (count_K + data.shape[1]))[:, None, None]
        covariance = (1.0 - share) * covariance + share * mean_variance[:, None, None] * eye + RIDGE * eye
        factor = torch.linalg.cholesky(covariance)
        whiten = torch.linalg.solve_triangular(factor, eye.expand_as(factor), upper=False).transpose(1, 2)
        return cls((count_K / count_K.sum()).log(), mean_KD, whiten.contiguous())


def _spread(data: Tensor, components: int, generator: torch.Generator) -> Tensor:
    """Choose starting means far apart (k-means++, Arthur & Vassilvitskii 2007)."""
    chosen = [int(torch.randint(len(data), (1,), generator=generator))]
    nearest = torch.square(data - data[chosen[0]]).sum(1)
    while len(chosen) < components:
        chosen.append(int(torch.multinomial(nearest + 1e-12, 1, generator=generator)))
        nearest = torch.minimum(nearest, torch.square(data - data[chosen[-1]]).sum(1))
    return data[chosen]


def _nearest(data: Tensor, centre_KD: Tensor) -> Tensor:
    index = torch.cdist(data, centre_KD).argmin(1)
    return torch.nn.functional.one_hot(index, len(centre_KD)).double()
