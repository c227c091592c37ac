"""The admission policy, evaluated by CEL itself: templates pass, changes that are not a user's are refused."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cel_expr_python import cel

from tests.helm.conftest import Manifest, Manifests, Render
from tests.helm.variants import VARIANTS

NAMES = {"object": cel.Type.DYN, "request": cel.Type.DYN, "variables": cel.Type.DYN}


def refusals(manifests: Manifests, job: Manifest, user: str = "ada") -> list[str]:
    """The messages of the validations that fail, as the API server would evaluate them."""
    spec = manifests.one("ValidatingAdmissionPolicy")["spec"]
    data: dict[str, Any] = {"object": job, "request": {"userInfo": {"username": user}}, "variables": {}}
    if not _evaluated(_condition(manifests, "not-a-controller"), data):
        return []
    for variable in spec["variables"]:
        data["variables"][variable["name"]] = _plain(variable["name"], job)
        assert _evaluated(f"({variable['expression']}) == variables.{variable['name']}", data)
    return [each["message"] for each in spec["validations"] if not _evaluated(each["expression"], data)]


def _condition(manifests: Manifests, name: str) -> str:
    """Whom the policy is for; `authorizer` is Kubernetes' own, so tests/cluster evaluates the one that has it."""
    found = {
        each["name"]: each["expression"]
        for each in manifests.one("ValidatingAdmissionPolicy")["spec"]["matchConditions"]
    }
    assert list(found) == ["not-a-controller", "not-an-admin-of-the-policy"]
    return str(found[name])


def _plain(name: str, job: Manifest) -> Any:
    """What each of the policy's variables is."""
    cluster = job["spec"]["rayClusterSpec"]
    ray = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    return {
        "cluster": cluster,
        "labels": job["metadata"].get("labels", {}),
        "rayPods": ray,
        "pods": [*ray, job["spec"]["submitterPodTemplate"]],
    }[name]


def _evaluated(expression: str, data: dict[str, Any]) -> bool:
    return _compiled(expression).eval(data=data).value() is True


@functools.cache
def _compiled(expression: str) -> Any:
    return cel.NewEnv(variables=NAMES).compile(expression)


def _cluster(job: Manifest) -> Manifest:
    return job["spec"]["rayClusterSpec"]  # type: ignore[no-any-return]


def _head_group(job: Manifest) -> Manifest:
    return _cluster(job)["headGroupSpec"]  # type: ignore[no-any-return]


def _head(job: Manifest) -> Manifest:
    return _head_group(job)["template"]["spec"]  # type: ignore[no-any-return]


def _worker(job: Manifest) -> Manifest:
    return _cluster(job)["workerGroupSpecs"][0]  # type: ignore[no-any-return]


def _set(of: Callable[[Manifest], Manifest], **changes: Any) -> Callable[[Manifest], None]:
    return lambda job: of(job).update(changes)


def _container(job: Manifest) -> Manifest:
    return _worker(job)["template"]["spec"]["containers"][0]  # type: ignore[no-any-return]


ELSE = "start from the template"

