"""The small correction of a catalogued redshift that lets a model fit: quasar redshifts err by up to 3,000 km/s.

Every shift of a coarse set is judged by the evidence of a short linear model, solved for all spectra at once; a
parabola through the best three gives the shift in bins. Without it the misfit of ordinary quasars with an ordinary
redshift error fills the top of any list of anomalies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.basis import pairs, square_of_pairs
from models.grid import BIN_KMS, N_OBSERVED
from models.rebin import place, run_sums

COARSE = 8  # bins summed before shifts are tried, and the step between shifts
REACH = 24  # bins, 3,300 km/s: the largest shift
SHIFTS = tuple(range(-REACH, REACH + 1, COARSE))
TERMS = 6  # leading components that judge a shift
LEVEL_PRECISION = 0.1  # of the amplitude's prior, about 1
USUAL = 300.0  # km/s, beyond which a shift must earn its place: its prior falls as its cube
CLIP = 30.0


@dataclass
class Scan:
    """Coarse tables of mean and leading components, and of the products of all their pairs."""

    terms_CJ: Tensor
    pairs_CP: Tensor
    scatter_R: Tensor
    margin: int  # coarse cells of padding on either side

    @classmethod
    def of(cls, mean_R: Tensor, basis_RK: Tensor, scatter_R: Tensor) -> Scan:
        """Return the tables of a linear model whose components come in order of light."""
        terms_RJ = torch.cat([mean_R[:, None], basis_RK[:, :TERMS]], 1)
        coarse = (terms_RJ.view(-1, COARSE, terms_RJ.shape[1]).mean(1), pairs(mean_R, basis_RK[:, :TERMS], COARSE))
        margin = 4 * REACH // COARSE
        terms_CJ, pairs_CP = (torch.nn.functional.pad(table, (0, 0, margin, margin)) for table in coarse)
        return cls(terms_CJ, pairs_CP, scatter_R, margin)

    def shifts(self, flux_BO: Tensor, weight_BO: Tensor, offset_B: Tensor) -> Tensor:
        """Return the bins to add to each offset, int64 [B], within the grid.

        Args:
            flux_BO, weight_BO: normalised flux and its inverse variance on the observed bins.
            offset_B: rest-frame bin of the first observed bin, of spectra of similar redshift.
        """
        low = int(offset_B.min()) // COARSE * COARSE
        width = -(-(int(offset_B.max()) + N_OBSERVED - low) // COARSE) * COARSE
        start_B = offset_B - low
        flux_BR, weight_BR = place(flux_BO, start_B, width).clamp(-CLIP, CLIP), place(weight_BO, start_B, width)
        scatter_R = self.scatter_R[low : low + width]
        scatter_R = torch.nn.functional.pad(scatter_R, (0, width - len(scatter_R)), value=1.0)
        weight_BR = weight_BR / (1.0 + weight_BR * scatter_R)
        evidence_BS = self._evidence(run_sums(weight_BR * flux_BR, COARSE), run_sums(weight_BR, COARSE), low)
        most = len(self.scatter_R) - N_OBSERVED
        return (offset_B + _peak(evidence_BS)).clamp(0, most) - offset_B

    def _evidence(self, pull_BC: Tensor, weight_BC: Tensor, low: int) -> Tensor:
        """Return the log evidence of each shift, [B, S]."""
        n_coarse = pull_BC.shape[1]
        right_NJ, pairs_NP = [], []
        for shift in SHIFTS:
            start = self.margin + (low + shift) // COARSE
            right_NJ.append(pull_BC @ self.terms_CJ[start : start + n_coarse])
            pairs_NP.append(weight_BC @ self.pairs_CP[start : start + n_coarse])
        shift_S = torch.tensor(SHIFTS, device=pull_BC.device)
        prior_S = -1.5 * torch.log1p(torch.square(shift_S * BIN_KMS / USUAL))
        return evidence_of(torch.cat(pairs_NP), torch.cat(right_NJ)).view(len(SHIFTS), -1).T + prior_S


def evidence_of(pairs_NP: Tensor, right_NJ: Tensor) -> Tensor:
    """Return what mean and leading components gain in log evidence under their priors, [N].

    Args:
        pairs_NP: weighted sums of the products of all pairs of terms, the mean first.
        right_NJ: weighted sums of the flux times each term.
    """
    n_terms = right_NJ.shape[1]
    square = square_of_pairs(n_terms, right_NJ.device)
    normal_JJN = pairs_NP.T.index_select(0, square).view(n_terms, n_terms, -1)
    prior_J = right_NJ.new_ones(n_terms)
    prior_J[0] = LEVEL_PRECISION
    normal_JJN.diagonal(dim1=0, dim2=1).add_(prior_J)
    right_JN = right_NJ.T.contiguous()
    right_JN[0] += LEVEL_PRECISION
    return _gaussian_evidence(normal_JJN, right_JN)


def _gaussian_evidence(normal_JJN: Tensor, right_JN: Tensor) -> Tensor:
    """Return ½ bᵀA⁻¹b − ½ log det A of many small systems, [N], by elimination on all of them at once, in place."""
    total_N = torch.zeros_like(right_JN[0])
    for j in range(len(right_JN)):
        pivot_N = normal_JJN[j, j].clamp(min=1e-6)
        total_N += 0.5 * (torch.square(right_JN[j]) / pivot_N - pivot_N.log())
        factor_KN = normal_JJN[j + 1 :, j] / pivot_N
        right_JN[j + 1 :] -= factor_KN * right_JN[j]
        normal_JJN[j + 1 :, j + 1 :] -= factor_KN[:, None] * normal_JJN[j, None, j + 1 :]
    return total_N


def _peak(evidence_BS: Tensor) -> Tensor:
    """Return the shift at the top of the parabola through the best three, in whole bins, int64 [B]."""
    best_B = evidence_BS.argmax(1)
    middle_B = best_B.clamp(1, len(SHIFTS) - 2)
    left, centre, right = (evidence_BS.gather(1, (middle_B + step)[:, None])[:, 0] for step in (-1, 0, 1))
    fraction_B = torch.where(best_B == middle_B, top_of_parabola(left, centre, right), 0.0)
    shift_B = torch.tensor(SHIFTS, device=best_B.device)[best_B]
    return shift_B + torch.round(fraction_B * COARSE).long()


def top_of_parabola(left: Tensor, centre: Tensor, right: Tensor) -> Tensor:
    """Return where the parabola through three values has its top, in steps from the middle one, within ±1."""
    return (0.5 * (left - right) / (left - 2.0 * centre + right).clamp(max=-1e-6)).clamp(-1.0, 1.0)


def kms(shift_B: Tensor) -> Tensor:
    """Return shifts in bins as velocities, km/s; positive where the catalogue's redshift is too high."""
    return shift_B * BIN_KMS
