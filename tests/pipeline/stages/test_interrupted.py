"""SIGKILL anywhere, then the same command again: the results are those of an uninterrupted run."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.session import Session, opened
from pipeline.stores.postgres import scalar, transaction

from .conftest import Finished, command_line, config_of, contents, skysift

pytestmark = pytest.mark.slow

Moment = Callable[[Session], bool]


def _ledger(stage: str) -> Moment:
    """Some chunks of the stage are done, not all."""

    def reached(session: Session) -> bool:
        with transaction(session.conn) as cur:
            cur.execute("SELECT count(*) FROM ledger WHERE stage = %s", (stage,))
            return int(scalar(cur)) > 0

    return reached


def _in_stage(stage: str) -> Moment:
    def reached(session: Session) -> bool:
        with transaction(session.conn) as cur:
            cur.execute("SELECT coalesce(max(stage), '') FROM runs")
            return str(scalar(cur)) == stage

    return reached


def _checkpointed(session: Session) -> bool:
    return any(session.objects.list("checkpoints"))


MOMENTS: dict[str, Moment] = {
    "ingest": _ledger("ingest"),
    "train": _checkpointed,
    "score": _ledger("score"),
    "calibrate": _in_stage("calibrate"),
}


def _run_until(
    survey: Path, workspace: Path, moment: Moment, victim: Callable[[psutil.Process], psutil.Process]
) -> int:
    """Start the run, kill the victim at the moment, and return the exit code of the driver."""
    command = command_line("run", survey, "--workspace", workspace)
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with opened(config_of(workspace, survey)) as session:
        deadline = time.monotonic() + 120
        while driver.poll() is None and not moment(session):
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.02)
        assert driver.returncode is None, f"the run ended before it could be killed: {driver.returncode}"
        victim(psutil.Process(driver.pid)).send_signal(signal.SIGKILL)
    return driver.wait(240)


def _driver(process: psutil.Process) -> psutil.Process:
    return process


def _worker(process: psutil.Process) -> psutil.Process:
    """A Ray worker that is busy."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in process.children(recursive=True):
            name = " ".join(child.cmdline()[:1])
            if name.startswith("ray::") and "IDLE" not in name and "Stats" not in name and "Supervisor" not in name:
                return child
        time.sleep(0.02)
    raise AssertionError("no busy Ray worker was seen")


def _same(found: dict[str, object], expected: dict[str, object]) -> None:
    for name in expected:
        if name != "audit":
            assert found[name] == expected[name], f"{name} differs from an uninterrupted run's"


def test_killed_in_every_stage_and_run_again(finished: Finished, scratch: Path) -> None:
    workspace = scratch / "killed"
    for moment in MOMENTS.values():
        assert _run_until(finished.survey, workspace, moment, _driver) == -signal.SIGKILL
    skysift("run", finished.survey, "--workspace", workspace)
    _same(contents(config_of(workspace, finished.survey)), contents(finished.config))


def test_a_killed_worker_is_replaced_and_changes_nothing(finished: Finished, scratch: Path) -> None:
    workspace = scratch / "workers"
    assert _run_until(finished.survey, workspace, _in_stage("ingest"), _worker) == 0
    _same(contents(config_of(workspace, finished.survey)), contents(finished.config))
