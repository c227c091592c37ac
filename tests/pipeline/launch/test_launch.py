"""The launcher's commands against an API server that enforces the schemas and the chart's own Role."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import list2cmdline
from typing import Any

import certifi
import pytest
import yaml

from pipeline.cli import main
from pipeline.launch import jobs
from pipeline.launch.filling import filled
from tests.helm.conftest import Manifests, template
from tests.helm.test_policy import refusals

from .apiserver import NAMESPACE, TOKEN, ApiServer, serving

SUCCEEDED = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "startTime": "2026-11-20T08:00:00Z",
             "endTime": "2026-11-20T09:30:05Z"}  # fmt: skip
FAILED = {
    "jobDeploymentStatus": "Failed",
    "jobStatus": "FAILED",
    "reason": "AppFailed",
    "message": "Job entrypoint command failed with exit code 4, last available logs (truncated to 20,000 chars):\n"
    '{"level": "ERROR"}\nskysift: PostgreSQL at db: unreachable\n',
}
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    """The chart as an admin installs it, with the policy."""
    text = template({"templates": {"policy": {"enabled": True}}}, "dr1-pixel", "skysift", tmp_path_factory.mktemp("h"))
    return Manifests(each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each)


@pytest.fixture
def server(chart: Manifests, shared_data: Path) -> Iterator[ApiServer]:
    """The cluster, without any RayJob."""
    schema = json.loads((shared_data / "crds" / "rayjobs_v1.strict.schema.json").read_text(encoding="utf-8"))
    templates = chart.one("ConfigMap", "-templates")
    with serving(ApiServer(schema, chart.one("Role")["rules"], {templates["metadata"]["name"]: templates})) as server:
        yield server


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Path:
    """A user's kubeconfig of that cluster."""
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "c", "cluster": {"server": server.url}}],
                "users": [{"name": "ada", "user": {"token": TOKEN}}, {"name": "eve", "user": {"token": "x"}}],
                "contexts": [
                    {"name": "here", "context": {"cluster": "c", "user": "ada", "namespace": NAMESPACE}},
                    {"name": "eve", "context": {"cluster": "c", "user": "eve", "namespace": NAMESPACE}},
                ],
            }
        )
    )
    return path


