"""FITS binary tables read in one pass, in blocks of rows, as views of the bytes.

Follows the FITS Standard 4.0 (Pence et al. 2010, A&A 524, A42; sections 4.4 and 7.3). astropy and fitsio
want a file that can seek; a remote catalog of 20.8 GB passes by once and is never held.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.catalog.stream import ByteStream
from pipeline.errors import InputError

Block = dict[str, NDArray[Any]]  # column name (upper case) -> values [rows]

_RECORD = 2880  # bytes, the unit every FITS header and data part is padded to
_MAX_HEADER = 400 * _RECORD  # a header longer than this is no header
_FORM = re.compile(r"^\s*(\d*)([LXBIJKAEDCMPQ])(.*)$")
_ITEM_BYTES = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "A": 1, "E": 4, "D": 8, "C": 8, "M": 16, "P": 8, "Q": 16}
_DTYPES = {"L": "S1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}


@dataclass(frozen=True)
class Column:
    """One column of a binary table: where it lies in a row, and how its bytes become values.

    ``dtype`` is None for what is no plain value a row (arrays, bits, complex and heap columns).
    """

    name: str
    offset: int
    dtype: np.dtype[Any] | None
    form: str
    scale: float = 1.0
    zero: float = 0.0

    @property
    def kind(self) -> str:
        """``i`` integer, ``f`` float, ``S`` string, ``b`` boolean, or ``-`` for anything else."""
        if self.dtype is None:
            return "-"
        if self.form.endswith("L"):
            return "b"
        if self.dtype.kind in "iu":
            return "i" if self.scale == 1.0 and self.zero == int(self.zero) else "f"
        return self.dtype.kind

    def values(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Apply the boolean form, TSCAL and TZERO to raw cells; plain columns stay views."""
        if self.kind == "b":
            true: NDArray[np.bool_] = raw == b"T"
            return true
        if self.dtype is None or self.dtype.kind == "S" or (self.scale == 1.0 and self.zero == 0.0):
            return raw
        if self.kind != "i":
            return raw * self.scale + self.zero
        if self.zero == 2.0**63:  # how FITS writes unsigned 64-bit integers
            return raw.astype(np.int64).view(np.uint64) + np.uint64(2**63)
        return raw.astype(np.int64) + int(self.zero)


