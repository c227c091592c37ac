from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.config import FitConfig, VAEConfig
from models.files import to_bytes
from models.trained import TrainedModel
from models.vae import VAE
from pipeline.catalog.pixels import pixel_of
from pipeline.errors import ModelError, RunError
from pipeline.modelstore import load_model, save_model
from pipeline.quality import Quality
from pipeline.shard_table import SCHEMA
from pipeline.shards import write_shard
from pipeline.splits import split_of
from pipeline.stores.objects import ObjectStore
from pipeline.training import Plan, ShardCount, Worker, checkpoint_path, fit, make_plan, read_spectra
from tests.models.synthetic import Quasars, make_quasars

VAE_CONFIG = VAEConfig(latent=4, hidden=32, z_max=4.0)
FIT_CONFIG = FitConfig(segments=3, batch=32)
ROWS, SHARDS = 20, 16


def shard_table(data: Quasars, rows: slice, number: int) -> pa.Table:
    """A shard whose spectra lie in one sky pixel; the first has no information, the second an impossible redshift."""
    n = rows.stop - rows.start
    quality, z = np.zeros(n, np.int32), data.z[rows].copy()
    quality[0], z[1] = Quality.NO_INFORMATION, 5.9
    known = {
        "spectrum_id": 1000 * number + np.arange(n), "targetid": np.arange(n), "coadd": [f"c{number}"] * n,
        "ra": np.full(n, 10.0 + 3.0 * number), "dec": np.full(n, 5.0), "z": z, "quality": quality,
    }  # fmt: skip
    columns = []
    for field in SCHEMA:
        if field.name in ("flux", "ivar"):
            flat = pa.array(getattr(data, field.name)[rows].reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        elif field.name == "arm_difference":
            flat = pa.array(np.zeros(n * field.type.list_size, np.float32))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([[]] * n, field.type))
        else:
            columns.append(pa.array(known[field.name], field.type) if field.name in known else pa.nulls(n, field.type))
    return pa.table(columns, schema=SCHEMA)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[ObjectStore, list[ShardCount]]:
    store = ObjectStore.open(str(tmp_path_factory.mktemp("objects")))
    data = make_quasars(ROWS * SHARDS, seed=21)
    counts = []
    for number in range(SHARDS):
        table = shard_table(data, slice(ROWS * number, ROWS * (number + 1)), number)
        path = f"shards/{number:02d}.parquet"
        write_shard(store, path, table)
        part = split_of(pixel_of(table["ra"].to_numpy(), table["dec"].to_numpy()), 1)
        usable = ROWS - 2
        counts.append(ShardCount(path, int((part == "train").any()) * usable, int((part == "validate").any()) * usable))
    return store, counts


def plan_of(counts: list[ShardCount], **changes: object) -> Plan:
    settings = {"split_seed": 1, "max_spectra": 1000, "by_pixel": True} | changes
    return make_plan(counts, VAE_CONFIG, FIT_CONFIG, **settings)  # type: ignore[arg-type]


class Stopped(Exception):
    """Stands for a process that ends in the middle."""


def test_only_usable_spectra_of_the_right_pixels_are_read(shards: tuple[ObjectStore, list[ShardCount]]) -> None:
    store, counts = shards
    plan, vae = plan_of(counts), VAE(VAE_CONFIG)
    for part in ("train", "validate"):
        wanted = sum(getattr(shard, f"n_{part}") for shard in counts)
        assert wanted > 0
        assert len(read_spectra(plan, store, vae, counts, part)) == wanted
    assert sum(shard.n_train > 0 and shard.n_validate > 0 for shard in counts) == 0


def test_plan_is_set_by_the_seed_and_bounded(shards: tuple[ObjectStore, list[ShardCount]]) -> None:
    _, counts = shards
    plan = plan_of(counts)
    assert plan == plan_of(counts[::-1])
    assert plan.data_hash == plan_of(counts).data_hash
    bounded = plan_of(counts, max_spectra=50)
    assert sum(shard.n_train for shard in bounded.train) == 54
    assert bounded.data_hash != plan.data_hash
    assert replace(plan, fit=FitConfig(seed=2)).data_hash != plan.data_hash


