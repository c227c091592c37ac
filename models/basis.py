"""A linear-Gaussian model of rest-frame spectra: weighted, missing-data, outlier-resistant principal components.

It is what can be solved for directly, and where the network starts: the encoder corrects this model's posterior,
the decoder its reconstruction. Fitted by expectation–maximisation (probabilistic PCA, Tipping & Bishop 1999, with
each bin's own noise as in Bailey 2012); bins without information enter nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.grid import N_OBSERVED
from models.losses import OUTLIER
from models.rebin import place

ROUNDS = 5  # of expectation–maximisation
LEVEL_ROUNDS = 2  # alternations of amplitude and coefficients
STIFFNESS = 10.0  # precision of the prior on a basis value, in units of a normalised spectrum's
GROUP = 256
SKETCH = 1024  # spectra whose singular vectors start the iteration
DETAIL = 64  # further components, E: what the network's curved part is made of


@dataclass
class Linear:
    """A fitted linear model."""

    mean_R: Tensor
    basis_RK: Tensor  # scaled so that coefficients have unit variance
    detail_RE: Tensor  # orthonormal; what is left after the basis
    size_E: Tensor  # their coefficients' scatter


@dataclass
class Posterior:
    """Amplitude and coefficients of spectra: f ≈ level (mean + basis · coefficients)."""

    level_B: Tensor
    mean_BK: Tensor
    covariance_BKK: Tensor


def pairs(mean_R: Tensor, basis_RK: Tensor) -> Tensor:
    """Return products of all pairs of (mean, basis vectors), [R, (K+1)(K+2)/2].

    With them the weighted normal equations of every spectrum are one matrix product.
    """
    both_RJ = torch.cat([mean_R[:, None], basis_RK], 1)
    first, second = torch.triu_indices(both_RJ.shape[1], both_RJ.shape[1], device=mean_R.device)
    return both_RJ[:, first] * both_RJ[:, second]


def posterior(flux_BR: Tensor, weight_BR: Tensor, mean_R: Tensor, basis_RK: Tensor, pairs_RP: Tensor) -> Posterior:
    """Solve for amplitude and coefficients under unit normal priors (the amplitude's about 1).

    Args:
        flux_BR: flux in units of the spectrum's scale, in a window of the rest-frame grid.
        weight_BR: its inverse variance, 0 where nothing is known.
        mean_R, basis_RK, pairs_RP: the model in that window.
    """
    n_basis = basis_RK.shape[1]
    weighted_BR = weight_BR * flux_BR
    first, second = torch.triu_indices(n_basis + 1, n_basis + 1, device=flux_BR.device)
    normal_BJJ = torch.empty(len(flux_BR), n_basis + 1, n_basis + 1, device=flux_BR.device)
    normal_BP = weight_BR @ pairs_RP
    normal_BJJ[:, first, second] = normal_BP
    normal_BJJ[:, second, first] = normal_BP
    with_mean_B, with_basis_BK = weighted_BR @ mean_R, weighted_BR @ basis_RK
    mean_mean_B, mean_basis_BK, basis_BKK = normal_BJJ[:, 0, 0], normal_BJJ[:, 0, 1:], normal_BJJ[:, 1:, 1:]
    eye = torch.eye(n_basis, device=flux_BR.device)
    level_B = ((with_mean_B + 1.0) / (mean_mean_B + 1.0)).clamp(0.1, 10.0)
    for _ in range(LEVEL_ROUNDS):
        l1, l2 = level_B[:, None], level_B.square()[:, None]
        factor = torch.linalg.cholesky(l2[:, :, None] * basis_BKK + eye)
        right = l1 * with_basis_BK - l2 * mean_basis_BK
        mean_BK = torch.cholesky_solve(right[:, :, None], factor)[:, :, 0]
        quadratic = mean_mean_B + (mean_BK * (2.0 * mean_basis_BK + (basis_BKK @ mean_BK[:, :, None])[:, :, 0])).sum(1)
        level_B = ((with_mean_B + (mean_BK * with_basis_BK).sum(1) + 1.0) / (quadratic + 1.0)).clamp(0.1, 10.0)
    return Posterior(level_B, mean_BK, torch.cholesky_inverse(factor))


def fit_basis(flux_BO: Tensor, weight_BO: Tensor, offset_B: Tensor, mean_R: Tensor, n_basis: int) -> Linear:
    """Fit mean and basis, starting from a composite.

    Coefficients have unit variance over the spectra given, and the first basis vectors carry most of the light.

    Args:
        flux_BO, weight_BO: normalised flux and its inverse variance on the observed bins.
        offset_B: rest-frame bin of each spectrum's first observed bin.
        mean_R: a composite spectrum on the rest-frame grid.
        n_basis: K.
    """
    rows = torch.argsort(offset_B, stable=True)
    groups = [_Group.of(flux_BO, weight_BO, offset_B, part) for part in torch.split(rows, GROUP)]
    basis_RK = _start(groups, mean_R, n_basis)
    for _ in range(ROUNDS):
        mean_R, basis_RK = _round(groups, mean_R, basis_RK)
    left, size, _ = torch.linalg.svd(basis_RK, full_matrices=False)
    basis_RK = (left * size).contiguous()
    return Linear(mean_R, basis_RK, *_detail(groups, mean_R, basis_RK))


def _detail(groups: list[_Group], mean_R: Tensor, basis_RK: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of damped residuals of the linear model, and their sizes."""
    n_rest = len(mean_R)
    second_RR = torch.zeros(n_rest, n_rest, device=mean_R.device)
    pairs_RP = pairs(mean_R, basis_RK)
    count = 0
    for group in groups:
        span = slice(group.low, group.high)
        found = posterior(group.flux_BR, group.weight_BR, mean_R[span], basis_RK[span], pairs_RP[span])
        level_B1 = found.level_B[:, None]
        weight_BR = group.weight_BR * level_B1.square()
        rest_BR = group.flux_BR / level_B1 - mean_R[span] - found.mean_BK @ basis_RK[span].T
        pull_BR = weight_BR * rest_BR.square()
        rest_BR = rest_BR * weight_BR / (weight_BR + 1.0) * torch.rsqrt(1.0 + pull_BR / OUTLIER**2)
        second_RR[span, span].addmm_(rest_BR.T, rest_BR)
        count += len(rest_BR)
    return _leading(second_RR / count)


def _leading(second_RR: Tensor) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors by subspace iteration, from a fixed start."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(second_RR), DETAIL + 16, generator=generator).to(second_RR.device)
    for _ in range(6):
        vectors, _ = torch.linalg.qr(second_RR @ vectors)
    values, turn = torch.linalg.eigh(vectors.T @ second_RR @ vectors)
    best = torch.argsort(values, descending=True)[:DETAIL]
    return (vectors @ turn[:, best]).contiguous(), values[best].clamp(min=1e-8).sqrt()


@dataclass
class _Group:
    """Spectra of similar redshift in their window [low, low + width) of the rest-frame grid."""

    low: int
    high: int
    flux_BR: Tensor
    weight_BR: Tensor

    @classmethod
    def of(cls, flux_BO: Tensor, weight_BO: Tensor, offset_B: Tensor, rows: Tensor) -> _Group:
        start = offset_B[rows]
        low, high = int(start.min()), int(start.max()) + N_OBSERVED
        flux, weight = (place(values[rows], start - low, high - low) for values in (flux_BO, weight_BO))
        return cls(low, high, flux, weight)


def _start(groups: list[_Group], mean_R: Tensor, n_basis: int) -> Tensor:
    """Singular vectors of damped departures from the mean."""
    every = max(1, len(groups) * GROUP // SKETCH)
    parts = []
    for group in groups:
        flux, weight, mean = group.flux_BR[::every], group.weight_BR[::every], mean_R[group.low : group.high]
        level = (((weight * flux) @ mean + 1.0) / (weight @ mean.square() + 1.0)).clamp(0.1, 10.0)[:, None]
        known = weight * level.square()
        departure = (flux / level - mean).clamp(-3.0, 3.0) * known / (known + 4.0)
        parts.append(torch.nn.functional.pad(departure, (group.low, len(mean_R) - group.high)))
    sketch = torch.cat(parts)
    _, size, right = torch.linalg.svd(sketch.T @ sketch if len(sketch) > len(mean_R) else sketch, full_matrices=False)
    wanted = min(n_basis, len(size))
    basis = torch.zeros(len(mean_R), n_basis, device=mean_R.device)
    basis[:, :wanted] = (right[:wanted] * size[:wanted, None] / len(sketch) ** 0.5).T
    return basis


def _round(groups: list[_Group], mean_R: Tensor, basis_RK: Tensor) -> tuple[Tensor, Tensor]:
    """One round: coefficients given the basis, then the basis given the coefficients."""
    n_rest, n_basis = basis_RK.shape
    pairs_RP = pairs(mean_R, basis_RK)
    first, second = torch.triu_indices(n_basis + 1, n_basis + 1, device=mean_R.device)
    normal_RP = torch.zeros(n_rest, len(first), device=mean_R.device)
    right_RJ = torch.zeros(n_rest, n_basis + 1, device=mean_R.device)
    spread_KK = torch.zeros(n_basis, n_basis, device=mean_R.device)
    count = 0
    for group in groups:
        span = slice(group.low, group.high)
        found = posterior(group.flux_BR, group.weight_BR, mean_R[span], basis_RK[span], pairs_RP[span])
        flux_BR = group.flux_BR / found.level_B[:, None]
        weight_BR = group.weight_BR * found.level_B.square()[:, None]
        pull_BR = weight_BR * (flux_BR - mean_R[span] - found.mean_BK @ basis_RK[span].T).square()
        weight_BR = weight_BR * torch.rsqrt(1.0 + pull_BR / OUTLIER**2)  # outliers pull as 6σ ones do
        second_BKK = found.mean_BK[:, :, None] * found.mean_BK[:, None, :] + found.covariance_BKK
        moment_BJJ = torch.ones(len(flux_BR), n_basis + 1, n_basis + 1, device=mean_R.device)
        moment_BJJ[:, 0, 1:] = moment_BJJ[:, 1:, 0] = found.mean_BK
        moment_BJJ[:, 1:, 1:] = second_BKK
        normal_RP[span] += weight_BR.T @ moment_BJJ[:, first, second]
        right_RJ[span] += (weight_BR * flux_BR).T @ moment_BJJ[:, 0]
        spread_KK += second_BKK.sum(0)
        count += len(flux_BR)
    normal_RJJ = torch.empty(n_rest, n_basis + 1, n_basis + 1, device=mean_R.device)
    normal_RJJ[:, first, second] = normal_RP
    normal_RJJ[:, second, first] = normal_RP
    normal_RJJ.diagonal(dim1=1, dim2=2).add_(STIFFNESS)
    right_RJ[:, 0] += STIFFNESS * mean_R
    solved_RJ = torch.linalg.solve(normal_RJJ, right_RJ[:, :, None])[:, :, 0]
    unit = torch.linalg.cholesky(spread_KK / count + 1e-6 * torch.eye(n_basis, device=mean_R.device))
    return solved_RJ[:, 0].contiguous(), (solved_RJ[:, 1:] @ unit).contiguous()