CHANGES: dict[str, tuple[Callable[[Manifest], None], str]] = {
    "image": (_set(_container, image="evil:1"), "every image is"),
    "start image": (lambda job: _head(job)["initContainers"][0].update(image="evil:1"), "every image is"),
    "command": (_set(_container, command=["sh"]), "containers run what"),
    "hook": (
        lambda job: _head(job)["containers"][0].update(lifecycle={"preStop": {"exec": {"command": ["sh"]}}}),
        "containers run what",
    ),
    "start command": (lambda job: _head(job)["initContainers"][0].update(command=["sh", "-c", "id"]), "containers run"),
    "shell": (lambda job: job["spec"].update(entrypoint=job["spec"]["entrypoint"] + "; id"), "entrypoint is"),
    "substitution": (
        lambda job: job["spec"].update(entrypoint=job["spec"]["entrypoint"] + " --set a=$(id)"),
        "entrypoint",
    ),
    "other command": (lambda job: job["spec"].update(entrypoint="python -c 1"), "entrypoint is"),
    "more workers": (_set(_worker, maxReplicas=99), "size and deadline"),
    "more memory": (lambda job: _container(job)["resources"]["limits"].update(memory="1Ti"), "size and deadline"),
    "more time": (lambda job: job["spec"].update(activeDeadlineSeconds=10**7), "size and deadline"),
    "other profile": (lambda job: job["metadata"]["labels"].update({"skysift/profile": "huge"}), "the label"),
    "account": (_set(_head, serviceAccountName="admin"), "serviceAccountName"),
    "privilege": (
        lambda job: _container(job)["securityContext"].update(allowPrivilegeEscalation=True),
        "securityContext",
    ),
    "host network": (_set(_head, hostNetwork=True), "securityContext"),
    "secret": (
        lambda job: _container(job)["env"].append(
            {"name": "X", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}
        ),
        "Secrets are",
    ),
    "secret volume": (
        lambda job: _head(job)["volumes"].append({"name": "x", "secret": {"secretName": "o"}}),
        "volumes are",
    ),
    "other config": (
        lambda job: _head(job)["volumes"].append({"name": "x", "configMap": {"name": "o"}}),
        "volumes are",
    ),
    "queue": (lambda job: job["metadata"]["labels"].update({"kueue.x-k8s.io/queue-name": "vip"}), "queue"),
    "priority": (_set(_head, priorityClassName="vip"), "priorityClassName"),
    "runtime environment": (lambda job: job["spec"].update(runtimeEnvYAML="pip: [x]"), "runtimeEnvYAML"),
    "mode": (lambda job: job["spec"].update(submissionMode="HTTPMode"), "K8sJobMode"),
    # What KubeRay puts into the shell that starts Ray.
    "start parameters": (lambda job: _head_group(job)["rayStartParams"].update({"temp-dir": "/tmp; id"}), ELSE),
    "workers' start parameters": (lambda job: _worker(job)["rayStartParams"].update(block="true; id"), ELSE),
    "environment": (lambda job: _container(job)["env"].append({"name": "BASH_ENV", "value": "$(id)"}), ELSE),
    "autoscaler's environment": (
        lambda job: _cluster(job)["autoscalerOptions"].update(env=[{"name": "BASH_ENV", "value": "$(id)"}]),
        ELSE,
    ),
    "no token": (lambda job: _cluster(job)["authOptions"].update(mode="disabled"), ELSE),
    "no authentication": (lambda job: _cluster(job).pop("authOptions"), ELSE),
    "load balancer": (_set(_head_group, serviceType="LoadBalancer"), ELSE),
    "pods a worker": (_set(_worker, numOfHosts=16), ELSE),
    "second container": (
        lambda job: _head(job)["containers"].append({**_head(job)["containers"][0], "name": "second"}),
        ELSE,
    ),
    "place": (_set(_head, nodeSelector={"pool": "vip"}), ELSE),
    "restarts": (lambda job: job["spec"].update(backoffLimit=1000), ELSE),
    "after the end": (lambda job: job["spec"].update(ttlSecondsAfterFinished=10**6), ELSE),
}


@pytest.mark.parametrize("values", ["policy", "policy with queue"])
@pytest.mark.parametrize("profile", ["tiny", "standard", "survey"])
def test_templates_and_the_releases_own_jobs_pass(values: str, profile: str, render: Render) -> None:
    manifests = render(VARIANTS[values] | {"jobs": {"run": {"profile": profile}}})
    for job in manifests.ray_jobs():
        assert refusals(manifests, job) == []


