"""What redshift alone does to an embedding is found and taken off."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import torch
from safetensors.torch import load, save

from models.drift import drift
from models.files import SETTINGS, WEIGHTS, _identity, from_bytes, to_bytes
from models.grid import native_wavelength
from models.scores import score
from models.trained import TrainedModel, load_spectra
from models.vae import Prepared
from tests.models.synthetic import Quasars, make_quasars


def _bent(trained: TrainedModel, count: int) -> Prepared:
    """Quasars redder at both ends of the rest frame than any the model knows: slopes fit each part otherwise."""
    quasars = make_quasars(count, seed=11)
    rest = native_wavelength() / (1.0 + quasars.z[:, None])
    flux = quasars.flux * (1.0 + 0.3 * np.log(rest / 2000.0)) ** 2
    return load_spectra(trained.vae, flux, quasars.ivar, quasars.z)


def test_what_one_half_shows_the_other_half_confirms(trained: TrainedModel) -> None:
    spectra = _bent(trained, 1600)
    one, other = (drift(trained.vae, spectra.rows(torch.arange(at, at + 800))) for at in (0, 800))
    assert other.norm() > 0.5
    assert (other - one).norm() < 0.3 * other.norm()


def test_too_few_spectra_are_believed_little(trained: TrainedModel, quasars: Quasars) -> None:
    spectra = load_spectra(trained.vae, quasars.flux, quasars.ivar, quasars.z)
    few = [drift(trained.vae, spectra.rows(torch.arange(at, at + 4))).norm() for at in range(0, 80, 4)]
    free = replace(spectra, flux_BO=torch.zeros_like(spectra.flux_BO), weight_BO=torch.zeros_like(spectra.weight_BO))
    assert torch.isfinite(torch.stack(few)).all()
    assert drift(trained.vae, free).tolist() == [0.0] * 8
    assert drift(trained.vae, spectra.rows(torch.arange(1))).tolist() == [0.0] * 8


def test_it_is_taken_off_the_embedding_alone(trained: TrainedModel, quasars: Quasars) -> None:
    plain = replace(trained, drift_D=torch.zeros(8))
    given = (quasars.flux, quasars.ivar, quasars.z)
    with_it, without = score(trained, *given), score(plain, *given)
    expected = without.embedding - np.log1p(quasars.z)[:, None] * trained.drift_D.numpy()
    np.testing.assert_allclose(with_it.embedding, expected, atol=1e-5)
    np.testing.assert_array_equal(with_it.density, without.density)
    np.testing.assert_array_equal(with_it.detection, without.detection)


def test_it_is_kept_with_the_model_and_earlier_models_have_none(trained: TrainedModel) -> None:
    assert torch.equal(from_bytes(to_bytes(trained)).drift_D, trained.drift_D)
    files = to_bytes(trained)
    weights = save({name: value for name, value in load(files[WEIGHTS]).items() if name != "drift_D"})
    settings = json.loads(files[SETTINGS]) | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    settings["model_id"] = _identity(settings)
    earlier = from_bytes({WEIGHTS: weights, SETTINGS: json.dumps(settings).encode()})
    assert earlier.drift_D.tolist() == [0.0] * 8
