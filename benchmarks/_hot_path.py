"""Where the time of ingest and score goes: one process, one thread, the stages' own functions one after the other."""

from __future__ import annotations

import cProfile
import io
import pstats
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pipeline.chunks import Chunk
from pipeline.session import Session
from pipeline.stages.ingest import IngestTask, _with_chunk
from pipeline.stages.result import ChunkResult
from pipeline.stages.score import RAW, Loader, Scorer
from pipeline.stores import catalog, ledger

LINES = 25  # of each profile
SCRATCH = "be" * 8  # names a collection that is dropped again


class Clock:
    """Adds up seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start

    def microseconds(self, spectra: int) -> dict[str, float]:
        """Microseconds a spectrum by name."""
        return {name: seconds / spectra * 1e6 for name, seconds in self.seconds.items()}


@contextmanager
def profiled(title: str, lines: list[str]) -> Iterator[None]:
    """Append the functions that took longest to ``lines``."""
    profile = cProfile.Profile()
    profile.enable()
    yield
    profile.disable()
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(LINES)
    kept = [line for line in text.getvalue().splitlines() if line.strip() and "Random listing" not in line]
    lines += ["", f"## {title}", *kept]


def ingest_costs(session: Session, chunks: Sequence[Chunk], lines: list[str]) -> dict[str, float]:
    """µs a spectrum of reading, joining, writing, packing and committing ``chunks``; appends the profile to ``lines``.

    What is committed is rolled back.
    """
    from pipeline.desi.ingest import ingest_chunk

    task, clock = IngestTask(session.survey, session.objects), Clock()
    for chunk in chunks[:4]:
        task(chunk)
    for chunk in chunks:
        for name, seconds in ingest_chunk(session.survey, session.objects, chunk).seconds.items():
            clock.seconds[name] += seconds
    with profiled("ingest: IngestTask over chunks, one thread", lines):
        rows = [task(chunk) for chunk in chunks]
    with clock("unpack on the driver"):
        results = _unpacked(rows)
    with clock("PostgreSQL"):
        table = pa.concat_tables([_with_chunk(result) for result in results])
        _commit(session, "ingest", results, lambda cur: catalog.upsert_spectra(cur, table))
    return clock.microseconds(sum(result.n_in for result in results))


def score_costs(session: Session, model_id: str, work: Sequence[ledger.Work], lines: list[str]) -> dict[str, float]:
    """µs a spectrum of loading, rebinning, encoding, scoring and both sinks; appends the profile to ``lines``.

    PostgreSQL's part is rolled back, Milvus's goes to a collection of its own that is dropped.
    """
    import torch

    from models.trained import fitted, loaded_groups

    load, scorer, clock = Loader(session.objects), Scorer(session.objects, model_id, 256, False), Clock()
    scorer(load(work[0]))
    loaded = []
    for item in work:
        with clock("load"):
            loaded.append(load(item))
    with torch.no_grad():
        for row in loaded:
            arrays = {name: row[name].chunk(0).values.to_numpy() for name in ("flux", "ivar", "z")}
            flux_BL, ivar_BL = (arrays[name].reshape(len(arrays["z"]), -1) for name in ("flux", "ivar"))
            with clock("rebin and normalise"):
                found = loaded_groups(scorer.model.vae, scorer.model.sky, flux_BL, ivar_BL, arrays["z"])
                groups = [group for _, group, _ in found]
            with clock("encode and decode"):
                for group in groups:
                    fitted(scorer.model.vae, group)
    start = time.perf_counter()
    with profiled("score: Scorer over loaded chunks, one thread", lines):
        rows = [scorer(row) for row in loaded]
    whole = time.perf_counter() - start
    clock.seconds["scores and packing"] = (
        whole - clock.seconds["rebin and normalise"] - clock.seconds["encode and decode"]
    )
    with clock("unpack on the driver"):
        results = _unpacked(rows)
    _sinks(session, model_id, scorer, results, clock)
    return clock.microseconds(sum(result.n_in for result in results))


def _sinks(session: Session, model_id: str, scorer: Scorer, results: Sequence[ChunkResult], clock: Clock) -> None:
    table = pa.concat_tables([result.rows for result in results if result.rows.num_rows]).combine_chunks()
    session.vectors.ensure_collection(SCRATCH, scorer.model.vae.config.latent)
    try:
        with clock("Milvus"):
            session.vectors.upsert(SCRATCH, table.select(["spectrum_id", "ra", "dec", "z", "snr", "embedding"]))
    finally:
        session.vectors.drop(SCRATCH)
    scores = table.select(["spectrum_id", *RAW])
    with clock("PostgreSQL"):
        _commit(session, "score", results, lambda cur: catalog.upsert_scores(cur, model_id, scores), model_id)


def _unpacked(rows: Sequence[pa.Table]) -> list[ChunkResult]:
    return [ChunkResult.from_row(cells) for row in rows for cells in row.to_pylist()]


def _commit(session: Session, stage: str, results: Sequence[ChunkResult], write: Any, model_id: str = "") -> None:
    """All that a commit does but the commit."""
    with session.conn.cursor() as cur:
        write(cur)
        outcomes = [result.outcome for result in results]
        quarantined = pa.concat_tables([result.quarantined() for result in results])
        ledger.finish(cur, session.config.run, stage, outcomes, model_id=model_id, quarantined=quarantined)
    session.conn.rollback()
