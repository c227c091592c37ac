"""``skysift evaluate``: what share of known departures and known objects the promoted model finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.commands.context import configured
from pipeline.config import Config

if TYPE_CHECKING:
    from pipeline.injection.recovery import Found
    from pipeline.stages.evaluate import EvaluateSummary

SHOWN = "p<0.01"  # the threshold that is printed by significance


@click.command()
@configured
@click.option("-m", "--model", metavar="ID", default="promoted", show_default=True, help="Model to judge.")
@click.option("-n", "--per-class", type=click.IntRange(0), default=300, show_default=True, metavar="N",
              help="Injections of each class; 0: none.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, metavar="N",
              help="Random seed.")  # fmt: skip
@click.option(
    "--class", "classes", multiple=True, metavar="NAME", help="Inject this class; repeatable.  [default: all]"
)
@click.option(
    "--catalog", "catalogs", multiple=True, metavar="FILE", help="Known objects (FITS, Parquet, CSV); repeatable."
)
@click.option("--label", default="", metavar="NAME", help="What to call the catalog's objects.")
@click.option("--column", default="", metavar="NAME", help="The catalog's column of classes.")
def evaluate(
    config: Config, model: str, per_class: int, seed: int, classes: tuple[str, ...], catalogs: tuple[str, ...],
    label: str, column: str,
) -> None:  # fmt: skip
    """Measure completeness: inject departures into held-out spectra.

    Results go to the table completeness and the workspace's reports. A
    catalog's known objects are looked up as they are; -n 0 does only that.
    """
    from pipeline.injection.departures import checked_classes
    from pipeline.session import opened
    from pipeline.stages import evaluate as stage
    from pipeline.stores import registry, runs

    chosen = checked_classes(classes)
    if not per_class and not catalogs:
        raise click.UsageError("nothing to do: give --per-class above 0, or a --catalog")
    with opened(config) as session, runs.run_lock(session.conn, config.run):
        runs.require_run(session.conn, config.run)
        model_id = registry.find_model(session.conn, model).model_id
        survey = stage.read_survey(session, model_id)
        done = stage.evaluate(session, model_id, survey, chosen, per_class, seed) if per_class else None
        if done:
            _say_injected(model_id, done)
        found: list[Found] = []
        for path in catalogs:
            for one in stage.evaluate_known(session, model_id, survey, path, label, column):
                _say_known(path, one)
                found.append(one)
        for file in stage.write_files(session, model_id, done, found):
            click.echo(f"wrote       {file}")


def _say_injected(model_id: str, done: EvaluateSummary) -> None:
    from pipeline.injection.completeness import ALL
    from pipeline.injection.hosts import CONTROL

    click.echo(
        f"evaluate    {done.injections.num_rows:,} injections into {done.n_hosts:,} held-out spectra in "
        f"{done.seconds:.1f} s, model {model_id}"
    )
    for row in done.completeness.to_pylist():
        pooled = row["class"] in (f"{ALL}physical", f"{ALL}artefact", CONTROL)
        banded = row["sigma_low"] is not None
        if (
            not pooled
            or row["snr_low"] is not None
            or row["z_low"] is not None
            or (banded and row["threshold"] != SHOWN)
        ):
            continue
        band = f"{row['sigma_low']:g}–{row['sigma_high']:g}σ" if banded else "5–50σ"
        what = "untouched" if row["kind"] == "control" else f"{row['kind']}, {band}"
        share = f"{100 * row['completeness']:5.1f}% ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        click.echo(f"            {what:<18} {row['threshold']:<12} {share} of {row['n']:,}")
    if done.missed:
        lost = ", ".join(f"{count} {name}" for name, count in done.missed.items())
        click.echo(f"            left out, as no spectrum tried is bright enough to show them so strongly: {lost}")


def _say_known(path: str, one: Found) -> None:
    here = len(one.objects.z)
    click.echo(
        f"catalog     {path}: {one.label}, {one.how}: {one.n_known:,} objects, {one.n_missing:,} not in the survey, "
        f"{here:,} spectra found, {one.n_training:,} of them trained on"
    )
    for threshold, recovered in one.objects.recovered.items():
        if here:
            click.echo(f"            {threshold:<12} {100 * recovered.mean():5.1f}% of {here:,}")
