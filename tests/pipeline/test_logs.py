"""Logs as JSON: valid lines with run, stage and chunk, wherever standard error is by then."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

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
