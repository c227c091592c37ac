"""Launching on Kubernetes: ``skysift submit``, ``jobs``, ``logs``, ``wait`` and ``cancel``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from pipeline.commands.context import SET
from pipeline.errors import ConfigError
from pipeline.launch.filling import RUN, VERBS

_OPTIONS = (
    click.option("-n", "--namespace", default="", metavar="NAME", help="Namespace.  [default: the context's]"),
    click.option(
        "--context", default="", metavar="NAME", help="Context of the kubeconfig.  [default: the current one]"
    ),
)


def _on_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say where; it receives one ``api`` instead of them."""

    @functools.wraps(command)
    def wrapper(*args: Any, namespace: str, context: str, **kwargs: Any) -> Any:
        from pipeline.launch.api import Api

        return command(*args, api=Api.connect(context, namespace), **kwargs)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


@click.command()
@click.argument("verb", type=click.Choice(VERBS), default="run", metavar=f"[{'|'.join(VERBS)}]")
@click.option("-r", "--run", "run", required=True, metavar="NAME", help="Name of the run, and of its RayJob.")
@click.option("-p", "--profile", default="", metavar="NAME", help="Size of the cluster.  [default: the templates']")
@SET
@click.option("-m", "--model", default="", metavar="ID", help="Use this model (or `promoted`); for run and score.")
@click.option("--release", default="skysift", show_default=True, metavar="NAME", help="Helm release of the templates.")
@click.option("--dry-run", is_flag=True, help="Let the API server check it, and make nothing.")
@_on_cluster
def submit(
    api: Any, verb: str, run: str, profile: str, overrides: tuple[str, ...], model: str, release: str, dry_run: bool
) -> None:
    """Start a run on Kubernetes: a RayJob from the admins' template.

    \b
    skysift submit run --run my-run --profile survey
    skysift submit score --run my-run --model promoted --set score.batch=512
    """
    import yaml

    from pipeline.launch import jobs
    from pipeline.launch.filling import filled, templates_name

    if model and verb not in ("run", "score"):
        raise ConfigError(f"--model is for run and score, not for {verb}: leave it out")
    data = api.templates(templates_name(release))
    chosen = profile or data.get("default", "")
    if f"{chosen}.yaml" not in data:
        known = ", ".join(sorted(key.removesuffix(".yaml") for key in data if key.endswith(".yaml")))
        raise ConfigError(f"release {release} has no profile {chosen!r}: choose one of {known}")
    job = filled(yaml.safe_load(data[f"{chosen}.yaml"]), verb, run, overrides, model)
    if dry_run:
        api.create(job, dry_run=True)
        click.echo(f"RayJob {run} would be accepted in namespace {api.namespace}")
        return
    jobs.submit(api, job, click.echo)
    click.echo(f"RayJob {run} is submitted in namespace {api.namespace}: `skysift logs -f {run}` follows it")


@click.command("jobs")
@_on_cluster
def list_jobs(api: Any) -> None:
    """List the runs that were launched on Kubernetes, the newest first."""
    from pipeline.launch.jobs import Job

    found = sorted(api.all(RUN), key=lambda each: str(each["metadata"].get("creationTimestamp")), reverse=True)
    if not found:
        click.echo(f"no jobs in namespace {api.namespace}")
        return
    click.echo(f"{'run':<32} {'verb':<7} {'profile':<10} {'state':<14} {'took':>9}  reason")
    for job in map(Job.of, found):
        line = f"{job.run:<32} {job.verb:<7} {job.profile:<10} {job.state:<14} {_took(job):>9}  {job.reason}"
        click.echo(line.rstrip())


def _took(job: Any) -> str:
    if job.started is None:
        return ""
    seconds = int(((job.ended or datetime.now(UTC)) - job.started).total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


@click.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended, from pod to pod.")
@_on_cluster
def logs(api: Any, run: str, follow: bool) -> None:
    """Print the log of a launched run."""
    from pipeline.launch import jobs

    for line in (jobs.follow if follow else jobs.lines)(api, run):
        click.echo(line)


@click.command()
@click.argument("run")
@click.option("--timeout", type=click.FloatRange(0), default=0.0, show_default=True, metavar="SECONDS",
              help="Most time to wait; 0: no limit.")  # fmt: skip
@_on_cluster
def wait(api: Any, run: str, timeout: float) -> None:
    """Wait until a launched run has ended; the exit status is the run's."""
    from pipeline.launch import jobs

    job = jobs.wait(api, run, timeout)
    click.echo(f"{run}: {job.state}")


@click.command()
@click.argument("run")
@_on_cluster
def cancel(api: Any, run: str) -> None:
    """Stop a launched run and take its cluster away; submitted again, it goes on where it was."""
    api.delete(api.get(run))
    click.echo(f"RayJob {run} is deleted; what is done stays in the stores")
