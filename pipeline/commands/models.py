"""``skysift models``: list, show, promote, roll back and delete models."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.context import configured
from pipeline.config import Config

if TYPE_CHECKING:
    from pipeline.stores.registry import Model

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def models() -> None:
    """List, show, promote, roll back and delete models.

    A model is named by its id, the beginning of its id, or `promoted`.
    """


@models.command("list")
@configured
@click.option("-a", "--all", "deleted", is_flag=True, help="Deleted models too.")
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
@click.argument("model")
@configured
def promote(config: Config, model: str) -> None:
    """Let MODEL's scores and vectors be the ones that everybody sees."""
    from pipeline.session import opened
    from pipeline.stores import registry

    with opened(config) as session:
        found = registry.promote(session.conn, model)
        session.vectors.set_alias(found.model_id)
    click.echo(f"model {found.model_id} is promoted")


@models.command()
@configured
def rollback(config: Config) -> None:
    """Go back to the model that was promoted before."""
    from pipeline.session import opened
    from pipeline.stores import registry

    with opened(config) as session:
        found = registry.rollback(session.conn)
        session.vectors.set_alias(found.model_id)
    click.echo(f"model {found.model_id} is promoted again")


@models.command()
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


def _when(model: Model) -> str:
    return f"{model.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, default=str)
