"""Does another redshift fit far better? Every redshift of the grid, judged by the evidence of a short linear model.

The data are the same at every redshift: the observed bins' means in cells of eight, with the same noise. What changes
is the part of the rest frame they are compared with, so the whole evidence counts, the misfit and the width of what
the model allows both. To the noise of a cell is added what ordinary quasars scatter there: bin by bin about the whole
linear model, and all eight bins together what its further components would explain. Where the model has never seen a
spectrum it predicts nothing: no mean, no components, and a scatter as large as the spectrum itself.

Legend: B spectra, S redshifts (offsets 0, 8, 16, … on the rest-frame grid), C cells, J terms, P their pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.basis import pairs
from models.grid import FIRST_WAVELENGTH, N_NATIVE, N_OBSERVED, PIXEL
from models.redshift import COARSE, REACH, TERMS, evidence_of, top_of_parabola
from models.vae import VAE, Prepared

APART = REACH + COARSE  # bins, 4,400 km/s: nearer redshifts are a slip of the catalogued one
CELLS = -(-N_OBSERVED // COARSE)
CLIP = 30.0  # cells beyond this many times the spectrum's scale are held there
SHARE = 0.1  # of the further components' variance: they are smooth, and ten cells together carry what one is given
FLOOR = 0.05**2  # of a cell: what calibration and dust leave to no component
UNKNOWN = 1.0  # variance of the flux, in units of the spectrum's scale, where the model knows nothing
SPECTRA, REDSHIFTS = 32, 16  # evaluated together: half a megabyte an array, which fits a core's cache
_ONE = torch.ones(())
LINES = {"Lyα": 1215.67, "C IV": 1549.06, "C III]": 1908.73, "Mg II": 2799.12, "[O II]": 3728.48, "Hβ": 4862.68,
         "[O III]": 5008.24, "Hα": 6564.61}  # fmt: skip  # vacuum Å
CONFUSED = 0.01  # relative, within which 1 + z' is (1 + z) λa / λb
OBSERVED = (FIRST_WAVELENGTH, FIRST_WAVELENGTH + PIXEL * N_NATIVE)  # Å
TAKEN = " taken for "
FAR_BETTER = 10.0  # nat, the gain from which another redshift is worth a word, see benchmarks.other_redshift


@dataclass
class OtherRedshifts:
    """The best redshift of each spectrum far from its catalogued one, and the best far from both; numbers [B]."""

    z: Tensor
    gain: Tensor  # log evidence over the catalogued redshift's best slip, nat
    runner_up_z: Tensor
    runner_up_gain: Tensor


def other_redshifts(vae: VAE, spectra: Prepared) -> OtherRedshifts:
    """Look for redshifts that fit better, more than the slip's reach away from the catalogued ones.

    Args:
        vae: a network whose linear model is solved; anything on its device.
        spectra: loaded spectra, see ``models.trained.load_spectra``.
    """
    evidence_BS = evidence(vae, spectra)
    catalogued_B = spectra.offset_B - spectra.slip_B
    place_S = torch.arange(evidence_BS.shape[1], device=catalogued_B.device) * COARSE
    apart_BS = (place_S - catalogued_B[:, None]).abs()
    here_B = _best(evidence_BS, apart_BS < APART)[1]
    offset_B, best_B = _best(evidence_BS, apart_BS >= APART)
    second = _best(evidence_BS, (apart_BS >= APART) & ((place_S - offset_B[:, None]).abs() >= APART))
    return OtherRedshifts(
        vae.grid.redshift(offset_B), best_B - here_B, vae.grid.redshift(second[0]), second[1] - here_B
    )


def evidence(vae: VAE, spectra: Prepared) -> Tensor:
    """Return the log evidence at every offset 0, 8, 16, … of the grid up to an added constant, [B, S]."""
    tables = _Tables.of(vae)
    parts = []
    for rows in torch.split(torch.arange(len(spectra), device=tables.terms_SCJ.device), SPECTRA):
        cells = _Cells.of(spectra.flux_BO[rows], spectra.weight_BO[rows])
        places = range(0, len(tables.terms_SCJ), REDSHIFTS)
        parts.append(torch.cat([cells.evidence(tables.part(slice(at, at + REDSHIFTS))) for at in places]).T)
    return torch.cat(parts)


def confusion(z: float, other: float) -> str:
    """Return which line of a quasar at ``other`` lies where another one would at ``z``: "C IV taken for Mg II".

    Of several pairs it is the one nearest to the ratio of the redshifts; "" where none is within 1%, or the line
    lies outside the observed range.
    """
    ratio = (1.0 + z) / (1.0 + other)
    offers = [
        (abs(wavelength / wanted / ratio - 1.0), true + TAKEN + taken)
        for true, wavelength in LINES.items()
        for taken, wanted in LINES.items()
        if true != taken and OBSERVED[0] < wavelength * (1.0 + other) < OBSERVED[1]
    ]
    miss, name = min(offers, default=(1.0, ""))
    return name if miss < CONFUSED else ""


@dataclass
class _Cells:
    """Spectra in coarse cells of the observed frame."""

    flux_BC: Tensor
    weight_BC: Tensor
    share_BC: Tensor  # the weight of one of its bins with information

    @classmethod
    def of(cls, flux_BO: Tensor, weight_BO: Tensor) -> _Cells:
        shape = (len(flux_BO), CELLS, COARSE)
        flux, weight = (
            torch.nn.functional.pad(part, (0, CELLS * COARSE - N_OBSERVED)).view(shape) for part in (flux_BO, weight_BO)
        )
        weight_BC = weight.sum(2)
        mean_BC = (weight * flux).sum(2) / weight_BC.clamp(min=1e-30)
        return cls(mean_BC.clamp_(-CLIP, CLIP), weight_BC, weight_BC / (weight > 0).sum(2).clamp(min=1))

    def evidence(self, tables: _Tables) -> Tensor:
        """Return the log evidence at the tables' redshifts, [S, B]."""
        wider_SBC = torch.addcmul(_ONE.to(self.weight_BC), self.weight_BC, tables.scatter_SC2[:, None, :, 0])
        wider_SBC.addcmul_(self.share_BC, tables.scatter_SC2[:, None, :, 1])
        weight_SBC = self.weight_BC / wider_SBC
        pull_SBC = weight_SBC * self.flux_BC
        pairs_SBP, right_SBJ = weight_SBC @ tables.pairs_SCP, pull_SBC @ tables.terms_SCJ
        third = CELLS // 3  # a logarithm takes as long as all else: one of three factors
        wider_SBT = (wider_SBC[:, :, :third] * wider_SBC[:, :, third : 2 * third]).mul_(wider_SBC[:, :, 2 * third :])
        alone_SB = -0.5 * (wider_SBT.log_().sum(2) + pull_SBC.mul_(self.flux_BC).sum(2))
        return evidence_of(pairs_SBP.flatten(0, 1), right_SBJ.flatten(0, 1)).view(alone_SB.shape) + alone_SB


