"""Train: the plan from the catalog, workers under Ray Train, the model's registration."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import cluster
from pipeline.catalog.pixels import pixel_of
from pipeline.chunks import shard_path
from pipeline.errors import RunError, SkysiftError
from pipeline.modelstore import load_model, model_path, save_model
from pipeline.progress import progress
from pipeline.quality import Quality
from pipeline.session import Session
from pipeline.splits import SPLIT_SEED, split_of
from pipeline.stores import registry, runs
from pipeline.stores.postgres import fetch_table, transaction

if TYPE_CHECKING:
    from models.trained import TrainedModel
    from pipeline.training import Plan, ShardCount, Worker

RESTARTS = 2  # of workers that died, each from the last checkpoint
MIN_PIXELS = 10  # with fewer sky pixels, spectra instead of pixels are divided for training

_SPECTRA = """
    SELECT chunk_id, spectrum_id, ra, dec
    FROM spectra JOIN run_chunks USING (chunk_id)
    WHERE run_id = %s AND z BETWEEN 0 AND %s AND quality & %s = 0
    ORDER BY chunk_id"""


@dataclass(frozen=True)
class TrainSummary:
    """What a training came to."""

    model_id: str
    reused: bool  # the run's data and settings had this model already
    segments: int
    seconds: float


def train(session: Session) -> TrainSummary:
    """Train on the run's shards, unless their model exists; a training that was stopped goes on where it was.

    Raises:
        RunError: too few spectra, or the workers kept failing.
    """
    from pipeline.training import checkpoint_path

    start = time.monotonic()
    run = session.config.run
    runs.enter_stage(session.conn, run, "train")
    plan = plan_of_run(session)
    for model in registry.list_models(session.conn):
        if model.data_hash == plan.data_hash:
            runs.enter_stage(session.conn, run, "train", model.model_id)
            return TrainSummary(model.model_id, True, 0, time.monotonic() - start)
    with cluster.connected(session.config) as resources:
        model_id = _trained(session, plan, resources)
    trained = load_model(session.objects, model_id)
    _register(session, trained, plan)
    session.objects.delete(checkpoint_path(plan))
    return TrainSummary(model_id, False, len(trained.history), time.monotonic() - start)


def plan_of_run(session: Session) -> Plan:
    """Return the plan of a training on the run's ingested spectra.

    Raises:
        RunError: there are too few of them.
    """
    from pipeline.training import make_plan

    config = session.config.train
    with transaction(session.conn) as cur:
        arguments = (session.config.run, config.vae.z_max, int(Quality.NO_INFORMATION))
        rows = fetch_table(cur, _SPECTRA, arguments)
    chunk, key, ra, dec = (rows[name].to_numpy() for name in ("chunk_id", "spectrum_id", "ra", "dec"))
    pixel = pixel_of(ra, dec)
    by_pixel = len(np.unique(pixel)) >= MIN_PIXELS
    part = split_of(pixel if by_pixel else np.full(len(pixel), -1), SPLIT_SEED, spectrum_id_B=key)
    return make_plan(
        _count(chunk, part),
        config.vae,
        config.fit,
        split_seed=SPLIT_SEED,
        max_spectra=config.max_spectra,
        by_pixel=by_pixel,
    )


def _count(chunk: np.ndarray, part: np.ndarray) -> list[ShardCount]:
    from pipeline.training import ShardCount

    names, index = np.unique(chunk.astype(str), return_inverse=True)
    counts = [np.bincount(index[part == kind], minlength=len(names)).tolist() for kind in ("train", "validate")]
    return [ShardCount(shard_path(name), *pair) for name, *pair in zip(names.tolist(), *counts, strict=True)]


def _trained(session: Session, plan: Plan, resources: dict[str, float]) -> str:
    """Run the workers to the end and return the model's id."""
    storage = session.config.workspace / "ray-train"
    with progress("train", plan.fit.segments, "segments") as bar, _notes(bar) as notes:
        try:
            result: Any = _run(session, plan, resources, notes, str(storage))
        finally:
            shutil.rmtree(storage, ignore_errors=True)
    return str(result.return_value)


