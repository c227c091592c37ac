"""Catalogs of known objects: broad absorption lines, damped systems, visual inspections; FITS, Parquet or CSV.

BAL catalogs list every quasar that was looked at, with indices that are 0 where there is no trough: AI_CIV (Hall et
al. 2002, ApJS 141, 267) and BI_CIV (Weymann et al. 1991, ApJ 373, 23). DLA catalogs list systems, log N(H I) in NHI.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.catalog.fitstable import Block, Hdu, next_hdu, read_rows
from pipeline.catalog.parquet import MAGIC, kinds, open_parquet, read_batches
from pipeline.catalog.stream import GZIP_MAGIC, ByteStream, open_stream
from pipeline.errors import InputError
from pipeline.stores.objects import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa

KEYS: Final = {"survey": ("SURVEY",), "program": ("PROGRAM",), "healpix": ("HEALPIX", "HPXPIXEL")}
INDICES: Final = {"AI_CIV": ("bal_ai", 0.0), "BI_CIV": ("bal_bi", 0.0), "NHI": ("dla", 20.3), "LOGN_HI": ("dla", 20.3)}
NAMES: Final = ("CLASS", "LABEL", "TYPE", "VI_SPECTYPE", "VI_CLASS")  # columns of classes in words
MOST: Final = 100  # classes that one column may hold


@dataclass(frozen=True)
class Known:
    """N objects of one label. What the file does not say of survey, program and healpix is None."""

    label: str
    how: str  # why these rows, in words
    targetid: NDArray[np.int64]
    survey: NDArray[np.str_] | None
    program: NDArray[np.str_] | None
    healpix: NDArray[np.int64] | None


def read_known(path: str, *, label: str = "", column: str = "") -> list[Known]:
    """Read the known objects of a catalog, one entry a label.

    Args:
        path: a file: FITS (gzipped or not), Parquet, or CSV with a header.
        label: what to call the rows; empty: after the columns.
        column: which column tells the class. Words are classes themselves; of numbers and booleans, those above 0.
            Empty: AI_CIV and BI_CIV above 0, NHI from 20.3, or a column such as CLASS; with a label and none of these,
            every row counts.

    Raises:
        InputError: the file is none of these, has no TARGETID, or nothing that tells the class.
    """
    wanted = {"TARGETID", column.upper(), *INDICES, *NAMES, *(name for names in KEYS.values() for name in names)}
    table, names = _read(path, wanted)
    if "TARGETID" not in table:
        raise InputError(f"{path}: no column TARGETID, by which objects are found; it has {names}", "bad_catalog")
    if table["TARGETID"].dtype.kind not in "iu":
        raise InputError(f"{path}: column TARGETID should hold integers and does not", "bad_catalog")
    if column and column.upper() not in table:
        raise InputError(f"{path}: no plain column {column.upper()}; it has {names}", "bad_catalog")
    keys = {key: next((table[name] for name in known if name in table), None) for key, known in KEYS.items()}
    found = []
    for name, how, rows in _classes(path, table, label, column.upper(), names):
        chosen = {key: None if values is None else _key(values[rows]) for key, values in keys.items()}
        found.append(Known(name, how, table["TARGETID"][rows].astype(np.int64), **chosen))
    if not found:
        raise InputError(f"{path}: no row tells of a known object; name the class column with --column", "bad_catalog")
    return found


def _classes(
    path: str, table: Block, label: str, column: str, has: str
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Yield label, reason and rows of each class; ``has`` names the file's columns."""
    indices = [column] if column else [name for name in INDICES if name in table]
    names = [] if indices else [name for name in NAMES if name in table and table[name].dtype.kind in "SU"]
    if not indices and not names:
        if not label:
            raise InputError(
                f"{path}: nothing tells the class of its rows ({has}); name them with --label, or the column with "
                "--column",
                "bad_catalog",
            )
        yield label, "every row", np.ones(len(table["TARGETID"]), bool)
    for name in indices or names[:1]:
        values = table[name]
        if values.dtype.kind in "SU":
            yield from _words(path, name, values, label)
            continue
        own, least = INDICES.get(name, (name.lower(), 0.0))
        several = label and len(indices) > 1
        said = f"{name} ≥ {least:g}" if least else f"{name} > 0"
        rows = np.nan_to_num(values.astype(np.float64)) >= (least or np.finfo(float).tiny)
        if rows.any():
            yield f"{label}_{own.split('_')[-1]}" if several else label or own, said, rows