@dataclass
class _Tables:
    """The model as it stands at each redshift before the observed cells: overlapping views of a few numbers."""

    terms_SCJ: Tensor  # mean and leading components
    pairs_SCP: Tensor
    scatter_SC2: Tensor  # variances, of whole cells and of single bins

    @classmethod
    def of(cls, vae: VAE) -> _Tables:
        basis_RD = vae.basis_RD
        known_R1 = (basis_RD.abs().sum(1, keepdim=True) > 0).float()
        terms_RJ = torch.cat([vae.mean_R[:, None], basis_RD[:, :TERMS]], 1) * known_R1
        further_R1 = basis_RD[:, TERMS:].square().sum(1, keepdim=True)
        whole_R1 = FLOOR + SHARE * further_R1 + (1.0 - known_R1) * UNKNOWN
        terms, scatter = (
            table.view(-1, COARSE, table.shape[1]).mean(1)
            for table in (terms_RJ, torch.cat([whole_R1, vae.scatter_R[:, None]], 1))
        )
        n_places = vae.grid.max_shift // COARSE + 1
        tables = (terms, pairs(terms[:, 0], terms[:, 1:]), scatter)
        return cls(*(table.unfold(0, CELLS, 1)[:n_places].transpose(1, 2) for table in tables))

    def part(self, places: slice) -> _Tables:
        """Return some redshifts of it."""
        return _Tables(self.terms_SCJ[places], self.pairs_SCP[places], self.scatter_SC2[places])


def _best(evidence_BS: Tensor, allowed_BS: Tensor) -> tuple[Tensor, Tensor]:
    """Return offset (fractions included) and log evidence at the top of the parabola about the best allowed one."""
    best_B = evidence_BS.masked_fill(~allowed_BS, -torch.inf).argmax(1)
    middle_B = best_B.clamp(1, evidence_BS.shape[1] - 2)
    left, centre, right = (evidence_BS.gather(1, (middle_B + step)[:, None])[:, 0] for step in (-1, 0, 1))
    inside = (best_B == middle_B) & (centre >= left) & (centre >= right)
    fraction_B = torch.where(inside, top_of_parabola(left, centre, right), 0.0)
    top_B = evidence_BS.gather(1, best_B[:, None])[:, 0] + 0.25 * fraction_B * (right - left)
    return COARSE * (best_B + fraction_B), top_B
