"""Commits beside the work: while one batch of results is written, the workers' next ones are taken in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.stages.result import ChunkResult

ROWS = 4096  # rows that are worth a transaction: smaller ones take a third more processor time a row
SECONDS = 2.0  # after which fewer do, so that little is lost when the driver dies

Commit = Callable[[Sequence[ChunkResult]], None]


def commit_all(results: Iterable[ChunkResult], commit: Commit) -> None:
    """Commit results in batches, in their order, one batch at a time, on a thread beside the one that takes them in.

    An error of ``commit`` is raised here, at the next result at the latest, and nothing is committed after it. At most
    one batch is written while another fills; when both are full, results wait.
    """
    with ThreadPoolExecutor(1, "commit") as pool:
        running: Future[None] | None = None
        batch: list[ChunkResult] = []
        rows, since = 0, time.monotonic()
        for result in results:
            batch.append(result)
            rows += result.n_in
            if running and running.done():
                running.result()
            if rows >= ROWS or time.monotonic() - since >= SECONDS:
                if running:
                    running.result()
                running = pool.submit(commit, batch)
                batch, rows, since = [], 0, time.monotonic()
        if running:
            running.result()
        if batch:  # here too on the thread, which an exception in this one does not interrupt
            pool.submit(commit, batch).result()
