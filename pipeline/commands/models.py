"""``skysift models``: list, show, compare, promote, roll back and delete models."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.context import configured
from pipeline.config import Config

if TYPE_CHECKING:
    from pipeline.session import Session
    from pipeline.stages.compare import Comparison
    from pipeline.stores.registry import Model

SHOWN = 10  # spectra that models disagree on, in the terminal

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def models() -> None:
    """List, show, compare, promote, roll back and delete models.

    A model is named by its id, the beginning of its id, or `promoted`.
    """


@models.command("list")
@configured
@click.option("-a", "--all", "deleted", is_flag=True, help="List deleted models too.")
@_JSON
def list_(config: Config, deleted: bool, as_json: bool) -> None:
    """List the models, newest first."""
    from pipeline.session import opened
    from pipeline.stores import registry

    with opened(config) as session:
        found = registry.list_models(session.conn, deleted=deleted)
        scored = registry.scored(session.conn)
    if as_json:
        click.echo(_as_json([{**asdict(model), "scored": scored.get(model.model_id, 0)} for model in found]))
    elif found:
        _print_table(found, scored)
    else:
        click.echo("no models yet; `skysift run` trains one")


@models.command()
@click.argument("model")
@configured
@_JSON
def show(config: Config, model: str, as_json: bool) -> None:
    """Show what is known of MODEL."""
    from pipeline.session import opened
    from pipeline.stores import registry

    with opened(config) as session:
        found = registry.find_model(session.conn, model)
        scored = registry.scored(session.conn).get(found.model_id, 0)
        history = registry.history(session.conn, found.model_id)
    if as_json:
        click.echo(_as_json({**asdict(found), "scored": scored, "history": history}))
        return
    lines = {
        "model": found.model_id + (" (promoted)" if found.promoted else ""),
        "state": found.state,
        "run": found.run_id,
        "registered": _when(found),
        "scored": f"{scored:,} spectra",
        "files": found.uri,
        "vectors": found.collection,
        "data": found.data_hash,
    }
    for name, value in lines.items():
        click.echo(f"{name:<11}{value}")
    settings = {name: value for name, value in found.config.items() if name != "training_chunks"}  # hundreds of ids
    click.echo(f"config     {json.dumps(settings)}")
    for event in history:
        click.echo(f"{event['at'].astimezone(UTC):%Y-%m-%d %H:%M}  {event['action']} by {event['who']}")


@models.command()
@click.argument("model", nargs=-1, required=True)
@configured
@_JSON
def compare(config: Config, model: tuple[str, ...], as_json: bool) -> None:
    """See whether calibrated MODELs find the same spectra strange.

    What they disagree on strongly is listed, and flagged in the column
    `disagreement` of each model's scores. Ends with exit status 7 when that is
    more than the fraction score.max_disagreement of all that any of them
    finds strange.

    \b
    skysift train --set train.fit.seed=2 && skysift score && skysift calibrate
    skysift models compare promoted 3f0c
    """
    from pipeline.session import opened
    from pipeline.stages.compare import compare_models
    from pipeline.stores import runs

    with opened(config) as session, runs.run_lock(session.conn, config.run):
        done = compare_models(session, model)
    if as_json:
        click.echo(_as_json(_comparison_json(done)))
    else:
        _print_comparison(done)
    done.require()


@models.command()
@click.argument("model")
@configured
def promote(config: Config, model: str) -> None:
    """Let MODEL's scores and vectors be the ones that everybody sees.

    The catalog's files beside the reports of its runs are written anew.
    """
    from pipeline.session import opened
    from pipeline.stores import registry

    with opened(config) as session:
        found = registry.promote(session.conn, model)
        _shown(session, found, "is promoted")


@models.command()
@configured
def rollback(config: Config) -> None:
    """Go back to the model that was promoted before.

    The catalog's files beside the reports of its runs are written anew.
    """
    from pipeline.session import opened
    from pipeline.stores import registry

    with opened(config) as session:
        found = registry.rollback(session.conn)
        _shown(session, found, "is promoted again")


def _shown(session: Session, model: Model, what: str) -> None:
    from pipeline.report.files import write_catalog

    session.vectors.set_alias(model.model_id)
    click.echo(f"model {model.model_id} {what}")
    for path in write_catalog(session):
        click.echo(f"wrote {path}")


@models.command(short_help="Delete MODEL's scores and vectors; its files stay.")
@click.argument("model")
@configured
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(config: Config, model: str, yes: bool) -> None:
    """Delete MODEL's scores and vectors; its files and its audit rows stay."""
    from pipeline.session import opened
    from pipeline.stores import registry

    with opened(config) as session:
        found = registry.deletable(session.conn, model)
        scored = registry.scored(session.conn).get(found.model_id, 0)
        if not yes:
            click.confirm(f"Delete the scores and vectors of {scored:,} spectra by model {found.model_id}?", abort=True)
        session.vectors.drop(found.model_id)
        registry.delete_model(session.conn, found.model_id)
    click.echo(f"model {found.model_id} is deleted")


def _print_table(found: list[Model], scored: dict[str, int]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in (
        ("model", "left"),
        ("", "left"),
        ("run", "left"),
        ("registered", "left"),
        ("scored", "right"),
    ):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for model in found:
        note = "promoted" if model.promoted else "" if model.state == "ready" else model.state
        table.add_row(model.model_id, note, model.run_id, _when(model), f"{scored.get(model.model_id, 0):,}")
    Console().print(table)


def _comparison_json(done: Comparison) -> dict[str, Any]:
    rows = done.flagged.to_pylist()
    return {
        "models": done.models,
        "spectra": done.n_common,
        "pairs": [asdict(pair) for pair in done.found.pairs],
        "strange": done.found.n_top,
        "disagreements": len(rows),
        "fraction": done.found.fraction,
        "allowed": done.allowed,
        "flagged": [row | {name: str(row[name]) for name in ("spectrum_id", "targetid")} for row in rows],
    }


def _print_comparison(done: Comparison) -> None:
    click.echo(f"{done.n_common:,} spectra calibrated by all of {', '.join(done.models)}")
    for pair in done.found.pairs:
        click.echo(
            f"{pair.first} and {pair.second}: rank correlation {pair.spearman:.3f}, Jaccard index of the strangest 1% "
            f"{pair.jaccard:.2f}"
        )
    click.echo(
        f"strong disagreements: {done.flagged.num_rows:,} of {done.found.n_top:,} that any finds strange "
        f"({done.found.fraction:.1%}; allowed {done.allowed:.1%})"
    )
    rows = done.flagged.slice(0, SHOWN).to_pylist()
    if rows:
        ranks = "".join(f"  {f'in {name[:8]}':>11}" for name in done.models)
        click.echo(f"\n{'TARGETID':>17}  {'z':>6}{ranks}   rank in each; coadd")
    for row in rows:
        ranks = "".join(f"  {row[f'rank_{name}']:>11,}" for name in done.models)
        click.echo(f"{row['targetid']:>17}  {row['z']:>6.3f}{ranks}   {row['coadd']}")


def _when(model: Model) -> str:
    return f"{model.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str)
