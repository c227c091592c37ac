"""Object storage behind a handful of verbs: a folder, S3, HTTP(S), Google Cloud Storage or Azure.

A folder is read with ``preadv`` (obstore on local files is several times slower), everything else through
obstore. A store holds its address only, never a secret, so it can be pickled to any worker; credentials
come from the environment there.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, InputError

Bytes: TypeAlias = NDArray[np.uint8]
BytesLike: TypeAlias = bytes | bytearray | memoryview
Content: TypeAlias = BytesLike | Sequence[BytesLike]
Parts: TypeAlias = list[Bytes]

REMOTE_SCHEMES = ("s3", "s3a", "http", "https", "gs", "az", "abfs", "abfss")


@dataclass(frozen=True)
class ObjectMeta:
    """An object's path under its store, size in bytes, and a tag that changes when its content does."""

    path: str
    size: int
    etag: str


Metas: TypeAlias = list[ObjectMeta | None]


class ObjectStore(ABC):
    """Objects under one URL. Paths are relative to it, with ``/`` between their parts.

    ``requests`` and ``bytes_read`` count what this instance has asked for: GET, HEAD, LIST and PUT requests
    (system calls, for a folder) and the bytes that reads moved, gaps between coalesced ranges included.

    All methods raise `MissingObject` for an object that does not exist and `StoreError` when the store is
    unreachable, refuses us, is full or is read-only.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or "/"
        self.requests = 0
        self.bytes_read = 0

    @staticmethod
    def open(
        url: str, *, endpoint: str | None = None, region: str | None = None, anonymous: bool = False
    ) -> ObjectStore:
        """The store at ``url``: a folder, ``file://``, ``s3://bucket/prefix``, ``http(s)://``, ``gs://``, ``az://``.

        ``endpoint`` is an S3 server's own URL (default: ``AWS_ENDPOINT_URL``), ``region`` an S3 region,
        ``anonymous`` sends unsigned requests. Nothing is contacted until the first read or write.

        Raises:
            ConfigError: the URL's scheme is not one of these, or the URL holds a user name or password.
        """
        scheme = urlsplit(url).scheme
        if scheme in REMOTE_SCHEMES and ("@" in urlsplit(url).netloc or urlsplit(url).query):
            host = urlsplit(url).hostname
            raise ConfigError(f"{scheme}://{host}/…: credentials do not belong in a URL: set them in the environment")
        if scheme in REMOTE_SCHEMES:
            from pipeline.stores.remote import RemoteStore

            return RemoteStore(url, endpoint=endpoint, region=region, anonymous=anonymous)
        if scheme and "://" in url and scheme != "file":
            raise ConfigError(f"{url}: unknown scheme '{scheme}': use a folder, s3://, https://, gs:// or az://")
        from pipeline.stores.local import LocalStore

        return LocalStore(unquote(urlsplit(url).path) if scheme == "file" else url)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def locate(self, path: str) -> str:
        """The full address of ``path``, for messages."""
        return f"{self.url}/{checked(path)}"

    @abstractmethod
    def head(self, path: str) -> ObjectMeta:
        """Size and tag of one object."""

    @abstractmethod
    def heads(self, paths: Sequence[str]) -> Metas:
        """`head` of many objects, concurrently; None for each that does not exist."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """All bytes of one object."""

    def read_uncached(self, path: str) -> memoryview:
        """All bytes of one object in writable memory; a local file's go past the page cache where they can."""
        return memoryview(bytearray(self.read(path)))

    @abstractmethod
    def read_start(self, path: str, length: int) -> tuple[Bytes, ObjectMeta]:
        """The first ``length`` bytes (all, of a shorter object) with size and tag, in one request."""

    @abstractmethod
    def read_into(self, path: str, starts: NDArray[np.int64], lengths: NDArray[np.int64], out: Bytes) -> None:
        """Fills ``out`` with the ranges, one after the other.

        ``starts`` ascend and ranges do not overlap; ``out`` is uint8 of ``lengths.sum()`` bytes.

        Raises:
            InputError: reason ``truncated``: the object ends before a range does.
        """

    @abstractmethod
    def stream(self, path: str, block: int = 8 << 20) -> Iterator[bytes]:
        """All bytes in order, in blocks of ``block`` bytes (the last is shorter)."""

    @abstractmethod
    def write(self, path: str, data: Content, *, if_absent: bool = False, uncached: bool = False) -> bool:
        """Writes one object whole, atomically; ``data`` may be parts to be joined.

        With ``if_absent`` an object that is already there stays, and False is returned. ``uncached`` tells a
        folder's file system that the data will not be read again soon: no page cache for them.
        """

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectMeta]:
        """All objects below the folder ``prefix``, in order of path."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Deletes one object; one that is already gone is no error."""

    def exists(self, path: str) -> bool:
        """Whether there is an object at ``path``."""
        return self.heads([path])[0] is not None

    def read_ranges(self, path: str, starts: Sequence[int], lengths: Sequence[int]) -> Parts:
        """Byte ranges of one object in any order; nearby ones are fetched together."""
        start_R, length_R = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        order = np.argsort(start_R, kind="stable")
        merged_starts, merged_lengths, owner = merge_ranges(start_R[order], length_R[order], 0)
        out = np.empty(int(merged_lengths.sum()), np.uint8)
        self.read_into(path, merged_starts, merged_lengths, out)
        base = (np.cumsum(merged_lengths) - merged_lengths)[owner] + start_R[order] - merged_starts[owner]
        views: Parts = [out[:0]] * len(order)
        for target, at, length in zip(order.tolist(), base.tolist(), length_R[order].tolist(), strict=True):
            views[target] = out[at : at + length]
        return views


def merge_ranges(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], gap: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Joins ascending ranges that are at most ``gap`` bytes apart (overlapping ones too).

    Returns starts [M], lengths [M] of the joined ranges and for each input range the joined one holding it.
    """
    if not len(starts):
        return starts, lengths, np.empty(0, np.int64)
    reach = np.maximum.accumulate(starts + lengths)
    first = np.concatenate([[True], starts[1:] > reach[:-1] + gap])
    heads = np.flatnonzero(first)
    ends = np.concatenate([reach[heads[1:] - 1], reach[-1:]])
    return starts[heads], ends - starts[heads], np.cumsum(first) - 1


def checked(path: str) -> str:
    """``path`` itself, refused where it would leave the store.

    Raises:
        InputError: reason ``bad_path``.
    """
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise InputError(f"path {path!r} must be relative and stay below its store", "bad_path")
    return os.path.normpath(path) if path else path
