"""The chart: what it renders is valid, restricted, and takes KubeRay's and Kueue's rules into account."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from pipeline.cli import skysift
from tests.helm import regenerate, schemas
from tests.helm.conftest import CHART, ROOT, Manifest, Render, containers, helm, pod_templates
from tests.helm.variants import VARIANTS

OPERATORS = {"PodMonitor", "ServiceMonitor", "Cluster", "Milvus"}  # kinds whose definitions are not at hand


@pytest.mark.parametrize("name", VARIANTS)
def test_every_manifest_is_valid(name: str, render: Render, shared_data: Path) -> None:
    manifests = render(VARIANTS[name])
    job_schema, cluster_schema = (_strict(shared_data / "crds", kind) for kind in ("rayjobs", "rayclusters"))
    for job in manifests.ray_jobs():
        job_schema.validate(job)
        cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": job["spec"]["rayClusterSpec"]}
        cluster_schema.validate(cluster)
    for manifest in (*manifests, *manifests.ray_jobs()):
        if manifest["kind"] not in OPERATORS | {"RayJob"}:
            _validate(json.dumps(manifest))
        for pod in pod_templates(manifest):
            _validate(json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}))


@functools.cache
def _strict(folder: Path, kind: str) -> Any:
    return jsonschema.Draft202012Validator(json.loads((folder / f"{kind}_v1.strict.schema.json").read_text()))


@functools.cache  # most variants share most pods
def _validate(manifest: str) -> None:
    schemas.validate(json.loads(manifest))


def test_validation_sees_unknown_fields(render: Render, shared_data: Path) -> None:
    job = render().one("RayJob")
    pod = {"apiVersion": "v1", "kind": "Pod", **next(pod_templates(job))}
    pod["spec"]["containers"][0]["colour"] = "red"
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        _validate(json.dumps(pod))
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        _strict(shared_data / "crds", "rayjobs").validate(job)


@pytest.mark.parametrize("name", VARIANTS)
def test_pods_are_restricted_and_bounded(name: str, render: Render) -> None:
    manifests = render(VARIANTS[name])
    for manifest in (*manifests, *manifests.ray_jobs()):
        for pod in pod_templates(manifest):
            _assert_restricted(pod)
            for container in containers(pod):
                resources = container["resources"]
                assert _whole(resources["requests"], name) == _whole(resources["limits"], name)
                assert {"cpu", "memory", "ephemeral-storage"} <= set(resources["limits"])
        if manifest["kind"] == "RayJob":
            options = manifest["spec"]["rayClusterSpec"].get("autoscalerOptions")
            if options:
                _assert_container_restricted(options["securityContext"])
                assert options["resources"]["limits"]["memory"]


def _whole(amounts: Manifest, variant: str) -> Manifest:
    """All amounts; where cpuRequest was given, all but CPU, which another test looks at."""
    return {key: each for key, each in amounts.items() if variant != "shared nodes" or key != "cpu"}


def test_on_shared_nodes_less_cpu_is_asked_for(render: Render) -> None:
    """The most stays what Ray and the driver are told."""
    spec = render(VARIANTS["shared nodes"]).one("RayJob")["spec"]
    cluster = spec["rayClusterSpec"]
    (worker,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert (worker["resources"]["requests"]["cpu"], worker["resources"]["limits"]["cpu"]) == ("250m", "2")
    (submitter,) = spec["submitterPodTemplate"]["spec"]["containers"]
    assert (submitter["resources"]["requests"]["cpu"], submitter["resources"]["limits"]["cpu"]) == ("50m", "1")
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["resources"]["requests"]["cpu"] == head["resources"]["limits"]["cpu"]
    assert {"name": "SKYSIFT_MAX_CPUS", "value": "2"} in head["env"]


def _assert_restricted(pod: Manifest) -> None:
    """Every rule of the restricted Pod Security Standard (kubernetes.io, Pod Security Standards)."""
    spec = pod["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "ephemeralContainers"} & set(spec)
    allowed = {
        "configMap",
        "emptyDir",
        "persistentVolumeClaim",
        "projected",
        "secret",
        "downwardAPI",
        "csi",
        "ephemeral",
    }
    assert all(allowed & set(volume) for volume in spec["volumes"])
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert not {"sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile"} & set(spec["securityContext"])
    for container in containers(pod):
        _assert_container_restricted(container["securityContext"])
        assert not any("hostPort" in port for port in container.get("ports", []))
        assert not {"host"} & set(container.get("livenessProbe", {}).get("httpGet", {}))


def _assert_container_restricted(context: Manifest) -> None:
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["runAsNonRoot"]
    assert context["seccompProfile"]["type"] == "RuntimeDefault"
    assert not {"privileged", "procMount", "seLinuxOptions", "windowsOptions"} & set(context)


def test_kuberay_would_take_every_job(render: Render) -> None:
    """The operator's own rules beyond its definitions (KubeRay 1.7, validation.go)."""
    long = render(release="a-release-with-a-very-long-name-of-all-53-letters-xyz")
    for manifests in (long, *(render(values) for values in VARIANTS.values())):
        for job in manifests.ray_jobs():
            assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
            assert len(job["metadata"]["name"]) <= 47
            _assert_job_rules(job["spec"])
            _assert_cluster_rules(job["spec"]["rayClusterSpec"])