@dataclass(frozen=True)
class Hdu:
    """Header of one HDU; ``columns`` is empty unless it is a binary table."""

    name: str
    row_bytes: int
    n_rows: int
    data_bytes: int  # without padding, heap included
    columns: dict[str, Column]

    @property
    def padded_bytes(self) -> int:
        """Bytes from the start of the data to the next header."""
        return -(-self.data_bytes // _RECORD) * _RECORD


def next_hdu(stream: ByteStream, path: str) -> Hdu | None:
    """Read the header at the stream's position, or None at the file's end.

    Raises:
        InputError: the bytes are not a FITS header, or end within it.
    """
    cards = _cards(stream, path)
    return None if cards is None else _hdu(cards, path)


def read_rows(
    stream: ByteStream, hdu: Hdu, names: Sequence[str], path: str, block_bytes: int = 8 << 20
) -> Iterator[Block]:
    """Yield the named columns in blocks of whole rows, then leave the stream at the next header.

    The arrays are big-endian views into one reused buffer: copy what must outlive the block.

    Raises:
        InputError: the file ends before the table's last row (``truncated``).
    """
    columns = [hdu.columns[name] for name in names]
    layout = np.dtype(
        {
            "names": [c.name for c in columns],
            "formats": [c.dtype for c in columns],
            "offsets": [c.offset for c in columns],
            "itemsize": hdu.row_bytes,
        }
    )
    step = max(1, min(block_bytes // max(hdu.row_bytes, 1), hdu.n_rows))
    buffer = memoryview(bytearray(step * hdu.row_bytes))
    for start in range(0, hdu.n_rows, step):
        rows = min(step, hdu.n_rows - start)
        got = stream.read_into(buffer[: rows * hdu.row_bytes])
        if got < rows * hdu.row_bytes:
            raise InputError(
                f"{path}: truncated, HDU {hdu.name or 'table'} should hold {hdu.n_rows} rows and ends in row "
                f"{start + got // hdu.row_bytes}; fetch the file again",
                "truncated",
            )
        table = np.frombuffer(buffer, layout, rows)
        yield {c.name: c.values(table[c.name]) for c in columns}
    stream.skip(hdu.padded_bytes - hdu.n_rows * hdu.row_bytes)


def _cards(stream: ByteStream, path: str) -> dict[str, str] | None:
    cards: dict[str, str] = {}
    begin = stream.position
    while stream.position - begin < _MAX_HEADER:
        record = stream.read(_RECORD)
        if stream.position - len(record) == begin and _is_end(record):
            return None
        if len(record) < _RECORD:
            raise InputError(f"{path}: truncated within a FITS header; fetch the file again", "truncated")
        for at in range(0, _RECORD, 80):
            card = record[at : at + 80].decode("ascii", "replace")
            key = card[:8].rstrip()
            if key == "END":
                return cards
            if card[8:10] == "= ":
                cards.setdefault(key, card[10:])
        if not {"SIMPLE", "XTENSION"} & cards.keys():
            break
    raise InputError(f"{path}: byte {begin} should begin a FITS header and does not: is it a FITS file?", "not_fits")


def _is_end(record: bytes) -> bool:
    """Whether a record after the last HDU is nothing, or padding some writers leave."""
    return not record.strip(b"\0 ")


def _hdu(cards: dict[str, str], path: str) -> Hdu:
    def integer(key: str, default: int | None = None) -> int:
        if key not in cards and default is not None:
            return default
        try:
            return int(cards[key].split("/")[0])
        except (KeyError, ValueError):
            found = cards.get(key, "nothing").split("/")[0].strip()
            raise InputError(
                f"{path}: {key} in a FITS header should be an integer, found {found}", "bad_header"
            ) from None

    axes = [integer(f"NAXIS{i + 1}") for i in range(integer("NAXIS", 0))]
    cells = int(np.prod(axes, dtype=np.int64)) if axes else 0
    size = abs(integer("BITPIX", 8)) // 8 * integer("GCOUNT", 1) * (integer("PCOUNT", 0) + cells)
    if size < 0 or any(n < 0 for n in axes):
        raise InputError(f"{path}: a FITS header gives a negative size", "bad_header")
    name = _text(cards.get("EXTNAME", ""))
    if _text(cards.get("XTENSION", "")) != "BINTABLE" or len(axes) != 2 or "ZTABLE" in cards or "ZIMAGE" in cards:
        return Hdu(name, 0, 0, size, {})
    columns = _columns(cards, integer("TFIELDS"), path)
    width = max((c.offset + (c.dtype.itemsize if c.dtype else 0) for c in columns), default=0)
    if width > axes[0]:
        raise InputError(f"{path}: HDU {name} has rows of {axes[0]} bytes, its columns need {width}", "bad_header")
    return Hdu(name, axes[0], axes[1], size, {c.name: c for c in reversed(columns)})


def _columns(cards: dict[str, str], count: int, path: str) -> list[Column]:
    columns, offset = [], 0
    for i in range(1, count + 1):
        name, form = _text(cards.get(f"TTYPE{i}", f"COL{i}")).upper(), _text(cards.get(f"TFORM{i}", ""))
        match = _FORM.match(form)
        if match is None:
            raise InputError(f"{path}: TFORM{i} of column {name} is '{form}', not a FITS format", "bad_header")
        repeat, code = int(match[1] or 1), match[2]
        size = -(-repeat // 8) if code == "X" else repeat * _ITEM_BYTES[code]
        columns.append(
            Column(
                name, offset, _dtype(code, repeat), f"{repeat}{code}",
                float(_text(cards.get(f"TSCAL{i}", "1")).replace("D", "E")),
                float(_text(cards.get(f"TZERO{i}", "0")).replace("D", "E")),
            )
        )  # fmt: skip
        offset += size
    return columns


def _dtype(code: str, repeat: int) -> np.dtype[Any] | None:
    if code == "A" and repeat:
        return np.dtype(f"S{repeat}")
    return np.dtype(_DTYPES[code]) if code in _DTYPES and repeat == 1 else None


def _text(value: str) -> str:
    """The value of a card, without quotes and comment."""
    value = value.strip()
    if value.startswith("'"):
        end = value.find("'", 1)
        return value[1 : end if end > 0 else None].rstrip()
    return value.split("/")[0].strip()
