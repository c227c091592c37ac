from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch

from models.config import FitConfig, VAEConfig
from models.fit import FitState, begin, finish, judge, train_segment, validate
from models.losses import divergence, misfit
from models.trained import load_spectra
from models.vae import VAE, Prepared, amplitude, prepare
from tests.models.synthetic import make_quasars

VAE_CONFIG = VAEConfig(latent=4, hidden=32, z_max=4.0)
FIT_CONFIG = FitConfig(segments=3, batch=32, learning_rate=3e-3)


@pytest.fixture(scope="module")
def spectra() -> Prepared:
    data = make_quasars(200, seed=11)
    return load_spectra(VAE(VAE_CONFIG), data.flux, data.ivar, data.z)


def fresh(spectra: Prepared, config: FitConfig = FIT_CONFIG) -> FitState:
    state = FitState.new(VAE_CONFIG, config, steps=21)
    begin(state, spectra)
    return state


def advance(state: FitState, spectra: Prepared) -> None:
    state.generator.manual_seed(100 * state.config.seed + state.segment)
    train_segment(state, spectra, batch=32, steps=7)
    judge(state, validate(state, spectra))


def test_training_learns(spectra: Prepared) -> None:
    state = FitState.new(VAE_CONFIG, FitConfig(segments=6, learning_rate=3e-3), steps=42)
    begin(state, spectra)
    state.vae.basis_RD.zero_()  # without its linear part the network has everything to learn
    for _ in range(6):
        advance(state, spectra)
    losses = [entry["validation_loss"] for entry in state.history]
    assert losses[-1] < losses[0] - 0.02
    assert state.seen == 1200
    assert state.finished


def test_the_linear_start_is_already_close_to_the_noise(spectra: Prepared) -> None:
    state = fresh(spectra)
    state.history.append({})
    validate(state, spectra)
    assert state.history[-1]["validation_chi2_median"] == pytest.approx(1.0, abs=0.1)


def test_stopped_and_resumed_is_bit_equal(spectra: Prepared) -> None:
    whole = fresh(spectra)
    for _ in range(3):
        advance(whole, spectra)
    part = fresh(spectra)
    advance(part, spectra)
    kept = io.BytesIO()
    torch.save(part.state_dict(), kept)
    kept.seek(0)
    resumed = FitState.new(VAE_CONFIG, FIT_CONFIG, steps=21)
    resumed.load_state_dict(torch.load(kept, weights_only=True))
    for _ in range(2):
        advance(resumed, spectra)
    for name, value in whole.vae.state_dict().items():
        assert torch.equal(value, resumed.vae.state_dict()[name]), name
    first, second = (finish(state, spectra, spectra, {}) for state in (whole, resumed))
    for name, value in first.density.state_dict().items():
        assert torch.equal(value, second.density.state_dict()[name])
    assert torch.equal(first.model_error.fraction_SWR, second.model_error.fraction_SWR)


def test_another_seed_gives_another_model(spectra: Prepared) -> None:
    first, second = (fresh(spectra, FitConfig(segments=1, batch=32, seed=seed)) for seed in (1, 2))
    for state in (first, second):
        advance(state, spectra)
    assert not torch.equal(first.vae.leave.weight, second.vae.leave.weight)


def test_resuming_with_other_settings_is_refused(spectra: Prepared) -> None:
    saved = fresh(spectra).state_dict()
    other = FitState.new(VAE_CONFIG, FitConfig(segments=3, batch=64), steps=21)
    with pytest.raises(ValueError, match="checkpoint has batch = 32, expected 64"):
        other.load_state_dict(saved)


def test_patience_ends_training_and_the_best_weights_are_kept(spectra: Prepared) -> None:
    state = fresh(spectra, FitConfig(segments=50, batch=32, patience=2))
    advance(state, spectra)
    best = {name: value.clone() for name, value in state.best.items()}
    state.best_loss = 0.0  # nothing can be better
    while not state.finished:
        advance(state, spectra)
    assert state.segment == 3
    model = finish(state, spectra, spectra, {})
    assert all(torch.equal(value, best[name]) for name, value in model.vae.state_dict().items())


def test_workers_with_fewer_spectra_take_as_many_steps(spectra: Prepared) -> None:
    state = fresh(spectra)
    train_segment(state, spectra.rows(torch.arange(40)), batch=32, steps=6)
    assert state.step == 6
    assert 160 < state.seen <= 192


def test_bins_without_information_pull_at_nothing(spectra: Prepared) -> None:
    state = fresh(spectra)
    few = spectra.rows(torch.arange(8))
    few.weight_BO[:, 500:900] = 0.0
    changed = replace(few, flux_BO=few.flux_BO.clone())
    changed.flux_BO[:, 500:900] = 123.0
    noise = torch.zeros(8, 4)
    first, second = (state.vae(part, part, noise) for part in (few, changed))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_scale_is_robust_and_positive() -> None:
    flux, ivar = torch.full((3, 2180), 2.0), torch.full((3, 2180), 100.0)
    flux[1, 77] = 1e6
    ivar[2] = 0.0
    scale = prepare(flux, ivar, torch.zeros(3, dtype=torch.int64)).scale_B
    assert scale.tolist() == pytest.approx([2.0, 2.0, 1.0], rel=1e-3)


def test_amplitude_is_the_least_squares_one_and_finite_without_data() -> None:
    model = torch.rand((2, 50), generator=torch.Generator().manual_seed(0)) + 0.5
    weight = torch.full((2, 50), 1e4)
    weight[1] = 0.0
    assert amplitude(3.0 * model, weight, model).tolist() == pytest.approx([3.0, 1.0], rel=1e-4)


def test_misfit_is_half_chi2_for_noise_and_linear_for_outliers() -> None:
    weight = torch.ones(1, 1)
    zero = torch.zeros(1, 1)
    assert misfit(torch.full((1, 1), 0.5), weight, zero).item() == pytest.approx(0.125, rel=0.01)
    near, far = (misfit(torch.full((1, 1), value), weight, zero).item() for value in (1000.0, 2000.0))
    assert far / near == pytest.approx(2.0, rel=0.01)


def test_divergence_of_the_prior_is_zero() -> None:
    assert divergence(torch.zeros(2, 3), torch.zeros(2, 3)).tolist() == [0.0, 0.0]
    assert divergence(torch.full((1, 1), 2.0), torch.zeros(1, 1)).item() == pytest.approx(2.0)
