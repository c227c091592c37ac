"""Departures put into many spectra by several processes: making one is Python's work, and slower than scoring it."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from threading import Thread
from typing import Final

import numpy as np

from pipeline.injection.departures import CLASSES
from pipeline.injection.grading import Yardstick
from pipeline.injection.hosts import Hosts, Injected, inject
from pipeline.simulate.anomalies import log_uniform

AHEAD: Final = 2  # batches a process, made or being made; no more are held


@dataclass(frozen=True)
class Batch:
    """What to put into some hosts: the classes in turn, from ``first`` on, log-uniform in significance."""

    hosts: Hosts
    first: int  # index of the first class; it goes round
    count: int
    seed: tuple[int, ...]


Made = list[tuple[int, Injected]]  # index of the class, and the spectrum; without those that no host could show


def injected(
    batches: Iterable[Batch], yardstick: Yardstick, significance: tuple[float, float], z_max: float, processes: int
) -> Iterator[tuple[Batch, Made]]:
    """Yield each batch with what was made of it, in order, and the same whatever the number of processes.

    Args:
        batches: taken as there is need of them.
        yardstick: grades departures.
        significance: range of their strengths, σ.
        z_max: largest redshift that the model takes.
        processes: at most; one works in this process.
    """
    if processes <= 1:
        for batch in batches:
            yield batch, _made(batch, yardstick, significance, z_max)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as pool:
        waiting: deque[tuple[Batch, Future[Made]]] = deque()
        for batch in batches:
            waiting.append((batch, pool.submit(_made, batch, yardstick, significance, z_max)))
            if len(waiting) >= AHEAD * processes:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)


def _first(waiting: deque[tuple[Batch, Future[Made]]]) -> tuple[Batch, Made]:
    batch, made = waiting.popleft()
    return batch, made.result()


def _made(batch: Batch, yardstick: Yardstick, significance: tuple[float, float], z_max: float) -> Made:
    rng = np.random.default_rng(batch.seed)
    made = []
    for turn in range(batch.first, batch.first + batch.count):
        index = turn % len(CLASSES)
        one = inject(rng, CLASSES[index], log_uniform(rng, *significance), batch.hosts, yardstick, z_max)
        if one is not None:
            made.append((index, one))
    return made


def _end_with_parent() -> None:
    """End this process when its parent does, killed or not: a pool's processes would wait for work for ever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    Thread(target=watch, daemon=True).start()
