"""FITS structure from bytes: headers, where each HDU's data lie, columns of binary tables.

Only what reading chosen rows of large files by byte range needs (FITS standard 4.0, Pence et al. 2010,
A&A 524, A42); astropy and fitsio want a whole file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.stores.objects import Bytes

BLOCK = 2880  # bytes; headers and data are padded to it
CARD = 80  # bytes
MAX_HEADER = 4 << 20  # bytes; DESI's longest are 20 kB

Value: TypeAlias = str | int | float | bool
Header: TypeAlias = dict[str, Value]

IMAGE_TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
COLUMN_TYPES = {"L": "S", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8", "A": "S"}
COLUMN_SIZES = {
    "L": 1,
    "B": 1,
    "I": 2,
    "J": 4,
    "K": 8,
    "E": 4,
    "D": 8,
    "A": 1,
    "C": 8,
    "M": 16,
    "P": 8,
    "Q": 16,
    "X": 0,
}

# Keywords that matter here, by their first five letters
_STRUCTURE = {b"XTENS", b"BITPI", b"NAXIS", b"PCOUN", b"GCOUN", b"BSCAL", b"BZERO", b"BLANK", b"EXTNA"}
_COLUMN = {b"TTYPE", b"TFORM", b"TSCAL", b"TZERO"}
_CARD = re.compile(rb"([A-Z0-9_-]{1,8}) *= *(?:'((?:[^']|'')*)'|([^/ ]+))")
_FORM = re.compile(r"(\d*)([A-Z])")


@dataclass(frozen=True)
class Hdu:
    """One HDU: its header and where in the file its data lie."""

    name: str
    header: Header
    column_cards: bytes  # what the header says of a table's columns
    data_start: int  # byte of the file

    shape: tuple[int, ...]  # numpy's order: (NAXIS2, NAXIS1) of an image, (rows, bytes a row) of a table
    item_size: int  # bytes a pixel
    data_size: int  # bytes of data, without padding

    @classmethod
    def of(cls, name: str, header: Header, column_cards: bytes, data_start: int) -> Hdu:
        """Works out shape and sizes.

        Raises:
            ValueError: they make no sense.
        """
        bits = _integer(header, "BITPIX")
        if bits not in IMAGE_TYPES:
            raise ValueError(f"BITPIX = {bits}")
        shape = tuple(_integer(header, f"NAXIS{i}") for i in range(_integer(header, "NAXIS"), 0, -1))
        item_size = abs(bits) // 8
        pixels = math.prod(shape) if shape else 0
        groups = _integer(header, "GCOUNT", 1) * (_integer(header, "PCOUNT", 0) + pixels)
        return cls(name, header, column_cards, data_start, shape, item_size, item_size * groups)

    @property
    def data_end(self) -> int:
        """Byte after the last byte of data."""
        return self.data_start + self.data_size

    @property
    def next_start(self) -> int:
        """Byte at which the next HDU starts."""
        return self.data_start + padded(self.data_size)

    @property
    def is_table(self) -> bool:
        """Whether it is a binary table."""
        return self.header.get("XTENSION") == "BINTABLE"

    @property
    def is_image(self) -> bool:
        """Whether it is a plain (uncompressed) image."""
        return self.header.get("XTENSION", "IMAGE") == "IMAGE"

    @property
    def columns(self) -> dict[str, Column]:
        """Columns of a binary table by upper-case name.

        Raises:
            ValueError: the header describes no valid column.
        """
        return _columns(self.column_cards)


@dataclass(frozen=True)
class Column:
    """Where one column lies in a row of a binary table, and its scaling."""

    code: str
    repeat: int
    offset: int
    scale: float
    zero: Value


def padded(size: int) -> int:
    """``size`` rounded up to whole FITS blocks."""
    return -(-size // BLOCK) * BLOCK


def parse_header(raw: bytes) -> tuple[Header, bytes]:
    """What a header says of the structure of its HDU, and its cards about a table's columns, unparsed."""
    starts = range(0, len(raw), CARD)
    kept = b"".join(raw[i : i + CARD] for i in starts if raw[i : i + 5] in _STRUCTURE)
    return _values(kept), b"".join(raw[i : i + CARD] for i in starts if raw[i : i + 5] in _COLUMN)


def _values(cards: bytes) -> Header:
    header: Header = {}
    for start in range(0, len(cards), CARD):
        if match := _CARD.match(cards[start : start + CARD]):
            header.setdefault(match[1].decode(), _value(match))
    return header


@lru_cache(maxsize=64)
def _columns(cards: bytes) -> dict[str, Column]:
    """Parsed once for all files of one layout: a FIBERMAP has some 400 cards."""
    header = _values(cards)
    found, offset = {}, 0
    for i in range(1, 1 + sum(key.startswith("TFORM") for key in header)):
        match = _FORM.match(str(header.get(f"TFORM{i}", "")))
        if not match or match[2] not in COLUMN_SIZES:
            raise ValueError(f"TFORM{i} = {header.get(f'TFORM{i}')!r} is no column format")
        repeat, code = int(match[1] or 1), match[2]
        scale = float(header.get(f"TSCAL{i}", 1)), header.get(f"TZERO{i}", 0)
        found[str(header.get(f"TTYPE{i}", "")).upper()] = Column(code, repeat, offset, *scale)
        offset += (repeat + 7) // 8 if code == "X" else repeat * COLUMN_SIZES[code]
    return found


def header_end(raw: bytes) -> int | None:
    """Bytes of the header at the start of ``raw``, padding included; None when its END card is not there."""
    at = raw.find(b"END     ")
    while at >= 0:
        if at % CARD == 0:
            return padded(at + CARD)
        at = raw.find(b"END     ", at + 1)
    return None


