"""``skysift serve``: the catalog over HTTP."""

from __future__ import annotations

import ipaddress
import logging
from importlib.metadata import version

import click

from pipeline.commands.context import configured
from pipeline.config import Config
from pipeline.errors import ConfigError


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="Address to listen on.")  # fmt: skip
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, metavar="N",
              help="Port to listen on.")  # fmt: skip
@click.option("--tokens", "tokens_file", metavar="FILE", help="File of bearer tokens; needed beyond this machine.")
@click.option("--new-token", metavar="NAME", help="Add a token to --tokens, print it once, and end.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE",
              help="Of the new token, repeatable: read, score, metrics.  [default: read]")  # fmt: skip
@click.option("--days", type=click.FloatRange(0.01, 3650), default=90.0, show_default=True, metavar="N",
              help="Days until the new token ends.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0.1), default=100.0, show_default=True, metavar="N",
              help="Most requests a second from one client.")  # fmt: skip
@configured
def serve(
    config: Config, host: str, port: int, tokens_file: str | None, new_token: str | None, scopes: tuple[str, ...],
    days: float, rate: float,
) -> None:  # fmt: skip
    """Serve the catalog: REST, simple cone search and TAP.

    \b
    skysift serve                                    http://127.0.0.1:8000/docs
    skysift serve --tokens tokens.json --new-token ann --scope read
    skysift serve --host 0.0.0.0 --tokens tokens.json
    """
    try:
        import uvicorn

        from pipeline.service import tokens
        from pipeline.service.app import create_app
    except ImportError as error:
        raise ConfigError(f"the service wants {error.name}: pip install 'skysift[serve]'") from None
    if new_token:
        if not tokens_file:
            raise click.UsageError("--new-token wants --tokens FILE, where its hash is kept")
        click.echo(tokens.add(tokens_file, new_token, scopes or ("read",), days))
        return
    if not tokens_file and not _loopback(host):
        raise ConfigError(f"--host {host} is reached from other machines: give --tokens FILE (see --new-token)")
    from contextlib import closing

    from pipeline.access.survey import Survey

    known = tokens.read(tokens_file) if tokens_file else None
    _log()
    with closing(Survey(config=config)) as survey:
        click.echo(f"skysift serves http://{host}:{port}/docs (TAP: /tap, cone search: /scs)", err=True)
        app = create_app(survey, known=known, rate=rate)
        uvicorn.run(app, host=host, port=port, log_config=None, access_log=False, server_header=False,
                    headers=[("server", f"skysift/{version('skysift')}")], timeout_keep_alive=30,
                    limit_concurrency=500, h11_max_incomplete_event_size=65_536)  # fmt: skip


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _log() -> None:
    """Access lines as JSON on stderr, whatever SKYSIFT_LOG says of the rest."""
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("skysift.access")
    access.handlers, access.propagate = [lines], False
    access.setLevel(logging.INFO)
