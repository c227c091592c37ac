"""A local Ray that does not come up at once."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import pytest
import ray
from ray._private.node import Node

from pipeline import cluster
from pipeline.config import Config, StoresConfig
from pipeline.errors import StoreError

_TIMED_OUT = "The current node timed out during startup."


@pytest.fixture(autouse=True)
def _no_ray() -> None:
    """Other tests keep a Ray for all of theirs, which ``connected`` would join."""
    ray.shutdown()


class _Starts:
    """Let the first ``failing`` starts of Ray's daemons end as its own time-out does, daemons running."""

    def __init__(self, failing: int, patch: pytest.MonkeyPatch) -> None:
        self.failing, self.seen, self.left = failing, 0, list[psutil.Process]()
        self._start = Node.start_ray_processes
        patch.setattr(Node, "start_ray_processes", lambda node: self(node))

    def __call__(self, node: Node) -> None:
        self._start(node)
        self.seen += 1
        if self.seen <= self.failing:
            self.left += [psutil.Process(each.process.pid) for kind in node.all_processes.values() for each in kind]
            raise Exception(_TIMED_OUT)


def _connect(workspace: Path) -> None:
    with cluster.connected(Config(stores=StoresConfig(workspace=str(workspace)))) as resources:
        assert resources["CPU"] >= 1


def test_a_node_that_never_came_up_is_tried_again_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = _Starts(1, monkeypatch)
    _connect(tmp_path)
    assert starts.seen == 2
    assert len(starts.left) >= 2
    assert not [process for process in starts.left if process.is_running()]
    gc.collect()  # what was forgotten without being waited for warns here, and a warning is an error


def test_three_starts_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = _Starts(9, monkeypatch)
    with pytest.raises(StoreError, match=r"Ray on this machine did not start or answer: .*timed out during startup"):
        _connect(tmp_path)
    assert starts.seen == 3
    assert not [process for process in starts.left if process.is_running()]
    assert not ray.is_initialized()