@pytest.mark.parametrize("profile", ["tiny", "survey"])
def test_templates_pass_as_the_api_server_keeps_them(profile: str, render: Render, shared_data: Path) -> None:
    """The policy sees what KubeRay's definition has filled in."""
    definition = yaml.safe_load((shared_data / "crds" / "ray.io_rayjobs.yaml").read_text(encoding="utf-8"))
    (schema,) = (each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"] if each["name"] == "v1")
    manifests = render(VARIANTS["policy"])
    job = manifests.templates()[profile]
    _fill_in(job, schema)
    assert _worker(job)["numOfHosts"] == 1
    assert refusals(manifests, job) == []


def _fill_in(value: Any, schema: Manifest) -> None:
    if isinstance(value, dict):
        for key, part in schema.get("properties", {}).items():
            if key not in value and "default" in part:
                value[key] = copy.deepcopy(part["default"])
            if key in value:
                _fill_in(value[key], part)
    elif isinstance(value, list):
        for each in value:
            _fill_in(each, schema["items"])


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("profile", ["tiny", "survey"])
def test_what_is_not_the_users_is_refused(name: str, profile: str, render: Render) -> None:
    manifests = render(VARIANTS["policy"])
    job = copy.deepcopy(manifests.templates()[profile])
    change, message = CHANGES[name]
    change(job)
    found = refusals(manifests, job)
    assert any(message in each for each in found), found


def test_a_job_outside_its_queue_is_refused(render: Render) -> None:
    manifests = render(VARIANTS["policy with queue"])
    job = manifests.templates()["tiny"]
    del job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert refusals(manifests, job) == ["the queue is team-a, its priority the template's"]


def test_a_job_does_not_overtake_others_in_its_queue(render: Render) -> None:
    values = VARIANTS["policy with queue"]
    for priority in ("", "low"):
        manifests = render(values | {"kueue": values["kueue"] | {"priorityClass": priority}})
        job = manifests.templates()["tiny"]
        assert refusals(manifests, job) == []
        job["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] = "vip"
        assert refusals(manifests, job) == ["the queue is team-a, its priority the template's"]


def test_admins_of_the_policy_are_let_through(render: Render) -> None:
    """Helm makes the release's RayJobs before it updates the policy, so an upgrade would fail on its own policy."""
    expression = _condition(render(VARIANTS["policy"]), "not-an-admin-of-the-policy")
    what = 'group("admissionregistration.k8s.io").resource("validatingadmissionpolicies").name("sky-skysift-skysift")'
    assert expression == f'!authorizer.{what}.check("update").allowed()'


def test_no_literal_is_of_mixed_types(render: Render) -> None:
    """The API server refuses them, CEL itself does not."""
    for each in render(VARIANTS["policy"]).one("ValidatingAdmissionPolicy")["spec"]["validations"]:
        assert _mixed(each["expression"]) == []
    assert _mixed('{"a": 1, "b": dyn("c")} == {"a": {"b": 1, "c": true}}') == ["{text: 1, text: true}"]


def _mixed(expression: str) -> list[str]:
    """Maps and lists whose values are of more than one type, dyn aside; the innermost first."""
    rest, found, number = re.sub(r'"(?:\\.|[^"\\])*"', "text", expression), [], 1
    while number:
        for literal in re.findall(r"\{[^{}]*\}|\[[^][{}]*\]", rest):
            values = {part.rpartition(":")[2].strip() for part in literal[1:-1].split(",")} - {""}
            types = {re.sub(r"^\d+$", "number", re.sub("^(true|false)$", "bool", value)) for value in values}
            types -= {value for value in types if value.startswith("dyn(")}
            found += [literal] if len(types) > 1 else []
        rest, number = re.subn(r"\{[^{}]*\}|\[[^][{}]*\]", "literal", rest)
    return found


def test_controllers_are_let_through(render: Render) -> None:
    manifests = render(VARIANTS["policy"])
    job = manifests.templates()["tiny"]
    CHANGES["image"][0](job)
    assert refusals(manifests, job, "system:serviceaccount:kuberay-system:kuberay-operator") == []


def test_the_policy_is_for_this_namespace(render: Render) -> None:
    binding = render(VARIANTS["policy"]).one("ValidatingAdmissionPolicyBinding")["spec"]
    assert binding["validationActions"] == ["Deny"]
    names = binding["matchResources"]["namespaceSelector"]["matchLabels"]
    assert names == {"kubernetes.io/metadata.name": "skysift"}
