"""What the chart would run is run: its commands, environment, Secrets and ConfigMap, on a Ray of two nodes here."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from pipeline.servers import Servers
from pipeline.simulate import simulate
from pipeline.stores import postgres
from pipeline.stores.postgres import transaction
from tests.helm.conftest import Manifest, Manifests, Render, containers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECRETS = {
    "skysift-postgres": {"password": "unused-locally"},
    "skysift-objects": {"access-key-id": "a", "secret-access-key": "b"},
}


@pytest.fixture(scope="module")
def database(workspace_servers: Servers) -> Iterator[str]:
    """An empty database: nothing has been migrated."""
    url, name = workspace_servers.postgres_url, f"chart_{secrets.token_hex(4)}"
    conn = psycopg2.connect(url.replace("/skysift?", "/postgres?"))
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute(f"CREATE DATABASE {name}")
        yield url.replace("/skysift?", f"/{name}?")
        cur.execute(f"DROP DATABASE {name} WITH (FORCE)")
    conn.close()


@pytest.fixture(scope="module")
def release(
    database: str, milvus_lite_uri: str, render: Render, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Manifests, Path]:
    """The chart for a small simulated survey, and the folder that stands for its volumes."""
    folder = tmp_path_factory.mktemp("pod")
    simulate(str(folder / "sky"), quasars=500, seed=3, quasar_fraction=0.8, resolution=False)
    config = {
        "survey": {"root": str(folder / "sky"), "region": "", "anonymous": False, "pixels": []},
        "stores": {"postgres": database, "milvus": milvus_lite_uri, "objects": "", "endpoint": ""},
        "ingest": {"chunk_size": 64},
        "train": {"fit": {"segments": 2}, "vae": {"hidden": 64, "latent": 6}},
        "report": {"anomalies": 1, "normals": 1},
    }
    values = {"config": config, "run": "tiny", "workspace": {"existingClaim": "shared"}, "env": {"RAY_DEDUP_LOGS": "0"}}
    (folder / "workspace").mkdir()
    manifests = render(values)
    text = manifests.config().replace('"/workspace"', json.dumps(str(folder / "workspace")))
    (folder / "skysift.toml").write_text(text, encoding="utf-8")
    return manifests, folder


def environment(container: Manifest, **more: str) -> dict[str, str]:
    """A container's environment with its Secrets and fields filled in."""
    found = {}
    for each in container["env"]:
        source = each.get("valueFrom", {})
        if "secretKeyRef" in source:
            found[each["name"]] = SECRETS[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            found[each["name"]] = {"metadata.namespace": "skysift"}[source["fieldRef"]["fieldPath"]]
        elif "resourceFieldRef" in source:
            assert source["resourceFieldRef"]["resource"] == "limits.cpu"
            found[each["name"]] = str(container["resources"]["limits"]["cpu"])
        else:
            found[each["name"]] = each["value"]
    return {**os.environ, **found, **more}


def run(command: list[str] | str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a container's command, or an entrypoint by a shell as Ray does, with the mounts where they are here."""
    here = str(folder / "skysift.toml")
    program = folder / "bin" / "skysift"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline "$@"\n')
    program.chmod(0o755)
    env = env | {"PATH": f"{program.parent}:{env['PATH']}"}
    if isinstance(command, str):
        words: Any = command.replace("/etc/skysift/skysift.toml", here)
    else:
        words = [here if word == "/etc/skysift/skysift.toml" else word for word in command]
    shell = isinstance(command, str)
    return subprocess.run(words, shell=shell, env=env, capture_output=True, text=True, timeout=800, check=False)


def test_the_release_runs(release: tuple[Manifests, Path], database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests, folder = release
    job = manifests.one("RayJob")["spec"]
    head = job["rayClusterSpec"]["headGroupSpec"]["template"]
    wait, driver = containers(head)
    quick = [*wait["command"][:-1], "1"]
    waited = run(quick, folder, environment(wait))
    assert waited.returncode == 4, waited.stderr
    assert "run `skysift db migrate`" in waited.stderr
    (migrate,) = containers(manifests.one("Job")["spec"]["template"])
    migrated = run(migrate["command"], folder, environment(migrate))
    assert migrated.returncode == 0, migrated.stderr
    assert run(quick, folder, environment(wait)).returncode == 0

    with _ray(job["rayClusterSpec"], monkeypatch) as address:
        more = {"RAY_ADDRESS": address, "RAY_CLUSTER_NAME": "sky-skysift-run-0123abcd-xyzab"}
        done = run(job["entrypoint"], folder, environment(driver, **more))
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert {event["run"] for event in events} == {"tiny"}
    assert {"ingest", "score"} <= {event["stage"] for event in events if event["message"] == "chunk done"}
    assert any(event["message"] == "train progress" for event in events)
    for value in ("unused-locally",):
        assert value not in done.stdout + done.stderr
    _assert_recorded(database)

    (doctor,) = containers(manifests.one("Pod"))
    checked = run(doctor["command"], folder, environment(doctor))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "tables" in checked.stdout


def _assert_recorded(database: str) -> None:
    conn = postgres.connect(database)
    with transaction(conn) as cur:
        cur.execute("SELECT run_id, rayjob, namespace, command, config -> 'run' FROM launches")
        assert cur.fetchall() == [("tiny", "sky-skysift-run-0123abcd", "skysift", "run", "tiny")]
        cur.execute("SELECT state FROM runs")
        assert cur.fetchall() == [("finished",)]
    conn.close()


class _ray:  # noqa: N801 (used as a function)
    """The RayCluster of a spec: a head without CPUs and one worker of the first group, with a token."""

    def __init__(self, spec: Manifest, patch: pytest.MonkeyPatch) -> None:
        assert spec["authOptions"]["mode"] == "token"
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        self.head_cpus = int(spec["headGroupSpec"]["rayStartParams"]["num-cpus"])
        worker = spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
        self.worker_cpus = int(worker["resources"]["limits"]["cpu"])

    def __enter__(self) -> str:
        """Start it in a process of its own: Ray reads its token once a process, and tests before used Ray in ours."""
        command = [sys.executable, "-c", _CLUSTER, str(self.head_cpus), str(self.worker_cpus)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        address = self.process.stdout.readline().strip()
        assert address, "Ray's nodes did not start"
        return address

    def __exit__(self, *error: object) -> None:
        self.process.communicate(timeout=60)


_CLUSTER = """
import sys

from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": int(sys.argv[1]), "include_dashboard": False})
cluster.add_node(num_cpus=int(sys.argv[2]))
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
