"""Exact reads from a stream of byte blocks, gunzipped on the way when the file is gzipped."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.stores.objects import ObjectStore

GZIP_MAGIC = b"\x1f\x8b"
_INFLATED_BLOCK = 8 << 20  # most bytes one inflation step may give, so a zip bomb cannot fill memory


class ByteStream:
    """Reads exact numbers of bytes, in order, from blocks of any sizes."""

    def __init__(self, blocks: Iterable[bytes | memoryview]) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")
        self.position = 0

    def _fill(self) -> bool:
        while not len(self._rest):
            block = next(self._blocks, None)
            if block is None:
                return False
            self._rest = memoryview(block).cast("B")
        return True

    def read_into(self, out: memoryview) -> int:
        """Fill ``out``; return how many bytes were written, fewer than asked for only at the end."""
        done = 0
        while done < len(out) and self._fill():
            step = min(len(out) - done, len(self._rest))
            out[done : done + step] = self._rest[:step]
            self._rest = self._rest[step:]
            done += step
        self.position += done
        return done

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer only at the end."""
        out = bytearray(size)
        return bytes(out[: self.read_into(memoryview(out))])

    def skip(self, size: int) -> int:
        """Pass over ``size`` bytes; return how many there were."""
        done = 0
        while done < size and self._fill():
            step = min(size - done, len(self._rest))
            self._rest = self._rest[step:]
            done += step
        self.position += done
        return done


def inflate(blocks: Iterable[bytes | memoryview], path: str) -> Iterator[bytes]:
    """Gunzip a stream in bounded memory; members that follow one another are joined, as gzip does.

    Raises:
        InputError: the data are damaged (``bad_gzip``) or end too early (``truncated``).
    """
    member = zlib.decompressobj(wbits=31)
    for block in blocks:
        data = bytes(block)
        while data:
            if member.eof:
                if not data.strip(b"\0"):  # padding after the last member
                    break
                member = zlib.decompressobj(wbits=31)
            try:
                out = member.decompress(data, _INFLATED_BLOCK)
            except zlib.error as error:
                raise InputError(
                    f"{path}: its gzip data are damaged ({error}); fetch the file again", "bad_gzip"
                ) from None
            if out:
                yield out
            data = member.unused_data if member.eof else member.unconsumed_tail
    if not member.eof:
        raise InputError(
            f"{path}: the gzip stream ends before its end mark, the file is truncated; fetch it again",
            "truncated",
        )


def open_stream(store: ObjectStore, path: str, *, gzipped: bool, block: int = 8 << 20) -> ByteStream:
    """Stream an object from its first byte, gunzipping it when ``gzipped``."""
    blocks: Iterable[bytes | memoryview] = store.stream(path, block=block)
    return ByteStream(inflate(blocks, path) if gzipped else blocks)
