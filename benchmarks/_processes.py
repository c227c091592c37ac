"""One stage of skysift as its own process, and the memory that it and Ray's workers take."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psutil

INTERVAL = 0.5  # s between two looks


@dataclass
class Peaks:
    """Peak memory in bytes: proportional (shared pages divided among who maps them), of processes by role."""

    driver: int = 0
    workers: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))

    def look(self, root: psutil.Process) -> None:
        """Note what the processes hold now."""
        self.driver = max(self.driver, _memory(root))
        for process in root.children(recursive=True):
            try:
                name = (process.cmdline() or [""])[0]
                if not name.startswith("ray::") or name == "ray::IDLE":
                    continue
                name = name.split("::")[1].split("(")[0]
                held = self.workers[name]
                held[process.pid] = max(held.get(process.pid, 0), _memory(process))
            except psutil.Error:
                continue

    @property
    def worker(self) -> int:
        """The largest worker's peak."""
        return max((size for held in self.workers.values() for size in held.values()), default=0)


@dataclass(frozen=True)
class Ended:
    """How a stage's process went."""

    seconds: float
    said: str
    peaks: Peaks


def run_stage(stage: str, config: Path, run: str, *options: str) -> Ended:
    """Run ``skysift <stage>`` to its end.

    Raises:
        RuntimeError: it failed; the message holds what it said.
    """
    command = [sys.executable, "-m", "pipeline", stage, "--config", str(config), "--run", run, *options]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        peaks, ended = Peaks(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(psutil.Process(process.pid), peaks, ended), daemon=True)
        watcher.start()
        said, _ = process.communicate()
        seconds = time.perf_counter() - start
        ended.set()
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"skysift {stage} ended with {process.returncode}:\n{said}")
    return Ended(seconds, said, peaks)


def _watch(process: psutil.Process, peaks: Peaks, ended: threading.Event) -> None:
    while not ended.wait(INTERVAL):
        try:
            peaks.look(process)
        except psutil.Error:
            return


def _memory(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", info.rss))
