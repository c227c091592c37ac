"""The chart: what it renders is valid, restricted, and takes KubeRay's rules into account."""

from __future__ import annotations

import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import skysift
from tests.helm.conftest import CHART, ROOT, Manifest, Render, helm

DIGEST = "sha256:" + "0" * 64
KUBERNETES = "1.35"

VARIANTS: dict[str, Manifest] = {
    "as it is": {},
    "gpus": {"workers": {"gpu": {"enabled": True, "replicas": 3, "resourceName": "amd.com/gpu", "gpus": 2}}},
    "gpus only": {"workers": {"cpu": {"replicas": 0}, "gpu": {"enabled": True}}},
    "claim": {"workspace": {"existingClaim": "reports"}, "config": {"stores": {"objects": ""}}},
    "digest": {"image": {"repository": "registry.example/skysift", "digest": DIGEST, "pullPolicy": "Always"}},
    "pull secrets": {"imagePullSecrets": ["registry"]},
    "own account": {"serviceAccount": {"create": False, "name": "runner"}},
    "no migration": {"migrate": False},
    "no secrets": {"secretEnv": None},
    "token": {"ray": {"tokenSecret": "ray-token"}},
    "deadline": {"job": {"activeDeadlineSeconds": 86400, "backoffLimit": 0, "ttlSecondsAfterFinished": 0}},
    "environment": {"env": {"SKYSIFT_LOG": "INFO"}},
    "placed": {
        "head": {"nodeSelector": {"pool": "steady"}},
        "workers": {"cpu": {"tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]}},
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_manifest_is_valid(name: str, render: Render, shared_data: Path) -> None:
    manifests = render(VARIANTS[name])
    _rayjob(shared_data / "crds" / "rayjobs_v1.strict.schema.json").validate(manifests["RayJob"])
    for kind, manifest in manifests.items():
        if kind != "RayJob":
            _validate(json.dumps(manifest))
    for template in _pod_templates(manifests["RayJob"]):
        _validate(json.dumps({"apiVersion": "v1", "kind": "Pod", **template}))


@functools.cache
def _rayjob(path: Path) -> Any:
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


@functools.cache  # half a second each, and most variants share most pods
def _validate(manifest: str) -> None:
    kubernetes_validate.validate(json.loads(manifest), KUBERNETES, strict=True)


def test_validation_sees_unknown_fields(render: Render, shared_data: Path) -> None:
    job = render()["RayJob"]
    pod = {"apiVersion": "v1", "kind": "Pod", **_pod_templates(job)[0]}
    pod["spec"]["containers"][0]["colour"] = "red"
    with pytest.raises(kubernetes_validate.ValidationError, match="colour"):
        _validate(json.dumps(pod))
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        _rayjob(shared_data / "crds" / "rayjobs_v1.strict.schema.json").validate(job)


@pytest.mark.parametrize("name", VARIANTS)
def test_pods_are_restricted_and_bounded(name: str, render: Render) -> None:
    for template in _pod_templates(render(VARIANTS[name])["RayJob"]):
        assert not template["spec"]["automountServiceAccountToken"]
        assert all({"configMap", "emptyDir", "persistentVolumeClaim"} & set(v) for v in template["spec"]["volumes"])
        for container in _containers(template):
            _assert_restricted(template["spec"]["securityContext"], container["securityContext"])
            resources = container["resources"]
            assert resources["requests"] == resources["limits"]
            assert {"cpu", "memory", "ephemeral-storage"} <= set(resources["limits"])


def _assert_restricted(pod: Manifest, container: Manifest) -> None:
    """The fields that the restricted Pod Security Standard wants (kubernetes.io, Pod Security Standards)."""
    assert pod["runAsNonRoot"]
    assert pod["runAsUser"] > 0
    assert pod["seccompProfile"]["type"] == "RuntimeDefault"
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}


def test_kuberay_would_take_the_job(render: Render) -> None:
    """KubeRay's own rules beyond its definition: validation.go, ValidateRayJobSpec and ValidateRayClusterSpec."""
    long = render(release="a-release-with-a-very-long-name-of-all-53-letters")
    for manifests in (long, *(render(values) for values in VARIANTS.values())):
        job = manifests["RayJob"]
        assert len(job["metadata"]["name"]) <= 47
        spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
        assert spec["shutdownAfterJobFinishes"]
        assert spec["submissionMode"] == "K8sJobMode"
        assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["workerGroupSpecs"]
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] == group["replicas"] == group["maxReplicas"] > 0
            assert group["groupName"] != "head"
            assert "resources" not in group
        for template in _pod_templates(job):
            assert "app.kubernetes.io/name" not in template["metadata"]["labels"]  # the head Service selects by it


def test_gpus_are_asked_for_and_told_to_ray(render: Render) -> None:
    cpu, gpu = render(VARIANTS["gpus"])["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert gpu["replicas"] == 3
    assert gpu["rayStartParams"] == {"num-gpus": "2"}
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "2"
    assert "num-gpus" not in cpu["rayStartParams"]


def test_secrets_are_references_and_the_submitter_has_none(render: Render) -> None:
    job = render()["RayJob"]
    submitter = job["spec"]["submitterPodTemplate"]["spec"]
    assert "env" not in submitter["containers"][0]
    worker = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    for container in (submitter["initContainers"][0], worker):
        given = {each["name"]: each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"]}
        assert given["PGPASSWORD"] == "skysift-postgres"
        assert given["AWS_SECRET_ACCESS_KEY"] == "skysift-objects"


def test_lint(tmp_path: Path) -> None:
    lists: list[list[str | Path]] = [[], ["--values", CHART / "examples" / "dr1-main-dark.yaml"]]
    for values in lists:
        done = helm("lint", "--strict", CHART, *values, home=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_other_values_make_another_job(render: Render) -> None:
    """Only then does an upgrade run anything: KubeRay ignores changes of a RayJob's spec."""
    names = [render(values)["RayJob"]["metadata"]["name"] for values in VARIANTS.values()]
    assert len(set(names)) == len(names)
    assert render()["RayJob"]["metadata"]["name"] == names[0]
    other = render({"config": {"gate": {"z_min": 1}}})
    assert other["RayJob"]["metadata"]["name"] not in names
    volume = other["RayJob"]["spec"]["submitterPodTemplate"]["spec"]["volumes"][0]
    assert volume["configMap"]["name"] == other["ConfigMap"]["metadata"]["name"]


def test_the_commands_exist(render: Render) -> None:
    spec = render()["RayJob"]["spec"]
    migrate = spec["submitterPodTemplate"]["spec"]["initContainers"][0]["command"]
    for words in (shlex.split(spec["entrypoint"]), migrate):
        assert words[0] == "skysift"
        assert words[-2:] == ["--config", "/etc/skysift/skysift.toml"]
        done = CliRunner().invoke(skysift, [*words[1:-2], "--help"])
        assert done.exit_code == 0, done.output
        assert "--config" in done.output


def test_versions_agree() -> None:
    ray = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["ray"]["version"]
    assert f"\nray=={ray}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert f'\nversion = "{chart["appVersion"]}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_namespace_refuses_what_is_not_restricted() -> None:
    namespace = yaml.safe_load((ROOT / "k8s" / "namespace.yaml").read_text(encoding="utf-8"))
    _validate(json.dumps(namespace))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_image_is_built_from_files_that_are_there() -> None:
    """What the Dockerfile copies exists and passes .dockerignore."""
    dockerfile = (ROOT / "k8s" / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.M) for name in line.split()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
    assert "USER 1000:1000" in dockerfile


def _pod_templates(job: Manifest) -> list[Manifest]:
    cluster = job["spec"]["rayClusterSpec"]
    workers = [group["template"] for group in cluster["workerGroupSpecs"]]
    return [job["spec"]["submitterPodTemplate"], cluster["headGroupSpec"]["template"], *workers]


def _containers(template: Manifest) -> list[Manifest]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]
