"""Bytes of one coadd file: where its HDUs lie, found in few reads of any store."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.fits import BLOCK, Hdu, Walk, image, padded, table_column
from pipeline.desi.grid import ARMS
from pipeline.errors import InputError
from pipeline.stores.objects import Bytes, ObjectStore

FIRST_READ = 64 << 10  # bytes; holds DESI's primary and FIBERMAP headers
EXPOSURE_HEADER = 12 << 10  # bytes; DESI's EXP_FIBERMAP header
NDIAG = 11  # diagonals of DESI's RESOLUTION
MAX_UNZIPPED = 8 << 30  # bytes; a gzipped coadd is held in memory


class ByteSource(Protocol):
    """Something of ``size`` bytes that can be read by ranges."""

    size: int

    def read_into(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], out: Bytes) -> None:
        """Fills ``out`` with ascending ranges, one after the other."""


class StoredSource:
    """An object of a store."""

    def __init__(self, store: ObjectStore, path: str, size: int) -> None:
        self.store, self.path, self.size = store, path, size

    def read_into(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], out: Bytes) -> None:
        self.store.read_into(self.path, starts, lengths, out)


class MemorySource:
    """Bytes in memory."""

    def __init__(self, data: Bytes) -> None:
        self.data, self.size = data, len(data)

    def read_into(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], out: Bytes) -> None:
        at = 0
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            out[at : at + length] = self.data[start : start + length]
            at += length


class CoaddFile:
    """The HDUs of one coadd and access to their bytes.

    DESI writes its HDUs in a known order with known header lengths, so after the FIBERMAP header the places
    of all others are foretold and fetched together: four or five rounds of requests a file instead of twenty.
    A wrong prophecy only costs requests; what counts is what the headers say.
    """

    def __init__(self, where: str, source: ByteSource, head: Bytes) -> None:
        self.where = where
        self.source = source
        self._pieces: list[tuple[int, Bytes]] = [(0, head)]
        self._rows: int | None = None  # of FIBERMAP, once seen
        self._foretold = False
        self.hdus = Walk(where, source.size).run(lambda start, length: self.bytes(start, length).tobytes(), self._seen)

    @classmethod
    def open(cls, store: ObjectStore, path: str, etag: str | None) -> CoaddFile:
        """Reads all headers of the (possibly gzipped) file.

        Raises:
            InputError: reason ``changed`` where ``etag`` is given and differs, ``not_fits``, ``truncated``,
                ``bad_header``, ``damaged``, ``too_large`` or ``missing_file``.
        """
        where = store.locate(path)
        head, meta = store.read_start(path, FIRST_READ)
        if etag is not None and meta.etag != etag:
            raise InputError(
                f"{where}: changed since it was planned (tag {meta.etag}, planned {etag}): plan the run again",
                "changed",
            )
        if bytes(head[:2]) != b"\x1f\x8b":
            return cls(where, StoredSource(store, path, meta.size), head)
        data = unzipped(store.read(path), where)
        return cls(where, MemorySource(data), data[:FIRST_READ])

    def missing(self, what: str) -> InputError:
        """The error of a file that lacks ``what``: cut off, or never complete."""
        if self.source.size % BLOCK:
            return InputError(
                f"{self.where}: truncated: {what} is missing and the file's {self.source.size:,} bytes are no "
                f"multiple of {BLOCK}: fetch it again",
                "truncated",
            )
        return InputError(f"{self.where}: {what} is missing", "missing_hdu")

    def bytes(self, start: int, length: int) -> Bytes:
        """Some bytes of the file, from what is at hand or else read now."""
        for first, piece in reversed(self._pieces):
            if first <= start and start + length <= first + len(piece):
                return piece[start - first : start - first + length]
        self.prefetch([(start, start + length)])
        return self._pieces[-1][1][:length]

    def data(self, hdu: Hdu) -> Bytes:
        """All data of one HDU."""
        return self.bytes(hdu.data_start, hdu.data_size)

    def column(self, hdu: Hdu, name: str) -> NDArray[np.generic] | None:
        """One column of a table, None where it has no such scalar column.

        Raises:
            InputError: reason ``bad_header``.
        """
        try:
            return table_column(hdu, self.data(hdu), name)
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.where}: HDU {hdu.name} has a damaged header: {error}", "bad_header") from error

    def image(self, hdu: Hdu, raw: Bytes) -> NDArray[np.generic]:
        """Pixels [-1, NAXIS1] with their scaling applied, from the bytes of some or all rows.

        Raises:
            InputError: reason ``bad_header``.
        """
        try:
            return image(hdu, raw)
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.where}: HDU {hdu.name} has a damaged header: {error}", "bad_header") from error

    def prefetch(self, spans: list[tuple[int, int]]) -> None:
        """Reads byte spans (start, stop) in one round of requests; what lies beyond the file is left out."""
        size = self.source.size
        inside = sorted((start, min(stop, size)) for start, stop in spans if start < size and stop > start)
        merged: list[tuple[int, int]] = []
        for start, stop in inside:
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((start, stop))
        edges = np.array(merged, np.int64).reshape(-1, 2)
        lengths = edges[:, 1] - edges[:, 0]
        out = np.empty(int(lengths.sum()), np.uint8)
        self.source.read_into(edges[:, 0], lengths, out)
        ends = np.cumsum(lengths)
        self._pieces += [(a, out[e - n : e]) for (a, _), n, e in zip(merged, lengths, ends, strict=True)]

    def _seen(self, hdu: Hdu) -> None:
        if hdu.name == "FIBERMAP":
            if hdu.next_start > FIRST_READ - BLOCK:
                self.prefetch([(hdu.data_start, hdu.next_start + EXPOSURE_HEADER)])
            self._rows = hdu.shape[0] if hdu.shape else 0
        elif not self._foretold and self._rows is not None:
            self._foretold = True
            first_image = hdu.next_start if hdu.is_table else hdu.data_start - BLOCK
            spans = foretell(first_image, self._rows, self.source.size)
            self.prefetch([(hdu.data_start, hdu.data_end), *spans] if hdu.is_table else spans)


def foretell(start: int, rows: int, size: int) -> list[tuple[int, int]]:
    """Byte spans of the headers and wavelengths of DESI's image HDUs, the first of which starts at ``start``.

    Of the two layouts that exist, with RESOLUTION and without, the one is taken that makes a file of about
    ``size`` bytes.
    """
    spans: dict[int, list[tuple[int, int]]] = {}
    ends = {}
    for ndiag in (0, NDIAG):
        at, found = start, []
        for arm in ARMS.values():
            n = arm.stop - arm.start
            sizes = [4 * n * rows] * 3 + ([4 * n * rows * ndiag] if ndiag else [])
            found.append((at, at + BLOCK + padded(8 * n)))
            at += BLOCK + padded(8 * n)
            for data in sizes:
                found.append((at, at + BLOCK))
                at += BLOCK + padded(data)
        spans[ndiag], ends[ndiag] = [*found, (at, at + 2 * BLOCK)], at
    return spans[min(ends, key=lambda ndiag: abs(ends[ndiag] - size))]


def unzipped(data: bytes, where: str) -> Bytes:
    """The content of a gzip file.

    Raises:
        InputError: reason ``truncated``, ``damaged`` or ``too_large``.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(MAX_UNZIPPED + 1)
    except EOFError as error:
        raise InputError(f"{where}: truncated: its gzip stream has no end: fetch it again", "truncated") from error
    except (OSError, zlib.error) as error:
        raise InputError(f"{where}: damaged gzip stream ({error}): fetch it again", "damaged") from error
    if len(content) > MAX_UNZIPPED:
        raise InputError(f"{where}: unzips to more than {MAX_UNZIPPED >> 30} GiB: unzip it beforehand", "too_large")
    return np.frombuffer(content, np.uint8)
