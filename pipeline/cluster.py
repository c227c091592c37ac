"""The Ray cluster: a local one on a laptop, the surrounding one in a RayJob."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import termination
from pipeline.config import Config
from pipeline.errors import ConfigError, StoreError, one_line
from pipeline.logs import LOGGER

# Set by the chart on the driver's pod: what all worker groups can grow to, and the CPUs of their largest pod.
MAX_CPUS, MAX_GPUS, NODE_CPUS = "SKYSIFT_MAX_CPUS", "SKYSIFT_MAX_GPUS", "SKYSIFT_NODE_CPUS"


@contextmanager
def connected(config: Config) -> Iterator[dict[str, float]]:
    """Connect to Ray, yield the resources that it has or can grow to, and leave it again.

    A local Ray gets one CPU more than the machine has: a read task then fills the gaps that two busy
    actors leave, and Ray Data's readers never wait for a whole free CPU.

    Raises:
        StoreError: the cluster at ``ray.address`` does not answer.
    """
    import ray

    if ray.is_initialized():
        yield _resources()
        return
    address = config.ray.address or os.environ.get("RAY_ADDRESS", "")
    with _core_messages_in(None if address else config.workspace / "logs" / "ray.log"):
        try:
            _start(_remote(address) if address else _local(config))
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = address or "on this machine"
            raise StoreError(f"Ray {where} did not start or answer: {one_line(error)}; check ray.address") from error
        termination.renew()
        _quiet()
        _log_reports()
        try:
            yield _resources()
        finally:
            ray.shutdown()


def _start(settings: dict[str, Any]) -> None:
    """Start or join Ray; a local node that never came up is tried twice more.

    One start in some twenty, beside servers that take ports, ends after 30 s with Ray's plain "timed out during
    startup" or with a port file that its GCS never wrote; the next one works.
    """
    import ray

    for left in (2, 1, 0):
        try:
            ray.init(**settings)
            return
        except Exception as error:
            never_came_up = type(error) is Exception or "Timed out waiting for file" in str(error)
            if not never_came_up:  # all others name what is wrong
                raise
            _end_half_started(error)
            if not left:
                raise RuntimeError(str(error)) from error
            ray.shutdown()


def _end_half_started(error: Exception) -> None:
    """End the daemons of a node that never came up: Ray forgets them, and they would run for as long as we do."""
    from ray._private.node import Node

    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, allow_graceful=True)
            return


@contextmanager
def _core_messages_in(log: Path | None) -> Iterator[None]:
    """Send what Ray's C++ core writes to file descriptor 2 to a file; Python's own stderr stays where it was.

    It writes an error line on every start of Ray Data's actor pools that means nothing (ray issue 53727).
    """
    if log is None:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal, before = os.dup(2), sys.stderr
    with open(log, "ab") as file, os.fdopen(os.dup(2), "w", buffering=1) as ours:
        os.dup2(file.fileno(), 2)
        sys.stderr = ours if before is sys.__stderr__ else before
        try:
            yield
        finally:
            sys.stderr = before
            os.dup2(terminal, 2)
            os.close(terminal)


def gpus(resources: dict[str, float]) -> int:
    """Return how many GPUs the cluster offers."""
    return int(resources.get("GPU", 0))


def actors(config: Config, resources: dict[str, float]) -> int:
    """Return how many actors hold a model: as configured, or one a GPU, or one a CPU but for one."""
    return config.score.workers or gpus(resources) or max(1, int(resources.get("CPU", 2)) - 1)


def _resources() -> dict[str, float]:
    """What Ray has now, or what its autoscaler may add to: a cluster of KubeRay's begins with its smallest size."""
    import ray

    found = dict(ray.cluster_resources())
    for name, variable in (("CPU", MAX_CPUS), ("GPU", MAX_GPUS)):
        if (most := _number(variable)) > found.get(name, 0):
            found[name] = most
    return found


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    if text and not text.isdigit():
        raise ConfigError(f"{variable} is {text!r} in the environment: it is a whole number")
    return int(text or 0)


def node_cpus() -> int:
    """Return the CPUs of one node that does the work; of a pod they are not those of its machine."""
    return _number(NODE_CPUS) or machine_cpus()


def machine_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local(config: Config) -> dict[str, Any]:
    return {
        "num_cpus": (config.ray.cpus or machine_cpus()) + 1,
        "include_dashboard": False,
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "configure_logging": True,
        "address": "local",
    }


def _remote(address: str) -> dict[str, Any]:
    return {"address": address, "logging_level": logging.ERROR, "log_to_driver": False}


def _quiet() -> None:
    """Keep Ray Data's own bars and banners off the terminal; ours say what a user needs."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0  # anything else drops data silently
    context.execution_options.verbose_progress = False
    for name in ("ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _log_reports() -> None:
    """Log what Ray's daemons report, such as a task tried again or a worker killed for memory.

    Ray prints it bare on standard output, whatever its settings; a test notices a Ray that does it otherwise.
    """
    from ray._private import worker

    def log(data: dict[str, Any], ignore_prefix: bool) -> None:
        for lines in data["lines"]:
            logging.getLogger(f"{LOGGER}.ray").warning(" ".join(lines.split()))

    worker.print_to_stdstream = log
