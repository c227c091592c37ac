"""``skysift query``, ``cone``, ``similar``, ``show``, ``export``, ``crossmatch``: the finished catalog in a shell."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.context import configured
from pipeline.config import Config

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.access.similar import Alike
    from pipeline.access.survey import Survey

SHOWN = 50  # rows that a terminal shows
DRAWN = 6  # look-alikes in a picture
_FORM = click.Choice(["fits", "parquet", "votable", "ecsv", "csv"])
_OUT = click.option("-o", "--out", metavar="FILE", help="Write there, in the format of its name.")
_FORMAT = click.option("-f", "--format", "form", type=_FORM, help="Format; of what is printed, csv, ecsv or votable.")


def _filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in ("--snr", "--z"):
        command = click.option(option, type=float, nargs=2, metavar="LOW HIGH", help="Keep this range.")(command)
    command = click.option("--verdict", multiple=True, metavar="NAME", help="Keep these verdicts.")(command)
    return click.option("--p-below", type=float, metavar="P", help="Keep p-values up to this.")(command)


def _filters(z: Any, snr: Any, verdict: tuple[str, ...], p_below: float | None) -> dict[str, Any]:
    given = {"z": z, "snr": snr, "verdict": verdict, "p_value": None if p_below is None else (None, p_below)}
    return {name: value for name, value in given.items() if value}


def _open(config: Config) -> Any:
    from pipeline.access.survey import Survey

    return closing(Survey(config=config))


def _emit(survey: Survey, rows: pa.Table, out: str | None, form: str | None, *, more: bool = False) -> None:
    """Write rows to a file, or to the terminal as a table, or through a pipe."""
    from pipeline.access import formats, terminal

    if out:
        path = formats.write(rows, out, form=form or "", descriptions=survey.descriptions)
        click.echo(f"wrote {path}: {rows.num_rows:,} rows", err=True)
    elif form:
        data = formats.to_bytes(rows, form, survey.descriptions, {})
        if form in ("fits", "parquet") and sys.stdout.isatty():
            raise click.UsageError(f"{form} is not for a terminal: name a file with --out")
        sys.stdout.buffer.write(data)
    else:
        click.echo(terminal.table(rows.slice(0, SHOWN), shutil.get_terminal_size((100, 24)).columns))
        if rows.num_rows > SHOWN:
            click.echo(f"({rows.num_rows - SHOWN:,} more rows: write them to a file with --out)")
    if more:
        click.echo("skysift: there are more rows than --limit; this is the beginning", err=True)


@click.command()
@click.argument("sql")
@_OUT
@_FORMAT
@click.option("--limit", type=click.IntRange(1, 2_000_000), default=1_000_000, show_default=True, help="Most rows.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=60.0, show_default=True, help="Seconds.")
@configured
def query(config: Config, sql: str, out: str | None, form: str | None, limit: int, timeout: float) -> None:
    """Answer a SELECT over the published tables; nothing can be written.

    \b
    skysift query "SELECT rank, targetid, z, explanation FROM anomalies ORDER BY rank LIMIT 10"
    skysift query "SELECT * FROM cone_search(150.1, 2.2, 0.5)" -o field.fits
    """
    from pipeline.stores.reader import Reader

    with _open(config) as survey:
        reader = Reader(survey.server_url, seconds=timeout)
        with closing(reader):
            found = reader.answer(sql, limit=limit)
        _emit(survey, found.rows, out, form, more=found.truncated)


@click.command()
@click.argument("ra", type=float)
@click.argument("dec", type=float)
@click.argument("radius", type=float)
@_filtered
@_OUT
@_FORMAT
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True, help="Most rows.")
@configured
def cone(
    config: Config, ra: float, dec: float, radius: float, z: Any, snr: Any, verdict: tuple[str, ...],
    p_below: float | None, out: str | None, form: str | None, limit: int,
) -> None:  # fmt: skip
    """List spectra within RADIUS of RA DEC (all deg), nearest first.

    \b
    skysift cone 150.1 2.2 0.5 --z 2 3
    skysift cone -- 150.1 -2.2 0.5            a negative declination after --
    """
    from pipeline.access import catalog
    from pipeline.access.filters import Cone
    from pipeline.access.survey import make_filters

    where = Cone(ra, dec, radius)
    filters = make_filters(**_filters(z, snr, verdict, p_below))
    with _open(config) as survey:
        rows = catalog.cone(survey.reader, where, filters, limit=limit + 1)
        _emit(survey, rows.slice(0, limit), out, form, more=rows.num_rows > limit)


@click.command()
@click.argument("target")
@click.option("-k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")
@click.option("--redshift", type=float, help="Of a file's spectrum, where the file does not say.")
@click.option("--picture", metavar="FILE", help=f"Draw the target and its nearest, {DRAWN} at most (png, pdf, svg).")
@_filtered
@_OUT
@_FORMAT
@configured
def similar(
    config: Config, target: str, k: int, redshift: float | None, picture: str | None, z: Any, snr: Any,
    verdict: tuple[str, ...], p_below: float | None, out: str | None, form: str | None,
) -> None:  # fmt: skip
    """List the spectra most like TARGET: a TARGETID, or a file with a spectrum.

    The target's own spectra are left out. The percentile says how near that is
    for this survey: so many percent of random pairs are nearer to each other.
    """
    from pipeline.access.survey import make_filters, spectra_from

    filters = make_filters(**_filters(z, snr, verdict, p_below))
    with _open(config) as survey:
        if target.lstrip("-").isdigit():
            found = survey.neighbours().of_spectrum(survey.facts(int(target)), k, filters)
        else:
            found = survey.alike(spectra_from(target, redshift), k, filters)
        if found.notice:
            click.echo(f"skysift: {found.notice}", err=True)
        _emit(survey, found.rows, out, form)
        if picture:
            _draw(survey, found, picture)


def _draw(survey: Survey, found: Alike, path: str) -> None:
    from pipeline.access.picture import save_gallery

    rows = ([dict(found.query)] if found.query else []) + found.rows.slice(0, DRAWN).to_pylist()
    sources = [survey.spectrum(row["targetid"], coadd=row["coadd"]) for row in rows]
    said = [f"{row['targetid']}   z {row['z']:.3f}   S/N {row['snr']:.1f}"
            + (f"   distance {row['distance']:.2f}, of random pairs {row['distance_percentile']:.3g}% are nearer"
               if "distance" in row else "   what was asked about") for row in rows]  # fmt: skip
    click.echo(f"picture  {save_gallery(sources, said, path)}", err=True)


@click.command()
@click.argument("targetid", type=int)
@click.option("-o", "--out", metavar="FILE", help="Picture to write (png, pdf, svg).  [default: TARGETID.png]")
@click.option("--no-picture", is_flag=True, help="Print only.")
@click.option("--coadd", default="", metavar="NAME", help="Of several spectra of the target, this one's.")
@configured
def show(config: Config, targetid: int, out: str | None, no_picture: bool, coadd: str) -> None:
    """Show a spectrum: a picture in a file, and its story here."""
    from pipeline.access import picture, terminal

    with _open(config) as survey:
        spectrum = survey.spectrum(targetid, coadd=coadd)
        total = int(survey.reader.rows("SELECT count(*) AS n FROM anomaly_catalog")["n"][0].as_py())
        click.echo(terminal.story(spectrum, picture.lookalikes(spectrum.facts), total))
        if not no_picture:
            click.echo(f"\npicture  {picture.save(spectrum, Path(out or f'{targetid}.png'))}")


@click.command()
@click.argument("target", metavar="PATH")
@click.option("-f", "--format", "form", type=click.Choice(["fits", "parquet", "votable", "ecsv", "csv", "hats"]),
              help="Format.  [default: by the name; a name without an ending is a HATS folder]")  # fmt: skip
@configured
def export(config: Config, target: str, form: str | None) -> None:
    """Write the whole promoted catalog to PATH, with units and provenance.

    \b
    skysift export anomalies.fits
    skysift export anomalies                  a HATS catalog for lsdb
    """
    from pipeline.access.export import export as write

    with _open(config) as survey:
        written, count = write(survey.reader, target, form or "")
    click.echo(f"wrote {written}: {count:,} rows")


@click.command()
@click.argument("file")
@click.option("--radius", type=float, default=1.0, show_default=True, help="Of a match by position, arcsec.")
@click.option("--by", type=click.Choice(["targetid", "position"]), help="[default: TARGETID where the file has it]")
@_OUT
@_FORMAT
@configured
def crossmatch(config: Config, file: str, radius: float, by: str | None, out: str | None, form: str | None) -> None:
    """Match the objects of a file with the catalog.

    FITS, VOTable, Parquet, ECSV or CSV, by TARGETID or by position (ICRS). The
    layouts of DESI's BAL, DLA, visual inspection and QSO catalogs are known:
    their own columns come along.
    """
    from pipeline.access.crossmatch import crossmatch as match

    with _open(config) as survey:
        found = match(survey.reader, file, radius=radius, by=by or "")
        layout = f", a {found.layout} catalog" if found.layout else ""
        click.echo(f"{file}{layout}: {found.n_file:,} rows, {found.rows.num_rows:,} matched {found.how}", err=True)
        _emit(survey, found.rows, out, form)