def test_segments_together_see_every_shard_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.SEGMENT", 1000)
    counts = [ShardCount(f"s{number}", 100, 1) for number in range(45)]
    plan = plan_of(counts, max_spectra=10_000)
    assert plan.parts == 5
    first, second = ([shard for number in part for shard in plan.segment(number)] for part in (range(5), range(5, 10)))
    assert sorted(first, key=str) == sorted(second, key=str) == sorted(counts, key=str)
    assert plan.segment(0) != plan.segment(5)
    for workers in (1, 2, 3):
        shares = [shard for rank in range(workers) for shard in plan.share(7, rank, workers)]
        assert sorted(shares, key=str) == sorted(plan.segment(7), key=str)


def test_killed_after_any_segment_and_started_again_is_bit_equal(
    shards: tuple[ObjectStore, list[ShardCount]],
) -> None:
    store, counts = shards
    plan = plan_of(counts)
    whole = _trained(plan, store)
    store.delete(checkpoint_path(plan))

    def stop(entry: dict[str, float]) -> None:
        raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            fit(plan, store, Worker(), stop)
    again = _trained(plan, store)
    assert [entry["segment"] for entry in again.history] == [1, 2, 3]
    first, second = to_bytes(whole), to_bytes(again)
    assert whole.model_id == again.model_id
    assert first["model.safetensors"] == second["model.safetensors"]


def test_damaged_checkpoint_is_named(shards: tuple[ObjectStore, list[ShardCount]]) -> None:
    store, counts = shards
    plan = plan_of(counts, max_spectra=60)
    store.write(checkpoint_path(plan), b"not a checkpoint")
    with pytest.raises(RunError, match="damaged checkpoint; delete it"):
        fit(plan, store, Worker(), lambda entry: None)
    store.delete(checkpoint_path(plan))


def test_too_little_to_train_on_is_one_line() -> None:
    with pytest.raises(RunError, match="no spectra to train on"):
        plan_of([ShardCount("a", 0, 5)])
    with pytest.raises(RunError, match="no spectra to stop the training by"):
        plan_of([ShardCount("a", 5, 0)])


def test_two_workers_share_the_work_and_agree(shards: tuple[ObjectStore, list[ShardCount]]) -> None:
    """Without gradients averaged the second worker only plays along: same steps, no model of its own."""
    store, counts = shards
    plan = plan_of(counts, max_spectra=70)
    steps = [plan.steps(number, 2) for number in range(3)]
    entries: list[dict[str, float]] = []
    assert fit(plan, store, Worker(rank=1, workers=2, agree=lambda value: 7.0), entries.append) is None
    assert [entry["validation_loss"] for entry in entries] == [7.0, 7.0, 7.0]
    assert len(steps) == len(entries)
    assert not store.exists(checkpoint_path(plan))


def test_saved_model_is_found_and_others_are_refused(
    shards: tuple[ObjectStore, list[ShardCount]], tmp_path: Path
) -> None:
    store, counts = shards
    model = _trained(plan_of(counts), store)
    objects = ObjectStore.open(str(tmp_path))
    model_id = save_model(objects, model)
    assert torch.equal(load_model(objects, model_id).vae.mean_R, model.vae.mean_R)
    with pytest.raises(ModelError, match="files are missing"):
        load_model(objects, "0123456789abcdef")
    for name in ("model.safetensors", "model.json"):
        objects.write(f"models/0123456789abcdef/{name}", objects.read(f"models/{model_id}/{name}"))
    with pytest.raises(ModelError, match=f"holds model {model_id}"):
        load_model(objects, "0123456789abcdef")
    objects.write(f"models/{model_id}/model.safetensors", b"")
    with pytest.raises(ModelError, match="do not belong together"):
        load_model(objects, model_id)


def _trained(plan: Plan, store: ObjectStore) -> TrainedModel:
    model = fit(plan, store, Worker(), lambda entry: None)
    assert model is not None
    return model
