"""Logs as JSON: valid lines with run, stage and chunk, wherever standard error is by then."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import logs
from pipeline.progress import progress
from pipeline.stores.ledger import Outcome


@pytest.fixture
def as_json(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that was set up to log JSON; its standard error is elsewhere since."""
    root = logging.getLogger()
    handlers, level, ours = root.handlers[:], root.level, logging.getLogger(logs.LOGGER).level
    root.handlers.clear()
    monkeypatch.setenv("SKYSIFT_LOG_FORMAT", "json")
    monkeypatch.setattr(logs, "_context", {})
    logs.configure()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger(logs.LOGGER).setLevel(ours)


def test_lines_say_run_stage_and_chunk(as_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    logs.bind(run="r", stage="ingest")
    logs.say("three words — σ")
    logs.chunks("ingest", [Outcome("c1", "done", 5, 4, 1), Outcome("c2", "failed", 3, 0, 3, "truncated")])
    with progress("ingest", 8, "spectra") as bar:
        bar.advance(8, "a note")
    said, done, failed, ended = map(json.loads, capsys.readouterr().err.splitlines())
    assert all(event["run"] == "r" and event["stage"] == "ingest" for event in (said, done, failed, ended))
    assert said["message"] == "three words — σ"
    assert (done["chunk"], done["level"], done["rows_out"], "reason" in done) == ("c1", "INFO", 4, False)
    assert (failed["chunk"], failed["level"], failed["reason"]) == ("c2", "WARNING", "truncated")
    assert (ended["done"], ended["total"], ended["unit"]) == (8, 8, "spectra")


def test_exceptions_stay_on_their_line(as_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("other").exception("it broke")
    (event,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert event["logger"] == "other"
    assert "ValueError: two\nlines" in event["exception"]


def test_plain_lines_for_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SKYSIFT_LOG_FORMAT", raising=False)
    logs.say("hello")
    logs.chunks("ingest", [Outcome("c1", "done", 5, 5, 0)])
    assert capsys.readouterr() == ("hello\n", "")


REPORTED = """
import sys, time
from pipeline import cluster, logs
from pipeline.config import Config, StoresConfig

logs.configure()
logs.bind(run="r")
with cluster.connected(Config(stores=StoresConfig(workspace=sys.argv[1]))):
    from ray._private.utils import publish_error_to_driver
    from ray._private.worker import global_worker

    for number in range(20):
        publish_error_to_driver("report", f"a worker died\\n twice {number}", global_worker.gcs_client)
        time.sleep(0.1)
    time.sleep(1)
"""


def test_reports_of_rays_daemons_are_lines_of_ours(tmp_path: Path) -> None:
    """In a process of its own, as this one's Ray belongs to other tests."""
    done = subprocess.run(
        [sys.executable, "-c", REPORTED, str(tmp_path)],
        capture_output=True, text=True, env=os.environ | {"SKYSIFT_LOG_FORMAT": "json"}, timeout=200, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert events
    assert all(event["message"].startswith("a worker died twice") and event["run"] == "r" for event in events)
