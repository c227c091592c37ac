"""Examine: candidates' pixels once more, for the features that verdicts are made from and for other redshifts.

Scoring leaves them out: they take ten times as long a spectrum as scores do, and only one spectrum in a hundred, known
once the whole survey is calibrated, needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline import cluster
from pipeline.errors import InputError
from pipeline.progress import progress
from pipeline.session import Session
from pipeline.stages.source import Work, dataset, grouped, pack, rows, tasks, unpack
from pipeline.stores import catalog
from pipeline.stores.objects import ObjectStore

if TYPE_CHECKING:
    from models.trained import TrainedModel

SHARDS_PER_TASK = 32  # at most
MOST = 64  # candidates of one shard in an item: their pixels lie in memory together
FEATURES = pa.list_(pa.float32())
OTHER = ("other_z", "other_z_gain", "other_z_lines")
SCHEMA = pa.schema(
    [("spectrum_id", pa.int64()), ("features", FEATURES), *((name, catalog.CALIBRATED[name]) for name in OTHER)]
)


@dataclass(frozen=True)
class Candidates:
    """Candidates of one shard: row groups, and rows in them."""

    shard: str
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Examine:
    """Runs in a read task: candidates of one shard to a table of what is measured; empty where it is damaged."""

    objects: ObjectStore
    model_id: str
    name = "Candidates"

    def __call__(self, item: Candidates) -> pa.Table:
        try:
            return pa.table({"cell": [pack(self._measured(item))]})
        except InputError:  # the spectrum keeps its score, and is judged by that alone
            return pa.table({"cell": [pack(SCHEMA.empty_table())]})

    def _measured(self, item: Candidates) -> pa.Table:
        from models.trained import reconstruct
        from pipeline.shards import read_spectrum
        from pipeline.verdicts.features import features

        found = [read_spectrum(self.objects, item.shard, *place) for place in item.places]
        flux_BL, ivar_BL = (np.concatenate([getattr(one, name) for one in found]) for name in ("flux_BL", "ivar_BL"))
        z_B = np.concatenate([one.z_B for one in found])
        difference_BN = np.concatenate([one.arm_difference_BK for one in found])
        masks = [pixels for one in found for pixels in one.lists("mask_pixel")]
        model = _model(self.objects, self.model_id)
        model_BL = reconstruct(model, flux_BL, ivar_BL, z_B)
        values_BF = features(flux_BL, ivar_BL, model_BL, z_B, difference_BN, masks)
        offset = np.arange(len(values_BF) + 1, dtype=np.int32) * values_BF.shape[1]
        lists = pa.ListArray.from_arrays(pa.array(offset), pa.array(values_BF.reshape(-1)), type=FEATURES)
        ids = np.concatenate([one.spectrum_id_B for one in found])
        return pa.table([ids, lists, *_others(model, flux_BL, ivar_BL, z_B)], schema=SCHEMA)


def _others(model: TrainedModel, flux_BL: Any, ivar_BL: Any, z_B: Any) -> list[Any]:
    """The columns of ``OTHER``."""
    from models.other_redshift import confusion, other_redshifts
    from models.trained import load_spectra

    found = other_redshifts(model.vae, load_spectra(model.vae, flux_BL, ivar_BL, z_B))
    other_B = found.z.cpu().numpy()
    names = [confusion(z, other) or None for z, other in zip(z_B.tolist(), other_B.tolist(), strict=True)]
    return [other_B, found.gain.cpu().numpy(), names]


_held: dict[str, TrainedModel] = {}  # the model of this worker's process, by its id


def _model(objects: ObjectStore, model_id: str) -> TrainedModel:
    import torch

    from pipeline.modelstore import load_model

    if model_id not in _held:
        torch.set_num_threads(1)
        _held.clear()
        _held[model_id] = load_model(objects, model_id)
    return _held[model_id]


def examine(session: Session, model_id: str, candidates: pa.Table) -> pa.Table:
    """Return the candidates' features, and the redshifts that fit them best far from the catalogued ones.

    Args:
        session: open stores.
        model_id: the model whose residuals are meant.
        candidates: Arrow table (spectrum_id, shard, row_group, row) of spectra that the model has scored.

    Returns:
        Arrow table (spectrum_id, features, other_z, other_z_gain, other_z_lines), in the order of spectrum_id;
        without those whose shard is damaged.
    """
    items = _items(candidates)
    if not items:
        return SCHEMA.empty_table()
    with (
        cluster.connected(session.config) as resources,
        progress("examine", candidates.num_rows, "candidates") as bar,
    ):
        found = []
        for table in _results(session, model_id, items, max(1, int(resources.get("CPU", 1)))):
            bar.advance(table.num_rows)
            found.append(table)
    return pa.concat_tables(found).sort_by("spectrum_id")


def _items(candidates: pa.Table) -> list[Candidates]:
    ordered = candidates.sort_by([(name, "ascending") for name in ("shard", "row_group", "row")])
    places: dict[str, list[tuple[int, int]]] = {}
    for shard, group, row in zip(*(ordered[name].to_pylist() for name in ("shard", "row_group", "row")), strict=True):
        places.setdefault(shard, []).append((group, row))
    return [Candidates(shard, tuple(part)) for shard, all_ in places.items() for part in grouped(all_, MOST)]


def _results(session: Session, model_id: str, items: list[Candidates], workers: int) -> Iterator[pa.Table]:
    work = Work(Examine(session.objects, model_id), tasks(items, SHARDS_PER_TASK, workers), row_bytes=1 << 15)
    return (unpack(row["cell"]) for row in rows(dataset(work)))
