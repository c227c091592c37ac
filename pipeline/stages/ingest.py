"""Ingest: chosen rows of the coadds to Parquet shards, their small columns to PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import cluster, logs, metrics
from pipeline.chunks import Chunk
from pipeline.errors import InputError, RunError
from pipeline.keys import spectrum_id
from pipeline.progress import progress
from pipeline.session import Session
from pipeline.shards import write_grid
from pipeline.stages.commits import commit_all
from pipeline.stages.result import QUARANTINE, ChunkResult, StageSummary, summary
from pipeline.stages.source import Work, dataset, grouped, rows, tasks
from pipeline.stores import accounts, catalog, ledger, manifest, registry, runs
from pipeline.stores.objects import ObjectStore
from pipeline.stores.postgres import transaction

CHUNKS_FETCHED = 64  # from the manifest at a time


@dataclass(frozen=True)
class IngestTask:
    """Runs on a worker: one chunk from the survey to a shard; a bad file becomes a failed result."""

    survey: ObjectStore
    objects: ObjectStore
    name = "Ingest"

    def __call__(self, chunk: Chunk) -> pa.Table:
        from pipeline.desi.ingest import ingest_chunk

        start = time.perf_counter()
        try:
            done = ingest_chunk(self.survey, self.objects, chunk)
        except InputError as error:
            return ChunkResult.failed(
                chunk.chunk_id, chunk.coadd.name, chunk.targets.num_rows, error.reason, str(error)
            ).to_row()
        return ChunkResult(
            chunk_id=chunk.chunk_id,
            coadd=chunk.coadd.name,
            n_in=chunk.targets.num_rows,
            rows=done.spectra,
            quarantine=_absent(done.missing, chunk.coadd.name, done.missing_detail),
            seconds=time.perf_counter() - start,
            bytes_read=done.bytes_read,
            requests=done.requests,
        ).to_row()


def _absent(targetid: NDArray[np.int64], coadd: str, detail: str) -> pa.Table:
    n = len(targetid)
    columns = [targetid, spectrum_id(targetid, coadd), ["not_in_coadd"] * n, [detail] * n]
    return pa.table(columns, schema=QUARANTINE)


def ingest(session: Session) -> StageSummary:
    """Ingest the chunks that the ledger has not done.

    Raises:
        RunError: too many files failed, or rows in are not rows out plus quarantined ones.
    """
    start = time.monotonic()
    config, run = session.config, session.config.run
    runs.enter_stage(session.conn, run, "ingest")
    work = ledger.pending(session.conn, run, "ingest")
    outcomes: list[ledger.Outcome] = []
    if work:
        write_grid(session.objects)
        chunks = _chunks(session, work)
        with (
            cluster.connected(config) as resources,
            progress("ingest", sum(item.n_rows for item in work), "spectra") as bar,
        ):

            def commit(results: Sequence[ChunkResult]) -> None:
                _commit(session, results)
                outcomes.extend(result.outcome for result in results)
                bar.advance(sum(result.n_in for result in results), _note(outcomes))

            commit_all(_results(session, chunks, max(1, int(resources.get("CPU", 1)))), commit)
    _forget_superseded(session)
    accounts.reconcile(session.conn, run, "ingest")
    _refuse_too_many_failures(session)
    done = summary(outcomes, start)
    if work:
        runs.record_metrics(session.conn, run, "ingest", done.metrics())
    return done


def _chunks(session: Session, work: Sequence[ledger.Work]) -> list[Chunk]:
    """The chunks of ``work``, fetched some at a time: all at once would take eight times their own memory."""
    parts = grouped([item.chunk_id for item in work], CHUNKS_FETCHED)
    return [chunk for part in parts for chunk in manifest.load_chunks(session.conn, part)]


def _results(session: Session, chunks: Sequence[Chunk], workers: int) -> Iterator[ChunkResult]:
    task = IngestTask(session.survey, session.objects)
    groups = tasks(chunks, session.config.ingest.files_per_task, workers)
    return map(ChunkResult.from_row, rows(dataset(Work(task, groups, row_bytes=1 << 16))))


def _commit(session: Session, results: Sequence[ChunkResult]) -> None:
    done = [_with_chunk(result) for result in results if result.rows.num_rows]
    run, outcomes = session.config.run, [result.outcome for result in results]
    quarantined = pa.concat_tables([result.quarantined() for result in results])
    with metrics.timed(run, "postgres"), transaction(session.conn) as cur:
        if done:
            catalog.upsert_spectra(cur, pa.concat_tables(done))
        ledger.finish(cur, run, "ingest", outcomes, quarantined=quarantined)
    metrics.committed(run, "ingest", outcomes, quarantined)
    logs.chunks("ingest", outcomes)


def _with_chunk(result: ChunkResult) -> pa.Table:
    return result.rows.append_column("chunk_id", pa.repeat(result.chunk_id, result.rows.num_rows))


def _forget_superseded(session: Session) -> None:
    """Delete the spectra that no file of the survey stands for any more: vectors first, then rows."""
    stale = catalog.stale_spectra(session.conn)
    if not len(stale):
        return
    for model in registry.list_models(session.conn):
        session.vectors.delete(model.model_id, stale)
    catalog.delete_spectra(session.conn, stale)


def _note(outcomes: Sequence[ledger.Outcome]) -> str:
    failed = sum(o.state == "failed" for o in outcomes)
    return f"{failed} files failed" if failed else ""


def _refuse_too_many_failures(session: Session) -> None:
    counts = accounts.counts(session.conn, session.config.run, "ingest").chunks
    failed, total = counts.get("failed", 0), sum(counts.values())
    if failed > session.config.ingest.max_failed * total:
        raise RunError(
            f"{failed} of {total} chunks of run {session.config.run} failed to ingest, more than ingest.max_failed = "
            f"{session.config.ingest.max_failed}: see `skysift status --run {session.config.run}` for the reasons"
        )
