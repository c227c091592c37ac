"""SIGTERM, as a pod gets it: a clean end within the grace period, a readable reason, and the same results after all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.session import opened
from pipeline.stores import runs
from pipeline.stores.postgres import scalar, transaction

from .conftest import SETTINGS, Finished, command_line, config_of, contents, skysift, wait_for_workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GRACE = 30  # s, half of the chart's default


def _stopped_in(stage: str, survey: Path, workspace: Path, log: Path) -> tuple[int, float]:
    """Run until the ledger holds a chunk of the stage, stop it, and return its exit status and how long it took."""
    environment = os.environ | {
        "SKYSIFT_LOG_FORMAT": "json",
        "RAY_CLUSTER_NAME": "my-run-abcde",
        "SKYSIFT_NAMESPACE": "sky",
    }
    with log.open("w") as file:
        command = command_line("run", survey, "--workspace", workspace)
        driver = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    wait_for_workspace(driver, workspace)
    with opened(config_of(workspace, survey)) as session:
        deadline = time.monotonic() + 200
        done = 0
        while driver.poll() is None and not done:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
            with transaction(session.conn) as cur:
                cur.execute("SELECT count(*) FROM ledger WHERE stage = %s", (stage,))
                done = int(scalar(cur))
        assert driver.returncode is None, log.read_text()
        start = time.monotonic()
        driver.send_signal(signal.SIGTERM)
        status = driver.wait(GRACE + 30)
    return status, time.monotonic() - start


def test_stopped_by_sigterm_and_run_again(finished: Finished, scratch: Path, tmp_path: Path) -> None:
    workspace = scratch / "stopped"
    for stage in ("ingest", "score"):
        log = tmp_path / f"{stage}.log"
        status, seconds = _stopped_in(stage, finished.survey, workspace, log)
        assert status == 143
        assert seconds < GRACE
        _assert_log(log, stage)
        with opened(config_of(workspace, finished.survey)) as session:
            run = runs.find_run(session.conn, "default")
            assert run is not None
            assert (run.state, run.stage, run.message) == ("failed", stage, "stopped by SIGTERM")
            with transaction(session.conn) as cur:
                cur.execute(
                    "SELECT run_id, rayjob, namespace, ray_cluster, command FROM launches ORDER BY at DESC LIMIT 1"
                )
                assert cur.fetchone() == ("default", "my-run", "sky", "my-run-abcde", "run")
    skysift("run", finished.survey, "--workspace", workspace)
    found, expected = contents(config_of(workspace, finished.survey)), contents(finished.config)
    for name in expected:
        if name != "audit":
            assert found[name] == expected[name], f"{name} differs from an uninterrupted run's"


def _assert_log(log: Path, stage: str) -> None:
    """JSON lines with run and stage, each committed chunk by its id, and the reason in plain words last."""
    *lines, last = log.read_text(encoding="utf-8").splitlines()
    assert last == "skysift: stopped by SIGTERM; the same command goes on where this one stopped"
    events = [json.loads(line) for line in lines]
    assert all({"time", "level", "message"} <= set(event) for event in events)
    assert all(event["run"] == "default" for event in events)
    chunks = [event for event in events if event["message"] == "chunk done" and event["stage"] == stage]
    assert chunks
    assert all(event["chunk"] and event["rows_in"] == event["rows_out"] + event["quarantined"] for event in chunks)
    assert events[-1]["level"] == "ERROR"


def test_a_failure_ends_in_its_reason(tmp_path: Path) -> None:
    """What a RayJob's status shows are the last lines of the log."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "run", *settings, str(tmp_path / "nowhere"), "--workspace", str(tmp_path)],
        capture_output=True, text=True, env=os.environ | {"SKYSIFT_LOG_FORMAT": "json"}, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    event, last = done.stderr.splitlines()
    assert last == f"skysift: survey: {tmp_path}/nowhere is not a folder: check survey.root"
    assert json.loads(event)["message"] == last.removeprefix("skysift: ")