def _assert_job_rules(spec: Manifest) -> None:
    assert spec["shutdownAfterJobFinishes"]  # suspension and TTL need it
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
    assert min(spec["activeDeadlineSeconds"], spec["preRunningDeadlineSeconds"]) > 0
    assert spec["backoffLimit"] >= 0
    assert not {"clusterSelector", "suspend", "deletionStrategy"} & set(spec)


def _assert_cluster_rules(cluster: Manifest) -> None:
    assert "upgradeStrategy" not in cluster
    assert cluster["authOptions"]["mode"] == "token"
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0)
    head, groups = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["template"]["metadata"]["annotations"] == {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}
    assert 0 < len(groups) <= 7  # Kueue
    assert len({group["groupName"] for group in groups}) == len(groups)
    for group in groups:
        assert 0 <= group["minReplicas"] == group["replicas"] <= group["maxReplicas"] > 0
        assert group["groupName"] != "head"
    scaling = cluster.get("enableInTreeAutoscaling", False)
    assert scaling == ("autoscalerOptions" in cluster)
    for group in (head, *groups):
        assert "resources" not in group  # given by rayStartParams and the container
        assert "labels" not in group["rayStartParams"]
        spec, names = group["template"]["spec"], set(group["template"]["metadata"]["labels"])
        assert "restartPolicy" not in spec  # autoscaler v2 wants Never, and sets it
        assert "app.kubernetes.io/name" not in names  # the head Service selects by it
        environment = {each["name"] for each in spec["containers"][0]["env"]}
        assert not {"RAY_enable_autoscaler_v2", "RAY_REDIS_ADDRESS", "REDIS_USERNAME"} & environment
    if scaling:
        assert cluster["autoscalerOptions"]["version"] == "v2"
        assert head["template"]["spec"]["automountServiceAccountToken"]
    else:
        assert not head["template"]["spec"]["automountServiceAccountToken"]
        assert all(group["minReplicas"] == group["maxReplicas"] for group in groups)


