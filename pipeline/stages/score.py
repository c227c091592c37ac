"""Score: shards through the model on an actor pool; embeddings to Milvus, raw scores to PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline import cluster, logs, metrics
from pipeline.chunks import shard_path
from pipeline.errors import InputError
from pipeline.modelstore import load_model
from pipeline.progress import progress
from pipeline.session import Session
from pipeline.splits import split_of_model
from pipeline.stages.commits import commit_all
from pipeline.stages.result import QUARANTINE, ChunkResult, summary
from pipeline.stages.source import Work, arrays_of, cells, dataset, on_actors, rows, tasks
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


class Scorer:
    """Runs in an actor: holds the model and scores whole chunks, never a batch across two of them."""

    def __init__(self, objects: ObjectStore, model_id: str, batch: int, cuda: bool) -> None:
        import torch

        torch.set_num_threads(1)
        self.model = load_model(objects, model_id).to("cuda" if cuda else "cpu")
        self.batch = batch

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.concat_tables([self._chunk(table.slice(row, 1)).to_row() for row in range(table.num_rows)])

    def _chunk(self, row: pa.Table) -> ChunkResult:
        start = time.perf_counter()
        chunk_id, coadd, n_rows, failure, detail = (
            row[name][0].as_py() for name in ("chunk_id", "coadd", "n_rows", "failure", "detail")
        )
        if failure:
            return ChunkResult.failed(chunk_id, coadd, n_rows, failure, detail)
        arrays = arrays_of(row, _CELLS)
        n = len(arrays["z"])
        scored, quarantine = self._score(arrays, n)
        return ChunkResult(chunk_id, coadd, n, scored, quarantine, seconds=time.perf_counter() - start)

    def _score(self, arrays: dict[str, Any], n: int) -> tuple[pa.Table, pa.Table]:
        flux_BL, ivar_BL = (arrays[name].reshape(n, -1) for name in ("flux", "ivar"))
        blind = ~(ivar_BL.max(axis=1) > 0)  # without an array of booleans: 4 µs less a spectrum
        outside = ~((arrays["z"] >= 0) & (arrays["z"] <= self.model.vae.config.z_max))
        keep = np.flatnonzero(~(blind | outside))
        parts = [self._batch(arrays, flux_BL, ivar_BL, rows) for rows in _cut(keep, self.batch)]
        lost = np.flatnonzero(blind | outside)
        reasons = np.where(blind, "no_information", "redshift_outside_model")[lost]
        details = [
            "no pixel has ivar > 0" if reason == "no_information" else f"z = {z:.4f} is outside the model's grid"
            for reason, z in zip(reasons, arrays["z"][lost], strict=True)
        ]
        quarantine = pa.table(
            [arrays["targetid"][lost], arrays["spectrum_id"][lost], pa.array(reasons, pa.string()), details],
            schema=QUARANTINE,
        )
        return (pa.concat_tables(parts) if parts else pa.table({})), quarantine

    def _batch(self, arrays: dict[str, Any], flux_BL: Any, ivar_BL: Any, keep: Any) -> pa.Table:
        import torch

        from models.scores import score

        contiguous = len(keep) == keep[-1] - keep[0] + 1
        rows = slice(keep[0], keep[-1] + 1) if contiguous else keep
        with torch.inference_mode():
            done = score(self.model, flux_BL[rows], ivar_BL[rows], arrays["z"][rows])
        columns = {name: pa.array(arrays[name][rows]) for name in SMALL} | score_columns(self.model, done)
        split = self.model.provenance["split"]
        columns["in_training"] = split_of_model(split, arrays["healpix"][rows], arrays["spectrum_id"][rows]) == "train"
        columns["embedding"] = _fixed_lists(done.embedding)
        return pa.table(columns)


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


def _cut(keep: Any, size: int) -> Iterator[Any]:
    return (keep[start : start + size] for start in range(0, len(keep), size))


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
    scored = on_actors(loaded, Scorer, arguments, min(workers, len(groups)), n_gpus)
    return map(ChunkResult.from_row, rows(scored))


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
