"""Inverse-variance weighted principal components in the rest frame, for the anomaly benchmark's baselines.

Written apart from ``models`` so that the model under test does not lend its tricks to what it is compared with.
Legend: B spectra · O observed log bins of 2e-4 dex · R rest-frame bins · K components, the mean first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks._anomaly_sky import Part
from models.basis import square_of_pairs
from models.grid import N_OBSERVED, RestGrid
from models.rebin import place, rebin, take

GRID = RestGrid(6.0)
GROUP = 256  # spectra of similar redshift worked on together
READ = 1024  # spectra read at once
SCALE_BLOCK = 64  # bins of a block whose mean enters the normalisation
CLIP = 30.0  # normalised flux is held there while fitting
SOFT = 0.05  # of the flux, added to the noise while fitting: else a few bright spectra decide alone
RIDGE = 0.1  # precision of the coefficients' prior, in units of their own scatter
STIFFNESS = 1.0  # precision that holds what no spectrum covers at 0
ROUNDS = 20  # of alternating least squares


@dataclass
class Spectra:
    """Normalised spectra on observed log bins."""

    flux_BO: Tensor  # in units of the scale, 0 where nothing is known
    weight_BO: Tensor  # inverse variance, 0 where nothing is known
    offset_B: Tensor  # rest-frame bin of the first observed bin
    rows: NDArray[np.int64]  # where they are in their part

    def pick(self, index: Tensor) -> Spectra:
        """Return the spectra at ``index``."""
        return Spectra(self.flux_BO[index], self.weight_BO[index], self.offset_B[index], self.rows[index.numpy()])

    def groups(self) -> Iterator[Spectra]:
        """Yield them in groups of similar redshift."""
        for index in torch.split(torch.argsort(self.offset_B, stable=True), GROUP):
            yield self.pick(index)


def load(part: Part, rows: NDArray[np.int64]) -> Spectra:
    """Rebin and normalise some rows of a part."""
    pieces = []
    z = part.column("z")
    for start in range(0, len(rows), READ):
        some = rows[start : start + READ]
        native = (torch.from_numpy(np.array(values[some])) for values in (part.flux, part.ivar))
        flux_BO, ivar_BO = rebin(*native)
        scale_B1 = _scale(flux_BO, ivar_BO)[:, None]
        offset_B = GRID.offset(torch.from_numpy(np.clip(z[some], 0.0, GRID.z_max)))
        pieces.append((flux_BO / scale_B1, ivar_BO * scale_B1.square(), offset_B))
    return Spectra(*(torch.cat(values) for values in zip(*pieces, strict=True)), rows)


def in_batches(part: Part, size: int = READ) -> Iterator[Spectra]:
    """Yield all spectra of a part, in batches of similar redshift."""
    order = np.argsort(part.column("z"), kind="stable")
    for start in range(0, len(order), size):
        yield load(part, np.sort(order[start : start + size]))


def _scale(flux_BO: Tensor, ivar_BO: Tensor) -> Tensor:
    """Median of the blocks' mean flux, their noise added in quadrature: positive whatever the spectrum."""
    used = N_OBSERVED // SCALE_BLOCK * SCALE_BLOCK
    flux, ivar = (values[:, :used].reshape(len(values), -1, SCALE_BLOCK) for values in (flux_BO, ivar_BO))
    known = ivar.sum(2)
    nothing = torch.tensor(torch.nan)
    mean = torch.where(known > 0, (ivar * flux).sum(2) / known, nothing).nanmedian(1).values
    noise = torch.where(known > 0, known.rsqrt(), nothing).nanmedian(1).values
    scale = torch.hypot(mean, noise)
    return torch.where(scale > 0, scale, 1.0)


