"""The plain manifests in k8s/: valid, and large enough for what they are said to be for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm import schemas
from tests.helm.conftest import ROOT, Manifest, Render, containers, helm, pod_templates

K8S = ROOT / "k8s"
UNITS = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
RESOURCES = ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu")


def _objects(name: str) -> list[Manifest]:
    return list(yaml.safe_load_all((K8S / name).read_text(encoding="utf-8")))


def _amount(quantity: Any) -> float:
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", str(quantity)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


def _requested(pod: Manifest, more: list[Manifest] | None = None) -> dict[str, float]:
    """What a pod asks for: its containers together, or its largest init container."""
    groups = [each["resources"]["requests"] for each in pod["spec"]["containers"] + (more or [])]
    starts = [each["resources"]["requests"] for each in pod["spec"].get("initContainers", [])]
    return {
        name: max(sum(_amount(each.get(name, 0)) for each in groups),
                  max((_amount(each.get(name, 0)) for each in starts), default=0))
        for name in RESOURCES
    }  # fmt: skip


@pytest.fixture
def whole_run(render: Render) -> tuple[dict[str, float], dict[str, float]]:
    """What a run of the profile survey asks for at its largest, and what the release has beside it."""
    manifests = render({"jobs": {"run": {"profile": "survey"}}, "service": {"enabled": True, "tokens": "tokens"}})
    spec = manifests.one("RayJob")["spec"]
    cluster = spec["rayClusterSpec"]
    autoscaler = {"resources": cluster["autoscalerOptions"]["resources"]}
    pods = [(group["maxReplicas"], _requested(group["template"])) for group in cluster["workerGroupSpecs"]]
    pods += [(1, _requested(spec["submitterPodTemplate"]))]
    pods += [(1, _requested(cluster["headGroupSpec"]["template"], [autoscaler]))]
    run = {name: sum(number * each[name] for number, each in pods) for name in RESOURCES}
    service = manifests.one("Deployment")
    others = [(service["spec"]["replicas"], _requested(service["spec"]["template"]))]
    others += [(1, _requested(next(pod_templates(manifests.one(kind))))) for kind in ("Job", "Pod")]
    return run, {name: sum(number * each[name] for number, each in others) for name in RESOURCES}


@pytest.mark.parametrize("name", ["namespace.yaml", "quota.yaml"])
def test_they_are_valid(name: str) -> None:
    for manifest in _objects(name):
        schemas.validate(manifest)


def test_the_quota_holds_one_survey_and_the_service(whole_run: tuple[dict[str, float], dict[str, float]]) -> None:
    quota = next(each for each in _objects("quota.yaml") if each["kind"] == "ResourceQuota")["spec"]["hard"]
    run, others = whole_run
    for name in RESOURCES:
        assert _amount(quota[f"requests.{name}"]) >= run[name] + others[name], name
    for name in ("cpu", "memory"):
        assert _amount(quota[f"limits.{name}"]) >= run[name] + others[name], name


def test_no_container_is_beyond_the_limit_range(render: Render) -> None:
    (item,) = next(each for each in _objects("quota.yaml") if each["kind"] == "LimitRange")["spec"]["limits"]
    for profile in ("tiny", "standard", "survey"):
        for pod in pod_templates(render({"jobs": {"run": {"profile": profile}}}).one("RayJob")):
            for container in containers(pod):
                limits = container["resources"]["limits"]
                assert all(_amount(limits[name]) <= _amount(most) for name, most in item["max"].items())


def test_the_cohort_admits_one_survey_of_fixed_size(whole_run: tuple[dict[str, float], dict[str, float]]) -> None:
    """Kueue admits all pods of a run that is not elastic at once: its team's quota and what it can borrow."""
    queues = [each["spec"] for each in _objects("kueue.yaml") if each["kind"] == "ClusterQueue"]
    assert len({queue["cohortName"] for queue in queues}) == 1
    run, _ = whole_run
    for name in RESOURCES:
        quotas = [
            each["nominalQuota"]
            for queue in queues
            for group in queue["resourceGroups"]
            for flavor in group["flavors"]
            for each in flavor["resources"]
            if each["name"] == name
        ]
        assert len(quotas) == len(queues)
        assert sum(map(_amount, quotas)) >= run[name], name


def test_the_operators_own_cpu_limit_is_gone(tmp_path: Path) -> None:
    """KubeRay's chart 1.7 limits its operator to 100m CPU, below what we request; Helm merges the two."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: operator, version: 1.7.0}", encoding="utf-8")
    (tmp_path / "values.yaml").write_text("resources: {limits: {cpu: 100m, memory: 512Mi}}", encoding="utf-8")
    (tmp_path / "templates" / "x.yaml").write_text("{{ toYaml .Values.resources }}", encoding="utf-8")
    done = helm("template", "operator", tmp_path, "--values", K8S / "kuberay-values.yaml", home=tmp_path)
    assert done.returncode == 0, done.stderr
    resources = yaml.safe_load(done.stdout)
    assert resources["limits"] == {"memory": "1Gi"}
    assert _amount(resources["requests"]["memory"]) <= _amount(resources["limits"]["memory"])


def test_lifecycle_rules_follow_the_stores_folders() -> None:
    rules = json.loads((K8S / "lifecycle.json").read_text(encoding="utf-8"))["Rules"]
    assert [rule["Filter"]["Prefix"].split("/")[-2:-1] for rule in rules] == [["shards"], ["checkpoints"], []]
    (transition,) = rules[0]["Transitions"]
    assert transition["StorageClass"] == "STANDARD_IA"  # read at once; an archive would have to be thawed first
