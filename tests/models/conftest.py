"""A small model trained on synthetic quasars once."""

from __future__ import annotations

import pytest
import torch

from models.config import FitConfig, VAEConfig
from models.fit import FitState, begin, finish, judge, train_segment, validate
from models.trained import TrainedModel, load_spectra
from tests.models.synthetic import Quasars, make_quasars


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small matrices gain nothing from threads, and threads that wait for each other cost a busy machine dearly."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def quasars() -> Quasars:
    """Held-out quasars."""
    return make_quasars(300, seed=2)


@pytest.fixture(scope="session")
def trained() -> TrainedModel:
    """A small model, trained for a few seconds."""
    data = make_quasars(2000, seed=1)
    fit = FitConfig(segments=8, batch=128, learning_rate=3e-3)
    state = FitState.new(VAEConfig(latent=8, hidden=128, z_max=4.0), fit, steps=8 * 13)
    spectra = load_spectra(state.vae, data.flux, data.ivar, data.z)
    rows = torch.arange(len(spectra))
    training, validation = spectra.rows(rows[:1600]), spectra.rows(rows[1600:])
    begin(state, training)
    while not state.finished:
        train_segment(state, training, batch=128, steps=13)
        judge(state, validate(state, validation))
    return finish(state, training, validation, {"data": "synthetic"})
