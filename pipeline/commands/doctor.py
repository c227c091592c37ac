"""``skysift doctor``: one line a check, with a fix for each fault."""

from __future__ import annotations

from collections.abc import Iterator

import click

from pipeline import doctor as diagnosis
from pipeline.commands.context import configured, with_survey
from pipeline.config import Config
from pipeline.doctor import Check
from pipeline.errors import StoreError


@click.command()
@with_survey
@configured
def doctor(config: Config) -> None:
    """Check the survey, the stores, Ray and the GPU; each fault comes with its fix."""
    faults = 0
    for check in _all(config):
        mark = click.style("ok   ", fg="green") if check.ok else click.style("FAULT", fg="red")
        click.echo(f"{mark}  {check.name:<10} {check.found}")
        if not check.ok:
            faults += 1
            click.echo(f"       {'':<10} {check.fault}")
        for line in check.note.splitlines():
            click.echo(f"       {'':<10} {line}")
    if faults:
        raise StoreError(f"{faults} fault{'s' if faults > 1 else ''} found: see the lines above")


def _all(config: Config) -> Iterator[Check]:
    from pipeline.servers import Servers

    yield from diagnosis.quick(config)
    with Servers(config.workspace, config.stores.postgres, config.stores.milvus) as servers:
        yield diagnosis.check_postgres(lambda: servers.postgres_url)
        if config.stores.postgres:  # an embedded one is migrated by the first command
            yield diagnosis.check_schema(lambda: servers.postgres_url)
        yield diagnosis.check_milvus(lambda: servers.milvus_uri)
    yield diagnosis.check_ray(config)
    yield diagnosis.check_gpu()