@dataclass
class Walk:
    """HDUs found so far in one file, in the file's order."""

    where: str
    size: int
    hdus: dict[str, Hdu] = field(default_factory=dict)

    def run(self, get: Callable[[int, int], bytes], seen: Callable[[Hdu], None]) -> dict[str, Hdu]:
        """Walks all headers; ``get(start, length)`` reads bytes, ``seen`` is told of each HDU at once.

        Returns HDUs by upper-case EXTNAME (the first of equal names), the primary as ``PRIMARY``.

        Raises:
            InputError: reason ``not_fits``, ``truncated`` or ``bad_header``.
        """
        if not self.size:
            raise InputError(f"{self.where}: not a FITS file: it is empty", "not_fits")
        start = 0
        while start < self.size:
            raw = get(start, min(BLOCK, self.size - start))
            if start and not any(raw):
                break
            hdu = self._read(get, start, raw)
            if hdu.data_end > self.size:
                raise self._truncated(f"HDU {hdu.name} ends at byte {hdu.data_end:,}")
            self.hdus.setdefault(hdu.name, hdu)
            seen(hdu)
            start = hdu.next_start
        return self.hdus

    def _read(self, get: Callable[[int, int], bytes], start: int, raw: bytes) -> Hdu:
        first = b"SIMPLE  =" if start == 0 else b"XTENSION="
        length = BLOCK
        if raw[:9] != first:
            if start == 0:
                raise InputError(f"{self.where}: not a FITS file: it starts with {raw[:9]!r}", "not_fits")
            raise InputError(f"{self.where}: no FITS header where one should be, at byte {start:,}", "bad_header")
        while (end := header_end(raw)) is None:
            if start + length >= self.size:
                raise self._truncated(f"the header at byte {start:,} has no END")
            if length > MAX_HEADER:
                raise InputError(f"{self.where}: the header at byte {start:,} is endless", "bad_header")
            length *= 2
            raw = get(start, min(length, self.size - start))
        return self._hdu(*parse_header(raw[:end]), start, start + end)

    def _hdu(self, header: Header, column_cards: bytes, start: int, data_start: int) -> Hdu:
        name = str(header.get("EXTNAME", "PRIMARY" if start == 0 else f"HDU{len(self.hdus)}")).strip().upper()
        try:
            return Hdu.of(name, header, column_cards, data_start)
        except ValueError as error:
            raise InputError(f"{self.where}: HDU {name} has a damaged header: {error}", "bad_header") from error

    def _truncated(self, what: str) -> InputError:
        return InputError(
            f"{self.where}: truncated: {what} but the file has {self.size:,} bytes: fetch it again", "truncated"
        )


def table_column(hdu: Hdu, data: Bytes, name: str) -> NDArray[np.generic] | None:
    """One scalar column of a binary table in native byte order; None where the table lacks it.

    ``data`` is the HDU's data, uint8 [data_size]. TSCAL and TZERO are applied; text becomes numpy bytes.

    Raises:
        ValueError: the header describes no valid columns.
    """
    column = hdu.columns.get(name)
    if column is None or column.code not in COLUMN_TYPES or (column.repeat != 1 and column.code != "A"):
        return None
    rows, stride = hdu.shape
    if column.offset + column.repeat * COLUMN_SIZES[column.code] > stride:
        raise ValueError(f"column {name} lies beyond the {stride} bytes of a row")
    kind = f"S{column.repeat}" if column.code == "A" else COLUMN_TYPES[column.code]
    kind = "S1" if kind == "S" else kind
    values = np.ndarray((rows,), kind, data.data, column.offset, (stride,))
    if (column.scale, column.zero) != (1, 0):
        return scaled(values, column.scale, column.zero)
    return values.astype(values.dtype.newbyteorder("="))


def image(hdu: Hdu, data: Bytes) -> NDArray[np.generic]:
    """Pixels [-1, NAXIS1] with BSCALE, BZERO and BLANK applied, from the bytes of some or all rows."""
    values = data.view(IMAGE_TYPES[int(hdu.header["BITPIX"])]).reshape(-1, hdu.shape[-1])
    zero, scale = hdu.header.get("BZERO", 0), float(hdu.header.get("BSCALE", 1))
    result = scaled(values, scale, zero) if (scale, zero) != (1, 0) else values
    if "BLANK" in hdu.header and values.dtype.kind in "iu":
        return np.where(values == int(hdu.header["BLANK"]), np.nan, result)
    return result


def scaled(values: NDArray[np.generic], scale: float, zero: Value) -> NDArray[np.generic]:
    """``values`` · scale + zero: exact integers where both are whole (unsigned types), else float64."""
    if values.dtype.kind in "iu" and scale == 1 and float(zero).is_integer():
        if values.dtype.itemsize == 8 and int(zero) == 2**63:
            return values.astype(np.int64).view(np.uint64) ^ np.uint64(2**63)
        return values.astype(np.int64) + int(zero)
    return values.astype(np.float64) * scale + float(zero)


def _value(match: re.Match[bytes]) -> Value:
    if match[2] is not None:
        return match[2].decode("latin-1").replace("''", "'").rstrip()
    text = match[3].decode("latin-1")
    if text in ("T", "F"):
        return text == "T"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text.replace("D", "E"))
    except ValueError:
        return text


def _integer(header: Header, key: str, default: int | None = None) -> int:
    value = header.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or (value < 0 and key != "BITPIX"):
        raise ValueError(f"{key} = {value!r}")
    return value
