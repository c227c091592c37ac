"""The admission policy, evaluated by CEL itself: templates pass, changes that are not a user's are refused."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
from cel_expr_python import cel

from tests.helm.conftest import Manifest, Manifests, Render
from tests.helm.variants import VARIANTS

NAMES = {"object": cel.Type.DYN, "request": cel.Type.DYN, "variables": cel.Type.DYN}


def refusals(manifests: Manifests, job: Manifest, user: str = "ada") -> list[str]:
    """The messages of the validations that fail, as the API server would evaluate them."""
    spec = manifests.one("ValidatingAdmissionPolicy")["spec"]
    data: dict[str, Any] = {"object": job, "request": {"userInfo": {"username": user}}, "variables": {}}
    if not all(_evaluated(each["expression"], data) for each in spec["matchConditions"]):
        return []
    for variable in spec["variables"]:
        data["variables"][variable["name"]] = _plain(variable["name"], job)
        assert _evaluated(f"({variable['expression']}) == variables.{variable['name']}", data)
    return [each["message"] for each in spec["validations"] if not _evaluated(each["expression"], data)]


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


def _head(job: Manifest) -> Manifest:
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]  # type: ignore[no-any-return]


def _worker(job: Manifest) -> Manifest:
    return job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]  # type: ignore[no-any-return]


def _set(of: Callable[[Manifest], Manifest], **changes: Any) -> Callable[[Manifest], None]:
    return lambda job: of(job).update(changes)


def _container(job: Manifest) -> Manifest:
    return _worker(job)["template"]["spec"]["containers"][0]  # type: ignore[no-any-return]


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
}


@pytest.mark.parametrize("values", ["policy", "policy with queue"])
@pytest.mark.parametrize("profile", ["tiny", "standard", "survey"])
def test_templates_and_the_releases_own_jobs_pass(values: str, profile: str, render: Render) -> None:
    manifests = render(VARIANTS[values] | {"jobs": {"run": {"profile": profile}}})
    for job in manifests.ray_jobs():
        assert refusals(manifests, job) == []


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
    assert refusals(manifests, job) == ["the queue is team-a"]


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
