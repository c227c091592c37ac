"""Score: shards through the model on an actor pool; embeddings to Milvus, raw scores to PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import cluster, logs, metrics
from pipeline.chunks import shard_path
from pipeline.errors import InputError
from pipeline.modelstore import load_model
from pipeline.progress import progress
from pipeline.session import Session
from pipeline.splits import split_of_model
from pipeline.stages.commits import commit_all
from pipeline.stages.result import QUARANTINE, ChunkResult, summary
from pipeline.stages.source import TASKS_A_WORKER, Work, arrays_of, cells, dataset, on_actors, rows, tasks
from pipeline.stores import accounts, catalog, ledger, registry, runs
from pipeline.stores.objects import ObjectStore
from pipeline.stores.postgres import transaction

if TYPE_CHECKING:
    from models.scores import ScoreBatch
    from models.trained import TrainedModel
    from pipeline.stages.result import StageSummary

SHARDS_PER_TASK = 32  # at most

# column of the scores table → field of models.scores.ScoreBatch
SCORE_COLUMNS = {
    "chi2_reduced": "chi2_reduced",
    "global_score": "global_score",
    "local_emission": "local_emission",
    "emission_wavelength": "local_emission_wavelength",
    "emission_width": "local_emission_width",
    "local_absorption": "local_absorption",
    "absorption_wavelength": "local_absorption_wavelength",
    "absorption_width": "local_absorption_width",
    "density": "density",
    "detection": "detection",
    "blend": "blend",
    "instrument": "instrument",
    "redshift_gain": "redshift_gain",
    "slip": "slip",
    "n_pixels": "n_bins",
}
KIND_COLUMNS = ("blend_kind", "instrument_kind")  # names of the detector's kinds, null without a detector
RAW = (*SCORE_COLUMNS, *KIND_COLUMNS, "windows", "in_training")  # what scoring writes
SMALL = ("spectrum_id", "targetid", "healpix", "ra", "dec", "z", "snr")


@dataclass(frozen=True)
class Loader:
    """Runs in a read task: one shard to one row, whose pixels are views of the file's own bytes."""

    objects: ObjectStore
    name = "Shards"

    def __call__(self, work: ledger.Work) -> pa.Table:
        from pipeline.shards import read_shard

        row: dict[str, Any] = {"chunk_id": [work.chunk_id], "coadd": [work.coadd], "n_rows": [work.n_rows]}
        try:
            shard = read_shard(self.objects, shard_path(work.chunk_id), (*SMALL, "flux", "ivar"))
        except InputError as error:
            return pa.table(row | {"failure": [error.reason], "detail": [str(error)]} | cells({}, _CELLS))
        arrays: dict[str, Any] = {name: shard.numbers(name) for name in SMALL}
        arrays |= {"flux": shard.flux_BL, "ivar": shard.ivar_BL}
        return pa.table(row | {"failure": [""], "detail": [""]} | cells(arrays, _CELLS))


_CELLS = {
    "spectrum_id": pa.int64(), "targetid": pa.int64(), "healpix": pa.int64(), "ra": pa.float64(), "dec": pa.float64(),
    "z": pa.float64(), "snr": pa.float32(), "flux": pa.float32(), "ivar": pa.float32(),
}  # fmt: skip


@dataclass(frozen=True)
class _Loaded:
    """One shard as it was loaded: its arrays, or why there are none."""

    chunk_id: str
    coadd: str
    n_rows: int
    failure: str
    detail: str
    arrays: dict[str, Any]

    @classmethod
    def of(cls, row: pa.Table) -> _Loaded:
        names = ("chunk_id", "coadd", "n_rows", "failure", "detail")
        return cls(**{name: row[name][0].as_py() for name in names}, arrays=arrays_of(row, _CELLS))

    @cached_property
    def pixels(self) -> tuple[Any, Any]:
        """Flux and ivar, [B, L] each."""
        n = len(self.arrays["z"])
        return self.arrays["flux"].reshape(n, -1), self.arrays["ivar"].reshape(n, -1)

    def reasons(self, z_max: float) -> NDArray[np.str_]:
        """Why each spectrum cannot be scored, [B], '' where it can."""
        blind = ~(self.pixels[1].max(axis=1) > 0)  # without an array of booleans: 4 µs less a spectrum
        outside = ~((self.arrays["z"] >= 0) & (self.arrays["z"] <= z_max))
        return np.where(blind, "no_information", np.where(outside, "redshift_outside_model", ""))


