"""SIGTERM becomes an exception; a pod's end stops the drivers that run there, and only those."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline import termination

WAITING = """import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
Path(sys.argv[2]).touch()
time.sleep(60)
"""


def _end_me() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)


def test_sigterm_raises_once_in_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(termination.Terminated), termination.heeded():
        _end_me()
    assert signal.getsignal(signal.SIGTERM) == before


def test_renewed_after_another_handler_was_set() -> None:
    def over() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as `import ray` sets its own
        termination.renew()
        _end_me()

    with pytest.raises(termination.Terminated), termination.heeded():
        over()


def test_nothing_is_renewed_where_nothing_was_heeded() -> None:
    before = signal.getsignal(signal.SIGTERM)
    termination.renew()
    assert signal.getsignal(signal.SIGTERM) == before


def _started(program: Path, verb: str, ready: Path, cluster: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {termination.CLUSTER: cluster}
    process = subprocess.Popen([sys.executable, str(program), verb, str(ready)], env=environment)
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_a_pods_end_stops_its_drivers_and_waits_for_them(tmp_path: Path) -> None:
    program, other = tmp_path / "skysift", tmp_path / "other"
    for path in (program, other):
        path.write_text(WAITING)
    here = secrets.token_hex(8)  # other clusters' drivers, on whatever machine this is, are let alone
    driver = _started(program, "score", tmp_path / "a", here)
    bystanders = [
        _started(program, "serve", tmp_path / "b", here),
        _started(other, "run", tmp_path / "c", here),
        _started(program, "run", tmp_path / "d", f"{here}x"),
    ]
    threading.Thread(target=driver.wait).start()  # a supervisor takes note of its child's end
    environment = os.environ | {termination.CLUSTER: here}
    command = [sys.executable, "-m", "pipeline.termination", "30"]
    done = subprocess.run(command, env=environment, timeout=60, check=False)
    assert done.returncode == 0
    assert driver.wait(5) == 7
    for each in bystanders:
        assert each.poll() is None
        each.kill()
        each.wait()
