"""The chart: what it renders is valid, restricted and what skysift reads; what it cannot run it refuses."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import jsonschema
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from pipeline import config as configuration
from pipeline.cli import skysift
from pipeline.config import Config
from tests.helm.conftest import CHART, ROOT, Manifest, Render, helm

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
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
    for values in VARIANTS.values():
        job = render(values, release="a-release-with-a-very-long-name-of-all-53-letters")["RayJob"]
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


@pytest.mark.parametrize("name", ["dr1-pixel", "dr1-main-dark"])
def test_examples_are_those_of_the_docs(name: str, render: Render, tmp_path: Path) -> None:
    config = _config(render(example=name), tmp_path)
    docs = configuration.load(ROOT / "docs" / "examples" / f"{name}.toml")
    assert dataclasses.replace(config, stores=docs.stores) == docs
    assert config.stores.workspace == "/workspace"
    assert config.stores.postgres.startswith("postgresql://")


def test_every_config_key_reaches_skysift(render: Render, tmp_path: Path) -> None:
    """Values of every type, none of them a default, come back from the rendered TOML as they were given."""
    given = {
        section.name: {key: _another(getattr(getattr(Config(), section.name), key), key) for key in keys}
        for section in dataclasses.fields(Config)
        if (keys := _schema_of(section.name).get("properties"))
    }
    given["stores"]["postgres"] = "postgresql://db/sky"
    given["stores"]["milvus"] = "http://milvus"
    given["stores"]["objects"] = 's3://bucket/with "quotes", a \\ and <σ>'
    config = _config(render({"config": given, "run": "full"}), tmp_path)
    assert config.run == "full"
    for section, keys in given.items():
        found = dataclasses.asdict(getattr(config, section))
        for key, value in keys.items():
            assert found[key] == (tuple(value) if isinstance(value, list) else value), f"{section}.{key}"


def test_schema_follows_the_config() -> None:
    _assert_follows(Config, SCHEMA["properties"]["config"], apart={"run", "ray"})


def test_every_value_is_described_and_unknown_ones_refused() -> None:
    for path, node in _objects(SCHEMA, "values"):
        assert node.get("description"), f"{path} has no description"
        if "properties" in node:
            assert node["additionalProperties"] is False, f"{path} takes unknown keys"


def test_every_value_is_in_values_yaml() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert set(values) == set(SCHEMA["properties"]) - {"global"}
    for name in ("image", "serviceAccount", "workspace", "job", "ray", "head", "submitter"):
        assert set(values[name]) == set(SCHEMA["properties"][name]["properties"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"wrokers": {}}, "wrokers is not allowed"),
        ({"config": {"gate": {"zmin": 1}}}, "zmin is not allowed"),
        ({"config": {"gate": {"z_min": "low"}}}, "Expected: number, given: string"),
        ({"job": {"submissionMode": "Nonsense"}}, "submissionMode is not allowed"),
        ({"workers": {"gpu": {"gpus": -1}}}, "gpus: Must be greater than or equal to 1"),
        ({"workers": {"cpu": {"resources": {"cpu": "500m"}}}}, "Expected: integer, given: string"),
        ({"image": {"digest": "latest"}}, "image.digest: Does not match pattern"),
        ({"env": {"PGPASSWORD": "x"}}, "PGPASSWORD"),
        ({"secretEnv": [{"name": "PGPASSWORD", "value": "x"}]}, "value is not allowed"),
        ({"config": {"survey": {"root": ""}}}, "config.survey.root is empty"),
        ({"config": {"stores": {"postgres": ""}}}, "config.stores.postgres is empty"),
        ({"config": {"stores": {"postgres": "postgresql://me:pw@db/sky"}}}, "holds a password"),
        ({"config": {"stores": {"milvus": ""}}}, "config.stores.milvus is empty"),
        ({"config": {"stores": {"objects": "/data"}}}, "config.stores.objects is not a URL"),
        ({"env": {"AWS_ACCESS_KEY_ID": "x"}}, "secretEnv gives AWS_ACCESS_KEY_ID, which env gives already"),
        ({"workers": {"cpu": {"replicas": 0}}}, "a run needs a worker"),
    ],
)
def test_bad_values_are_refused(values: Manifest, words: str, refused: Callable[[Manifest], str]) -> None:
    assert words in refused(values)


def test_lint(tmp_path: Path) -> None:
    for values in ([], ["--values", CHART / "examples" / "dr1-main-dark.yaml"]):
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


def _config(manifests: dict[str, Manifest], folder: Path) -> Config:
    path = folder / "skysift.toml"
    path.write_text(manifests["ConfigMap"]["data"]["skysift.toml"], encoding="utf-8")
    return configuration.load(path)


def _schema_of(section: str) -> Manifest:
    return SCHEMA["properties"]["config"]["properties"].get(section, {})  # type: ignore[no-any-return]


def _another(value: Any, key: str) -> Any:
    """A value of the same type that is not the default."""
    if dataclasses.is_dataclass(value):
        return {each.name: _another(getattr(value, each.name), each.name) for each in dataclasses.fields(value)}
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1_234_567
    if isinstance(value, float):
        return 0.01 if key == "max_failed" else value + 1e-7
    if isinstance(value, tuple):
        return [1, 4] if key == "zwarn" else ["main/dark/1", "b"]
    return f"{value}x"


def _assert_follows(cls: type, schema: Manifest, apart: set[str]) -> None:
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean"}
    hints = get_type_hints(cls)
    names = {each.name for each in dataclasses.fields(cls)} - apart
    assert set(schema["properties"]) == names, f"{cls.__name__}: values.schema.json differs"
    for name in names:
        hint, node = hints[name], schema["properties"][name]
        if dataclasses.is_dataclass(hint):
            _assert_follows(hint, node, {"workspace"} if name == "stores" else set())  # type: ignore[arg-type]
        elif get_origin(hint) is tuple:
            assert node["items"]["type"] == kinds[get_args(hint)[0]], name
        else:
            assert node["type"] == kinds[hint], name


def _objects(node: Manifest, path: str) -> Iterator[tuple[str, Manifest]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _objects(child, f"{path}.{name}")
    if "properties" in node.get("items", {}):
        yield from _objects(node["items"], f"{path}[]")
