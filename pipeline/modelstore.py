"""Model files in the object store: ``models/{model_id}/model.safetensors`` and ``model.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import MissingObject, ModelError
from pipeline.stores.objects import ObjectStore

if TYPE_CHECKING:
    from models.trained import TrainedModel


def model_path(model_id: str) -> str:
    """Return the folder of a model's files, relative to the object store."""
    return f"models/{model_id}"


def save_model(objects: ObjectStore, model: TrainedModel) -> str:
    """Write a model's files, the settings last, and return its id; equal models are written to the same place."""
    from models.files import SETTINGS, WEIGHTS, to_bytes

    files = to_bytes(model)
    for name in (WEIGHTS, SETTINGS):
        objects.write(f"{model_path(model.model_id)}/{name}", files[name])
    return model.model_id


def load_model(objects: ObjectStore, model_id: str) -> TrainedModel:
    """Read a model.

    Raises:
        ModelError: its files are missing, damaged, another model's, or made for another grid.
    """
    from models.files import SETTINGS, WEIGHTS, ModelFileError, from_bytes

    where = objects.locate(model_path(model_id))
    try:
        files = {name: objects.read(f"{model_path(model_id)}/{name}") for name in (WEIGHTS, SETTINGS)}
        model = from_bytes(files, where)
    except MissingObject:
        raise ModelError(f"{where}: the model's files are missing; restore them or train again") from None
    except ModelFileError as error:
        raise ModelError(str(error)) from None
    if model.model_id != model_id:
        raise ModelError(f"{where}: holds model {model.model_id}; restore the right files or train again")
    return model
