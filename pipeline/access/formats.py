"""Arrow tables as astropy tables with units, and as files: FITS, Parquet, VOTable, ECSV, CSV."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from pipeline.access.columns import COMPUTED, column
from pipeline.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from astropy.table import Table

FORMATS: Final = {
    "fits": (".fits", ".fit"),
    "parquet": (".parquet", ".pq"),
    "votable": (".vot", ".xml", ".votable"),
    "ecsv": (".ecsv",),
    "csv": (".csv",),
}
UNKNOWN: Final = -1  # integer of a FITS file that stands for an unknown one (TNULL)

_ROOM: Final = 60  # characters of a FITS card for a value and its comment

Descriptions = Mapping[str, str]
Header = Mapping[str, tuple[Any, str]]  # key → value and comment


def format_of(path: str | Path, given: str = "") -> str:
    """Return the format of a file by its name, or the one given.

    Raises:
        ConfigError: the name's ending is none that is known.
    """
    if given:
        return given
    ending = Path(path).suffix.lower()
    found = next((name for name, endings in FORMATS.items() if ending in endings), "")
    if not found:
        known = ", ".join(ending for endings in FORMATS.values() for ending in endings)
        seen = f"'{ending}'" if ending else "a name without an ending"
        raise ConfigError(f"{path}: the format is not clear from {seen}; use one of {known}, or give --format")
    return found


def check_target(path: str | Path) -> None:
    """See that a file can be made in its folder, before the work that fills it.

    Raises:
        StoreError: there is no such folder, or the name is a folder's.
    """
    target = Path(path)
    if target.is_dir():
        raise StoreError(f"cannot write {target}: it is a folder; name a file in it")
    if not target.parent.is_dir():
        raise StoreError(f"cannot write {target}: there is no folder {target.parent}; make it or choose another")


def described(rows: pa.Table, descriptions: Descriptions) -> pa.Table:
    """Return the rows with unit, UCD and description in each field's metadata."""
    fields = []
    for field in rows.schema:
        known = column(field.name)
        said = descriptions.get(field.name) or COMPUTED.get(field.name, "")
        told = {"unit": known.unit, "ucd": known.ucd, "description": said}
        fields.append(field.with_metadata({key: value for key, value in told.items() if value}))
    return rows.cast(pa.schema(fields, rows.schema.metadata))


def to_astropy(
    rows: pa.Table, descriptions: Descriptions | None = None, meta: Mapping[str, Any] | None = None
) -> Table:
    """Return an astropy table: units, UCDs (``info.meta``), descriptions; unknown numbers are NaN or masked."""
    from astropy import units
    from astropy.table import Column, MaskedColumn, Table

    table = Table(meta=dict(meta or {}))
    for name in rows.column_names:
        values, mask = _values(rows[name])
        known = column(name)
        made = Column(values, name=name) if mask is None else MaskedColumn(values, name=name, mask=mask)
        made.unit = units.Unit(known.unit) if known.unit else None
        made.description = (descriptions or {}).get(name) or COMPUTED.get(name)
        if known.ucd:
            made.info.meta = {"ucd": known.ucd}
        table.add_column(made)
    return table


def _values(found: pa.ChunkedArray) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    kind = found.type
    if pa.types.is_floating(kind):
        return np.asarray(found.to_numpy()), None  # null is NaN
    if pa.types.is_list(kind) or pa.types.is_timestamp(kind):
        return np.array([_text(value) for value in found.to_pylist()], dtype=str), None
    nothing: Any = "" if pa.types.is_string(kind) else False if pa.types.is_boolean(kind) else 0
    mask = np.asarray(found.is_null().to_numpy()) if found.null_count else None
    values = np.asarray(found.fill_null(nothing).to_numpy())
    if pa.types.is_string(kind):
        return values.astype(str) if len(values) else np.empty(0, "U1"), None
    return values, mask


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)
    return str(value.isoformat())


