"""``skysift simulate``: the command, its progress and its summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.simulate.survey import SimulationSummary

_HELP = """Write a simulated DESI survey to OUT, a folder or an s3:// URL.

OUT gets DR1's layout: zcatalog/v1/zall-pix-iron.fits and healpix/…/coadd-*.fits with redrock-*.fits. The truth
(which rows are anomalies, of which class and how strong) goes beside it, to OUT-truth.parquet. The same seed
gives the same survey, however many jobs.

\b
  skysift simulate sky --quasars 1000 --seed 1 --no-resolution
"""


@click.command("simulate", help=_HELP, short_help="Write a simulated DESI survey with known anomalies.")
@click.argument("out")
@click.option("--quasars", type=click.IntRange(min=1), required=True, metavar="N", help="Quasar spectra to write.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, metavar="S", help="Random seed.")
@click.option(
    "--quasar-fraction",
    type=click.FloatRange(0.005, 1),
    default=0.12,
    show_default=True,
    metavar="F",
    help="Share of the rows that are quasars; the rest are galaxies, stars, sky and broken fibers.",
)
@click.option("--no-resolution", is_flag=True, help="Leave out RESOLUTION: a row is 0.1 MB instead of 0.45.")
@click.option(
    "--anomaly-fraction",
    type=click.FloatRange(0, 1),
    default=0.015,
    show_default=True,
    metavar="F",
    help="Share of the quasars that are anomalies.",
)
@click.option(
    "--artefact-fraction",
    type=click.FloatRange(0, 1),
    default=0.012,
    show_default=True,
    metavar="F",
    help="Share of the quasars hurt by an artefact, groups of fibers apart.",
)
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Processes [default: one a core].")
def simulate(
    out: str, quasars: int, seed: int, quasar_fraction: float, no_resolution: bool, anomaly_fraction: float,
    artefact_fraction: float, jobs: int | None,
) -> None:  # fmt: skip
    """Run the simulation and say what was written."""
    from pipeline.simulate.survey import simulate as run

    started = time.monotonic()
    with _progress() as progress:
        summary = run(out, quasars, seed, quasar_fraction=quasar_fraction, resolution=not no_resolution,
                      anomaly_fraction=anomaly_fraction, artefact_fraction=artefact_fraction, jobs=jobs,
                      progress=progress)  # fmt: skip
    for line in describe(summary, time.monotonic() - started):
        click.echo(line)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a plain line at every tenth otherwise; both to stderr."""
    if not sys.stderr.isatty():
        yield _plain_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("simulate"), BarColumn(), MofNCompleteColumn(), TextColumn("pixels"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("simulate", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain_progress(done: int, total: int) -> None:
    """A line whenever another tenth is done."""
    if done == total or done * 10 // total > (done - 1) * 10 // total:
        click.echo(f"simulate: {done} of {total} pixels", err=True)


def describe(summary: SimulationSummary, seconds: float) -> list[str]:
    """Lines for the user: what was written, where, how large, what is in it."""
    counts = ", ".join(f"{number:,} {kind}" for kind, number in sorted(summary.counts.items(), key=lambda c: -c[1]))
    classes = ", ".join(f"{name} {number}" for name, number in summary.classes.items())
    return [
        f"{summary.quasars:,} quasar spectra among {summary.rows:,} rows in {summary.pixels:,} sky pixels",
        f"  survey   {summary.url}: {summary.files:,} files, {_size(summary.size)}, {seconds:.0f} s",
        f"  truth    {summary.truth}",
        f"  rows     {counts}",
        *([f"  strange  {classes}"] if classes else []),
    ]


def _size(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
