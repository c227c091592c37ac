"""Options that most commands share, and the config they make."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from pipeline import config as configuration
from pipeline.config import Config

SET = click.option("-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE",
                   help="Set a config key, such as gate.z_max=4; repeatable.")  # fmt: skip
_OPTIONS = (
    click.option(
        "-c", "--config", "path", metavar="FILE", help="TOML config (docs/config.md).  [default: skysift.toml]"
    ),
    click.option("-w", "--workspace", metavar="DIR", help="Folder of results.  [default: skysift-workspace]"),
    click.option("-r", "--run", "run", metavar="NAME", help="Name of the run.  [default: default]"),
    SET,
)


def configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the shared options; it receives one ``config`` instead of them."""

    @functools.wraps(command)
    def wrapper(
        *args: Any,
        path: str | None,
        workspace: str | None,
        run: str | None,
        overrides: tuple[str, ...],
        survey: str | None = None,
        **kwargs: Any,
    ) -> Any:
        given = {"stores.workspace": workspace, "run": run, "survey.root": survey}
        merged = [*overrides, *(f"{key}={_quoted(value)}" for key, value in given.items() if value is not None)]
        return command(*args, config=load(path, merged), **kwargs)

    for option in reversed(_OPTIONS):
        wrapper = option(wrapper)
    return wrapper


def with_survey(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the optional SURVEY argument, which overrides ``survey.root``."""
    return click.argument("survey", required=False)(command)


def load(path: str | None, overrides: list[str]) -> Config:
    """Read the config; without --config, ``skysift.toml`` in this folder is used where it exists."""
    return configuration.load(path or configuration.beside(), overrides)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