def write(
    rows: pa.Table, path: str | Path, *, form: str = "", descriptions: Descriptions | None = None,
    header: Header | None = None,
) -> Path:  # fmt: skip
    """Write rows as a file, first under a temporary name.

    Args:
        rows: the rows.
        path: the file; one that exists is replaced.
        form: one of ``FORMATS``; empty: after the file's name.
        descriptions: of the columns.
        header: provenance: key → (value, comment).

    Raises:
        ConfigError: the format is not known.
        StoreError: the file cannot be written.
    """
    target = Path(path)
    data = to_bytes(rows, format_of(target, form), descriptions or {}, header or {})
    draft = target.with_name(target.name + ".part")
    try:
        draft.write_bytes(data)
        draft.replace(target)
    except OSError as error:
        raise StoreError(f"cannot write {target}: {error.strerror}; choose another folder or free space") from None
    return target


def to_bytes(rows: pa.Table, form: str, descriptions: Descriptions, header: Header) -> bytes:
    """Return the rows as a file's bytes; arguments as in ``write``."""
    if form == "parquet":
        return _parquet(rows, descriptions, header)
    if form == "csv":
        sink = pa.BufferOutputStream()
        texts = [
            rows[name] if not _odd(rows[name].type) else pa.array(_values(rows[name])[0]) for name in rows.column_names
        ]
        csv.write_csv(pa.table(texts, names=rows.column_names), sink)
        return bytes(sink.getvalue())
    if form == "fits":
        return _fits(rows, descriptions, header)
    table = to_astropy(rows, descriptions, {key: value for key, (value, _) in header.items()})
    if form == "ecsv":
        text = io.StringIO()
        table.write(text, format="ascii.ecsv", delimiter=",")
        return text.getvalue().encode()
    from pipeline.access.votable import votable

    return votable(rows, descriptions, header)


def _odd(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_timestamp(kind))


def _parquet(rows: pa.Table, descriptions: Descriptions, header: Header) -> bytes:
    told = described(rows, descriptions)
    kept = {**(told.schema.metadata or {}), **{key.lower(): str(value) for key, (value, _) in header.items()}}
    sink = pa.BufferOutputStream()
    pq.write_table(told.replace_schema_metadata(kept), sink, compression="zstd")
    return bytes(sink.getvalue())


def _fits(rows: pa.Table, descriptions: Descriptions, header: Header) -> bytes:
    from astropy.io import fits

    columns = []
    for name in rows.column_names:
        values, mask = _values(rows[name])
        null = None
        if mask is not None and values.dtype.kind in "iu":
            values, null = np.where(mask, UNKNOWN, values), UNKNOWN
        columns.append(
            fits.Column(name, _form(values), unit=column(name).unit or None, array=_ascii(values), null=null)
        )
    table = fits.BinTableHDU.from_columns(columns, name="CATALOG")
    for number, name in enumerate(rows.column_names, 1):
        said = descriptions.get(name) or COMPUTED.get(name, "")
        if said:
            table.header[f"TCOMM{number}"] = _plain(said)
        if column(name).ucd:
            table.header[f"TUCD{number}"] = column(name).ucd
    for key, (value, comment) in header.items():
        plain = _plain(value) if isinstance(value, str) else value
        roomy = len(str(plain)) + len(comment) < _ROOM  # a value that goes on in another card has no comment
        table.header[key[:8].upper()] = (plain, comment if roomy else "")
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(sink, checksum=True)
    return sink.getvalue()


def _form(values: np.ndarray[Any, Any]) -> str:
    if values.dtype.kind == "U":
        width = max((len(one.encode("ascii", "replace")) for one in values.tolist()), default=1)
        return f"{max(width, 1)}A"
    return {"f8": "D", "f4": "E", "i8": "K", "i4": "J", "i2": "I", "b1": "L"}[values.dtype.str[1:]]


def _ascii(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if values.dtype.kind != "U":
        return values
    return np.array([_plain(one) for one in values.tolist()] or [""], dtype="S")[: len(values)]


_SPELLED = str.maketrans({"σ": " sigma", "Å": " Angstrom", "α": "alpha", "β": "beta", "χ": "chi", "−": "-", "–": "-",
                          "²": "^2", "≈": "~", "′": "'", "λ": "lambda", "×": "x", "⁻": "^-", "γ": "gamma"})  # fmt: skip


def _plain(text: str) -> str:
    """FITS has ASCII only: Greek letters and signs spelled out."""
    return " ".join(text.translate(_SPELLED).split()).encode("ascii", "replace").decode()
