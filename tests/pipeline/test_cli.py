"""The command: help is quick and short, failures are one line with an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VERBS = (
    "simulate", "run", "plan", "ingest", "train", "score", "calibrate", "evaluate", "report", "status", "models", "db",
    "doctor", "submit", "jobs", "logs", "wait", "cancel",
)  # fmt: skip


def skysift(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=120)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_fits_a_screen(verb: str) -> None:
    shown = skysift(verb, "--help")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['skysift', 'run', '--help']\nfrom pipeline.cli import main\ntry: main()\nfinally: "
    code += "print([m for m in ('torch', 'ray', 'astropy', 'pymilvus', 'matplotlib') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "nowhere"), 4, "survey: nowhere is not a folder: check survey.root"),
        (("run",), 4, "survey: name one"),
        (("run", "--set", "gate.zmax=3", "."), 2, "unknown key gate.zmax; did you mean gate.z_max?"),
        (("run", "--config", "no.toml"), 2, "config file no.toml does not exist"),
        (("run", "--banana"), 2, "No such option"),
        (("frobnicate",), 2, "No such command"),
        (("status",), 5, "there is no run named default here"),
        (("score", "."), 6, "run default has no model yet"),
        (("run", ".", "--model", "abc"), 3, "no redshift catalog zcatalog"),
    ],
)
def test_failures_are_one_line_with_an_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    shown = skysift(*arguments, cwd=tmp_path)
    assert shown.returncode == code, shown.stderr
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr
    assert not (tmp_path / "skysift-error.log").exists()