def test_kueue_gets_a_fixed_size_or_an_elastic_job(render: Render) -> None:
    (plain,) = render().of("RayJob")
    assert "kueue.x-k8s.io/queue-name" not in plain["metadata"]["labels"]
    assert plain["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]
    (fixed,) = render(VARIANTS["kueue"]).of("RayJob")
    assert fixed["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert fixed["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "low"
    assert "enableInTreeAutoscaling" not in fixed["spec"]["rayClusterSpec"]
    (elastic,) = render(VARIANTS["kueue elastic"]).of("RayJob")
    assert elastic["metadata"]["annotations"]["kueue.x-k8s.io/elastic-job"] == "true"
    assert elastic["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"]


def test_gpus_are_asked_for_and_told_to_ray_and_to_the_driver(render: Render) -> None:
    cluster = render(VARIANTS["amd gpus"]).one("RayJob")["spec"]["rayClusterSpec"]
    cpu, gpu = cluster["workerGroupSpecs"]
    assert gpu["rayStartParams"] == {"num-gpus": "2"}
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "2"
    assert "num-gpus" not in cpu["rayStartParams"]
    head = {
        each["name"]: each.get("value") for each in cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert (head["SKYSIFT_MAX_CPUS"], head["SKYSIFT_MAX_GPUS"], head["SKYSIFT_NODE_CPUS"]) == ("8", "6", "2")


def test_preemptible_nodes_are_for_workers_only(render: Render) -> None:
    spec = render(VARIANTS["spot"]).one("RayJob")["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["workerGroupSpecs"][0]["template"]["spec"]["tolerations"][0]["key"] == "spot"
    for pod in (spec["submitterPodTemplate"], cluster["headGroupSpec"]["template"]):
        assert "tolerations" not in pod["spec"]


def test_every_pod_is_placed(render: Render) -> None:
    manifests = render(VARIANTS["placed"] | {"service": {"enabled": True, "tokens": "tokens"}})
    for manifest in manifests:
        for pod in pod_templates(manifest):
            assert {"tolerations", "affinity", "topologySpreadConstraints", "nodeSelector"} <= set(pod["spec"])
            assert pod["spec"]["priorityClassName"] == "batch"
            cheap = pod["metadata"]["labels"]["app.kubernetes.io/component"] == "ray-worker"
            assert pod["spec"]["nodeSelector"] == {"pool": "cheap" if cheap else "steady"}


def test_each_pod_gets_the_secrets_of_its_own_stores_only(render: Render) -> None:
    manifests = render(VARIANTS["all secrets"] | {"service": {"enabled": True, "tokens": "tokens"}})
    everything = {"PGPASSWORD", "MILVUS_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    wanted = {
        "wait-for-schema": {"PGPASSWORD"},
        "migrate": {"PGPASSWORD"},
        "ray-head": everything,
        "ray-worker": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
        "ray-job-submitter": set(),
        "service": everything,
        "doctor": everything,
    }
    seen = set()
    for manifest in manifests:
        for pod in pod_templates(manifest):
            for container in containers(pod):
                given = {each["name"]: each for each in container.get("env", [])}
                secret = {name for name, each in given.items() if "secretKeyRef" in each.get("valueFrom", {})}
                assert secret == wanted[container["name"]], container["name"]
                seen.add(container["name"])
    assert seen == set(wanted)
    assert manifests.one("RayJob")["spec"]["rayClusterSpec"]["authOptions"]["secretName"] == "ray-token"


def test_threads_are_as_many_as_the_containers_cpus(render: Render) -> None:
    """A node's 64 cores would make 64 threads of each pool; Ray tells its workers' tasks, unless the pod does."""
    told = {}
    for manifest in render({"service": {"enabled": True, "tokens": "tokens"}}):
        for pod in pod_templates(manifest):
            for container in pod["spec"]["containers"]:
                given = {each["name"]: each for each in container.get("env", [])}
                told[container["name"]] = given.get("OMP_NUM_THREADS", {}).get("valueFrom")
    of_limits = {"resourceFieldRef": {"resource": "limits.cpu"}}
    assert {name for name, source in told.items() if source == of_limits} == {"ray-head", "service", "doctor"}
    assert told["ray-worker"] is None


def test_tokens_of_the_kubernetes_api_are_the_heads_alone(render: Render) -> None:
    for values in VARIANTS.values():
        for manifest in render(values):
            for pod in pod_templates(manifest):
                component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
                assert component == "ray-head" or not pod["spec"]["automountServiceAccountToken"]


@pytest.mark.parametrize("values", [[], ["--values", CHART / "examples" / "dr1-main-dark.yaml"]])
def test_lint(values: list[str | Path], tmp_path: Path) -> None:
    done = helm("lint", "--strict", CHART, *values, home=tmp_path, values=VARIANTS["whole service"] if values else None)
    assert done.returncode == 0, done.stdout + done.stderr


def test_other_values_make_another_job(render: Render) -> None:
    """Only then does an upgrade run anything: KubeRay ignores changes of a RayJob, Kubernetes refuses a Job's."""
    for kind, changed in (
        ("RayJob", {"digest", "kueue", "spot", "placed"}),
        ("Job", {"digest", "placed", "all secrets"}),
    ):
        first = render().one(kind)["metadata"]["name"]
        names = {name: render(VARIANTS[name]).one(kind)["metadata"]["name"] for name in changed - {"all secrets"}}
        assert len({first, *names.values()}) == len(names) + 1
    other = render({"config": {"gate": {"z_min": 1}}})
    assert other.one("RayJob")["metadata"]["name"] != render().one("RayJob")["metadata"]["name"]
    volume = other.one("RayJob")["spec"]["submitterPodTemplate"]["spec"]["volumes"][0]
    (config,) = (each for each in other.of("ConfigMap") if "skysift.toml" in each["data"])
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    assert config["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_commands_exist(render: Render) -> None:
    manifests = render(VARIANTS["every verb"])
    commands = [shlex.split(job["spec"]["entrypoint"]) for job in manifests.ray_jobs()]
    for manifest in manifests:
        for pod in pod_templates(manifest):
            commands += [container["command"] for container in containers(pod) if "command" in container]
    assert {tuple(words[:3]) for words in commands if words[1] == "db"} == {
        ("skysift", "db", "wait"), ("skysift", "db", "migrate")
    }  # fmt: skip
    for words in commands:
        assert words[0] == "skysift"
        verb = words[1 : words.index("--config")]
        done = CliRunner().invoke(skysift, [*verb, "--help"])
        assert done.exit_code == 0, done.output
        for option in (word for word in words if word.startswith("--")):
            assert option in done.output, f"{verb} has no {option}"


def test_versions_agree() -> None:
    ray = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["ray"]["version"]
    assert f"\nray=={ray}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert f'\nversion = "{chart["appVersion"]}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


AGAIN = "run `make chart` and read the differences"


def test_the_migrations_job_is_named_by_the_migrations(render: Render) -> None:
    known = (CHART / "schema.sha256").read_text(encoding="utf-8").strip()
    assert known == regenerate.schema_hash(), AGAIN
    assert f"-migrate-{known[:8]}-" in render().one("Job")["metadata"]["name"]


@pytest.mark.parametrize("profile", regenerate.PROFILES)
def test_golden_files(profile: str, tmp_path: Path) -> None:
    assert regenerate.golden(profile, tmp_path) == (regenerate.GOLDEN / f"{profile}.yaml").read_text("utf-8"), AGAIN


def test_notes_say_what_to_do_next(tmp_path: Path) -> None:
    """Helm shows them on an install only, which wants a cluster: here they are rendered as a manifest's text."""
    chart = tmp_path / "skysift"
    shutil.copytree(CHART, chart)
    text = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    wrapped = '{{- define "notes" }}' + text + '{{ end }}\nkind: Notes\ntext: {{ include "notes" . | quote }}\n'
    (chart / "templates" / "notes.yaml").write_text(wrapped, encoding="utf-8")
    example = chart / "examples" / "dr1-pixel.yaml"
    for values, there in (({}, False), (VARIANTS["no secrets"], True)):
        done = helm(
            "template", "sky", chart, "-n", "skysift", "-s", "templates/notes.yaml", "-f", example, home=tmp_path,
            values=values,
        )  # fmt: skip
        notes = yaml.safe_load(done.stdout)["text"]
        for words in (
            "helm -n skysift test sky",
            "skysift submit run --namespace skysift --release sky",
        ):
            assert words in notes
        assert "existingClaim" in notes
        assert "kubernetes.io/metadata.name: kuberay-system" in notes
        assert ("secrets.postgres is empty" in notes) == there
