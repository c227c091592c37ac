"""Training without Ray: which shards make a segment, their spectra in memory, checkpoints, and the loop."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from models.config import FitConfig, VAEConfig
from models.fit import Examples, FitState, Forward, begin, finish, judge, train_segment, validate
from models.trained import TrainedModel, load_spectra
from models.vae import VAE, Prepared
from pipeline.catalog.pixels import pixel_of
from pipeline.errors import RunError
from pipeline.injection.examples import KINDS, Sample, examples
from pipeline.keys import content_hash
from pipeline.quality import Quality
from pipeline.shards import Shard, read_shard
from pipeline.splits import FRACTIONS, split_of
from pipeline.stores.objects import ObjectStore

SEGMENT = 16_384  # training spectra a segment holds at most, over all workers; in memory 17 kB each
VALIDATION = 4_096  # spectra that judge each segment, at most
HOSTS = 48_000  # training spectra that departures are put into for the detector, about
USUAL_A_SPECTRUM = 3.0  # departures; six gave no more than three, two less
FEWEST_A_KIND = 60  # departures of each kind, if need be several in one spectrum,
MOST_A_SPECTRUM = 6.0  # but not more
WORTH_PROCESSES = 6_000  # departures; a process takes seconds to start and makes hundreds a second
READERS = 4  # shards read at once by a worker
COLUMNS = ("spectrum_id", "ra", "dec", "z", "quality", "flux", "ivar")


@dataclass(frozen=True)
class ShardCount:
    """A shard and how many of its spectra may be trained on, and how many judge the training."""

    path: str
    n_train: int
    n_validate: int


@dataclass(frozen=True)
class Plan:
    """All that decides a training: settings, and shards in the order in which a seed has put them."""

    vae: VAEConfig
    fit: FitConfig
    split_seed: int
    by_pixel: bool  # False: too few pixels, spectra were divided instead
    train: tuple[ShardCount, ...]
    validate: tuple[ShardCount, ...]

    @property
    def data_hash(self) -> str:
        """Names the data and the settings; equal hashes train equal models."""
        paths = [shard.path for shard in (*self.train, *self.validate)]
        settings = (asdict(self.vae), asdict(self.fit), self.split_seed, self.by_pixel, FRACTIONS, len(self.train))
        return content_hash(repr(settings), *paths)

    @property
    def parts(self) -> int:
        """Segments that together see every training spectrum once."""
        return max(1, -(-sum(shard.n_train for shard in self.train) // SEGMENT))

    def segment(self, number: int) -> list[ShardCount]:
        """Return the shards of a segment, by path; each round through the data deals them anew."""
        rounds, part = divmod(number, self.parts)
        dealt = _shuffled(self.train, f"{self.fit.seed} round {rounds}") if self.parts > 1 else list(self.train)
        return sorted(dealt[part :: self.parts], key=lambda shard: shard.path)

    def share(self, number: int, rank: int, workers: int) -> list[ShardCount]:
        """Return one worker's shards of a segment."""
        return self.segment(number)[rank::workers]

    def steps(self, number: int, workers: int) -> int:
        """Return how many optimiser steps a segment takes, the same on all workers."""
        most = max(sum(s.n_train for s in self.share(number, rank, workers)) for rank in range(workers))
        return -(-most // self.batch(workers))

    def batch(self, workers: int) -> int:
        """Return the spectra a worker takes in a step."""
        return max(1, self.fit.batch // workers)

    def provenance(self) -> dict[str, Any]:
        """Return what is kept with the model, plain JSON values."""
        return {
            "data_hash": self.data_hash,
            "fit": asdict(self.fit),
            "split": {
                "seed": self.split_seed,
                "fractions": list(FRACTIONS),
                "unit": "sky pixel" if self.by_pixel else "spectrum",
            },
            "n_train": sum(shard.n_train for shard in self.train),
            "n_validate": sum(shard.n_validate for shard in self.validate),
        }


def make_plan(
    shards: Sequence[ShardCount], vae: VAEConfig, fit: FitConfig, *, split_seed: int, max_spectra: int, by_pixel: bool
) -> Plan:
    """Choose the shards to train on and those that judge, in an order set by the seed.

    Raises:
        RunError: nothing to train on, or nothing to judge by.
    """
    order = _shuffled(shards, f"{fit.seed} choice")
    train = _until([shard for shard in order if shard.n_train], lambda s: s.n_train, max_spectra)
    validate = _until([shard for shard in order if shard.n_validate], lambda s: s.n_validate, VALIDATION)
    for name, chosen in (("train on", train), ("stop the training by", validate)):
        if not chosen:
            raise RunError(f"no spectra to {name}: the run has too few with information; plan more pixels or tiles")
    return Plan(vae, fit, split_seed, by_pixel, tuple(train), tuple(validate))


def _until(shards: Sequence[ShardCount], count: Callable[[ShardCount], int], enough: int) -> list[ShardCount]:
    chosen, total = [], 0
    for shard in shards:
        if total >= enough:
            break
        chosen.append(shard)
        total += count(shard)
    return chosen


def _shuffled(shards: Sequence[ShardCount], seed: str) -> list[ShardCount]:
    return sorted(shards, key=lambda shard: content_hash(seed, shard.path))


def read_spectra(plan: Plan, objects: ObjectStore, vae: VAE, shards: Sequence[ShardCount], part: str) -> Prepared:
    """Read the spectra of one part ('train' or 'validate') of some shards, rebinned and normalised, in shard order.

    Spectra without information or outside the network's redshifts are left out.
    """
    one = partial(_read, plan, objects, vae, part)
    with ThreadPoolExecutor(READERS) as pool:
        return Prepared.cat(list(pool.map(one, [shard.path for shard in shards])))


def _read(plan: Plan, objects: ObjectStore, vae: VAE, part: str, path: str) -> Prepared:
    shard = read_shard(objects, path, COLUMNS)
    rows = _rows(plan, shard, part, vae.config.z_max)
    return load_spectra(vae, shard.flux_BL[rows], shard.ivar_BL[rows], shard.z_B[rows])


def _rows(plan: Plan, shard: Shard, part: str, z_max: float) -> np.ndarray:
    """Rows of a shard that belong to a part and can be trained on."""
    pixel = pixel_of(shard.numbers("ra"), shard.numbers("dec")) if plan.by_pixel else np.full(len(shard), -1)
    wanted = split_of(pixel, plan.split_seed, spectrum_id_B=shard.spectrum_id_B) == part
    return np.flatnonzero(wanted & usable(shard.z_B, shard.quality_B, z_max))


def usable(z_B: np.ndarray, quality_B: np.ndarray, z_max: float) -> np.ndarray:
    """Return which spectra can be trained on, bool [B]: some information, and a redshift on the network's grid."""
    return np.asarray((quality_B & int(Quality.NO_INFORMATION) == 0) & (z_B >= 0.0) & (z_B <= z_max))


def checkpoint_path(plan: Plan) -> str:
    """Return where a training's checkpoint lies in the object store."""
    return f"checkpoints/{plan.data_hash}.pt"


def save_checkpoint(plan: Plan, objects: ObjectStore, state: FitState) -> None:
    """Write the whole state atomically over the previous checkpoint."""
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    objects.write(checkpoint_path(plan), buffer.getbuffer())


def load_checkpoint(plan: Plan, objects: ObjectStore, state: FitState) -> bool:
    """Continue from the checkpoint; False when there is none. Only tensors and plain values are unpickled.

    Raises:
        RunError: the checkpoint is damaged.
    """
    path = checkpoint_path(plan)
    if not objects.exists(path):
        return False
    try:
        state.load_state_dict(torch.load(io.BytesIO(objects.read(path)), weights_only=True, map_location="cpu"))
    except Exception as error:  # torch raises whatever the damage brings up
        raise RunError(f"{objects.locate(path)}: damaged checkpoint; delete it, training starts anew") from error
    return True


@dataclass(frozen=True)
class Worker:
    """One of the processes that train together; alone by default."""

    rank: int = 0
    workers: int = 1
    device: str = "cpu"
    wrap: Callable[[VAE], Forward] | None = None  # averages gradients over the workers
    agree: Callable[[float], float] = float  # returns the first worker's value on all of them


def fit(
    plan: Plan, objects: ObjectStore, worker: Worker, report: Callable[[dict[str, float]], None]
) -> TrainedModel | None:
    """Train from the last checkpoint, or from the start, to the end; the first worker returns the model.

    A checkpoint is written after every segment, so a training stopped anywhere and started again ends in the same
    bits on a CPU. ``report`` gets the curves' entry of each segment, on every worker.
    """
    state = FitState.new(plan.vae, plan.fit, _schedule_steps(plan, worker.workers), worker.device)
    share = _Share(plan, objects, state.vae, worker)
    if not load_checkpoint(plan, objects, state):
        # every worker begins with the first worker's share, so that all hold the same network
        begin(state, read_spectra(plan, objects, state.vae, plan.share(0, 0, worker.workers), "train"))
    forward = worker.wrap(state.vae) if worker.wrap else None
    judges = None
    while not state.finished:
        judges = judges or read_spectra(plan, objects, state.vae, plan.validate, "validate")
        state.generator.manual_seed(_seed(plan, state.segment, worker.rank))
        steps = plan.steps(state.segment, worker.workers)
        train_segment(state, share.read(state.segment), plan.batch(worker.workers), steps, forward)
        judge(state, worker.agree(validate(state, judges)))
        if worker.rank == 0:
            save_checkpoint(plan, objects, state)
        report(state.history[-1])
    if worker.rank:
        return None
    judges = judges or read_spectra(plan, objects, state.vae, plan.validate, "validate")
    examples = partial(_examples, plan, objects)
    return finish(state, share.read(0), judges, plan.provenance(), examples, KINDS)


def _examples(plan: Plan, objects: ObjectStore, model: TrainedModel) -> Iterator[Examples]:
    """What the detector learns from: training spectra, without and with departures."""
    shards = _until(plan.train, lambda shard: shard.n_train, HOSTS)
    count = sum(shard.n_train for shard in shards)
    each = departures_a_spectrum(count)
    samples = _samples(plan, objects, model, shards)
    return examples(model, samples, each, plan.fit.seed, makers(each * count))


def departures_a_spectrum(hosts: int) -> float:
    """Return how many departures each of so many spectra takes: three, or more where there would be few of a kind."""
    return min(max(USUAL_A_SPECTRUM, FEWEST_A_KIND * len(KINDS) / max(hosts, 1)), MOST_A_SPECTRUM)


def makers(departures: float) -> int:
    """Return how many processes are to make so many departures; for few, starting one takes longer."""
    return torch.get_num_threads() if departures > WORTH_PROCESSES else 1


def _samples(plan: Plan, objects: ObjectStore, model: TrainedModel, shards: Sequence[ShardCount]) -> Iterator[Sample]:
    for shard in shards:
        read = read_shard(objects, shard.path, (*COLUMNS, "snr"))
        rows = _rows(plan, read, "train", model.vae.config.z_max)
        if len(rows):
            yield Sample(read.flux_BL[rows], read.ivar_BL[rows], read.z_B[rows], read.snr_B[rows])


class _Share:
    """A worker's spectra of a segment, kept while the next segment is of the same shards."""

    def __init__(self, plan: Plan, objects: ObjectStore, vae: VAE, worker: Worker) -> None:
        self._plan, self._objects, self._vae, self._worker = plan, objects, vae, worker
        self._shards: list[ShardCount] = []
        self._spectra: Prepared | None = None

    def read(self, number: int) -> Prepared:
        shards = self._plan.share(number, self._worker.rank, self._worker.workers)
        if self._spectra is None or shards != self._shards:
            self._spectra = None  # free the old segment before the new one is read
            self._spectra = read_spectra(self._plan, self._objects, self._vae, shards, "train")
            self._shards = shards
        return self._spectra


def _schedule_steps(plan: Plan, workers: int) -> int:
    return sum(plan.steps(number, workers) for number in range(plan.fit.segments))


def _seed(plan: Plan, segment: int, rank: int) -> int:
    return int(content_hash(f"{plan.fit.seed} {segment} {rank}", length=15), 16)
