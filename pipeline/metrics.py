"""Metrics of a run for Prometheus, through ``ray.util.metrics``: Ray's agent on the driver's node exports them.

They are counted on the driver, where results are committed: what a metric says is done is in the stores.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.stores.ledger import Outcome

QUANTILES = (0.5, 0.99)
SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]  # s, boundaries of the sinks' histogram


@cache
def _counter(name: str, text: str, *tags: str) -> Any:
    from ray.util.metrics import Counter as RayCounter

    return RayCounter(f"skysift_{name}", text, tag_keys=tags)


@cache
def _gauge(name: str, text: str, *tags: str) -> Any:
    from ray.util.metrics import Gauge

    return Gauge(f"skysift_{name}", text, tag_keys=tags)


@cache
def _histogram(name: str, text: str, *tags: str) -> Any:
    from ray.util.metrics import Histogram

    return Histogram(f"skysift_{name}", text, boundaries=SECONDS, tag_keys=tags)


def committed(run: str, stage: str, outcomes: Sequence[Outcome], quarantined: pa.Table) -> None:
    """Count chunks by state, spectra, and what was kept back by reason, once they are in the stores.

    Args:
        run: the run.
        stage: ingest or score.
        outcomes: of the chunks of one commit.
        quarantined: rows of ``ledger.QUARANTINE_SCHEMA`` of these chunks; a refused file counts as its chunk's rows.
    """
    tags = {"run": run, "stage": stage}
    for state, count in Counter(outcome.state for outcome in outcomes).items():
        chunks = _counter("chunks_total", "Chunks that ended, by state", "run", "stage", "state")
        chunks.inc(count, {**tags, "state": state})
    if done := sum(outcome.n_out for outcome in outcomes):
        _counter("spectra_total", "Spectra that came out of a stage", "run", "stage").inc(done, tags)
    reasons = Counter(quarantined.filter(pa.compute.is_valid(quarantined["targetid"]))["reason"].to_pylist())
    for outcome in outcomes:
        if outcome.state == "failed" and outcome.reason:
            reasons[outcome.reason] += outcome.n_quarantined
    for reason, count in reasons.items():
        kept = _counter("quarantined_total", "Spectra kept back, by reason", "run", "stage", "reason")
        kept.inc(count, {**tags, "reason": reason})


@contextmanager
def timed(run: str, sink: str) -> Iterator[None]:
    """Measure one commit of a sink: objects, milvus or postgres."""
    start = time.perf_counter()
    yield
    seconds = _histogram("sink_seconds", "Seconds of one commit", "run", "sink")
    seconds.observe(max(time.perf_counter() - start, 1e-6), {"run": run, "sink": sink})


def scored(run: str, scores: pa.Table) -> None:
    """Show quantiles of a batch's misfit; they move when new spectra are unlike those that the model learned from."""
    values = scores["global_score"].to_numpy(zero_copy_only=False)
    values = values[np.isfinite(values)]
    if not len(values):
        return
    gauge = _gauge("global_score", "Quantiles of the misfit of the last batch scored", "run", "quantile")
    for quantile in QUANTILES:
        gauge.set(float(np.quantile(values, quantile)), {"run": run, "quantile": str(quantile)})