class Scorer:
    """Runs in an actor: holds the model and scores whole chunks, several at a time.

    A chunk of 60 spectra on its own would leave groups of similar redshift small and their windows wide.
    """

    def __init__(self, objects: ObjectStore, model_id: str, batch: int, cuda: bool) -> None:
        import torch

        torch.set_num_threads(1)
        self.model = load_model(objects, model_id).to("cuda" if cuda else "cpu")
        self.batch = batch

    def __call__(self, table: pa.Table) -> pa.Table:
        start = time.perf_counter()
        loaded = [_Loaded.of(table.slice(row, 1)) for row in range(table.num_rows)]
        reasons = [one.reasons(self.model.vae.config.z_max) for one in loaded if not one.failure]
        scored = self._scored([one for one in loaded if not one.failure], reasons)
        total = max(sum(one.n_rows for one in loaded), 1)
        results, done = [], iter(zip(scored, reasons, strict=True))
        for one in loaded:
            if one.failure:
                results.append(ChunkResult.failed(one.chunk_id, one.coadd, one.n_rows, one.failure, one.detail))
                continue
            rows, why = next(done)
            seconds = (time.perf_counter() - start) * one.n_rows / total
            lost = _lost(one.arrays, why)
            results.append(ChunkResult(one.chunk_id, one.coadd, len(why), rows, lost, seconds=seconds))
        return pa.concat_tables([result.to_row() for result in results])

    def _scored(self, loaded: Sequence[_Loaded], reasons: Sequence[NDArray[np.str_]]) -> list[pa.Table]:
        """Return each chunk's rows of scores."""
        kept = [_selection(why == "") for why in reasons]
        counts = [len(one.arrays["z"][rows]) for one, rows in zip(loaded, kept, strict=True)]
        runs_ = [(first, last) for first, last in _runs(counts, self.batch) if sum(counts[first:last])]
        if not runs_:
            return [pa.table({}) for _ in loaded]
        table = pa.concat_tables([self._part(loaded[first:last], kept[first:last]) for first, last in runs_])
        edges = np.cumsum([0, *counts]).tolist()
        return [table.slice(low, high - low) for low, high in pairwise(edges)]

    def _part(self, loaded: Sequence[_Loaded], kept: Sequence[Any]) -> pa.Table:
        import torch

        from models.scores import score

        chosen = list(zip(loaded, kept, strict=True))
        arrays = {name: np.concatenate([one.arrays[name][rows] for one, rows in chosen]) for name in SMALL}
        flux, ivar = (tuple(one.pixels[index][rows] for one, rows in chosen) for index in (0, 1))
        with torch.inference_mode():
            done = score(self.model, flux, ivar, arrays["z"])
        columns = {name: pa.array(values) for name, values in arrays.items()} | score_columns(self.model, done)
        split = self.model.provenance["split"]
        columns["in_training"] = split_of_model(split, arrays["healpix"], arrays["spectrum_id"]) == "train"
        columns["embedding"] = _fixed_lists(done.embedding)
        return pa.table(columns)


def _selection(keep: NDArray[np.bool_]) -> Any:
    """What selects the rows to keep: all of them without a copy."""
    return slice(None) if keep.all() else np.flatnonzero(keep)


