"""The image, built from k8s/Dockerfile on a plain Debian bookworm and run as KubeRay would run it; or a loud skip.

SKYSIFT_TEST_BASE names the base: an image that buildah has or can pull, or the folder of a root file system, such as
debootstrap makes. SKYSIFT_TEST_BUILD holds further words for `buildah build`, such as --volume /wheels:/wheels:ro.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).with_name("as_kuberay.sh")
NAME = "localhost/skysift:of-the-test"
HOW = "the image was not built: it needs buildah, root, and SKYSIFT_TEST_BASE (see tests/cluster/test_image.py)"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def buildah(*words: str | Path, check: bool = True) -> str:
    """Run buildah; what it and its command print."""
    done = subprocess.run(["buildah", *map(str, words)], capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0 or not check, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """The image's name."""
    base, words = os.environ.get("SKYSIFT_TEST_BASE", ""), shlex.split(os.environ.get("SKYSIFT_TEST_BUILD", ""))
    if not base or not shutil.which("buildah"):
        pytest.skip(HOW)
    if Path(base).is_dir():
        empty = buildah("from", "scratch").strip()
        buildah("add", empty, base, "/")
        base = "localhost/skysift-base:of-the-test"
        buildah("commit", "--rm", empty, base)
    options = ["--isolation", "chroot", "--network", "host", "--build-arg", f"BASE={base}", *words]
    buildah("build", *options, "--file", ROOT / "k8s" / "Dockerfile", "--tag", NAME, ROOT)
    yield NAME
    buildah("rmi", NAME)


@pytest.fixture(scope="module")
def inside(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], Path]]:
    """The beginning of a command in a container, and the folder that it sees as /workspace."""
    folder = tmp_path_factory.mktemp("workspace")
    folder.chmod(0o777)
    name = buildah("from", image).strip()
    place = ["--volume", f"{folder}:/workspace", "--workingdir", "/workspace"]
    yield ["run", "--isolation", "chroot", *place, name], folder
    buildah("rm", name)


def test_user_and_programs(inside: tuple[list[str], Path]) -> None:
    run, _ = inside
    assert buildah(*run, "id", "-u").strip() == "1000"
    for shell in ("-c", "-lc"):
        said = buildah(*run, "/bin/bash", shell, "command -v python ray skysift").split()
        assert said == [f"/opt/skysift/bin/{program}" for program in ("python", "ray", "skysift")]
    assert "version" in buildah(*run, "skysift", "--version")
    for compiler in ("cc", "gcc", "g++", "make"):
        assert not buildah(*run, "bash", "-c", f"command -v {compiler} || true").strip()


def test_a_user_that_no_passwd_names(inside: tuple[list[str], Path]) -> None:
    """As on OpenShift: another uid, of group 0."""
    run, _ = inside
    run = [*run[:-1], "--user", "4242:0", run[-1]]
    command = "import getpass, pathlib; print(getpass.getuser(), pathlib.Path.home())"
    assert buildah(*run, "python", "-c", command).split() == ["skysift", "/tmp"]
    said = buildah(*run, "skysift", "doctor", "--workspace", "/workspace/of-4242", check=False)
    assert "CPU slots" in said, said


def test_all_bytecode_is_there_and_trusted(inside: tuple[list[str], Path]) -> None:
    run, _ = inside
    program = (
        "import ast, importlib.util as u, pathlib, pipeline\n"
        "packages = pathlib.Path(pipeline.__file__).parents[1]\n"
        "files = [f for f in packages.rglob('*.py') if '__pycache__' not in f.parts]\n"
        "lacking = [f for f in files if not pathlib.Path(u.cache_from_source(f)).exists()]\n"
        "flags = {pathlib.Path(u.cache_from_source(f)).read_bytes()[4] for f in files if f not in lacking}\n"
        "print(len(files), len(lacking), flags)"
    )
    files, lacking, flags = buildah(*run, "python", "-c", program).split()
    assert int(files) > 10_000
    assert int(lacking) < 20  # no Python: templates and tests of packages
    assert flags == "{1}"  # by hash, unchecked (PEP 552)


@pytest.fixture
def untouched(image: str) -> Iterator[list[str]]:
    """The beginning of a command in a container that nothing was done in."""
    name = buildah("from", image).strip()
    yield ["run", "--isolation", "chroot", name]
    buildah("rm", name)


def test_nothing_of_the_build_is_left(image: str, untouched: list[str]) -> None:
    history = buildah("inspect", "--type", "image", image)
    for word in ("find-links", "index-url", "PIP_OPTIONS", "TORCH_INDEX", "/wheels"):
        assert word not in history, word
    assert json.loads(history)["OCIv1"]["config"]["User"] == "1000:1000"
    left = "\\( -path /proc -o -path /sys \\) -prune -o \\( -name '*.whl' -o -path '*/pip/http*' \\) -type f -print"
    found = buildah(*untouched, "bash", "-c", f"find / -xdev {left} 2>/dev/null || true").splitlines()
    seeds = ("ensurepip", "python-wheels", "/virtualenv/seed/wheels/embed/")  # what new environments begin with
    assert [line for line in found if not any(seed in line for seed in seeds)] == []
    for look in ("cat /etc/pip.conf ~/.config/pip/pip.conf", "ls -A /var/lib/apt/lists /tmp /src | grep -v :"):
        assert not buildah(*untouched, "bash", "-c", f"({look}) 2>/dev/null || true").strip(), look


def test_a_run_as_kuberay_starts_it(inside: tuple[list[str], Path]) -> None:
    run, folder = inside
    buildah(*run, "touch", "/workspace/before")
    said = buildah(*run, "skysift", "simulate", "sky", "--quasars", "400", "--seed", "3", "--no-resolution")
    config = {"survey": {"root": "/workspace/sky"}, "stores": {"workspace": "/workspace/results"},
              "ingest": {"chunk_size": 64}, "train": {"fit.segments": 2, "vae.hidden": 64, "vae.latent": 6},
              "report": {"anomalies": 1, "normals": 1}}  # fmt: skip
    lines = [f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
             for name, keys in config.items()]  # fmt: skip
    (folder / "skysift.toml").write_text("".join(lines), encoding="utf-8")
    shutil.copy(INSIDE, folder)
    said = buildah(*run, "bash", "/workspace/as_kuberay.sh", "/workspace")
    for words in ("GCS is ready", "healthy without a token: healthz", "healthy without a token: gcs_healthz",
                  '"message": "chunk done"', "Job 'image-1' succeeded", "no driver is left"):  # fmt: skip
        assert words in said, said[-3000:]
    doctor = buildah(*run, "skysift", "doctor", "--config", "skysift.toml")
    assert "FAULT" not in doctor
    find = "find / -xdev -newer /workspace/before -user 1000 -type f 2>/dev/null"
    written = buildah(*run, "bash", "-c", f"{find} | grep -v -E '^/(proc|sys|dev|tmp|workspace)/' || true").split()
    assert written == []  # so the root filesystem may be read-only but for /tmp
