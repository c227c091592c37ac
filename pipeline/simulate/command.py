"""``skysift simulate``: the command and its summary."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from pipeline.progress import progress

if TYPE_CHECKING:
    from pipeline.simulate.survey import SimulationSummary

_HELP = """Write a simulated DESI survey to OUT, a folder or an s3:// URL.

OUT gets DR1's layout: zcatalog/v1/zall-pix-iron.fits and healpix/…/coadd-*.fits with redrock-*.fits. The truth
(which rows are anomalies, of which class and how strong) goes to
OUT-truth.parquet beside it. The same seed gives the same survey, however many jobs.

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
@click.option("--no-resolution", is_flag=True, help="Leave out RESOLUTION: 0.1 MB a row, not 0.45.")
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
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Processes.  [default: one a core]")
def simulate(
    out: str, quasars: int, seed: int, quasar_fraction: float, no_resolution: bool, anomaly_fraction: float,
    artefact_fraction: float, jobs: int | None,
) -> None:  # fmt: skip
    """Run the simulation and say what was written."""
    from pipeline.simulate.survey import plan_survey
    from pipeline.simulate.survey import simulate as run

    started = time.monotonic()
    pixels = len(plan_survey(quasars, quasar_fraction))
    with progress("simulate", pixels, "pixels") as bar:
        summary = run(out, quasars, seed, quasar_fraction=quasar_fraction, resolution=not no_resolution,
                      anomaly_fraction=anomaly_fraction, artefact_fraction=artefact_fraction, jobs=jobs,
                      progress=lambda *_: bar.advance(1))  # fmt: skip
    for line in describe(summary, time.monotonic() - started):
        click.echo(line)


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