@dataclass
class Components:
    """Mean and principal components on the rest-frame grid; coefficients have about unit scatter."""

    basis_RK: Tensor

    def pairs(self) -> Tensor:
        """Return products of all pairs of components, [R, K(K+1)/2]."""
        first, second = _triangle(self.basis_RK.shape[1])
        return self.basis_RK[:, first] * self.basis_RK[:, second]

    def solve(self, flux_BR: Tensor, weight_BR: Tensor, span: slice, pairs_RP: Tensor) -> Tensor:
        """Return the weighted least-squares coefficients [B, K]; the mean's has no prior worth its name."""
        n = self.basis_RK.shape[1]
        normal = _square(weight_BR @ pairs_RP[span], n)
        ridge = torch.full((n,), RIDGE)
        ridge[0] = 1e-4
        normal.diagonal(dim1=1, dim2=2).add_(ridge)
        right = (weight_BR * flux_BR) @ self.basis_RK[span]
        return torch.linalg.solve(normal, right[:, :, None])[:, :, 0]

    def fitted(self, group: Spectra, pairs_RP: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients [B, K] and models [B, O] of spectra of similar redshift."""
        low, high = int(group.offset_B.min()), int(group.offset_B.max()) + N_OBSERVED
        start = group.offset_B - low
        flux, weight = (place(values, start, high - low) for values in (group.flux_BO, group.weight_BO))
        coefficient_BK = self.solve(flux, weight, slice(low, high), pairs_RP)
        return coefficient_BK, take(coefficient_BK @ self.basis_RK[low:high].T, start, N_OBSERVED)


def fit(spectra: Spectra, n_components: int, rounds: int = ROUNDS, seed: int = 0) -> Components:
    """Fit the mean and ``n_components`` components by alternating weighted least squares (Bailey 2012)."""
    groups = [_Window.of(group) for group in spectra.groups()]
    mean_R = torch.ones(GRID.n_rest)
    for _ in range(4):
        mean_R = _round(groups, Components(mean_R[:, None])).basis_RK[:, 0]
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.nn.functional.avg_pool1d(
        torch.randn(n_components, 1, GRID.n_rest + 64, generator=generator), 65, stride=1
    )[:, 0]
    found = Components(torch.cat([mean_R[:, None], smooth.T], 1))
    for _ in range(rounds):
        found = _round(groups, found)
    return found


@dataclass
class _Window:
    span: slice
    flux_BR: Tensor
    weight_BR: Tensor

    @classmethod
    def of(cls, group: Spectra) -> _Window:
        low, high = int(group.offset_B.min()), int(group.offset_B.max()) + N_OBSERVED
        flux, weight = (place(values, group.offset_B - low, high - low) for values in (group.flux_BO, group.weight_BO))
        return cls(slice(low, high), flux.clamp(-CLIP, CLIP), weight / (1.0 + weight * SOFT**2))


def _round(groups: list[_Window], found: Components) -> Components:
    n = found.basis_RK.shape[1]
    first, second = _triangle(n)
    normal_RP, right_RK = torch.zeros(GRID.n_rest, len(first)), torch.zeros(GRID.n_rest, n)
    pairs_RP, spread_KK, count = found.pairs(), torch.zeros(n, n), 0
    for group in groups:
        coefficient = found.solve(group.flux_BR, group.weight_BR, group.span, pairs_RP)
        normal_RP[group.span] += group.weight_BR.T @ (coefficient[:, first] * coefficient[:, second])
        right_RK[group.span] += (group.weight_BR * group.flux_BR).T @ coefficient
        spread_KK += coefficient.T @ coefficient
        count += len(coefficient)
    normal = _square(normal_RP, n)
    normal.diagonal(dim1=1, dim2=2).add_(STIFFNESS)
    basis_RK = torch.linalg.solve(normal, right_RK[:, :, None])[:, :, 0]
    spread = (spread_KK / count)[1:, 1:] + 1e-6 * torch.eye(n - 1)
    basis_RK[:, 1:] = basis_RK[:, 1:] @ torch.linalg.cholesky(spread)
    return Components(basis_RK)


def _triangle(n: int) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(n, n)
    return first, second


def _square(values_XP: Tensor, n: int) -> Tensor:
    return values_XP.index_select(1, square_of_pairs(n, values_XP.device)).view(-1, n, n)