def _words(path: str, name: str, values: NDArray[Any], label: str) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    words = _key(values)
    classes = [word for word in np.unique(words).tolist() if word]
    if len(classes) > MOST:
        raise InputError(f"{path}: column {name} holds {len(classes)} classes, at most {MOST} are taken", "bad_catalog")
    for word in classes:
        if not label or word.lower() == label.lower():
            yield word.lower(), f"{name} = {word}", words == word


def _key(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    text = np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values.astype(str)
    return np.char.strip(text)


def _read(path: str, wanted: Set[str]) -> tuple[Block, str]:
    """Return the wanted columns of a file by upper-case name, where they are plain, and the names of all."""
    place = Path(path).absolute()
    if not place.is_file():
        raise InputError(f"{path}: there is no such file; name a catalog of known objects", "missing_file")
    store, name = ObjectStore.open(str(place.parent)), place.name
    with place.open("rb") as file:
        start = file.read(16)
    if start.startswith(MAGIC):
        return _parquet(store, name, path, wanted)
    gzipped = start.startswith(GZIP_MAGIC)
    if gzipped or start.startswith(b"SIMPLE  ="):
        return _fits(open_stream(store, name, gzipped=gzipped), path, wanted)
    return _csv(place, path, wanted)


def _fits(stream: ByteStream, path: str, wanted: Set[str]) -> tuple[Block, str]:
    """The first table with TARGETID; without one, no column and the names of the first table's."""
    first: Hdu | None = None
    while (hdu := next_hdu(stream, path)) is not None:
        if "TARGETID" in hdu.columns:
            names = [name for name, column in hdu.columns.items() if column.kind != "-" and name in wanted]
            return _whole(read_rows(stream, hdu, names, path), names), _names(hdu.columns)
        first = first or (hdu if hdu.columns else None)
        if stream.skip(hdu.padded_bytes) < hdu.data_bytes:
            raise InputError(f"{path}: truncated in HDU {hdu.name}; fetch the file again", "truncated")
    if first is None:
        raise InputError(f"{path}: it has no binary table", "bad_catalog")
    return {}, _names(first.columns)


def _parquet(store: ObjectStore, name: str, path: str, wanted: Set[str]) -> tuple[Block, str]:
    file = open_parquet(store, name)
    columns = kinds(file)
    names = [column for column, kind in columns.items() if kind != "-" and column.upper() in wanted]
    whole = _whole(read_batches(file, names, path), names)
    return {column.upper(): values for column, values in whole.items()}, _names(columns)


def _whole(blocks: Iterator[Block], names: list[str]) -> Block:
    """Blocks joined, in the machine's byte order."""
    kept = [{name: np.array(block[name]) for name in names} for block in blocks]
    whole = {name: np.concatenate([block[name] for block in kept]) if kept else np.empty(0, int) for name in names}
    return {name: values.astype(values.dtype.newbyteorder("=")) for name, values in whole.items()}


def _csv(place: Path, path: str, wanted: Set[str]) -> tuple[Block, str]:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(place)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{path}: neither FITS, Parquet nor readable CSV ({line})", "bad_catalog") from None
    columns = {name.upper(): _plain(table[name]) for name in table.column_names if name.upper() in wanted}
    plain = {name: values for name, values in columns.items() if values is not None}
    return plain, _names(table.column_names)


def _plain(column: pa.ChunkedArray) -> NDArray[Any] | None:
    import pyarrow as pa

    nulls: list[tuple[Callable[[pa.DataType], bool], Any]] = [
        (pa.types.is_integer, -1),
        (pa.types.is_floating, float("nan")),
        (pa.types.is_boolean, False),
        (pa.types.is_string, ""),
    ]
    null = next((null for test, null in nulls if test(column.type)), None)
    if null is None:
        return None
    values = np.asarray(column.fill_null(null).to_numpy())
    return values.astype(str) if null == "" else values


def _names(columns: Iterable[str]) -> str:
    names = list(columns)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
