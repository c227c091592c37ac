"""One stage of skysift as its own process, and the memory that it and Ray's workers take."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

INTERVAL = 0.5  # s between two looks
WORKERS = ("ReadIngest", "MapWorker")  # in the titles of Ray's processes that do the work


@dataclass
class Peaks:
    """Peak memory of a stage's processes in bytes."""

    driver: int = 0
    workers: dict[int, int] = field(default_factory=dict)  # by process; Ray's own helpers are none

    def look(self, driver: psutil.Process) -> None:
        """Note what the processes hold now."""
        self.driver = max(self.driver, _memory(driver))
        for process in driver.children(recursive=True):
            if _works(process):
                self.workers[process.pid] = max(self.workers.get(process.pid, 0), _memory(process))

    @property
    def worker(self) -> int:
        """The largest worker's peak."""
        return max(self.workers.values(), default=0)

    @property
    def count(self) -> int:
        """How many workers there were."""
        return len(self.workers)


@dataclass
class Processor:
    """Processor time over time, by who used it; a Ray worker is called after its task only while it works."""

    times: list[float] = field(default_factory=list)  # s since the epoch
    machine: list[float] = field(default_factory=list)  # s of processor time of all programs so far
    used: dict[int, dict[float, float]] = field(default_factory=lambda: defaultdict(dict))  # by process and time
    roles: dict[int, str] = field(default_factory=dict)

    def look(self, driver: psutil.Process, servers: Mapping[str, psutil.Process]) -> None:
        """Note what was used up to now."""
        now, everyone = time.time(), psutil.cpu_times()
        self.times.append(now)
        self.machine.append(everyone.user + everyone.nice + everyone.system + everyone.softirq)
        self._note(now, driver, "driver")
        for process in driver.children(recursive=True):
            self._note(now, process, "workers" if _works(process) else self.roles.get(process.pid, "Ray"))
        for name, server in servers.items():
            for process in (server, *server.children(recursive=True)):
                self._note(now, process, name)

    def _note(self, now: float, process: psutil.Process, role: str) -> None:
        self.roles[process.pid] = role
        with suppress(psutil.Error):
            times = process.cpu_times()
            self.used[process.pid][now] = float(times.user + times.system)

    def between(self, start: float, end: float) -> tuple[dict[str, float], float]:
        """Processor seconds between two times: by role, and of all other programs."""
        spent: dict[str, float] = defaultdict(float)
        for pid, used in self.used.items():
            spent[self.roles[pid]] += _between(start, end, list(used), list(used.values()))
        return dict(spent), _between(start, end, self.times, self.machine) - sum(spent.values())


def _between(start: float, end: float, times: list[float], used: list[float]) -> float:
    return float(np.diff(np.interp((start, end), times, used))[0])


@dataclass(frozen=True)
class Ended:
    """How a stage's process went."""

    seconds: float
    said: str
    peaks: Peaks
    processor: Processor


def run_stage(stage: str, config: Path, run: str, *options: str, servers: Mapping[str, psutil.Process]) -> Ended:
    """Run ``skysift <stage>`` to its end; ``servers`` are watched with it.

    Raises:
        RuntimeError: it failed; the message holds what it said.
    """
    command = [sys.executable, "-m", "pipeline", stage, "--config", str(config), "--run", run, *options]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        peaks, processor, ended = Peaks(), Processor(), threading.Event()
        watched = (psutil.Process(process.pid), servers, peaks, processor, ended)
        watcher = threading.Thread(target=_watch, args=watched, daemon=True)
        watcher.start()
        said, _ = process.communicate()
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"skysift {stage} ended with {process.returncode}:\n{said}")
    return Ended(seconds, said, peaks, processor)


def _watch(
    process: psutil.Process,
    servers: Mapping[str, psutil.Process],
    peaks: Peaks,
    processor: Processor,
    ended: threading.Event,
) -> None:
    while not ended.wait(INTERVAL):
        with suppress(psutil.Error):
            peaks.look(process)
            processor.look(process, servers)


def _memory(process: psutil.Process) -> int:
    """Memory that is the process's own: without files and Ray's object store, which others map too."""
    with suppress(psutil.Error):
        info = process.memory_info()
        return int(info.rss - info.shared)
    return 0


def _works(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return any(name in (process.cmdline() or [""])[0] for name in WORKERS)
    return False
