"""SIGTERM, as preemption and ``kubectl delete`` send it: the work in hand is finished or let go, then the command ends.

The signal becomes an exception in the main thread. A transaction under way on another thread is committed, one that
the main thread holds is rolled back, what waited for a commit is dropped: the ledger knows nothing of it and the same
command does it again.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_CODE = 128 + signal.SIGTERM
CLUSTER = "RAY_CLUSTER_NAME"  # which KubeRay gives all that runs in a pod of it
DRIVERS = ("run", "ingest", "train", "score")  # verbs that a RayJob's entrypoint has


class Terminated(BaseException):
    """The process was told to end. Not an `Exception`: nothing that retries may swallow it."""


_heeding = False


def renew() -> None:
    """Take SIGTERM back after ``import ray``, whose own handler ends the process where it stands."""
    if _heeding:
        signal.signal(signal.SIGTERM, _raise)


@contextmanager
def heeded() -> Iterator[None]:
    """Raise `Terminated` in the main thread at the first SIGTERM; later ones change nothing."""
    global _heeding
    before, _heeding = signal.signal(signal.SIGTERM, _raise), True
    try:
        yield
    finally:
        _heeding = False
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, frame: FrameType | None) -> None:
    global _heeding
    _heeding = False
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def stop_drivers(seconds: float) -> int:
    """Stop the drivers of this pod's Ray cluster, wait for their end, and return how many have not come to it.

    A deleted head pod runs this first (``preStop``): Ray would otherwise be gone before its driver hears of it.
    """
    import psutil

    mine = os.environ.get(CLUSTER, "")
    found = [each for each in psutil.process_iter(["cmdline", "environ"]) if _is_driver(each.info, mine)]
    for driver in found:
        driver.terminate()
    return len(psutil.wait_procs(found, timeout=seconds)[1])


def _is_driver(process: dict[str, Any], cluster: str) -> bool:
    words, environment = process["cmdline"] or [], process["environ"] or {}
    named = len(words) > 2 and Path(words[1]).name == "skysift" and words[2] in DRIVERS
    return named and environment.get(CLUSTER) == cluster


if __name__ == "__main__":
    sys.exit(stop_drivers(float(sys.argv[1])))
