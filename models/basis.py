"""A linear-Gaussian model of rest-frame spectra: weighted, missing-data, outlier-resistant principal components.

It is what can be solved for directly, and where the network starts: the encoder corrects this model's posterior,
the decoder its reconstruction. Fitted by expectation–maximisation (probabilistic PCA, Tipping & Bishop 1999, with
each bin's own noise as in Bailey 2012); bins without information enter nowhere. What ordinary quasars scatter about
it in each part of the rest frame, most in the Lyα forest, is estimated along with it and added to the noise: without
that a few bright spectra decide, and the basis repeats their forests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from models.grid import N_OBSERVED
from models.losses import OUTLIER
from models.rebin import place, run_sums

ROUNDS = 5  # of expectation–maximisation
LEVEL_ROUNDS = 2  # alternations of amplitude and coefficients
STIFFNESS = 10.0  # precision of the prior on a basis value, in units of a normalised spectrum's
GROUP = 256
SKETCH = 1024  # spectra whose singular vectors start the iteration
SCATTER = (0.02**2, 0.5**2)  # bounds of the scatter's variance, at unit amplitude
SCATTER_CELL = 64  # bins that share one scatter
FOREST_BOX = 17  # bins
DETAIL = 64  # further components, E: what the network's curved part is made of


@dataclass
class Linear:
    """A fitted linear model."""

    mean_R: Tensor
    basis_RK: Tensor  # scaled so that coefficients have unit variance
    scatter_R: Tensor  # variance of ordinary quasars about the linear model, noise apart
    detail_RE: Tensor  # nearly orthonormal; what is left after the basis
    size_E: Tensor  # their coefficients' scatter


@dataclass
class Posterior:
    """Amplitude and coefficients of spectra: f ≈ level (mean + basis · coefficients)."""

    level_B: Tensor
    mean_BK: Tensor
    covariance_BKK: Tensor


def pairs(mean_R: Tensor, basis_RK: Tensor, each: int = 1) -> Tensor:
    """Return products of all pairs of (mean, basis vectors), averaged over ``each`` bins, [R / each, (K+1)(K+2)/2].

    With them the weighted normal equations of every spectrum are one matrix product; averaged over a few bins, which
    share their weight then, a small one.
    """
    both_RJ = torch.cat([mean_R[:, None], basis_RK], 1)
    first, second = torch.triu_indices(both_RJ.shape[1], both_RJ.shape[1], device=mean_R.device)
    products = both_RJ[:, first] * both_RJ[:, second]
    return products.view(-1, each, len(first)).mean(1) if each > 1 else products


def posterior(flux_BR: Tensor, weight_BR: Tensor, mean_R: Tensor, basis_RK: Tensor, pairs_RP: Tensor) -> Posterior:
    """Solve for amplitude and coefficients under unit normal priors (the amplitude's about 1).

    Args:
        flux_BR: flux in units of the spectrum's scale, in a window of the rest-frame grid.
        weight_BR: its inverse variance, 0 where nothing is known.
        mean_R, basis_RK: the model in that window.
        pairs_RP: products of its pairs, of single bins or averaged over some, see ``pairs``.
    """
    n_basis = basis_RK.shape[1]
    weighted_BR = weight_BR * flux_BR
    n_terms = n_basis + 1
    each = len(mean_R) // len(pairs_RP)
    normal_BP = (run_sums(weight_BR, each) if each > 1 else weight_BR) @ pairs_RP
    normal_BJJ = normal_BP.index_select(1, square_of_pairs(n_terms, flux_BR.device)).view(-1, n_terms, n_terms)
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


@lru_cache(maxsize=8)
def square_of_pairs(n_terms: int, device: torch.device) -> Tensor:
    """Where each element of a symmetric matrix, row by row, is among the pairs of its upper triangle."""
    first, second = torch.triu_indices(n_terms, n_terms, device=device)
    pair_JJ = torch.empty(n_terms, n_terms, dtype=torch.int64, device=device)
    pair_JJ[first, second] = torch.arange(len(first), device=device)
    pair_JJ[second, first] = pair_JJ[first, second]
    return pair_JJ.view(-1)


def soften(weight: Tensor, scatter: Tensor) -> Tensor:
    """Return inverse variances with the quasars' own scatter about the linear model added to the noise."""
    return weight / (1.0 + weight * scatter)


def fit_basis(
    flux_BO: Tensor, weight_BO: Tensor, offset_B: Tensor, mean_R: Tensor, n_basis: int, n_forest: int
) -> Linear:
    """Fit mean, basis and scatter, starting from a composite.

    Coefficients have unit variance over the spectra given, and the first basis vectors carry most of the light.

    Args:
        flux_BO, weight_BO: normalised flux and its inverse variance on the observed bins.
        offset_B: rest-frame bin of each spectrum's first observed bin.
        mean_R: a composite spectrum on the rest-frame grid.
        n_basis: K.
        n_forest: rest-frame bins blueward of Lyα, where what quasars share is smooth and the rest is chance.
    """
    rows = torch.argsort(offset_B, stable=True)
    groups = [_Group.of(flux_BO, weight_BO, offset_B, part) for part in torch.split(rows, GROUP)]
    nothing = torch.zeros(len(mean_R), 0, device=mean_R.device)
    scatter_R = torch.full_like(mean_R, SCATTER[0])
    linear = Linear(mean_R, _start(groups, mean_R, n_basis), scatter_R, nothing, nothing[0])
    for _ in range(ROUNDS):
        linear = _round(groups, linear)
        linear.mean_R = _smooth(linear.mean_R[:, None], n_forest)[:, 0]
        linear.basis_RK = _smooth(linear.basis_RK, n_forest)
    left, size, _ = torch.linalg.svd(linear.basis_RK, full_matrices=False)
    linear.basis_RK = (left * size).contiguous()
    detail_RE, linear.size_E = _detail(groups, linear)
    linear.detail_RE = _smooth(detail_RE, n_forest)
    return linear


def _smooth(values_RJ: Tensor, n_forest: int) -> Tensor:
    """Average the forest's bins with their neighbours within 2,350 km/s."""
    if n_forest <= FOREST_BOX:
        return values_RJ
    side = FOREST_BOX // 2
    forest_JF = values_RJ[:n_forest].T[:, None]
    padded = torch.nn.functional.pad(forest_JF, (side, side), mode="replicate")
    smooth_JF = torch.nn.functional.avg_pool1d(padded, FOREST_BOX, stride=1)[:, 0]
    return torch.cat([smooth_JF.T, values_RJ[n_forest:]]).contiguous()


def _detail(groups: list[_Group], linear: Linear) -> tuple[Tensor, Tensor]:
    """Principal components of damped residuals of the linear model, and their sizes."""
    n_rest = len(linear.mean_R)
    second_RR = torch.zeros(n_rest, n_rest, device=linear.mean_R.device)
    pairs_RP = pairs(linear.mean_R, linear.basis_RK)
    for group in groups:
        _, _, soft_BR, rest_BR = _solved(group, linear, pairs_RP)
        damped_BR = rest_BR * soft_BR / (soft_BR + 1.0) * _held(soft_BR, rest_BR)
        second_RR[group.low : group.high, group.low : group.high].addmm_(damped_BR.T, damped_BR)
    return _leading(second_RR / sum(len(group.flux_BR) for group in groups))


def _solved(group: _Group, linear: Linear, pairs_RP: Tensor) -> tuple[Posterior, Tensor, Tensor, Tensor]:
    """Return the posterior, and at unit amplitude: weights, softened weights and residuals, [B, width] each."""
    span = slice(group.low, group.high)
    mean_R, basis_RK, scatter_R = linear.mean_R[span], linear.basis_RK[span], linear.scatter_R[span]
    found = posterior(group.flux_BR, soften(group.weight_BR, scatter_R), mean_R, basis_RK, pairs_RP[span])
    level_B1 = found.level_B[:, None]
    weight_BR = group.weight_BR * level_B1.square()
    rest_BR = group.flux_BR / level_B1 - torch.addmm(mean_R, found.mean_BK, basis_RK.T)
    return found, weight_BR, soften(weight_BR, scatter_R), rest_BR


def _held(weight: Tensor, residual: Tensor) -> Tensor:
    """Return factors that let an outlier pull as a 6σ one does."""
    return torch.rsqrt(1.0 + weight * residual.square() / OUTLIER**2)


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


def _round(groups: list[_Group], linear: Linear) -> Linear:
    """One round: coefficients given the basis, then basis and scatter given the coefficients."""
    n_rest, n_basis = linear.basis_RK.shape
    device = linear.mean_R.device
    pairs_RP = pairs(linear.mean_R, linear.basis_RK)
    first, second = torch.triu_indices(n_basis + 1, n_basis + 1, device=device)
    normal_RP = torch.zeros(n_rest, len(first), device=device)
    right_RJ = torch.zeros(n_rest, n_basis + 1, device=device)
    spread_KK = torch.zeros(n_basis, n_basis, device=device)
    excess_2R = torch.zeros(2, n_rest, device=device)
    for group in groups:
        span = slice(group.low, group.high)
        found, weight_BR, soft_BR, rest_BR = _solved(group, linear, pairs_RP)
        soft_BR = soft_BR * _held(soft_BR, rest_BR)
        moment_BJJ = torch.ones(len(rest_BR), n_basis + 1, n_basis + 1, device=device)
        moment_BJJ[:, 0, 1:] = moment_BJJ[:, 1:, 0] = found.mean_BK
        moment_BJJ[:, 1:, 1:] = found.mean_BK[:, :, None] * found.mean_BK[:, None, :] + found.covariance_BKK
        normal_RP[span] += soft_BR.T @ moment_BJJ[:, first, second]
        right_RJ[span] += (soft_BR * group.flux_BR / found.level_B[:, None]).T @ moment_BJJ[:, 0]
        spread_KK += moment_BJJ[:, 1:, 1:].sum(0)
        excess_2R[:, span] += _excess(weight_BR, soft_BR, rest_BR)
    normal_RJJ = torch.empty(n_rest, n_basis + 1, n_basis + 1, device=device)
    normal_RJJ[:, first, second] = normal_RP
    normal_RJJ[:, second, first] = normal_RP
    normal_RJJ.diagonal(dim1=1, dim2=2).add_(STIFFNESS)
    right_RJ[:, 0] += STIFFNESS * linear.mean_R
    solved_RJ = torch.linalg.solve(normal_RJJ, right_RJ[:, :, None])[:, :, 0]
    count = sum(len(group.flux_BR) for group in groups)
    unit = torch.linalg.cholesky(spread_KK / count + 1e-6 * torch.eye(n_basis, device=device))
    basis_RK = (solved_RJ[:, 1:] @ unit).contiguous()
    return Linear(solved_RJ[:, 0].contiguous(), basis_RK, _scatter(excess_2R), linear.detail_RE, linear.size_E)


def _excess(weight_BR: Tensor, soft_BR: Tensor, rest_BR: Tensor) -> Tensor:
    """Return Σ s² (r² − 1/w) and Σ s² over spectra, [2, width]: their ratio is the scatter's variance."""
    squared_BR = soft_BR.square()
    noise_BR = squared_BR / weight_BR.clamp(min=1e-12)
    return torch.stack([(squared_BR * rest_BR.square() - noise_BR).sum(0), squared_BR.sum(0)])


def _scatter(excess_2R: Tensor) -> Tensor:
    """Return the scatter's variance, averaged over cells of 64 bins and kept within bounds."""
    n_rest = excess_2R.shape[1]
    padded = torch.nn.functional.pad(excess_2R, (0, -n_rest % SCATTER_CELL))
    top, bottom = padded.view(2, -1, SCATTER_CELL).sum(2)
    cells: Tensor = (top / bottom.clamp(min=1e-12)).clamp(*SCATTER)
    return cells.repeat_interleave(SCATTER_CELL)[:n_rest].contiguous()
