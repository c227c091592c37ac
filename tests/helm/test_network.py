"""NetworkPolicies as rendered: a table of flows that must be allowed and of flows that must not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helm.conftest import Manifest, Manifests, Render, pod_templates
from tests.helm.variants import VARIANTS

NARROW = VARIANTS["narrow network"] | {"service": {"enabled": True, "tokens": "tokens"}}
POSTGRES = {"podSelector": {"matchLabels": {"app": "pg"}}}
MILVUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "milvus"}}}
OBJECTS = {"ipBlock": {"cidr": "10.1.0.0/16"}}
API = {"ipBlock": {"cidr": "10.0.0.1/32"}}
DNS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}},
    "podSelector": {"matchLabels": {"app.kubernetes.io/component": "kuberay-operator"}},
}
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
INGRESS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}
COMPONENTS = ("ray-head", "ray-worker", "submitter", "migrations", "service", "doctor")
ALL_PORTS = -1

# (component, direction, peer or component, port): every flow there is; what is not here is forbidden.
FLOWS: list[tuple[str, str, Any, int]] = [
    *((component, "Egress", DNS, 53) for component in COMPONENTS),
    *((component, "Egress", POSTGRES, 6432) for component in ("ray-head", "migrations", "service", "doctor")),
    *((component, "Egress", MILVUS, 19530) for component in ("ray-head", "service", "doctor")),
    *((component, "Egress", OBJECTS, 443) for component in ("ray-head", "ray-worker", "service", "doctor")),
    ("ray-head", "Egress", API, 6443),
    *((a, way, b, ALL_PORTS) for way in ("Egress", "Ingress") for a in COMPONENTS[:2] for b in COMPONENTS[:2]),
    ("submitter", "Egress", "ray-head", 8265),
    ("ray-head", "Ingress", "submitter", 8265),
    ("ray-head", "Ingress", OPERATOR, 8265),
    *((component, "Ingress", PROMETHEUS, 8080) for component in ("ray-head", "ray-worker", "service")),
    ("service", "Ingress", INGRESS, 8080),
]


def _flows(manifests: Manifests) -> list[tuple[str, str, Any, int]]:
    """Every flow that the rendered policies allow, one by one."""
    found = []
    for policy in manifests.of("NetworkPolicy"):
        spec = policy["spec"]
        (way,) = spec["policyTypes"] if len(spec["policyTypes"]) == 1 else ("",)
        for rule in spec.get(way.lower(), []):
            for component in _components(spec["podSelector"]):
                for peer in rule.get("from" if way == "Ingress" else "to", ["anywhere"]):
                    ports = sorted({port["port"] for port in rule.get("ports", [{"port": ALL_PORTS}])})
                    found += [(component, way, each, port) for each in _peers(peer) for port in ports]
    return found


def _components(selector: Manifest) -> list[str]:
    assert selector["matchLabels"] == {"app.kubernetes.io/part-of": "skysift", "app.kubernetes.io/instance": "sky"}
    (expression,) = selector["matchExpressions"]
    assert (expression["key"], expression["operator"]) == ("app.kubernetes.io/component", "In")
    return list(expression["values"])


def _peers(peer: Any) -> list[Any]:
    """Our own pods by name, others as they are."""
    if peer != "anywhere" and set(peer) == {"podSelector"} and "matchExpressions" in peer["podSelector"]:
        return _components(peer["podSelector"])
    return [peer]


def test_these_flows_and_no_others(render: Render) -> None:
    found = _flows(render(NARROW))
    assert [flow for flow in FLOWS if flow not in found] == [], "required, and not allowed"
    assert [flow for flow in found if flow not in FLOWS] == [], "allowed, and not required"


@pytest.mark.parametrize(
    ("component", "port"),
    [("ray-worker", 5432), ("ray-worker", 19530), ("submitter", 443), ("submitter", 5432), ("migrations", 443),
     ("ray-worker", 6443), ("service", 6443)],
)  # fmt: skip
def test_forbidden_even_where_stores_may_be_anywhere(component: str, port: int, render: Render) -> None:
    """Without peers a store's port is open to the pods that need it, and to no others."""
    assert (component, "Egress", "anywhere", port) not in _flows(
        render({"service": {"enabled": True, "tokens": "tokens"}})
    )


def test_everything_else_is_denied_to_every_pod(render: Render) -> None:
    manifests = render(NARROW)
    deny = manifests.one("NetworkPolicy", "-default-deny")["spec"]
    assert set(deny) == {"podSelector", "policyTypes"}
    assert deny["policyTypes"] == ["Ingress", "Egress"]
    components = set()
    for manifest in (*manifests, *manifests.ray_jobs()):
        for pod in pod_templates(manifest):
            labels = pod["metadata"]["labels"]
            assert deny["podSelector"]["matchLabels"].items() <= labels.items()
            components.add(labels["app.kubernetes.io/component"])
    assert components == set(COMPONENTS)


def test_no_policies_where_they_are_turned_off(render: Render) -> None:
    assert not render(VARIANTS["open network"]).of("NetworkPolicy")
