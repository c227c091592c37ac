"""The command: help is quick and short, failures are one line with an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

VERBS = (
    "simulate", "run", "plan", "ingest", "train", "score", "calibrate", "evaluate", "report", "status", "models", "db",
    "doctor", "submit", "jobs", "logs", "wait", "cancel", "query", "show", "export",
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
        (("query", "SELECT 1", "--limit", "x"), 2, "'x' is not a whole number (see `python -m pipeline query --help`)"),
        (("query", "SELECT 1", "-o", "a.txt"), 2, "a.txt: the format is not clear from '.txt'; use one of .fits"),
        (("query", "SELECT 1", "-o", "no/a.fits"), 4, "cannot write no/a.fits: there is no folder no"),
        (("show", "5", "-o", "a"), 2, "a: a picture's name should end in .png, .pdf, .svg"),
        (("similar", "nothing"), 3, "nothing: neither a TARGETID nor a file"),
        (("cone", "1", "-95", "1"), 8, "dec is -95, expected -90 to 90 deg"),
        (("cone", "1", "2", "1", "--banana"), 2, "No such option"),
        (("status", "-w", ""), 2, "command line: stores.workspace is empty"),
        (("serve", "--new-token", "ann", "--tokens", "no/t.json"), 2, "cannot write no/t.json: No such file"),
        (("submit",), 2, "Missing option '-r' / '--run'"),
        *(
            (verb, 2, "there is no workspace in ")
            for verb in (
                ("status",),
                ("query", "SELECT 1"),
                ("models", "list"),
                ("report",),
                ("db", "psql"),
                ("db", "stop"),
            )
        ),
        (("score", "."), 6, "run default has no model yet"),
        (("run", "."), 3, "no redshift catalog zcatalog"),
        (("run", ".", "--model", "abc"), 6, "'abc' names no model"),
        (("ingest", "."), 5, "there is no run default: no run is planned yet"),
    ],
)
def test_failures_are_one_line_with_an_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    shown = skysift(*arguments, cwd=tmp_path)
    assert shown.returncode == code, shown.stderr
    assert message in shown.stderr
    assert shown.stderr.splitlines()[-1].startswith("skysift: ")
    assert "Usage" not in shown.stderr
    assert "Traceback" not in shown.stderr
    assert not (tmp_path / "skysift-error.log").exists()


def test_a_folder_that_holds_the_workspace_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "demo" / "workspace" / "postgres").mkdir(parents=True)
    shown = skysift("query", "-w", "demo", "SELECT 1", cwd=tmp_path)
    assert shown.returncode == 2, shown.stderr
    assert f"did you mean {tmp_path}/demo/workspace?" in shown.stderr
    assert [place.name for place in (tmp_path / "demo").iterdir()] == ["workspace"]
