"""``skysift query``, ``cone``, ``similar``, ``show``, ``export``, ``crossmatch``: the finished catalog in a shell."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.context import configured
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.verdicts.kinds import VERDICTS

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.access.similar import Alike
    from pipeline.access.survey import Survey

SHOWN = 50  # rows that a terminal shows
DRAWN = 6  # look-alikes in a picture
_FORM = click.Choice(["fits", "parquet", "votable", "ecsv", "csv"])
_OUT = click.option("-o", "--out", metavar="FILE", help="Write to FILE, replacing it; its ending says the format.")
_FORMAT = click.option("-f", "--format", "form", type=_FORM, metavar="FORMAT",
                       help="fits, parquet, votable, ecsv or csv, to FILE or (the last three) here.")  # fmt: skip


class _Signed(click.Command):
    """A command whose arguments may be negative numbers, which look like options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.ignore_unknown_options = any(re.fullmatch(r"-[\d.][\d.eE+-]*", one) for one in args)
        return super().parse_args(ctx, args)


def _filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    p_below = click.FloatRange(0, 1)
    command = click.option("--p-below", type=p_below, metavar="P", help="Keep p-values up to P.")(command)
    command = click.option("--verdict", multiple=True, metavar="NAME",
                           help=f"Keep this verdict, repeatable: {', '.join(VERDICTS)}.")(command)  # fmt: skip
    for option, what in (("--snr", "S/N a pixel"), ("--z", "redshifts")):
        said = f"Keep {what} from LOW to HIGH."
        command = click.option(option, type=float, nargs=2, metavar="LOW HIGH", help=said)(command)
    return command


def _filters(z: Any, snr: Any, verdict: tuple[str, ...], p_below: float | None) -> dict[str, Any]:
    given = {"z": z, "snr": snr, "verdict": verdict, "p_value": None if p_below is None else (None, p_below)}
    return {name: value for name, value in given.items() if value}


def _open(config: Config) -> Any:
    from pipeline.access.survey import Survey

    return closing(Survey(config=config))


def _check_out(out: str | None, form: str | None) -> None:
    """What is wrong with where the rows should go is said before they are looked for."""
    from pipeline.access import formats

    if out:
        formats.check_target(out)
        formats.format_of(out, form or "")
    elif form in ("fits", "parquet") and sys.stdout.isatty():
        raise click.UsageError(f"{form} is not for a terminal: name a file with --out")


def _check_picture(path: str | None) -> None:
    from pipeline.access import formats, picture

    if path:
        picture.check_name(path)
        formats.check_target(path)


def _emit(survey: Survey, rows: pa.Table, out: str | None, form: str | None, *, more: bool = False) -> None:
    """Write rows to a file, or to the terminal as a table, or through a pipe."""
    from pipeline.access import formats, terminal

    if out:
        path = formats.write(rows, out, form=form or "", descriptions=survey.descriptions)
        click.echo(f"wrote {path}: {rows.num_rows:,} rows", err=True)
    elif form:
        sys.stdout.buffer.write(formats.to_bytes(rows, form, survey.descriptions, {}))
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
@click.option("--limit", type=click.IntRange(1, 2_000_000), default=1_000_000, show_default=True, metavar="N",
              help="Most rows.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=60.0, show_default=True, metavar="SECONDS",
              help="Most time.")  # fmt: skip
@configured
def query(config: Config, sql: str, out: str | None, form: str | None, limit: int, timeout: float) -> None:
    """Answer a SELECT over the published tables; nothing can be written.

    \b
    skysift query "SELECT rank, targetid, explanation FROM anomalies LIMIT 10"
    skysift query "SELECT * FROM cone_search(150.1, 2.2, 0.5)" -o field.fits
    """
    from pipeline.stores.reader import Reader

    _check_out(out, form)
    with _open(config) as survey:
        reader = Reader(survey.server_url, seconds=timeout)
        with closing(reader):
            found = reader.answer(sql, limit=limit)
        _emit(survey, found.rows, out, form, more=found.truncated)


@click.command(cls=_Signed)
@click.argument("ra", type=float)
@click.argument("dec", type=float)
@click.argument("radius", type=float)
@_filtered
@_OUT
@_FORMAT
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True, metavar="N",
              help="Most rows.")  # fmt: skip