@pytest.fixture
def skysift(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; its exit status and all that it printed."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    monkeypatch.setattr(jobs, "POLL", 0.02)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["skysift", *words])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), "".join(capsys.readouterr())
        return 0, "".join(capsys.readouterr())

    return run


def test_submit_makes_the_admins_job_after_a_dry_run(server: ApiServer, chart: Manifests, skysift: Run) -> None:
    status, text = skysift("submit", "run", "--run", "my-run", "--profile", "survey", "--set", "gate.z_max=4")
    assert (status, text) == (
        0, "RayJob my-run is submitted in namespace skysift: `skysift logs -f my-run` follows it\n"
    )  # fmt: skip
    assert server.dry_runs == 1
    made = server.rayjobs["my-run"]
    wanted = chart.templates()["survey"]
    words = ["skysift", "run", "--config", "/etc/skysift/skysift.toml", "--run", "my-run", "--set", "gate.z_max=4"]
    assert shlex.split(made["spec"].pop("entrypoint")) == words
    wanted["spec"].pop("entrypoint")
    assert made["spec"] == wanted["spec"]
    assert made["metadata"]["labels"]["skysift/run"] == "my-run"


def test_the_rights_used_are_the_roles(server: ApiServer, skysift: Run) -> None:
    """All commands together use every right of the chart's Role; the server refuses what it does not give."""
    assert skysift("submit", "run", "--run", "a")[0] == 0
    server.end("a", SUCCEEDED)
    server.add_pod("a-1", "a", ["2026-01-01T00:00:01Z hello"])
    for words in (("jobs",), ("logs", "a"), ("logs", "-f", "a"), ("wait", "a"), ("cancel", "a")):
        assert skysift(*words)[0] == 0
    given = {
        (verb, group, resource, name)
        for rule in server.rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
    }
    assert server.used == given


@pytest.mark.parametrize("release", ["skysift", "sky", "a.b", "my-skysift-2", "a-release-with-a-very-long-name-xyz"])
def test_each_release_has_its_templates(release: str, server: ApiServer, skysift: Run, tmp_path: Path) -> None:
    text = template({}, "dr1-pixel", release, tmp_path)
    manifests = Manifests(each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each)
    templates = manifests.one("ConfigMap", "-templates")
    server.config_maps, server.rules = {templates["metadata"]["name"]: templates}, manifests.one("Role")["rules"]
    status, text = skysift("submit", "run", "--run", "a", "--release", release)
    assert status == 0, text
    assert server.rayjobs["a"]["metadata"]["labels"]["app.kubernetes.io/instance"] == release


def test_a_run_has_one_job_at_a_time(server: ApiServer, skysift: Run) -> None:
    assert skysift("submit", "ingest", "--run", "a")[0] == 0
    server.end("a", RUNNING)
    before = server.rayjobs["a"]
    status, text = skysift("submit", "score", "--run", "a")
    assert status == 5
    assert "run a has a RayJob already" in text
    assert server.rayjobs["a"] is before
    server.end("a", FAILED)
    status, text = skysift("submit", "score", "--run", "a")
    assert status == 0
    assert "replacing the RayJob of a, which has ended (Failed)" in text
    assert server.rayjobs["a"]["metadata"]["labels"]["skysift/verb"] == "score"


def test_only_one_of_many_submits_gets_through(server: ApiServer, kubeconfig: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "submit", "run", "--run", "race"]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    ended = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert sorted(status for _, status in ended) == [0, 5, 5]
    assert all("already" in text for text, status in ended if status)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("submit", "run", "--run", "My_Run"), 2, "run 'My_Run' cannot name a RayJob: at most 47"),
        (("submit", "run", "--run", "a" * 48), 2, "cannot name a RayJob"),
        (
            ("submit", "run", "--run", "a", "--profile", "huge"),
            2,
            "no profile 'huge': choose one of standard, survey, tiny",
        ),
        (("submit", "run", "--run", "a", "--set", "gate.zmax=3"), 2, "unknown key gate.zmax; did you mean gate.z_max?"),
        (("submit", "run", "--run", "a", "--set", "survey.root=$(id)"), 2, "'$()' does not survive a RayJob's command"),
        (("submit", "train", "--run", "a", "--model", "promoted"), 2, "--model is for run and score"),
        (("submit", "dance", "--run", "a"), 2, "Invalid value"),
        (("submit", "run", "--run", "a", "--release", "other"), 2, "name another release with --release"),
        (("submit", "run", "--run", "a", "--context", "eve"), 2, "does not know you: renew the credentials"),
        (("submit", "run", "--run", "a", "--context", "nobody"), 2, "no Kubernetes cluster is configured"),
        (("logs", "nobody"), 5, "RayJob nobody in namespace skysift does not exist"),
        (("wait", "nobody"), 5, "does not exist"),
        (("cancel", "nobody"), 5, "does not exist"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[str, ...], status: int, message: str, skysift: Run, server: ApiServer
) -> None:
    found, text = skysift(*words)
    assert (found, server.rayjobs) == (status, {}), text
    assert message in text
    assert "Traceback" not in text


def test_a_refusal_costs_nothing(server: ApiServer, skysift: Run) -> None:
    server.denial = "the queue is team-a"
    status, text = skysift("submit", "run", "--run", "a")
    assert status == 2
    assert "ValidatingAdmissionPolicy 'skysift' denied request: the queue is team-a" in text
    assert server.rayjobs == {}
    server.denial = ""
    assert skysift("submit", "run", "--run", "a", "--dry-run")[0] == 0
    assert (server.rayjobs, server.dry_runs) == ({}, 1)


def test_an_unknown_field_in_a_template_is_refused(server: ApiServer, skysift: Run) -> None:
    data = server.config_maps["skysift-templates"]["data"]
    server.config_maps["skysift-templates"] = {"data": data | {"tiny.yaml": data["tiny.yaml"] + "  submisionMode: X\n"}}
    status, text = skysift("submit", "run", "--run", "a", "--profile", "tiny")
    assert status == 2
    assert "submisionMode" in text
    assert server.rayjobs == {}


def test_no_cluster_is_one_line(skysift: Run, kubeconfig: Path) -> None:
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:9"
    kubeconfig.write_text(yaml.safe_dump(config))
    status, text = skysift("jobs")
    assert status == 4
    assert "the Kubernetes API does not answer" in text


