from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.files import SETTINGS, WEIGHTS, ModelFileError, from_bytes, load, save, to_bytes
from models.scores import score
from models.trained import TrainedModel
from tests.models.synthetic import Quasars


def test_a_loaded_model_scores_to_the_same_bits(trained: TrainedModel, quasars: Quasars, tmp_path: Path) -> None:
    save(trained, tmp_path / "model")
    again = load(tmp_path / "model")
    first, second = (score(model, quasars.flux[:50], quasars.ivar[:50], quasars.z[:50]) for model in (trained, again))
    for name, values in vars(first).items():
        np.testing.assert_array_equal(values, getattr(second, name), err_msg=name)
    assert again.history == trained.history
    assert again.model_id == trained.model_id
    assert len(again.model_id) == 16


def test_id_follows_weights_and_data(trained: TrainedModel) -> None:
    first = to_bytes(trained)
    assert to_bytes(trained) == first
    other = replace(trained, provenance={"data": "other"})
    assert json.loads(to_bytes(other)[SETTINGS])["model_id"] != json.loads(first[SETTINGS])["model_id"]


def test_missing_and_damaged_files_are_named(trained: TrainedModel, tmp_path: Path) -> None:
    files = to_bytes(trained)
    with pytest.raises(ModelFileError, match=r"m1: model\.json is missing"):
        from_bytes({WEIGHTS: files[WEIGHTS]}, "m1")
    with pytest.raises(ModelFileError, match=r"model\.safetensors is missing"):
        load(tmp_path)
    with pytest.raises(ModelFileError, match="not JSON"):
        from_bytes({WEIGHTS: files[WEIGHTS], SETTINGS: files[SETTINGS][:-30]})
    with pytest.raises(ModelFileError, match="lacks detector"):
        from_bytes(files | {SETTINGS: json.dumps({"format": 2, "model_id": ""} | dict.fromkeys(
            ("weights_sha256", "vae", "grid", "provenance", "history"), "")).encode()})  # fmt: skip
    for broken in (files[WEIGHTS][:-8], b"", files[WEIGHTS][:-1] + b"\x07"):
        with pytest.raises(ModelFileError, match="damaged"):
            from_bytes(files | {WEIGHTS: broken})


def test_another_grid_is_refused_by_name(trained: TrainedModel) -> None:
    import hashlib

    from models.files import _identity

    files = to_bytes(trained)
    settings = json.loads(files[SETTINGS])
    settings["grid"]["log_bins"] = 4359
    settings["model_id"] = _identity(settings)
    assert settings["weights_sha256"] == hashlib.sha256(files[WEIGHTS]).hexdigest()
    with pytest.raises(ModelFileError, match="log_bins is 4359, expected 2180"):
        from_bytes(files | {SETTINGS: json.dumps(settings).encode()})


def test_settings_can_be_read_by_people(trained: TrainedModel) -> None:
    settings = json.loads(to_bytes(trained)[SETTINGS])
    assert settings["vae"] == {"latent": 8, "hidden": 128, "z_max": 4.0}
    assert {"segment", "seen", "train_loss", "validation_loss", "learning_rate"} <= set(settings["history"][0])