def _run(session: Session, plan: Plan, resources: dict[str, float], notes: Any, storage: str) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    n_gpus = cluster.gpus(resources)
    workers = min(session.config.train.workers or n_gpus or 1, len(plan.segment(0)))
    threads = max(1, cluster.node_cpus() // (1 if n_gpus else workers))
    trainer = TorchTrainer(
        _work,
        train_loop_config={"plan": plan, "objects": session.objects, "threads": threads, "notes": notes},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=bool(n_gpus), resources_per_worker=None if n_gpus else {"CPU": threads}
        ),
        run_config=RunConfig(
            name=plan.data_hash, storage_path=storage, failure_config=FailureConfig(max_failures=RESTARTS)
        ),
    )
    try:
        return trainer.fit()
    except TrainingFailedError as error:
        raise _plain(error) from error


def _plain(error: Exception) -> SkysiftError:
    """Return the worker's own error where it is one of ours, else one line that holds its last."""
    causes = list(getattr(error, "worker_failures", {}).values()) or [error]
    for cause in causes:
        inner = getattr(cause, "cause", cause)
        if isinstance(inner, SkysiftError):
            return inner
    last = (str(causes[0]).strip().splitlines() or [type(causes[0]).__name__])[-1]
    return RunError(f"training failed {RESTARTS + 1} times: {last}; the same command goes on from its checkpoint")


def _work(settings: dict[str, Any]) -> Any:
    """Runs on every worker under Ray Train; the first one's answer, the model's id, is the result's."""
    import ray.train
    import torch

    from pipeline.training import fit

    torch.set_num_threads(settings["threads"])
    worker = _worker()

    def report(entry: dict[str, float]) -> None:
        ray.train.report(entry)
        if worker.rank == 0:
            settings["notes"].put(entry)

    model = fit(settings["plan"], settings["objects"], worker, report)
    return save_model(settings["objects"], model) if model else ""


def _worker() -> Worker:
    import ray.train
    import ray.train.torch
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from pipeline.training import Worker

    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device()
    if workers == 1:
        return Worker(device=str(device))

    def agree(value: float) -> float:
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        torch.distributed.broadcast(shared, src=0)
        return float(shared)

    return Worker(rank, workers, str(device), DistributedDataParallel, agree)


@contextmanager
def _notes(bar: Any) -> Iterator[Any]:
    """Yield a queue whose entries, from any worker, move the progress bar."""
    from ray.util.queue import Queue

    notes = Queue(actor_options={"num_cpus": 0})

    def listen() -> None:
        for entry in iter(notes.get, None):
            bar.advance(1, f"validation loss {entry['validation_loss']:.4f}")

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield notes
    finally:
        notes.put(None)
        listener.join(timeout=5)
        notes.shutdown()


def _register(session: Session, trained: TrainedModel, plan: Plan) -> None:
    conn, run, model_id = session.conn, session.config.run, trained.model_id
    best = min(trained.history, key=lambda entry: entry["validation_loss"])
    registry.register_model(
        conn,
        model_id,
        run_id=run,
        uri=session.objects.locate(model_path(model_id)),
        data_hash=plan.data_hash,
        config={
            "vae": asdict(plan.vae),
            **trained.provenance,
            "training_chunks": [PurePosixPath(shard.path).stem for shard in plan.train],
        },
        metrics={"history": trained.history},
    )
    runs.enter_stage(conn, run, "train", model_id)
    values = {
        "segments": (len(trained.history), "segments"),
        "spectra_seen": (trained.history[-1]["seen"], "spectra"),
        "seconds": (sum(entry["seconds"] for entry in trained.history), "s"),
        "validation_loss": (best["validation_loss"], ""),
        "validation_chi2_median": (best["validation_chi2_median"], ""),
    }
    runs.record_metrics(conn, run, "train", values, model_id=model_id)
