"""A small model trained on synthetic quasars once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from models.config import FitConfig, VAEConfig
from models.detector import Kind
from models.fit import Examples, FitState, begin, finish, judge, train_segment, validate
from models.trained import TrainedModel, load_spectra, refined
from tests.models.synthetic import Quasars, make_quasars, with_bump, with_step

KINDS = (Kind("bump", "shape"), Kind("step", "instrument"))


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
    training = begin(state, spectra.rows(rows[:1600]))
    validation = refined(state.vae, spectra.rows(rows[1600:]))
    while not state.finished:
        train_segment(state, training, batch=128, steps=13)
        judge(state, validate(state, validation))
    return finish(state, training, validation, {"data": "synthetic"}, examples, KINDS)


def examples(_: TrainedModel) -> Iterator[Examples]:
    """Ordinary quasars, quasars with a bump somewhere, quasars with a step."""
    data = make_quasars(1500, seed=3)
    rng = np.random.default_rng(4)
    changed = (data.flux, with_bump(rng, data, 20.0), with_step(rng, data, 20.0))
    for label, flux in enumerate(changed):
        yield flux, data.ivar, data.z, torch.full((len(flux),), label)
