"""Other operators' resources: every field that the chart sets is one they have, of its type, and names are theirs.

Read in their definitions: cloudnative-pg v1.30 (api/v1/cluster_types.go), milvus-operator v1.3.8
(apis/milvus.io/v1beta1, pkg/controllers/components.go), prometheus-operator v0.93 (example/prometheus-operator-crd),
Kueue v0.19 (config/components/crd/bases).
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.helm.conftest import ROOT, Manifest, Render
from tests.helm.variants import VARIANTS

QUANTITIES = {"requests": {"*": str}, "limits": {"*": str}}
SELECTOR = {"matchLabels": {"*": str}, "matchExpressions": [{"key": str, "operator": str, "values": [str]}]}
DURATION = re.compile(r"(\d+h)?(\d+m)?(\d+s)?")  # of prometheus-operator

FIELDS: dict[tuple[str, str], Any] = {
    ("postgresql.cnpg.io/v1", "Cluster"): {
        "instances": int,
        "imageName": str,
        "bootstrap": {"initdb": {"database": str, "owner": str}},
        "storage": {"size": str, "storageClass": str},
        "resources": QUANTITIES,
    },
    ("milvus.io/v1beta1", "Milvus"): {"mode": str, "components": {"image": str, "resources": QUANTITIES}},
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "selector": SELECTOR,
        "podMetricsEndpoints": [
            {"port": str, "interval": DURATION, "relabelings": [{"sourceLabels": [str], "targetLabel": str}]}
        ],
    },
    ("monitoring.coreos.com/v1", "ServiceMonitor"): {
        "selector": SELECTOR,
        "endpoints": [
            {
                "port": str,
                "path": str,
                "interval": DURATION,
                "authorization": {"credentials": {"name": str, "key": str}},
            }
        ],
    },
    ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"): {},
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"): {"clusterQueue": str},
    ("kueue.x-k8s.io/v1beta2", "ClusterQueue"): {
        "cohortName": str,
        "namespaceSelector": SELECTOR,
        "queueingStrategy": str,
        "preemption": {"reclaimWithinCohort": str, "withinClusterQueue": str},
        "resourceGroups": [
            {
                "coveredResources": [str],
                "flavors": [{"name": str, "resources": [{"name": str, "nominalQuota": (str, int)}]}],
            }
        ],
    },
}


def _check(value: Any, wanted: Any, where: str) -> None:
    if isinstance(wanted, dict):
        for key, each in value.items():
            assert key in wanted or "*" in wanted, f"{where} has no field {key}"
            _check(each, wanted.get(key, wanted.get("*")), f"{where}.{key}")
    elif isinstance(wanted, list):
        for each in value:
            _check(each, wanted[0], f"{where}[]")
    elif isinstance(wanted, re.Pattern):
        assert wanted.fullmatch(value), f"{where}: {value}"
    else:
        assert isinstance(value, wanted), f"{where}: {value!r}"


def _assert_known(manifest: Manifest) -> tuple[str, str]:
    kind = manifest["apiVersion"], manifest["kind"]
    _check(manifest.get("spec", {}), FIELDS[kind], manifest["kind"])
    return kind


@pytest.mark.parametrize("name", ["own databases", "monitored"])
def test_only_fields_that_operators_know(name: str, render: Render) -> None:
    kinds = {_assert_known(each) for each in render(VARIANTS[name]) if (each["apiVersion"], each["kind"]) in FIELDS}
    assert len(kinds) == 2
    with pytest.raises(AssertionError, match="has no field colour"):
        _check({"colour": "red"}, FIELDS[kinds.pop()], "x")


def test_kueues_example_has_only_known_fields() -> None:
    objects = list(yaml.safe_load_all((ROOT / "k8s" / "kueue.yaml").read_text(encoding="utf-8")))
    assert {_assert_known(each) for each in objects} == {key for key in FIELDS if key[0].startswith("kueue")}
    names = {each["metadata"]["name"] for each in objects if each["kind"] == "ClusterQueue"}
    assert {each["spec"]["clusterQueue"] for each in objects if each["kind"] == "LocalQueue"} == names


def test_the_stores_are_where_their_operators_put_them(render: Render) -> None:
    """CloudNativePG: CLUSTER-rw and the Secret CLUSTER-app; milvus-operator: NAME-milvus in its own namespace."""
    manifests = render(VARIANTS["own databases"])
    cluster, milvus = manifests.one("Cluster"), manifests.one("Milvus")
    assert f'postgres = "postgresql://skysift@{cluster["metadata"]["name"]}-rw:5432/skysift"' in manifests.config()
    assert cluster["spec"]["bootstrap"]["initdb"] == {"database": "skysift", "owner": "skysift"}
    name, namespace = milvus["metadata"]["name"], milvus["metadata"]["namespace"]
    assert namespace == "vectors"
    assert f'milvus = "http://{name}-milvus.{namespace}:19530"' in manifests.config()
    (password,) = (
        each for each in manifests.one("Job")["spec"]["template"]["spec"]["containers"][0]["env"]
        if each["name"] == "PGPASSWORD"
    )  # fmt: skip
    assert password["valueFrom"]["secretKeyRef"] == {"name": f"{cluster['metadata']['name']}-app", "key": "password"}


def test_monitors_select_what_the_chart_labels(render: Render) -> None:
    manifests = render(VARIANTS["monitored"])
    monitor, service = manifests.one("ServiceMonitor")["spec"], manifests.one("Service")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    pods = manifests.one("PodMonitor")["spec"]
    (components,) = pods["selector"]["matchExpressions"]
    cluster = manifests.one("RayJob")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        assert pods["selector"]["matchLabels"].items() <= labels.items()
        assert labels[components["key"]] in components["values"]
        ports = [port["name"] for port in group["template"]["spec"]["containers"][0]["ports"]]
        assert pods["podMetricsEndpoints"][0]["port"] in ports
