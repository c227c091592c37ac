"""``skysift db``: the database of a workspace, its migrations and its embedded servers."""

from __future__ import annotations

import subprocess
import sys

import click

from pipeline.commands.context import configured
from pipeline.config import Config
from pipeline.servers import Servers, require_workspace


def _servers(config: Config) -> Servers:
    return Servers(config.workspace, config.stores.postgres, config.stores.milvus)


def _existing(config: Config) -> Servers:
    require_workspace(config.workspace, config.stores.postgres)
    return _servers(config)


@click.group()
def db() -> None:
    """Migrate, start, stop and reach the database."""


@db.command()
@configured
@click.option("--wait", "seconds", type=click.FloatRange(0), default=0.0, show_default=True, metavar="SECONDS",
              help="How long to wait for the server.")  # fmt: skip
def migrate(config: Config, seconds: float) -> None:
    """Bring the tables up to this version of skysift; safe at any time."""
    from pipeline.stores import postgres
    from pipeline.stores.waiting import wait_for_server

    with _servers(config) as servers:
        conn = wait_for_server(servers.postgres_url, seconds, click.echo)
        try:
            done = postgres.migrate(conn)
        finally:
            conn.close()
    for line in done or ["nothing to do: the tables are up to date"]:
        click.echo(line)


@db.command(short_help="Wait until the database has this version's tables.")
@configured
@click.option("--timeout", "--seconds", "seconds", type=click.FloatRange(0), default=600.0, show_default=True,
              metavar="SECONDS", help="Most time to wait.")  # fmt: skip
def wait(config: Config, seconds: float) -> None:
    """Wait until the database has the tables of this version of skysift."""
    from pipeline.stores.waiting import wait_for_schema

    with _servers(config) as servers:
        wait_for_schema(servers.postgres_url, seconds, click.echo)


@db.command()
@configured
def url(config: Config) -> None:
    """Print the database's URL, without a password.

    An embedded server answers there while a command of the workspace runs, or
    after `skysift db start`.
    """
    with _existing(config) as servers:
        click.echo(servers.postgres_url)


@db.command(short_help="Start the embedded servers and let them run.")
@configured
def start(config: Config) -> None:
    """Start the embedded servers and let them run until `skysift db stop`."""
    with _servers(config) as servers:
        kept = servers.keep()
        for name, address in kept.items():
            click.echo(f"{name}: {address}")
    if not kept:
        click.echo("nothing to start: stores.postgres and stores.milvus name servers of their own")


@db.command()
@configured
def stop(config: Config) -> None:
    """Stop the embedded servers, unless another command is using them."""
    with _existing(config) as servers:
        for name, stopped in servers.stop().items():
            state = "stopped" if stopped else "in use by another command; it stops when that ends"
            click.echo(f"{name}: {state}")


@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@configured
def psql(config: Config, arguments: tuple[str, ...]) -> None:
    """Open psql on the database; ARGUMENTS go to psql, after `--`.

    \b
    skysift db psql -- -c "SELECT * FROM anomaly_catalog ORDER BY rank LIMIT 5"
    """
    from pipeline.servers.embedded import program

    with _existing(config) as servers:
        status = subprocess.call([program("psql"), servers.postgres_url, *arguments])
    sys.exit(status)
