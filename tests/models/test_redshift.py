"""Redshift errors of up to 3,000 km/s are found and undone."""

from __future__ import annotations

import numpy as np
import torch

from models.grid import BIN_KMS
from models.redshift import REACH, kms
from models.scores import score
from models.trained import TrainedModel, load_spectra
from tests.models.synthetic import Quasars


def test_a_slip_is_found(trained: TrainedModel, quasars: Quasars) -> None:
    slip = np.random.default_rng(7).choice([-2500.0, -1200.0, 0.0, 1200.0, 2500.0], len(quasars.z))
    wrong = quasars.z + slip / 299792.458 * (1 + quasars.z)
    found = kms(load_spectra(trained.vae, quasars.flux, quasars.ivar, wrong).slip_B).numpy()
    assert np.median(np.abs(found - slip)) < 300
    assert np.quantile(np.abs(found - slip), 0.9) < 1000


def test_scores_hardly_mind_a_slip(trained: TrainedModel, quasars: Quasars) -> None:
    right, wrong = (
        score(trained, quasars.flux, quasars.ivar, z) for z in (quasars.z, quasars.z + 0.006 * (1 + quasars.z))
    )
    assert np.median(wrong.chi2_reduced - right.chi2_reduced) < 0.02
    assert np.median(wrong.slip - right.slip) > 1000


def test_no_shift_leaves_the_grid(trained: TrainedModel, quasars: Quasars) -> None:
    z = np.where(np.arange(300) % 2, 0.0, trained.vae.config.z_max)
    spectra = load_spectra(trained.vae, quasars.flux, quasars.ivar, z)
    assert (spectra.offset_B >= 0).all()
    assert (spectra.offset_B + 2180 <= trained.vae.grid.n_rest).all()
    assert (spectra.slip_B.abs() <= REACH + REACH).all()
    assert torch.allclose(kms(torch.tensor([2])), torch.tensor([2 * BIN_KMS], dtype=torch.float32))