def _runs(counts: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Cut chunks of ``counts`` spectra into runs of at most ``most`` together, or of one chunk."""
    first = total = 0
    for index, count in enumerate(counts):
        if total and total + count > most:
            yield first, index
            first, total = index, 0
        total += count
    if counts:
        yield first, len(counts)


def _lost(arrays: dict[str, Any], reasons: NDArray[np.str_]) -> pa.Table:
    """The quarantine's rows of the spectra that could not be scored."""
    lost = np.flatnonzero(reasons != "")
    details = [
        "no pixel has ivar > 0" if reason == "no_information" else f"z = {z:.4f} is outside the model's grid"
        for reason, z in zip(reasons[lost], arrays["z"][lost], strict=True)
    ]
    columns = [arrays["targetid"][lost], arrays["spectrum_id"][lost], pa.array(reasons[lost], pa.string()), details]
    return pa.table(columns, schema=QUARANTINE)


def score_columns(model: TrainedModel, done: ScoreBatch) -> dict[str, pa.Array]:
    """What a batch's scores are in the scores table, column → values; ``in_training`` is not theirs to say."""
    columns = {name: pa.array(getattr(done, field)) for name, field in SCORE_COLUMNS.items()}
    names = pa.array([kind.name for kind in model.detector.kinds], pa.string())
    for name in KIND_COLUMNS:
        index = getattr(done, name)
        columns[name] = names.take(pa.array(index, mask=index < 0))
    return columns | {"windows": _fixed_lists(done.windows)}


def _fixed_lists(values: Any) -> pa.FixedSizeListArray:
    """One list a spectrum, of arrays [B, …]."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values[0].size)


def score(session: Session, model_id: str) -> StageSummary:
    """Score with one model the ingested chunks that it has not scored.

    Raises:
        RunError: rows in are not rows out plus quarantined ones.
    """
    start = time.monotonic()
    config, run = session.config, session.config.run
    runs.enter_stage(session.conn, run, "score", model_id)
    work = ledger.pending(session.conn, run, "score", model_id)
    outcomes: list[ledger.Outcome] = []
    if work:
        load_model(session.objects, model_id)  # a bad one is named here, not by a dead actor
        settings = registry.find_model(session.conn, model_id).config
        trained_on = frozenset(settings["training_chunks"])
        session.vectors.ensure_collection(model_id, int(settings["vae"]["latent"]))
        with (
            cluster.connected(config) as resources,
            progress("score", sum(item.n_rows for item in work), "spectra") as bar,
        ):

            def commit(results: Sequence[ChunkResult]) -> None:
                _commit(session, model_id, results, trained_on)
                outcomes.extend(result.outcome for result in results)
                bar.advance(sum(result.n_in for result in results))

            commit_all(_results(session, work, model_id, resources), commit)
    accounts.reconcile(session.conn, run, "score", model_id)
    done = summary(outcomes, start)
    if work:
        runs.record_metrics(session.conn, run, "score", done.metrics(), model_id=model_id)
    return done


def _results(
    session: Session, work: Sequence[ledger.Work], model_id: str, resources: dict[str, float]
) -> Iterator[ChunkResult]:
    n_gpus = cluster.gpus(resources)
    workers = cluster.actors(session.config, resources)
    groups = tasks(work, SHARDS_PER_TASK, workers)
    largest = max(item.n_rows for item in work)
    loaded = dataset(Work(Loader(session.objects), groups, row_bytes=largest * 63_000, ahead=True))
    arguments = (session.objects, model_id, session.config.score.batch, bool(n_gpus))
    scored = on_actors(loaded, Scorer, arguments, min(workers, len(groups)), n_gpus, _together(session, work, workers))
    return map(ChunkResult.from_row, rows(scored))


def _together(session: Session, work: Sequence[ledger.Work], workers: int) -> int:
    """Return how many chunks an actor gets at a time: as many as make a batch, but every actor several times some."""
    mean = sum(item.n_rows for item in work) / len(work)
    fair = len(work) // (TASKS_A_WORKER * workers)
    return max(1, min(int(session.config.score.batch / max(mean, 1.0)), fair))


def _marked(result: ChunkResult, trained_on: Set[str]) -> pa.Table:
    """Clear ``in_training`` where the training did not get round to the spectrum's chunk."""
    if result.chunk_id in trained_on:
        return result.rows
    at = result.rows.column_names.index("in_training")
    return result.rows.set_column(at, "in_training", pa.repeat(False, result.rows.num_rows))


def _commit(session: Session, model_id: str, results: Sequence[ChunkResult], trained_on: Set[str]) -> None:
    """Milvus first, then PostgreSQL's rows and the chunks' ``done`` in one transaction."""
    done = [_marked(result, trained_on) for result in results if result.rows.num_rows]
    table = pa.concat_tables(done).combine_chunks() if done else None
    run, outcomes = session.config.run, [result.outcome for result in results]
    quarantined = pa.concat_tables([result.quarantined() for result in results])
    if table is not None:
        with metrics.timed(run, "milvus"):
            session.vectors.upsert(model_id, table.select(["spectrum_id", "ra", "dec", "z", "snr", "embedding"]))
    with metrics.timed(run, "postgres"), transaction(session.conn) as cur:
        if table is not None:
            catalog.upsert_scores(cur, model_id, table.select(["spectrum_id", *RAW]))
        ledger.finish(cur, run, "score", outcomes, model_id=model_id, quarantined=quarantined)
    metrics.committed(run, "score", outcomes, quarantined)
    logs.chunks("score", outcomes)
    if table is not None:
        metrics.scored(run, table)
