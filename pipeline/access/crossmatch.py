"""A catalog from elsewhere beside the promoted one: matched by TARGETID, or by position on the sky."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from pipeline.access import catalog
from pipeline.errors import InputError, first_sentence
from pipeline.stores.reader import Reader

if TYPE_CHECKING:
    from astropy.table import Table

MAX_ROWS: Final = 5_000_000
LAYOUTS: Final = {  # columns that a published catalog has (any of these sets), and what they tell of an object
    "BAL": (
        (("AI_CIV", "BI_CIV"),),
        ("Z", "BI_CIV", "ERR_BI_CIV", "NCIV_2000", "AI_CIV", "ERR_AI_CIV", "NCIV_450", "SNR_CIV"),
    ),
    "DLA": (
        (("NHI", "Z_DLA"), ("GP_NHI", "GP_Z_DLA"), ("CNN_NHI", "CNN_Z_DLA")),
        (
            "DLAID",
            "Z_QSO",
            "Z_DLA",
            "Z_DLA_ERR",
            "NHI",
            "NHI_ERR",
            "DELTACHI2",
            "SNR_FOREST",
            "SNR_REDSIDE",
            "S2N",
            "GP_Z_DLA",
            "GP_NHI",
            "CNN_Z_DLA",
            "CNN_NHI",
        ),
    ),
    "visual inspection": (
        (("VI_QUALITY",), ("BEST_QUALITY",)),
        (
            "VI_Z",
            "VI_QUALITY",
            "VI_SPECTYPE",
            "VI_ISSUE",
            "VI_COMMENT",
            "VI_SCANNER",
            "BEST_Z",
            "BEST_QUALITY",
            "BEST_SPECTYPE",
            "ALL_VI_ISSUES",
            "ALL_VI_COMMENTS",
        ),
    ),
    "QSO": ((("Z", "TARGET_RA"),), ("Z", "ZERR", "ZWARN", "MASKBITS", "MORPHTYPE", "SURVEY", "TILEID", "LASTNIGHT")),
}  # DESI's value-added catalogs of EDR and DR1: BAL, DLA (toolkit; GP and CNN), Lyα (zlya), QSO; prospect's inspections
_IDS: Final = ("TARGETID", "TARGET_ID", "DESI_TARGETID")
_RA: Final = ("TARGET_RA", "RA", "RAJ2000", "RA_ICRS", "RAICRS", "_RAJ2000", "ALPHA_J2000")
_DEC: Final = ("TARGET_DEC", "DEC", "DEJ2000", "DE_ICRS", "DECJ2000", "_DEJ2000", "DELTA_J2000")
_OURS: Final = """
    SELECT rank, targetid, ra, dec, z, snr, anomaly_score, p_value, q_value, verdict, artefact_probability, explanation,
           spectrum_id
    FROM anomaly_catalog"""


@dataclass(frozen=True)
class Matched:
    """The matches: columns of the catalog, then of the file with ``file_`` before them."""

    rows: pa.Table
    how: str  # in words
    layout: str  # which published layout it has; empty: none that is known
    n_file: int


def crossmatch(reader: Reader, path: str, *, radius: float = 1.0, by: str = "") -> Matched:
    """Match a file's objects with the promoted catalog.

    Args:
        reader: the catalog.
        path: FITS, VOTable, Parquet, ECSV or CSV with TARGETID, or with positions (ICRS, deg).
        radius: of the match by position, arcsec; the nearest within counts.
        by: ``targetid`` or ``position``; empty: by TARGETID where the file has it.

    Raises:
        InputError: the file cannot be read or has neither.
    """
    if not 0 < radius <= 3600:
        raise InputError(f"the radius is {radius:g} arcsec, expected more than 0 and up to 3600", "out_of_range")
    table = read_table(path)
    names = {name.upper().replace(" ", "_"): name for name in table.colnames}
    identity = next((names[one] for one in _IDS if one in names), "")
    ra, dec = (next((names[one] for one in known if one in names), "") for known in (_RA, _DEC))
    if (by == "targetid" and not identity) or (by == "position" and not (ra and dec)) or not (identity or (ra and dec)):
        wanted = {"targetid": "column TARGETID", "position": "columns RA and DEC"}.get(
            by, "column TARGETID, nor columns RA and DEC,"
        )
        raise InputError(f"{path}: no {wanted} to match by; it has {', '.join(table.colnames[:12])}", "bad_catalog")
    ours = reader.rows(_OURS)
    if not ours.num_rows:
        catalog.promoted(reader)
    by_identity = bool(identity) and by != "position"
    if by_identity:
        here, there = _by_targetid(ours, _integers(table, identity, path))
        how = f"by {identity}"
    else:
        ra_B, dec_B = _degrees(table, ra, path), _degrees(table, dec, path)
        here, there, apart = _by_position(ours, ra_B, dec_B, radius)
        how = f"by {ra}, {dec} within {radius:g}″"
        if lost := len(table) - np.count_nonzero(_placed(ra_B, dec_B)):
            how += f"; rows without a possible position: {lost:,}"
    layout = _layout(names)
    kept = [names[one] for one in LAYOUTS[layout][1] if one in names] if layout else _plain(table)
    rows = ours.take(pa.array(here))
    if not by_identity:
        rows = rows.append_column("sky_distance", pa.array(apart * 3600.0))
    for name in kept:
        rows = rows.append_column(f"file_{name.lower().replace(' ', '_')}", _arrow(table[name][there]))
    return Matched(rows.sort_by("rank"), how, layout, len(table))


def _layout(names: Container[str]) -> str:
    for layout, (needed, _) in LAYOUTS.items():
        if any(all(one in names for one in columns) for columns in needed):
            return layout
    return ""


def read_table(path: str) -> Table:
    """Read a table of any of the formats.

    Raises:
        InputError: there is no such file, or it is none of them.
    """
    import warnings

    from astropy.table import Table

    place = Path(path)
    if not place.is_file():
        raise InputError(f"{path}: {'not a file' if place.exists() else 'there is no such file'}", "missing_file")
    with place.open("rb") as file:
        start = file.read(512)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if start.startswith(b"PAR1"):
                import pyarrow.parquet as pq

                found = pq.read_table(place)
                table = Table({name: _column(found[name]) for name in found.column_names if _flat(found[name].type)})
            else:
                form = "fits" if start.startswith((b"SIMPLE  =", b"\x1f\x8b")) else None
                form = "votable" if b"VOTABLE" in start else form
                form = form or ("ascii.ecsv" if start.startswith(b"# %ECSV") else "ascii.csv")
                table = Table.read(place, format=form)
    except Exception as error:  # readers of five formats raise whatever they stumble over
        said = first_sentence(error)
        raise InputError(
            f"{path}: neither FITS, VOTable, Parquet, ECSV nor CSV that can be read ({said})", "bad_catalog"
        ) from None
    if not 1 <= len(table) <= MAX_ROWS:
        raise InputError(f"{path} has {len(table):,} rows, expected 1 to {MAX_ROWS:,}", "bad_catalog")
    return table


def _flat(kind: pa.DataType) -> bool:
    return bool(pa.types.is_primitive(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _column(values: pa.ChunkedArray) -> Any:
    plain = values.to_numpy()
    return plain.astype(str) if plain.dtype.kind == "O" else plain


def _integers(table: Table, name: str, path: str) -> np.ndarray[Any, Any]:
    values: np.ndarray[Any, Any] = np.asarray(np.ma.filled(np.ma.asarray(table[name]), -1))
    if values.dtype.kind not in "iu":
        raise InputError(f"{path}: column {name} should hold integers, found {values.dtype}; ids beyond 2⁵³ are not "
                         "safe in floats", "bad_catalog")  # fmt: skip
    return values.astype(np.int64)


def _degrees(table: Table, name: str, path: str) -> np.ndarray[Any, Any]:
    try:
        column = table[name]
        values: np.ndarray[Any, Any] = np.asarray(np.ma.filled(np.ma.asarray(column, dtype=float), np.nan))
        unit = getattr(column, "unit", None)
        return np.asarray((values * unit).to_value("deg") if unit is not None else values)
    except (TypeError, ValueError) as error:
        bad = next(((row, one) for row, one in enumerate(map(str, table[name]), 1) if not _is_number(one)), None)
        found = f", found '{bad[1]}' in row {bad[0]:,}" if bad else f" ({error})"
        raise InputError(f"{path}: column {name} should hold angles in degrees{found}", "bad_catalog") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == "--"  # masked
    return True


def _by_targetid(ours: pa.Table, theirs: np.ndarray[Any, Any]) -> tuple[Any, Any]:
    """All pairs: a target may have several spectra here and several rows there."""
    mine = ours["targetid"].to_numpy()
    order = np.argsort(mine, kind="stable")
    first, last = (np.searchsorted(mine[order], theirs, side=side) for side in ("left", "right"))
    count = last - first
    there = np.repeat(np.arange(len(theirs)), count)
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return order[np.repeat(first, count) + step], there


def _placed(ra: Any, dec: Any) -> Any:
    return np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)


def _by_position(ours: pa.Table, ra: Any, dec: Any, radius: float) -> tuple[Any, Any, Any]:
    """For each of the file's positions the nearest spectrum within the radius."""
    from astropy import units
    from astropy.coordinates import SkyCoord

    mine = np.flatnonzero(np.isfinite(ours["ra"].to_numpy()))
    rows = np.flatnonzero(_placed(ra, dec))
    if not len(mine) or not len(rows):
        empty = np.empty(0, np.int64)
        return empty, empty, np.empty(0)
    places = SkyCoord(ours["ra"].to_numpy()[mine] * units.deg, ours["dec"].to_numpy()[mine] * units.deg)
    nearest, apart, _ = SkyCoord(ra[rows] * units.deg, dec[rows] * units.deg).match_to_catalog_sky(places)
    good = apart.arcsec <= radius
    return mine[nearest[good]], rows[good], apart.deg[good]


def _plain(table: Table) -> list[str]:
    return [name for name in table.colnames if table[name].ndim == 1][:20]


def _arrow(values: Any) -> pa.Array:
    plain = np.ma.asarray(values)
    mask = np.ma.getmaskarray(plain)
    data = np.ma.getdata(plain)
    if data.dtype.kind == "S":
        data = np.char.decode(data, "utf-8", "replace")
    if data.dtype.kind in "UO":
        return pa.array(
            [None if gone else str(one).strip() for one, gone in zip(data.tolist(), mask, strict=True)], pa.string()
        )
    return pa.array(data.astype(data.dtype.newbyteorder("=")), mask=mask)