@configured
def cone(
    config: Config, ra: float, dec: float, radius: float, z: Any, snr: Any, verdict: tuple[str, ...],
    p_below: float | None, out: str | None, form: str | None, limit: int,
) -> None:  # fmt: skip
    """List spectra within RADIUS of RA DEC (all deg, ICRS), nearest first.

    \b
    skysift cone 150.1 -2.2 0.5 --z 2 3
    skysift cone 150.1 2.2 0.01 --verdict physical -o field.fits
    """
    from pipeline.access import catalog
    from pipeline.access.filters import Cone
    from pipeline.access.survey import make_filters

    where = Cone(ra, dec, radius)
    filters = make_filters(**_filters(z, snr, verdict, p_below))
    _check_out(out, form)
    with _open(config) as survey:
        rows = catalog.cone(survey.reader, where, filters, limit=limit + 1)
        if not rows.num_rows:
            catalog.promoted(survey.reader)
        _emit(survey, rows.slice(0, limit), out, form, more=rows.num_rows > limit)


@click.command(cls=_Signed)
@click.argument("target")
@click.option("-k", type=click.IntRange(1, 1000), default=10, show_default=True, metavar="N", help="How many.")
@click.option("--redshift", type=float, metavar="Z", help="Of a file's spectrum, where the file does not say.")
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

    \b
    skysift similar 39627646517545412 -k 20 --z 2 3 --picture alike.png
    skysift similar mine.fits --redshift 2.1
    """
    from pipeline.access.survey import make_filters, spectra_from

    filters = make_filters(**_filters(z, snr, verdict, p_below))
    known = re.fullmatch(r"-?\d+", target) is not None
    if not known and not Path(target).is_file():
        raise InputError(f"{target}: neither a TARGETID nor a file that can be read; see the name", "missing_file")
    _check_out(out, form)
    _check_picture(picture)
    with _open(config) as survey:
        if known:
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


@click.command(cls=_Signed)
@click.argument("targetid", type=int)
@click.option("-o", "--out", metavar="FILE", help="Picture to write (png, pdf, svg).  [default: TARGETID.png]")
@click.option("--no-picture", is_flag=True, help="Print only.")
@click.option("--coadd", default="", metavar="NAME",
              help="The spectrum from this coadd, of a target with several.  [default: the best ranked]")  # fmt: skip
@configured
def show(config: Config, targetid: int, out: str | None, no_picture: bool, coadd: str) -> None:
    """Show a spectrum: a picture in a file, and its story here."""
    from pipeline.access import picture, terminal

    _check_picture(None if no_picture else out)
    with _open(config) as survey:
        spectrum = survey.spectrum(targetid, coadd=coadd)
        total = int(survey.reader.rows("SELECT count(*) AS n FROM anomaly_catalog")["n"][0].as_py())
        click.echo(terminal.story(spectrum, picture.lookalikes(spectrum.facts), total))
        if not no_picture:
            click.echo(f"\npicture  {picture.save(spectrum, Path(out or f'{targetid}.png'))}")


@click.command()
@click.argument("target", metavar="PATH")
@click.option("-f", "--format", "form", type=click.Choice([*_FORM.choices, "hats"]), metavar="FORMAT",
              help="fits, parquet, votable, ecsv, csv or hats.  [default: by the ending; hats where there is none]",
              )  # fmt: skip
@configured
def export(config: Config, target: str, form: str | None) -> None:
    """Write the whole promoted catalog to PATH, with units and provenance.

    A file that is there is replaced; a HATS folder is not.

    \b
    skysift export anomalies.fits
    skysift export anomalies                  a HATS catalog for lsdb
    """
    from pipeline.access.export import check
    from pipeline.access.export import export as write

    check(target, form or "")
    with _open(config) as survey:
        written, count = write(survey.reader, target, form or "")
    click.echo(f"wrote {written}: {count:,} rows")


@click.command()
@click.argument("file")
@click.option("--radius", type=float, default=1.0, show_default=True, metavar="ARCSEC",
              help="Of a match by position, arcsec, up to 3600.")  # fmt: skip
@click.option("--by", type=click.Choice(["targetid", "position"]),
              help="What to match by.  [default: TARGETID where the file has it]")  # fmt: skip
@_OUT
@_FORMAT
@configured
def crossmatch(config: Config, file: str, radius: float, by: str | None, out: str | None, form: str | None) -> None:
    """Match the objects of a file with the catalog.

    FITS, VOTable, Parquet, ECSV or CSV, by TARGETID or by position (ICRS). The
    layouts of DESI's BAL, DLA, visual inspection and QSO catalogs are known:
    their own columns come along.

    \b
    skysift crossmatch bal.fits -o matched.parquet
    skysift crossmatch mine.csv --by position --radius 2
    """
    from pipeline.access.crossmatch import crossmatch as match

    _check_out(out, form)
    with _open(config) as survey:
        found = match(survey.reader, file, radius=radius, by=by or "")
        layout = f", a {found.layout} catalog" if found.layout else ""
        click.echo(f"{file}{layout}: {found.n_file:,} rows, {found.rows.num_rows:,} matched {found.how}", err=True)
        _emit(survey, found.rows, out, form)
