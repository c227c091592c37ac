"""Registration, the one driver, metrics and the audit trail."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from pipeline.errors import RunError
from pipeline.stores import manifest, postgres, runs
from pipeline.stores.postgres import Connection, transaction

pytestmark = pytest.mark.servers

CONFIG = {"survey": {"root": "sky", "pixels": ["1"]}, "gate": {"z_max": 4.0}, "score": {"batch": 256}}


def _with(section: str, **changed: object) -> dict[str, object]:
    return {**CONFIG, section: {**CONFIG[section], **changed}}  # type: ignore[dict-item]


def test_registering_again_resumes(conn: Connection) -> None:
    first = runs.register_run(conn, "r", CONFIG, "h1")
    runs.enter_stage(conn, "r", "ingest")
    again = runs.register_run(conn, "r", _with("score", batch=64), "h1")
    assert (first.state, first.created_at) == (again.state, again.created_at) == ("planned", first.created_at)
    assert again.config["score"]["batch"] == 64
    with transaction(conn) as cur:
        cur.execute("SELECT action, object FROM audit")
        assert cur.fetchall() == [("run", "r")]


def test_an_unfinished_run_refuses_changed_inputs(conn: Connection, make_chunk) -> None:  # type: ignore[no-untyped-def]
    runs.register_run(conn, "r", CONFIG, "h1")
    manifest.store_manifest(conn, "r", [make_chunk(1, [1])])
    runs.end_run(conn, "r", failure="lost power")
    with pytest.raises(RunError, match=r"inputs have changed \(gate.z_max was 4.0, now 3.0\); finish it with"):
        runs.register_run(conn, "r", _with("gate", z_max=3.0), "h2")
    with pytest.raises(RunError, match="the survey's catalog or files are others than before"):
        runs.register_run(conn, "r", CONFIG, "h2")
    assert runs.find_run(conn, "r").inputs_hash == "h1"  # type: ignore[union-attr]
    assert runs.register_run(conn, "other", _with("gate", z_max=3.0), "h2").state == "planned"


def test_a_finished_run_takes_new_inputs(conn: Connection, make_chunk) -> None:  # type: ignore[no-untyped-def]
    runs.register_run(conn, "r", CONFIG, "h1")
    manifest.store_manifest(conn, "r", [make_chunk(1, [1])])
    runs.end_run(conn, "r")
    assert runs.register_run(conn, "r", _with("gate", z_max=3.0), "h2").state == "planned"


def test_a_run_without_a_manifest_takes_new_inputs(conn: Connection) -> None:
    """Planning may have failed because the inputs were wrong."""
    runs.register_run(conn, "r", CONFIG, "h1")
    assert runs.register_run(conn, "r", _with("gate", z_max=3.0), "h2").inputs_hash == "h2"


def test_stages_and_ends(conn: Connection) -> None:
    runs.register_run(conn, "r", CONFIG, "h1")
    runs.enter_stage(conn, "r", "train")
    runs.enter_stage(conn, "r", "score", "m1")
    runs.enter_stage(conn, "r", "report")
    run = runs.find_run(conn, "r")
    assert run is not None
    assert (run.state, run.stage, run.model_id) == ("running", "report", "m1")
    runs.end_run(conn, "r", failure="no space")
    run = runs.find_run(conn, "r")
    assert run is not None
    assert (run.state, run.message) == ("failed", "no space")
    assert [one.run_id for one in runs.list_runs(conn)] == ["r"]
    assert runs.find_run(conn, "nosuch") is None


def test_a_second_driver_is_refused_by_name(conn: Connection, postgres_url: str) -> None:
    other = postgres.connect(postgres_url)
    with runs.run_lock(conn, "r"):
        with (
            pytest.raises(RunError, match=rf"run r is already driven by skysift pid {os.getpid()} on"),
            runs.run_lock(other, "r"),
        ):
            pass
        with runs.run_lock(other, "another"):
            pass
        with pytest.raises(ZeroDivisionError), transaction(conn):
            raise ZeroDivisionError  # a rolled-back transaction does not free the run
        with pytest.raises(RunError), runs.run_lock(other, "r"):
            pass
    with runs.run_lock(other, "r"):
        pass
    other.close()


def test_a_killed_driver_frees_its_run(conn: Connection, postgres_url: str) -> None:
    code = (
        "import sys, time\n"
        "from pipeline.stores import postgres, runs\n"
        "with runs.run_lock(postgres.connect(sys.argv[1]), 'r'):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, postgres_url], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match=f"pid {driver.pid} on"), runs.run_lock(conn, "r"):
            pass
        driver.kill()
    for _ in range(50):
        try:
            with runs.run_lock(conn, "r"):
                return
        except RunError:
            time.sleep(0.1)
    pytest.fail("the lock outlived its driver")


def test_metrics_are_replaced_and_nan_is_null(conn: Connection) -> None:
    runs.register_run(conn, "r", CONFIG, "h1")
    runs.record_metrics(conn, "r", "score", {"rate": (10.0, "spectra/s"), "chi2": 1.0}, model_id="m")
    runs.record_metrics(conn, "r", "score", {"rate": (20, "spectra/s"), "chi2": float("nan")}, model_id="m")
    with transaction(conn) as cur:
        cur.execute("SELECT name, value, unit FROM quality_metrics ORDER BY name")
        assert cur.fetchall() == [("chi2", None, ""), ("rate", 20.0, "spectra/s")]
