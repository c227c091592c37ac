"""Another redshift is found where the catalogued one is wrong, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import other_redshift
from models.config import FitConfig, VAEConfig
from models.fit import FitState, begin
from models.other_redshift import FAR_BETTER, confusion, evidence, other_redshifts
from models.redshift import LEVEL_PRECISION
from models.trained import load_spectra
from models.vae import VAE
from tests.models.synthetic import Quasars, make_quasars

CONFUSED = 1549.06 / 2799.12  # C IV taken for Mg II


@pytest.fixture(scope="module")
def vae() -> VAE:
    """A network of which only the linear model is solved: nothing else judges redshifts."""
    data = make_quasars(1000, seed=5)
    state = FitState.new(VAEConfig(latent=8, hidden=16, z_max=4.0), FitConfig(), steps=1)
    begin(state, load_spectra(state.vae, data.flux, data.ivar, data.z))
    return state.vae.eval().requires_grad_(False)


def _wrong(quasars: Quasars) -> np.ndarray:
    """Redshifts of quasars in whose range the confusion is possible, elsewhere the true ones."""
    possible = quasars.z > 1.5
    return np.where(possible, (1 + quasars.z) * CONFUSED - 1, quasars.z)


def test_the_true_redshift_of_a_wrong_one_is_found(vae: VAE, quasars: Quasars) -> None:
    z = _wrong(quasars)
    wrong = z != quasars.z
    found = other_redshifts(vae, load_spectra(vae, quasars.flux, quasars.ivar, z))
    error = np.abs(found.z.numpy() - quasars.z) / (1 + quasars.z)
    far_better = found.gain.numpy() > FAR_BETTER
    assert ((error < 0.01) & far_better)[wrong].mean() > 0.85
    assert np.median(error[wrong]) < 0.002
    assert far_better[~wrong].mean() < 0.02
    assert (found.runner_up_gain < found.gain).float().mean() > 0.98  # tops of parabolas may change places


def test_ordinary_quasars_have_no_better_redshift_even_when_theirs_slips(vae: VAE, quasars: Quasars) -> None:
    z = quasars.z + 2500 / 299792.458 * (1 + quasars.z)
    found = other_redshifts(vae, load_spectra(vae, quasars.flux, quasars.ivar, z))
    assert (found.gain > FAR_BETTER).float().mean() < 0.02
    apart = np.abs(np.log10((1 + found.z.numpy()) / (1 + z)))
    assert apart.min() > 0.005  # dex, 3,450 km/s: what is nearer is a slip


def test_evidence_is_the_gaussian_density_of_the_cells(
    vae: VAE, quasars: Quasars, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the covariance written out in full, at redshifts inside and outside the model's range."""
    monkeypatch.setattr(other_redshift, "REDSHIFTS", 7)
    spectra = load_spectra(vae, quasars.flux[:3], quasars.ivar[:3], quasars.z[:3])
    found = evidence(vae, spectra)
    assert found.shape == (3, vae.grid.max_shift // 8 + 1)
    tables = other_redshift._Tables.of(vae)
    cells = other_redshift._Cells.of(spectra.flux_BO, spectra.weight_BO)
    expected = torch.empty(3, found.shape[1], dtype=torch.float64)
    for place in range(0, found.shape[1], 40):
        terms, scatter = tables.terms_SCJ[place].double(), tables.scatter_SC2[place].double()
        prior = torch.ones(terms.shape[1], dtype=torch.float64)
        prior[0] = 1 / LEVEL_PRECISION
        for row in range(3):
            weight, share = cells.weight_BC[row].double(), cells.share_BC[row].double()
            known = weight > 0
            noise = (1 + weight * scatter[:, 0] + share * scatter[:, 1]) / weight
            spread = (terms * prior @ terms.T)[known][:, known] + torch.diag(noise[known])
            density = torch.distributions.MultivariateNormal(terms[known, 0], spread)
            expected[row, place] = density.log_prob(cells.flux_BC[row, known].double())
    some = slice(0, None, 40)
    difference = found[:, some].double() - expected[:, some]
    assert (difference - difference[:, :1]).abs().max() < 0.2  # nat, float32 rounding of sums of thousands


def test_nothing_known_means_no_gain(vae: VAE, quasars: Quasars) -> None:
    spectra = load_spectra(vae, quasars.flux[:2], np.zeros_like(quasars.ivar[:2]), quasars.z[:2])
    found = other_redshifts(vae, spectra)
    assert torch.isfinite(found.z).all()
    assert found.gain.abs().max() < 1e-3


CONFUSIONS = [
    (0.84, 2.325, "C IV taken for Mg II"),
    (2.6945, 1.5192, "Mg II taken for C III]"),
    (1.0, 1.0 + 0.03, ""),
    (0.4, 4.0, ""),
]


@pytest.mark.parametrize(("z", "other", "name"), CONFUSIONS)
def test_confusions_have_names(z: float, other: float, name: str) -> None:
    assert confusion(z, other) == name


def test_every_confusion_is_named_by_lines_that_are_seen() -> None:
    for z in np.linspace(0.1, 4.0, 40):
        for other in np.linspace(0.1, 5.0, 50):
            true, _, taken = confusion(z, other).partition(other_redshift.TAKEN)
            if true:
                observed = other_redshift.LINES[true] * (1 + other)
                assert 3600 < observed < 9825
                assert observed / (other_redshift.LINES[taken] * (1 + z)) == pytest.approx(1, abs=0.01)
