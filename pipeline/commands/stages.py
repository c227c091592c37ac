"""The verbs that work: run, and each stage by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pipeline import logs
from pipeline.commands.context import configured, with_survey
from pipeline.config import Config

MODEL = click.option("-m", "--model", metavar="ID", default="", help="Use this model (or `promoted`); train none.")
OF_RUN = click.option("-m", "--model", metavar="ID", default="", help="Model (or `promoted`).  [default: the run's]")


_say = logs.say


@click.command()
@with_survey
@configured
@MODEL
def run(config: Config, model: str) -> None:
    """Do everything from catalog to report, resuming where it stopped.

    SURVEY is a folder or URL laid out as DESI's releases are. Run again after
    it has grown, it ingests what is new or changed, and trains again unless
    --model says which model to score with.

    \b
    skysift run sky                                   a simulated survey here
    skysift run -c docs/examples/dr1-pixel.toml       one pixel of DESI DR1
    skysift run sky --model promoted                  without training again
    """
    from pipeline.report.summary import print_summary
    from pipeline.session import driving
    from pipeline.stages.run import run as stage

    with driving(config) as session:
        stage(session, _say, model=model)
        print_summary(session)


def _stage(name: str, help_: str) -> Callable[..., Any]:
    """Build the command of one stage that needs nothing but the run."""

    @click.command(name, help=help_)
    @with_survey
    @configured
    def command(config: Config) -> None:
        from pipeline.session import driving
        from pipeline.stages import run as stages
        from pipeline.stores.runs import require_run

        with driving(config) as session:
            if name != "plan":
                require_run(session.conn, config.run)
            with stages.recorded(session):
                getattr(stages, name)(session, _say)

    return command


plan = _stage("plan", "Read the catalog, apply the science gate and write the manifest to PostgreSQL.")
ingest = _stage("ingest", "Fetch the planned rows of the coadds and write Parquet shards.")
train = _stage("train", "Fit the variational autoencoder to the ingested spectra.")


@click.command()
@with_survey
@configured
@OF_RUN
def score(config: Config, model: str) -> None:
    """Score and embed what the model has not scored yet."""
    _with_model(config, model, "score")


@click.command()
@with_survey
@configured
@OF_RUN
def calibrate(config: Config, model: str) -> None:
    """Turn a model's raw scores into p-values and ranks, over all it has scored."""
    _with_model(config, model, "calibrate", force=True)


def _with_model(config: Config, model: str, name: str, **options: Any) -> None:
    from pipeline.session import driving
    from pipeline.stages import run as stages

    with driving(config) as session:
        model_id = stages.model_of_run(session, model)
        with stages.recorded(session):
            getattr(stages, name)(session, model_id, _say, **options)


@click.command()
@with_survey
@configured
def report(config: Config) -> None:
    """Print the run's summary and write its HTML page."""
    from pipeline.report.summary import print_summary
    from pipeline.session import opened
    from pipeline.stages.report import report as stage

    with opened(config) as session:
        page = stage(session)
        print_summary(session)
        _say(f"report      {page}")
