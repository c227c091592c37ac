"""Departures made by several processes: the same as by one, and none of the processes outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from models.grid import RestGrid
from pipeline.desi.grid import N_PIXELS
from pipeline.injection.departures import CLASSES
from pipeline.injection.grading import Yardstick
from pipeline.injection.hosts import Hosts
from pipeline.injection.parallel import Batch, injected

STRONG = (4.0, 60.0)


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    grid = RestGrid(6.0)
    return Yardstick(np.polynomial.legendre.legvander(np.linspace(-1.0, 1.0, grid.n_rest), 3), grid.max_shift)


def _batches(number: int) -> list[Batch]:
    """Twelve flat, noisy spectra each, and every class once or twice."""
    batches = []
    for index in range(number):
        rng = np.random.default_rng(index)
        base = np.full((12, N_PIXELS), 5.0, np.float32)
        ivar = np.full_like(base, 4.0)
        flux = base + 0.5 * rng.standard_normal(base.shape, dtype=np.float32)
        hosts = Hosts(flux, ivar, base, np.linspace(0.3, 3.0, 12), np.full(12, 10.0, np.float32))
        batches.append(Batch(hosts, 40 * index, 40, (7, index)))
    return batches


def test_several_processes_make_what_one_makes(yardstick: Yardstick) -> None:
    alone = list(injected(iter(_batches(5)), yardstick, STRONG, 6.0, 1))
    together = list(injected(iter(_batches(5)), yardstick, STRONG, 6.0, 2))
    assert [batch.seed for batch, _ in together] == [batch.seed for batch, _ in alone] == [(7, n) for n in range(5)]
    for (_, one), (_, other) in zip(alone, together, strict=True):
        assert [index for index, _ in one] == [index for index, _ in other]
        for (_, ours), (_, theirs) in zip(one, other, strict=True):
            np.testing.assert_array_equal(ours.flux_L, theirs.flux_L)
            np.testing.assert_array_equal(ours.ivar_L, theirs.ivar_L)
            assert (ours.host, ours.z) == (theirs.host, theirs.z)
    assert len({index for _, made in alone for index, _ in made}) > len(CLASSES) - 4  # a flat host cannot show all


LEFT_ALONE = """
import sys, time
from tests.pipeline.injection.test_parallel import STRONG, Yardstick, RestGrid, _batches, injected, np

def slowly():
    yield from _batches(4)
    time.sleep(300)

if __name__ == "__main__":
    grid = RestGrid(6.0)
    basis = np.polynomial.legendre.legvander(np.linspace(-1.0, 1.0, grid.n_rest), 3)
    for _ in injected(slowly(), Yardstick(basis, grid.max_shift), STRONG, 6.0, 2):
        print("made", flush=True)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked up in /proc")
def test_the_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "left_alone.py"
    script.write_text(LEFT_ALONE, encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()}
    )
    assert parent.stdout is not None
    with parent:
        assert parent.stdout.readline() == "made\n"
        children = _children(parent.pid)
        assert len(children) >= 2
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, f"still there: {children}"
        time.sleep(0.1)


def _children(pid: int) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{pid}\n" in (folder / "status").read_text():
                found.append(folder.name)
        except OSError:  # gone meanwhile
            continue
    return found
