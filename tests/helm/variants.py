"""Values that turn every switch of the chart, over the example of one DR1 pixel."""

from __future__ import annotations

from typing import Any

DIGEST = "sha256:" + "0" * 64
GPU = {"min": 0, "max": 3, "gpus": 2, "resources": {"cpu": 2, "memory": "8Gi", "ephemeralStorage": "9Gi"}}
JOBS = {verb: {"enabled": True, "run": f"r-{verb}"} for verb in ("run", "ingest", "train", "score")}
SPOT = [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no job": {"jobs": {"run": {"enabled": False}}},
    "every verb": {"jobs": JOBS | {"score": {"enabled": True, "run": "s", "args": ["--model", "promoted"]}}},
    "profile tiny": {"jobs": {"run": {"profile": "tiny"}}},
    "profile standard": {"jobs": {"run": {"profile": "standard"}}},
    "profile survey": {"jobs": {"run": {"profile": "survey"}}},
    "amd gpus": {"profiles": {"tiny": {"workers": {"gpu": GPU | {"resourceName": "amd.com/gpu"}}}}},
    "mig": {"profiles": {"tiny": {"workers": {"gpu": GPU | {"resourceName": "nvidia.com/mig-1g.10gb"}}}}},
    "seven groups": {"profiles": {"tiny": {"workers": {f"g{n}": {**GPU, "resourceName": "a.b/c"} for n in range(6)}}}},
    "shared nodes": {
        "profiles": {"tiny": {"workers": {"cpu": {"resources": {"cpuRequest": "250m"}}}}},
        "submitter": {"resources": {"cpu": 1, "cpuRequest": "50m"}},
    },
    "fixed size": {"profiles": {"tiny": {"autoscaling": False}}},
    "kueue": {"kueue": {"queue": "team-a", "priorityClass": "low"}},
    "kueue elastic": {"kueue": {"queue": "team-a", "elastic": True}},
    "spot": {"spot": {"tolerations": SPOT}},
    "claim": {"workspace": {"existingClaim": "reports"}, "config": {"stores": {"objects": ""}}},
    "digest": {"image": {"repository": "registry.example/skysift", "digest": DIGEST, "pullPolicy": "Always"}},
    "pull secrets": {"imagePullSecrets": ["registry"]},
    "own accounts": {"serviceAccount": {"create": False, "name": "runner", "headName": "driver"}},
    "workload identity": {"serviceAccount": {"annotations": {"iam.example/role": "x"}}, "secrets": {"objects": ""}},
    "no migration": {"migrations": {"enabled": False}},
    "all secrets": {"secrets": {"milvus": "m", "ray": "ray-token"}},
    "no secrets": {"secrets": {"postgres": "", "objects": ""}},
    "secret environment": {"secretEnv": [{"name": "AWS_SESSION_TOKEN", "secretName": "s", "key": "token"}]},
    "environment": {"env": {"AWS_REGION": "us-west-2"}},
    "placed": {
        "nodeSelector": {"pool": "steady"},
        "tolerations": SPOT,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
        ]}}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "profiles": {"tiny": {"workers": {"cpu": {"nodeSelector": {"pool": "cheap"}}}}},
        "priorityClassName": "batch",
    },
    "service": {"service": {"enabled": True, "tokens": "tokens"}},
    "whole service": {
        "service": {
            "enabled": True,
            "tokens": "tokens",
            "autoscaling": {"enabled": True},
            "ingress": {"enabled": True, "host": "sky.example", "tlsSecret": "tls", "className": "nginx"},
        }
    },
    "monitored": {
        "service": {"enabled": True, "tokens": "tokens"},
        "monitoring": {
            "labels": {"release": "prometheus"},
            "podMonitor": {"enabled": True},
            "serviceMonitor": {"enabled": True, "tokenSecret": "scrape"},
            "dashboard": {"enabled": True},
        },
    },
    "own databases": {
        "config": {"stores": {"postgres": "", "milvus": ""}},
        "secrets": {"postgres": ""},
        "postgres": {"create": True, "storageClass": "fast", "image": "registry.example/pg:18"},
        "milvus": {"create": True, "image": "registry.example/milvus:2.6", "namespace": "vectors"},
    },
    "open network": {"network": {"policies": False}},
    "narrow network": {
        "network": {
            "postgres": {"to": [{"podSelector": {"matchLabels": {"app": "pg"}}}], "ports": [6432]},
            "milvus": {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "milvus"}}}]},
            "objects": {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [443]},
            "kubernetesApi": {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [6443]},
        }
    },
    "no templates": {"templates": {"enabled": False}},
    "policy": {"templates": {"policy": {"enabled": True}}},
    "policy with queue": {"templates": {"policy": {"enabled": True}}, "kueue": {"queue": "team-a"}},
    "launchers": {"launcher": {"serviceAccount": False, "subjects": [
        {"kind": "Group", "name": "astronomers"}, {"kind": "ServiceAccount", "name": "ci", "namespace": "tools"}
    ]}},
    "extra": {"extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-x"}, "data": {"a": "b"}}
    ]},
}  # fmt: skip
