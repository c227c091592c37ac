"""A simulated survey, a finished run of it, and a way to compare two runs' results."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pymilvus import MilvusClient

from pipeline import cluster
from pipeline import config as configuration
from pipeline.cli import main
from pipeline.config import Config
from pipeline.session import opened
from pipeline.simulate import simulate
from pipeline.stores.postgres import fetch_table, transaction
from pipeline.stores.registry import collection_name, promoted_model

# small, so that every file has several chunks and every stage several commits
SETTINGS = (
    "ingest.chunk_size=16",
    "train.fit.segments=4",
    "train.vae.hidden=128",
    "train.vae.latent=8",
    "report.anomalies=2",
    "report.normals=1",
)
RESULTS = {
    "spectra": """SELECT spectrum_id, targetid, coadd, survey, program, healpix, ra, dec, z, zerr, zwarn, snr, ebv,
                         quality, chunk_id, shard, row_group, row FROM spectra ORDER BY 1""",
    "scores": "SELECT * FROM scores ORDER BY model_id, spectrum_id",
    "ledger": """SELECT chunk_id, stage, model_id, state, n_in, n_out, n_quarantined, reason FROM ledger
                 ORDER BY 1, 2, 3""",
    "quarantine": "SELECT chunk_id, coadd, targetid, spectrum_id, reason, detail FROM quarantine ORDER BY 1, 3, 5",
    "models": "SELECT model_id, state, data_hash FROM models ORDER BY 1",
    "promotion": "SELECT model_id FROM promotion",
    "audit": "SELECT action, object FROM audit ORDER BY id",
}


@dataclass(frozen=True)
class Finished:
    """A survey, the workspace of a run of it that ended well, and what the command printed."""

    survey: Path
    workspace: Path
    output: str

    @property
    def config(self) -> Config:
        """The config of the run named default in this workspace."""
        return config_of(self.workspace, self.survey)


def config_of(workspace: Path, survey: Path | str, *overrides: str) -> Config:
    """The tests' usual config."""
    return configuration.load(
        None, [*SETTINGS, f'stores.workspace="{workspace}"', f'survey.root="{survey}"', *overrides]
    )


def command_line(verb: str, *arguments: str | Path) -> list[str]:
    """A skysift command with the tests' usual settings, which the arguments may override."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [sys.executable, "-m", "pipeline", verb, *settings, *map(str, arguments)]


def wait_for_workspace(driver: subprocess.Popen[bytes], workspace: Path) -> None:
    """Wait until a driver has begun a database: only then does its workspace exist for others."""
    while not (workspace / "postgres").is_dir():
        assert driver.poll() is None, "the run ended before it had a database"
        time.sleep(0.02)


def skysift(verb: str, *arguments: str | Path, expect: int = 0) -> str:
    """Run a command to its end and return what it printed, both streams together.

    It runs in this process, on the tests' own Ray: starting those anew costs ten seconds a command. What must be
    killed, and the first run of all, run in processes of their own.
    """
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        patch.setattr(sys, "argv", ["skysift", *command_line(verb, *arguments)[3:]])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    assert code == expect, printed.getvalue()
    assert "Traceback" not in printed.getvalue()
    return printed.getvalue()


@pytest.fixture(scope="session", autouse=True)
def _ray(scratch: Path) -> Iterator[None]:
    """One Ray for all commands that run in this process."""
    with cluster.connected(config_of(scratch / "ray", scratch)):
        yield


def contents(config: Config) -> dict[str, Any]:
    """All results of a workspace as plain values: tables without times, and the promoted model's vectors."""
    with opened(config) as session, transaction(session.conn) as cur:
        found: dict[str, Any] = {name: fetch_table(cur, query).to_pylist() for name, query in RESULTS.items()}
        ids = [row["spectrum_id"] for row in found["scores"]]
        session.conn.commit()
        model = promoted_model(session.conn)
        found["vectors"] = _vectors(session._servers.milvus_uri, collection_name(model.model_id), ids) if model else []
    return found


def _vectors(uri: str, collection: str, ids: list[int]) -> list[dict[str, Any]]:
    client = MilvusClient(uri)
    try:
        client.load_collection(collection)
        rows = [dict(row) for row in client.get(collection, ids, output_fields=["*"])]
        assert len(rows) == client.query(collection, output_fields=["count(*)"])[0]["count(*)"]
    finally:
        client.close()
    return sorted(rows, key=lambda row: row["spectrum_id"])


def copy_folder(source: Path, target: Path) -> None:
    """Copy with owners and times: PostgreSQL refuses files of another owner."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def query(config: Config, text: str, arguments: tuple[Any, ...] = ()) -> pa.Table:
    """Rows of a query on a workspace's PostgreSQL."""
    with opened(config) as session, transaction(session.conn) as cur:
        return fetch_table(cur, text, arguments)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A short-named folder: the sockets of servers want short paths."""
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="skysift-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def sky(scratch: Path) -> Path:
    """A simulated survey of 1,200 quasars in a folder."""
    simulate(str(scratch / "sky"), quasars=1200, seed=7, quasar_fraction=0.8, resolution=False)
    return scratch / "sky"


@pytest.fixture(scope="session")
def finished(sky: Path, scratch: Path) -> Finished:
    """An uninterrupted run of the survey, in a process of its own as a user would start it."""
    done = subprocess.run(
        command_line("run", sky, "--workspace", scratch / "finished"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    return Finished(sky, scratch / "finished", done.stdout)


@pytest.fixture
def clone(finished: Finished, scratch: Path, tmp_path: Path) -> Iterator[Callable[[], Finished]]:
    """Make copies of the finished run, survey and all, to be changed at will."""
    made: list[Path] = []

    def copy() -> Finished:
        folder = scratch / f"clone-{tmp_path.name[-20:]}-{len(made)}"
        made.append(folder)
        copy_folder(finished.survey, folder / "sky")
        copy_folder(finished.workspace, folder / "workspace")
        return Finished(folder / "sky", folder / "workspace", finished.output)

    yield copy
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)
