"""SIGKILL anywhere, then the same command again: the results are those of an uninterrupted run."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline.session import Session, opened
from pipeline.stores.postgres import scalar, transaction

from .conftest import Finished, command_line, config_of, contents, skysift, wait_for_workspace

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


def _start(survey: Path, workspace: Path) -> subprocess.Popen[bytes]:
    command = command_line("run", survey, "--workspace", workspace)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _kill_at(moment: Moment, survey: Path, workspace: Path) -> None:
    """Start the run and kill its driver at the moment."""
    driver = _start(survey, workspace)
    wait_for_workspace(driver, workspace)
    with opened(config_of(workspace, survey)) as session:
        deadline = time.monotonic() + 120
        while driver.poll() is None and not moment(session):
            assert time.monotonic() < deadline, "the moment never came"
            time.sleep(0.02)
        assert driver.returncode is None, f"the run ended before it could be killed: {driver.returncode}"
        driver.send_signal(signal.SIGKILL)
    driver.wait(60)


def _busy(driver: psutil.Process, work: str) -> psutil.Process | None:
    """A Ray worker that does this work now."""
    with suppress(psutil.NoSuchProcess):
        for child in driver.children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if " ".join(child.cmdline()).startswith(f"ray::{work}"):
                    return child
    return None


def _same(found: dict[str, object], expected: dict[str, object]) -> None:
    for name in expected:
        if name != "audit":
            assert found[name] == expected[name], f"{name} differs from an uninterrupted run's"


def test_killed_in_every_stage_and_run_again(finished: Finished, scratch: Path) -> None:
    workspace = scratch / "killed"
    for moment in MOMENTS.values():
        _kill_at(moment, finished.survey, workspace)
    skysift("run", finished.survey, "--workspace", workspace)
    _same(contents(config_of(workspace, finished.survey)), contents(finished.config))


def test_a_killed_worker_of_any_stage_is_replaced_and_changes_nothing(finished: Finished, scratch: Path) -> None:
    workspace = scratch / "workers"
    driver = _start(finished.survey, workspace)
    process, alive = psutil.Process(driver.pid), ["ReadIngest", "RayTrainWorker", "MapWorker"]
    while driver.poll() is None:
        for work in alive.copy():
            if worker := _busy(process, work):
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
                    alive.remove(work)
        time.sleep(0.05)
    assert not alive, f"no worker was seen that did {alive}"
    assert driver.returncode == 0
    _same(contents(config_of(workspace, finished.survey)), contents(finished.config))
