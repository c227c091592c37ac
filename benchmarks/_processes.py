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


@dataclass
class Peaks:
    """Peak memory of a stage's processes in bytes."""

    driver: int = 0
    workers: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))

    def look(self, driver: psutil.Process) -> None:
        """Note what the processes hold now."""
        self.driver = max(self.driver, _memory(driver))
        for process in driver.children(recursive=True):
            name = _title(process)
            if name.startswith("ray::") and name != "ray::IDLE":
                held = self.workers[name.split("::")[1].split("(")[0].split("->")[0]]
                held[process.pid] = max(held.get(process.pid, 0), _memory(process))

    @property
    def worker(self) -> int:
        """The largest worker's peak."""
        return max((size for held in self.workers.values() for size in held.values()), default=0)


@dataclass
class Processor:
    """Processor time over time, by who used it."""

    times: list[float] = field(default_factory=list)  # s since the epoch
    used: list[dict[str, float]] = field(default_factory=list)  # s of processor time so far, by role

    def look(self, driver: psutil.Process, servers: Mapping[str, psutil.Process]) -> None:
        """Note what was used up to now."""
        used: dict[str, float] = defaultdict(float)
        used["driver"] = _seconds(driver)
        for process in driver.children(recursive=True):
            used["workers" if _title(process).startswith("ray::Read") or "MapWorker" in _title(process) else "Ray"] += (
                _seconds(process)
            )
        for name, server in servers.items():
            used[name] = sum(_seconds(process) for process in (server, *server.children(recursive=True)))
        everyone = psutil.cpu_times()
        used["others"] = everyone.user + everyone.nice + everyone.system + everyone.softirq - sum(used.values())
        self.times.append(time.time())
        self.used.append(used)

    def between(self, start: float, end: float) -> dict[str, float]:
        """Processor seconds between two times, by role."""
        spent = {}
        for role in sorted({role for used in self.used for role in used}):
            so_far = np.maximum.accumulate([used.get(role, 0.0) for used in self.used])
            spent[role] = float(np.diff(np.interp((start, end), self.times, so_far))[0])
        return spent


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


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str((process.cmdline() or [""])[0])
    return ""


def _seconds(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
