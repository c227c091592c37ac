"""FITS bytes, fast: headers as text and arrays turned big-endian straight into one buffer.

The format is the FITS standard 4.0 (https://fits.gsfc.nasa.gov/fits_standard.html). astropy spends
longer on the headers of one coadd than the simulator spends on its spectra, hence this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 2880  # bytes; every header and data unit is padded to a multiple
BITPIX = {"f4": -32, "f8": -64, "i4": 32, "i8": 64, "i2": 16, "u1": 8}
TFORM = {"K": ">i8", "J": ">i4", "I": ">i2", "B": "u1", "E": ">f4", "D": ">f8", "L": "S1"}

Value = str | int | float | bool
Keyword = tuple[str, Value, str]


@dataclass(frozen=True)
class Column:
    """One column of a binary table: name, FITS format code (``K``, ``10D``, ``22A``) and unit."""

    name: str
    tform: str
    unit: str = ""

    @property
    def dtype(self) -> tuple[Any, ...]:
        """numpy field (big-endian) of this column."""
        kind, repeat = self.tform[-1], int(self.tform[:-1] or 1)
        if kind == "A":
            return (self.name, f"S{repeat}")
        return (self.name, TFORM[kind]) if repeat == 1 else (self.name, TFORM[kind], (repeat,))


@dataclass(frozen=True)
class Unit:
    """One header-and-data unit, ready to be laid into a file."""

    header: bytes
    data: NDArray[Any] | None

    @property
    def size(self) -> int:
        """Bytes this unit takes in the file."""
        return len(self.header) + padded(0 if self.data is None else self.data.nbytes)


def padded(size: int) -> int:
    """Smallest multiple of the FITS block that holds ``size`` bytes."""
    return -(-size // BLOCK) * BLOCK


def parse_columns(text: str) -> tuple[Column, ...]:
    """Columns from words ``NAME:TFORM`` or ``NAME:TFORM:unit`` (``_`` in a unit stands for a space)."""
    parts = [word.split(":") for word in text.split()]
    return tuple(Column(p[0], p[1], p[2].replace("_", " ") if len(p) > 2 else "") for p in parts)


def empty_table(columns: Sequence[Column], n_rows: int) -> NDArray[np.void]:
    """A zeroed big-endian structured array [n_rows] for these columns."""
    return np.zeros(n_rows, dtype=np.dtype([column.dtype for column in columns]))


def image(name: str, data: NDArray[Any], unit: str = "") -> Unit:
    """An IMAGE extension; ``data`` may be of either byte order."""
    cards: list[Keyword] = [
        ("XTENSION", "IMAGE", "IMAGE extension"),
        ("BITPIX", BITPIX[data.dtype.str[1:]], ""),
    ]
    cards += [("NAXIS", data.ndim, "")]
    cards += [(f"NAXIS{i + 1}", n, "") for i, n in enumerate(reversed(data.shape))]
    cards += [("PCOUNT", 0, ""), ("GCOUNT", 1, ""), ("EXTNAME", name, "")]
    if unit:
        cards.append(("BUNIT", unit, ""))
    return Unit(header(cards), data)


def table(name: str, columns: Sequence[Column], data: NDArray[np.void], keywords: Sequence[Keyword] = ()) -> Unit:
    """A BINTABLE extension from a structured array made by :func:`empty_table`."""
    return Unit(table_header(name, columns, len(data), keywords), data)


def table_header(name: str, columns: Sequence[Column], n_rows: int, keywords: Sequence[Keyword] = ()) -> bytes:
    """Header of a BINTABLE of ``n_rows`` rows."""
    width = np.dtype([column.dtype for column in columns]).itemsize
    cards: list[Keyword] = [("XTENSION", "BINTABLE", "binary table extension"), ("BITPIX", 8, "")]
    cards += [("NAXIS", 2, ""), ("NAXIS1", width, "bytes a row"), ("NAXIS2", n_rows, "rows")]
    cards += [("PCOUNT", 0, ""), ("GCOUNT", 1, ""), ("TFIELDS", len(columns), "")]
    for i, column in enumerate(columns, start=1):
        cards += [(f"TTYPE{i}", column.name, ""), (f"TFORM{i}", column.tform, "")]
        if column.unit:
            cards.append((f"TUNIT{i}", column.unit, ""))
    return header([*cards, ("EXTNAME", name, ""), *keywords])


def primary(keywords: Sequence[Keyword]) -> Unit:
    """An empty primary unit with these keywords."""
    cards: list[Keyword] = [
        ("SIMPLE", True, "conforms to FITS standard"),
        ("BITPIX", 8, ""),
        ("NAXIS", 0, ""),
    ]
    return Unit(header([*cards, ("EXTEND", True, ""), *keywords]), None)


def header(cards: Sequence[Keyword]) -> bytes:
    """Header block: 80-character cards, END, padded with spaces."""
    text = "".join(card(*entry) for entry in cards) + "END".ljust(80)
    return text.encode("ascii").ljust(padded(len(text)))


def card(key: str, value: Value, comment: str = "") -> str:
    """One 80-character card in fixed format."""
    if isinstance(value, bool):
        shown = ("T" if value else "F").rjust(20)
    elif isinstance(value, int | float):
        shown = str(value).rjust(20)
    else:
        shown = f"'{value:<8}'".ljust(20)
    line = f"{key:<8}= {shown}" + (f" / {comment}" if comment else "")
    return line[:80].ljust(80)


def assemble(units: Sequence[Unit]) -> bytearray:
    """The file's bytes: each array is cast to big-endian while it is copied, once."""
    buffer = bytearray(sum(unit.size for unit in units))
    view = np.frombuffer(buffer, dtype=np.uint8)
    offset = 0
    for unit in units:
        buffer[offset : offset + len(unit.header)] = unit.header
        start = offset + len(unit.header)
        if unit.data is not None:
            target = view[start : start + unit.data.nbytes]
            if unit.data.dtype.names is None:
                target.view(unit.data.dtype.newbyteorder(">")).reshape(unit.data.shape)[...] = unit.data
            else:
                target.view(unit.data.dtype)[...] = unit.data
        offset += unit.size
    return buffer
