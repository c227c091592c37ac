"""Model files: weights as safetensors, everything else as JSON, tied together by hashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.config import VAEConfig
from models.density import Flow
from models.detector import Detector, Kind
from models.filters import STRIDES, WIDTHS, ModelError
from models.grid import FIRST_WAVELENGTH, N_NATIVE, N_OBSERVED, PIXEL, STEP
from models.sky import Sky
from models.trained import TrainedModel
from models.vae import VAE

WEIGHTS = "model.safetensors"
SETTINGS = "model.json"
FORMAT = 3


class ModelFileError(ValueError):
    """A model file is missing, damaged, or made for another grid; the message is one line."""


def grid_settings() -> dict[str, Any]:
    """Return what must agree between a model and the spectra it is given."""
    return {
        "native_pixels": N_NATIVE,
        "native_step_angstrom": PIXEL,
        "first_wavelength_angstrom": FIRST_WAVELENGTH,
        "log_step_dex": STEP,
        "log_bins": N_OBSERVED,
        "box_widths_bins": list(WIDTHS),
        "box_strides_bins": list(STRIDES),
    }


def to_bytes(model: TrainedModel) -> dict[str, bytes]:
    """Return the files of a model by name, and set ``model.model_id``.

    The id is the first 16 hex digits of the SHA-256 over weights, network settings, grid and provenance (which
    holds the hash of the training data): equal models have equal ids on every machine.
    """
    weights = save_tensors(_tensors(model))
    settings: dict[str, Any] = {
        "format": FORMAT,
        "model_id": "",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "vae": asdict(model.vae.config),
        "grid": grid_settings(),
        "detector": [[kind.name, kind.family] for kind in model.detector.kinds],
        "provenance": model.provenance,
        "history": model.history,
    }
    settings["model_id"] = model.model_id = _identity(settings)
    return {WEIGHTS: weights, SETTINGS: (json.dumps(settings, indent=1) + "\n").encode()}


def from_bytes(files: dict[str, bytes], source: str = "model") -> TrainedModel:
    """Rebuild a model from its files' contents; ``source`` names it in messages.

    Raises:
        ModelFileError: a file is missing or damaged, the weights are not the settings' own, or the grid differs.
    """
    for name in (WEIGHTS, SETTINGS):
        if name not in files:
            raise ModelFileError(f"{source}: {name} is missing; restore it or train again")
    settings = _settings(files[SETTINGS], source)
    found = hashlib.sha256(files[WEIGHTS]).hexdigest()
    if found != settings["weights_sha256"] or _identity(settings) != settings["model_id"]:
        raise ModelFileError(f"{source}: {WEIGHTS} and {SETTINGS} do not belong together or are damaged; train again")
    if settings["grid"] != grid_settings():
        ours = grid_settings()
        key = next(key for key in ours if settings["grid"].get(key) != ours[key])
        raise ModelFileError(
            f"{source}: made for another wavelength grid: {key} is {settings['grid'].get(key)}, expected {ours[key]}; "
            "train a model with this version"
        )
    try:
        return _model(load_tensors(files[WEIGHTS]), settings)
    except (SafetensorError, KeyError, RuntimeError, TypeError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise ModelFileError(f"{source}: cannot be rebuilt ({first}); train again") from error


def save(model: TrainedModel, folder: str | Path) -> None:
    """Write a model's two files into a folder, made if need be."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, data in to_bytes(model).items():
        (Path(folder) / name).write_bytes(data)


def load(folder: str | Path) -> TrainedModel:
    """Read a model from a folder.

    Raises:
        ModelFileError: as ``from_bytes``.
    """
    paths = {name: Path(folder) / name for name in (WEIGHTS, SETTINGS)}
    return from_bytes({name: path.read_bytes() for name, path in paths.items() if path.is_file()}, str(folder))


def _settings(data: bytes, source: str) -> dict[str, Any]:
    try:
        settings = json.loads(data)
    except ValueError:
        raise ModelFileError(f"{source}: {SETTINGS} is not JSON; restore it or train again") from None
    wanted = {"format", "model_id", "weights_sha256", "vae", "grid", "detector", "provenance", "history"}
    missing = wanted - set(settings) if isinstance(settings, dict) else wanted
    if missing:
        raise ModelFileError(f"{source}: {SETTINGS} lacks {sorted(missing)[0]}; restore it or train again")
    if settings["format"] != FORMAT:
        raise ModelFileError(f"{source}: file format {settings['format']}, expected {FORMAT}; train a model anew")
    return dict(settings)


def _identity(settings: dict[str, Any]) -> str:
    parts = {key: settings[key] for key in ("weights_sha256", "vae", "grid", "detector", "provenance")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _tensors(model: TrainedModel) -> dict[str, torch.Tensor]:
    tensors = {f"vae.{name}": value for name, value in model.vae.state_dict().items()}
    tensors |= {f"density.{name}": value for name, value in model.density.state_dict().items()}
    tensors["drift_D"] = model.drift_D
    tensors["model_error.fraction_SWR"] = model.model_error.fraction_SWR
    tensors |= {f"sky.{one.name}": getattr(model.sky, one.name) for one in fields(model.sky)}
    tensors |= {f"detector.{name}": value for name, value in model.detector.state_dict().items()}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _model(tensors: dict[str, torch.Tensor], settings: dict[str, Any]) -> TrainedModel:
    vae = VAE(VAEConfig(**settings["vae"]))
    vae.load_state_dict({name[4:]: value for name, value in tensors.items() if name.startswith("vae.")})
    flow = {name[8:]: value for name, value in tensors.items() if name.startswith("density.")}
    density = Flow(flow["latent_2D"].shape[1], flow["condition_2Q"].shape[1])
    density.load_state_dict(flow)
    density.eval().requires_grad_(False)
    error = ModelError(tensors["model_error.fraction_SWR"])
    sky = Sky(**{name[4:]: value for name, value in tensors.items() if name.startswith("sky.")})
    learned = {name[9:]: value for name, value in tensors.items() if name.startswith("detector.")}
    kinds = tuple(Kind(name, family) for name, family in settings["detector"])
    detector = Detector(kinds, len(learned["centre_F"]))
    detector.load_state_dict(learned)
    vae.eval().requires_grad_(False)
    detector.eval().requires_grad_(False)
    drift_D = tensors.get("drift_D", torch.zeros(vae.config.latent))  # earlier models have none
    rest = (settings["provenance"], settings["history"], settings["model_id"])
    return TrainedModel(vae, density, error, sky, detector, drift_D, *rest)
