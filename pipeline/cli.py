"""The ``skysift`` command."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

import click

from pipeline import logs, termination
from pipeline.errors import SkysiftError, one_line

# Each verb lives in a module that is imported when the verb is used, so that --help is quick.
_VERBS = {
    "simulate": ("pipeline.simulate.command:simulate", "Write a simulated DESI survey, with its truth beside it."),
    "run": ("pipeline.commands.stages:run", "Do everything, plan to report; resumes where it stopped."),
    "plan": ("pipeline.commands.stages:plan", "Read the catalog, apply the science gate, list the work."),
    "ingest": ("pipeline.commands.stages:ingest", "Fetch the planned spectra and write Parquet shards."),
    "train": ("pipeline.commands.stages:train", "Fit the variational autoencoder."),
    "score": ("pipeline.commands.stages:score", "Score and embed every spectrum."),
    "calibrate": ("pipeline.commands.stages:calibrate", "Turn scores into p-values and ranks."),
    "evaluate": ("pipeline.commands.evaluate:evaluate", "Inject known departures: completeness of the survey."),
    "report": ("pipeline.commands.stages:report", "Summarise the run here and as an HTML page."),
    "query": ("pipeline.commands.catalog:query", "Answer a SELECT over the catalog, to a terminal or a file."),
    "cone": ("pipeline.commands.catalog:cone", "List spectra around a position."),
    "similar": ("pipeline.commands.catalog:similar", "List the spectra most like one."),
    "show": ("pipeline.commands.catalog:show", "Show one spectrum: a picture and its story."),
    "export": ("pipeline.commands.catalog:export", "Write the catalog: FITS, Parquet, VOTable, ECSV, CSV, HATS."),
    "crossmatch": ("pipeline.commands.catalog:crossmatch", "Match a file's objects with the catalog."),
    "serve": ("pipeline.commands.serve:serve", "Serve the catalog: REST, cone search and TAP."),
    "status": ("pipeline.commands.status:status", "Say what is done, empty, failed and why."),
    "models": ("pipeline.commands.models:models", "List, show, compare, promote, roll back and delete models."),
    "db": ("pipeline.commands.db:db", "Migrate, start, stop and reach the database."),
    "submit": ("pipeline.commands.launch:submit", "Start a run on Kubernetes, from the admins' template."),
    "jobs": ("pipeline.commands.launch:list_jobs", "List what was launched on Kubernetes."),
    "logs": ("pipeline.commands.launch:logs", "Print or follow the log of a launched run."),
    "wait": ("pipeline.commands.launch:wait", "Wait for a launched run; the exit status is the run's."),
    "cancel": ("pipeline.commands.launch:cancel", "Stop a launched run."),
    "doctor": ("pipeline.commands.doctor:doctor", "Check the stores, Ray and the GPU, with a fix for each fault."),
}


# Click's names of types in plain words
_PLAIN = {
    "a valid integer range": "a whole number",
    "a valid integer": "a whole number",
    "a valid float range": "a number",
    "a valid float": "a number",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module, name = _VERBS[cmd_name][0].split(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, help_) for verb, (_, help_) in _VERBS.items()])


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="skysift", prog_name="skysift")
def skysift() -> None:
    """Sift spectroscopic surveys for the strange.

    \b
    Try it:  skysift simulate sky --quasars 2000 --seed 1 --no-resolution
             skysift run sky
    """


def main() -> None:
    """Entry point: every expected failure ends in one line on stderr and its own exit code."""
    logs.configure()
    try:
        with termination.heeded():
            skysift(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _say(_usage(error))
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; the same command goes on where this one stopped")
        sys.exit(130)
    except termination.Terminated:
        _say("stopped by SIGTERM; the same command goes on where this one stopped")
        sys.exit(termination.EXIT_CODE)
    except SkysiftError as error:
        _say(one_line(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        _unexpected(error)
        sys.exit(70)  # EX_SOFTWARE


def _usage(error: click.ClickException) -> str:
    """A mistyped command in one line, as every other failure is, and where its help is."""
    said = error.format_message().rstrip(".")
    for theirs, plain in _PLAIN.items():
        said = said.replace(theirs, plain)
    context = getattr(error, "ctx", None)
    return f"{said} (see `{context.command_path} --help`)" if context else said


def _say(message: str) -> None:
    """The last line that a log has, in plain words: it is what a RayJob's status ends with."""
    line = " ".join(message.split())
    if logs.structured():
        logs.event(line, logging.ERROR)
    print(f"skysift: {line}", file=sys.stderr)


def _unexpected(error: Exception) -> None:
    if os.environ.get("SKYSIFT_DEBUG"):
        raise error
    log = Path("skysift-error.log").absolute()
    try:
        log.write_text(traceback.format_exc(), encoding="utf-8")
        where = f"; the details are in {log}"
    except OSError:
        where = "; set SKYSIFT_DEBUG=1 to see the details"
    _say(f"unexpected {type(error).__name__}: {one_line(error)}{where}")