def test_inside_a_cluster_the_pods_own_account_is_used(
    skysift: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing listens there, but it is asked: the pod's address and files are what Kubernetes gives every pod."""
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "9")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", certifi.where())
    status, text = skysift("jobs")
    assert status == 4, text
    assert "the Kubernetes API does not answer" in text


def test_jobs_lists_state_and_reason(server: ApiServer, skysift: Run) -> None:
    assert skysift("jobs") == (0, "no jobs in namespace skysift\n")
    for name, status in (("good", SUCCEEDED), ("bad", FAILED), ("new", {})):
        skysift("submit", "run", "--run", name)
        server.end(name, status)
    lines = {line.split()[0]: line.split(maxsplit=3) for line in skysift("jobs")[1].splitlines()[1:]}
    assert lines["good"][3].split() == ["SUCCEEDED", "1:30:05"]
    assert lines["bad"][3].split(maxsplit=1) == ["Failed", "AppFailed: skysift: PostgreSQL at db: unreachable"]
    assert lines["new"][3] == "New"


@pytest.mark.parametrize(("status", "code"), [(SUCCEEDED, 0), (FAILED, 4), ({"jobDeploymentStatus": "Failed"}, 1)])
def test_wait_ends_with_the_jobs_own_status(status: dict[str, str], code: int, server: ApiServer, skysift: Run) -> None:
    skysift("submit", "run", "--run", "a")
    server.end("a", RUNNING)
    found, text = skysift("wait", "a", "--timeout", "0.1")
    assert found == 124
    assert "a is still Running after" in text
    threading.Timer(0.2, server.end, ("a", status)).start()
    found, text = skysift("wait", "a")
    assert found == code
    if code == 4:
        assert "a ended as Failed: AppFailed: skysift: PostgreSQL at db: unreachable" in text


def test_logs_follow_from_pod_to_pod(server: ApiServer, skysift: Run) -> None:
    skysift("submit", "run", "--run", "a")
    server.end("a", RUNNING)
    server.add_pod("a-1", "a", ["2026-01-01T00:00:01Z one"], running=True, at=1)

    def operator() -> None:
        time.sleep(0.2)
        server.logs["a-1"].append("2026-01-01T00:00:02Z two")
        server.open_logs.discard("a-1")  # the pod is preempted
        time.sleep(0.2)
        server.add_pod("a-2", "a", ["2026-01-01T00:00:03Z three"], running=True, at=2)
        time.sleep(0.2)
        server.logs["a-2"].append("2026-01-01T00:00:04Z four")
        server.end("a", SUCCEEDED)
        server.open_logs.discard("a-2")

    thread = threading.Thread(target=operator)
    thread.start()
    assert skysift("logs", "-f", "a") == (0, "one\ntwo\nthree\nfour\n")
    thread.join()


AWKWARD = [
    'survey.pixels=["main/dark/9144","main/dark/1"]',
    "survey.root=s3://bucket/a-b_c.d",
    "gate.z_max=4.5",
    "survey.anonymous=true",
    "gate.zwarn=[0, 4]",
]


def test_options_survive_kuberays_shell_and_rays(chart: Manifests, tmp_path: Path) -> None:
    """The submitter's bash splits the entrypoint, Ray joins it with list2cmdline, a shell of its own runs it."""
    job = filled(chart.templates()["tiny"], "run", "a", AWKWARD, "promoted")
    seen = tmp_path / "seen"
    program = tmp_path / "skysift"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nopen({str(seen)!r}, 'w').write(json.dumps(sys.argv[1:]))\n"
    )
    program.chmod(0o755)
    split = f"{sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' {job['spec']['entrypoint']}"
    words = json.loads(subprocess.run(["bash", "-c", split], capture_output=True, text=True, check=True).stdout)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(list2cmdline(words), shell=True, check=True, env=environment, cwd=tmp_path)
    given: Any = json.loads(seen.read_text())
    assert given[:5] == ["run", "--config", "/etc/skysift/skysift.toml", "--run", "a"]
    assert given[-2:] == ["--model", "promoted"]
    overrides = given[6:-2:2]
    assert [each.replace(" ", "") for each in AWKWARD] == overrides


def test_what_is_submitted_passes_the_admins_policy(chart: Manifests) -> None:
    for verb in ("run", "ingest", "train", "score"):
        model = "promoted" if verb in ("run", "score") else ""
        assert refusals(chart, filled(chart.templates()["survey"], verb, "a", AWKWARD, model)) == []
