"""Jobs on a cluster: submitted once, listed, followed, awaited and cancelled."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import RunError, SkysiftError
from pipeline.launch.api import AlreadyThere, Api, NotThere, RayJob
from pipeline.launch.filling import PROFILE, RUN, VERB

ENDED = ("Complete", "Failed", "ValidationFailed")
POLL = 2.0  # s between two looks
GONE = 120.0  # s that an ended RayJob may take to go

_EXIT_CODE = re.compile(r"exit code (\d+)")


class JobFailed(SkysiftError):
    """A job ended without success; ``exit_code`` is its driver's own where that is known."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Job:
    """What a RayJob's status says."""

    run: str
    verb: str
    profile: str
    state: str  # KubeRay's jobDeploymentStatus, or Ray's jobStatus once that is final
    reason: str  # why it failed, in one line
    exit_code: int | None  # None: not ended
    started: datetime | None
    ended: datetime | None

    @classmethod
    def of(cls, rayjob: RayJob) -> Job:
        """Read a RayJob."""
        meta, status = rayjob["metadata"], rayjob.get("status") or {}
        labels = meta.get("labels") or {}
        deployment, ray = status.get("jobDeploymentStatus") or "New", status.get("jobStatus") or ""
        return cls(
            run=labels.get(RUN, meta["name"]),
            verb=labels.get(VERB, ""),
            profile=labels.get(PROFILE, ""),
            state=ray if deployment == "Complete" and ray else deployment,
            reason=_reason(status),
            exit_code=_exit_code(status) if deployment in ENDED else None,
            started=_time(status.get("startTime")),
            ended=_time(status.get("endTime")),
        )


def submit(api: Api, job: RayJob, say: Callable[[str], None]) -> None:
    """Create a RayJob after a dry run; one of the same name that has ended makes way, one that has not is kept.

    Raises:
        RunError: the run has a RayJob that is not ended.
        ConfigError: the API server refuses the job.
    """
    try:
        api.create(job, dry_run=True)
    except AlreadyThere:
        _make_way(api, job["metadata"]["name"], say)
        api.create(job, dry_run=True)
    api.create(job, dry_run=False)


def _make_way(api: Api, name: str, say: Callable[[str], None]) -> None:
    old = api.get(name)
    if Job.of(old).exit_code is None:
        raise RunError(
            f"run {name} has a RayJob already: `skysift logs -f {name}` follows it, `skysift cancel {name}` ends it"
        )
    say(f"replacing the RayJob of {name}, which has ended ({Job.of(old).state})")
    api.delete(old)
    end = time.monotonic() + GONE
    while time.monotonic() < end:
        try:
            api.get(name)
        except NotThere:
            return
        time.sleep(POLL)
    raise RunError(f"RayJob {name} has ended but does not go away: does KubeRay's operator run?")


def wait(api: Api, name: str, seconds: float = 0) -> Job:
    """Return when the job has succeeded; 0 seconds: wait for ever.

    Raises:
        JobFailed: it ended otherwise, or not in time.
        NotThere: it does not exist, or was deleted meanwhile.
    """
    end = time.monotonic() + seconds if seconds else float("inf")
    while True:
        job = Job.of(api.get(name))
        if job.exit_code == 0:
            return job
        if job.exit_code is not None:
            raise JobFailed(f"{name} ended as {job.state}: {job.reason or 'no reason is given'}", job.exit_code)
        if time.monotonic() > end:
            raise JobFailed(f"{name} is still {job.state} after {seconds:.0f} s; it goes on", 124)
        time.sleep(POLL)


def follow(api: Api, name: str) -> Iterator[str]:
    """Yield a job's log as it comes, from one submitter's pod to the next, until the job has ended.

    Raises:
        NotThere: there is no such job.
    """
    seen: dict[str, str] = {}  # pod → time of its last line
    while True:
        ended = Job.of(api.get(name)).exit_code is not None
        for pod in api.submitters(name):
            if pod["status"]["phase"] in ("Running", "Succeeded", "Failed"):
                yield from _new_lines(api, pod["metadata"]["name"], seen, follow=not ended)
        if ended:
            return
        time.sleep(POLL)


def lines(api: Api, name: str) -> Iterator[str]:
    """Yield the log that a job has written so far.

    Raises:
        NotThere: there is no such job.
    """
    api.get(name)
    for pod in api.submitters(name):
        if pod["status"]["phase"] in ("Running", "Succeeded", "Failed"):
            yield from _new_lines(api, pod["metadata"]["name"], {}, follow=False)


def _new_lines(api: Api, pod: str, seen: dict[str, str], *, follow: bool) -> Iterator[str]:
    for line in api.lines(pod, follow=follow):
        stamp, _, text = line.partition(" ")
        if stamp > seen.get(pod, ""):
            seen[pod] = stamp
            yield text


def _reason(status: dict[str, Any]) -> str:
    """The last line of the job's log, which says what is wrong, behind KubeRay's own word for it."""
    said = [line for line in str(status.get("message") or "").splitlines() if line.strip()]
    words = [str(status.get("reason") or ""), said[-1].strip() if said else ""]
    return ": ".join(word for word in words if word)


def _exit_code(status: dict[str, Any]) -> int:
    if status.get("jobStatus") == "SUCCEEDED":
        return 0
    found = _EXIT_CODE.search(str(status.get("message") or ""))
    return int(found[1]) or 1 if found else 1


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC) if text else None
