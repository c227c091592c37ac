"""End to end on a real cluster: installed, dry-run strictly, run to success and to failure, cancelled, interrupted."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Cluster
from tests.helm.conftest import CHART, Manifest, Manifests, pod_templates
from tests.helm.test_policy import CHANGES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def test_the_api_server_takes_everything_strictly(bare: Cluster, rendered: Manifests) -> None:
    """`helm install` alone only warns of unknown fields, and what a RayJob's pods lack shows only later."""
    jobs = rendered.ray_jobs()
    for job in jobs:
        job["metadata"]["namespace"] = bare.namespace
    pods = []
    for number, pod in enumerate(pod for manifest in (*rendered, *jobs) for pod in pod_templates(manifest)):
        name = {"name": f"pod-{number}", "namespace": bare.namespace, "labels": pod["metadata"].get("labels", {})}
        pod["spec"]["serviceAccountName"] = "default"  # admission wants it there; the chart's are made at the install
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": name, "spec": pod["spec"]})
    assert len(pods) > 20
    items = {"apiVersion": "v1", "kind": "List", "items": [*rendered, *jobs, *pods]}
    said = bare.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(items))
    assert "would violate PodSecurity" not in said


def test_a_wrong_template_is_refused(bare: Cluster, rendered: Manifests) -> None:
    job = rendered.templates()["tiny"]
    job["metadata"]["namespace"] = bare.namespace
    job["spec"]["submisionMode"] = "K8sJobMode"
    command = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    assert "submisionMode" in bare.kubectl(*command, stdin=json.dumps(job), check=False)


@pytest.fixture
def policy(bare: Cluster, rendered: Manifests) -> Iterator[None]:
    """The admission policy and the launcher's account in the namespace, without the rest of the chart."""
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "Role", "RoleBinding")
    objects = [each for kind in kinds for each in rendered.of(kind)]
    objects += [each for each in rendered.of("ServiceAccount") if each["metadata"]["name"].endswith("-launcher")]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    bare.kubectl("create", "-f", "-", stdin=text)
    yield
    bare.kubectl("delete", "-f", "-", stdin=text)


@pytest.mark.usefixtures("policy")
def test_users_are_held_to_the_templates_and_admins_are_not(bare: Cluster, rendered: Manifests) -> None:
    """As the launcher's account, with the chart's own Role; `authorizer` and the types of CEL are the server's own."""
    user = f"--as=system:serviceaccount:{bare.namespace}:skysift-launcher"

    def said(job: Manifest, *words: str) -> str:
        job["metadata"] |= {"namespace": bare.namespace, "name": "tried"}
        return bare.kubectl("create", "--dry-run=server", *words, "-f", "-", stdin=json.dumps(job), check=False)

    def evil() -> Manifest:
        job = rendered.templates()["tiny"]
        CHANGES["image"][0](job)
        return job

    bare.until("the policy", lambda: "denied request" in said(evil(), user), 60)
    assert "created" in said(evil())
    for profile, job in rendered.templates().items():
        assert "created" in said(copy.deepcopy(job), user), profile
        for name, (change, message) in CHANGES.items():
            changed = copy.deepcopy(job)
            change(changed)
            assert message in said(changed, user), (profile, name)


def test_all_stores_are_reachable(cluster: Cluster) -> None:
    said = cluster.helm("test", "skysift", "--logs")
    assert "FAULT" not in said
    assert "tables" in said


def test_a_tiny_run_succeeds_and_its_log_is_followed(cluster: Cluster) -> None:
    status, text = cluster.skysift("submit", "run", "--run", "good", "--profile", "tiny")
    assert status == 0, text
    status, text = cluster.skysift("submit", "run", "--run", "good")
    assert status == 5, text
    status, log = cluster.skysift("logs", "-f", "good")
    assert status == 0, log
    assert '"chunk done"' in log
    assert cluster.skysift("wait", "good")[0] == 0
    assert cluster.get("rayjob", "good")["status"]["jobStatus"] == "SUCCEEDED"
    assert cluster.sql("SELECT state FROM runs WHERE run_id = 'good'") == "finished"
    assert cluster.sql("SELECT rayjob, namespace FROM launches WHERE run_id = 'good'") == f"good|{cluster.namespace}"


def test_a_failing_run_fails_with_its_reason(cluster: Cluster) -> None:
    cluster.helm("upgrade", "skysift", str(CHART), "--reuse-values", "--set", "job.backoffLimit=0", "--wait")
    assert cluster.skysift("submit", "run", "--run", "bad", "--set", "survey.root=s3://skysift/nowhere")[0] == 0
    status, text = cluster.skysift("wait", "bad")
    assert status == 3, text
    job = cluster.get("rayjob", "bad")["status"]
    assert (job["jobStatus"], job["reason"]) == ("FAILED", "AppFailed")
    assert "skysift: " in job["message"].splitlines()[-1]
    cluster.helm("rollback", "skysift", "--wait")


def test_a_cancelled_run_leaves_nothing(cluster: Cluster) -> None:
    # chunks of another size are other chunks, which no run has done yet
    assert cluster.skysift("submit", "run", "--run", "cancelled", "--set", "ingest.chunk_size=30")[0] == 0
    _until_chunks(cluster, "cancelled")
    assert cluster.skysift("cancel", "cancelled")[0] == 0
    cluster.until("the end of all pods", lambda: not cluster.pods("ray-head") and not cluster.pods("ray-worker"))
    assert cluster.skysift("wait", "cancelled")[0] == 5


@pytest.mark.parametrize("component", ["ray-worker", "ray-head"])
def test_a_deleted_pod_only_delays(component: str, cluster: Cluster) -> None:
    run = f"deleted-{component}"
    assert cluster.skysift("submit", "run", "--run", run, "--set", f"ingest.chunk_size={len(run)}")[0] == 0
    _until_chunks(cluster, run)
    (pod,) = cluster.pods(component)
    cluster.kubectl("delete", "pod", pod)
    status, text = cluster.skysift("wait", run)
    assert status == 0, text
    assert cluster.sql(f"SELECT state FROM runs WHERE run_id = '{run}'") == "finished"
    lost = """SELECT count(*) FROM run_chunks r WHERE run_id = '{}' AND NOT EXISTS
              (SELECT FROM ledger l WHERE l.chunk_id = r.chunk_id AND stage = 'score' AND state = 'done')"""
    assert cluster.sql(lost.format(run)) == "0"


def _until_chunks(cluster: Cluster, run: str) -> None:
    """Wait until the run's driver is at work, beyond its plan."""
    query = f"SELECT count(*) FROM runs WHERE run_id = '{run}' AND stage IN ('ingest', 'train', 'score')"
    cluster.until(f"work of {run}", lambda: cluster.sql(query) == "1")
