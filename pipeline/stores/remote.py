"""S3, HTTP(S), Google Cloud Storage and Azure as object stores, through obstore."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import obstore
from numpy.typing import NDArray
from obstore import exceptions
from obstore import store as stores

from pipeline.errors import InputError, MissingObject, StoreError
from pipeline.stores.objects import (
    Bytes,
    Content,
    Metas,
    ObjectMeta,
    ObjectStore,
    Parts,
    checked,
    merge_ranges,
)

# Ranges closer than this are one request. obstore's own default, 1 MiB, would fetch whole image HDUs; at 12%
# quasars 16 KiB moves 2.9% of a coadd, 0 moves 2.6%, 64 KiB 6.2%.
COALESCE = 16 << 10
# obstore keeps 10 ranges of one call in flight; this many calls run side by side.
PARALLEL_CALLS = 8
RANGES_A_CALL = 10

RETRY = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}
CLIENT = {"allow_http": True, "connect_timeout": "10s", "timeout": "120s"}

UNREACHABLE = "the server is unreachable: check the address, the network and that it runs"

T = TypeVar("T")
U = TypeVar("U")


class RemoteStore(ObjectStore):
    """Objects below one URL of a server."""

    def __init__(self, url: str, *, endpoint: str | None, region: str | None, anonymous: bool) -> None:
        super().__init__(url)
        self.endpoint = endpoint
        self.region = region
        self.anonymous = anonymous
        self._opened: Any = None
        self._pool: ThreadPoolExecutor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_pool": None}

    def head(self, path: str) -> ObjectMeta:
        self.requests += 1
        return self._head(path)

    def heads(self, paths: Sequence[str]) -> Metas:
        self.requests += len(paths)
        return [*self._map(self._head_or_none, paths)]

    def read(self, path: str) -> bytes:
        with self._errors(path, "read"):
            data = bytes(obstore.get(self._store, checked(path)).bytes())
        self._count(1, len(data))
        return data

    def read_start(self, path: str, length: int) -> tuple[Bytes, ObjectMeta]:
        with self._errors(path, "read"):
            result = obstore.get(self._store, checked(path), options={"range": (0, length)})
            data = np.frombuffer(memoryview(result.bytes()), np.uint8)
        self._count(1, len(data))
        return data, _meta(path, result.meta)

    def read_into(self, path: str, starts: NDArray[np.int64], lengths: NDArray[np.int64], out: Bytes) -> None:
        merged_starts, merged_lengths, owner = merge_ranges(starts, lengths, COALESCE)
        parts = self._fetch(path, merged_starts, merged_lengths)
        offsets = starts - merged_starts[owner]
        at = 0
        for part, offset, length in zip(owner.tolist(), offsets.tolist(), lengths.tolist(), strict=True):
            out[at : at + length] = parts[part][offset : offset + length]
            at += length

    def stream(self, path: str, block: int = 8 << 20) -> Iterator[bytes]:
        size = self.head(path).size
        step = 4 * block
        for begin in range(0, size, step):
            starts = np.arange(begin, min(begin + step, size), block, dtype=np.int64)
            for part in self._fetch(path, starts, np.minimum(block, size - starts)):
                yield part.tobytes()

    def write(self, path: str, data: Content, *, if_absent: bool = False, uncached: bool = False) -> bool:
        self.requests += 1
        if not isinstance(data, bytes | bytearray | memoryview):
            data = b"".join(data)
        with self._errors(path, "write"):
            try:
                if if_absent:
                    obstore.put(self._store, checked(path), data, mode="create", use_multipart=False)
                else:
                    obstore.put(self._store, checked(path), data)
            except exceptions.AlreadyExistsError:
                return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectMeta]:
        with self._errors(prefix, "list"):
            for batch in obstore.list(self._store, checked(prefix) or None, chunk_size=1000):
                self.requests += 1
                for meta in batch:
                    yield _meta(meta["path"], meta)

    def delete(self, path: str) -> None:
        self.requests += 1
        try:
            with self._errors(path, "delete"):
                obstore.delete(self._store, checked(path))
        except MissingObject:
            return

    @property
    def _store(self) -> Any:
        if self._opened is None:
            self._opened = self._connect()
        return self._opened

    def _connect(self) -> Any:
        options: dict[str, Any] = {"client_options": CLIENT, "retry_config": RETRY}
        scheme = self.url.split("://")[0]
        if self.anonymous and scheme not in ("http", "https"):
            options["skip_signature"] = True
        if scheme in ("s3", "s3a"):
            endpoint = self.endpoint or os.environ.get("AWS_ENDPOINT_URL")
            if endpoint:
                options["endpoint"] = endpoint
            region = self.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
            options["region"] = region or "us-east-1"
        try:
            if scheme in ("http", "https"):
                # from_url would take amazonaws.com and Azure hosts for their own protocols, with signatures.
                return stores.HTTPStore.from_url(self.url, **options)
            return stores.from_url(self.url, **options)
        except (exceptions.BaseError, ValueError) as error:
            raise StoreError(f"{self.url}: cannot open this store: {_reason(error)}") from error

    def _head(self, path: str) -> ObjectMeta:
        with self._errors(path, "read"):
            return _meta(path, obstore.head(self._store, checked(path)))

    def _head_or_none(self, path: str) -> ObjectMeta | None:
        try:
            return self._head(path)
        except MissingObject:
            return None

    def _fetch(self, path: str, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Parts:
        def call(piece: slice) -> Parts:
            with self._errors(path, "read"):
                parts = obstore.get_ranges(
                    self._store,
                    checked(path),
                    starts=starts[piece].tolist(),
                    lengths=lengths[piece].tolist(),
                    coalesce=0,
                )
            return [np.frombuffer(memoryview(part), np.uint8) for part in parts]

        pieces = [slice(i, i + RANGES_A_CALL) for i in range(0, len(starts), RANGES_A_CALL)]
        parts = [part for group in self._map(call, pieces) for part in group]
        self._count(len(starts), sum(map(len, parts)))
        short = [i for i, part in enumerate(parts) if len(part) != lengths[i]]
        if short:
            end = int(starts[short[0]] + lengths[short[0]])
            raise _truncated(self.locate(path), f"byte {end:,}")
        return parts

    def _map(self, function: Callable[[T], U], items: Sequence[T]) -> Sequence[U]:
        if len(items) < 2:
            return [function(item) for item in items]
        if self._pool is None:
            self._pool = ThreadPoolExecutor(PARALLEL_CALLS, thread_name_prefix="object-store")
        return list(self._pool.map(function, items))

    def _count(self, requests: int, size: int) -> None:
        self.requests += requests
        self.bytes_read += size

    @contextmanager
    def _errors(self, path: str, verb: str) -> Iterator[None]:
        try:
            yield
        except (exceptions.BaseError, FileNotFoundError, PermissionError, OSError) as error:
            raise _translated(error, self.locate(path), verb) from error


def _meta(path: str, meta: Any) -> ObjectMeta:
    etag = meta.get("e_tag") or f"{meta['size']:x}-{meta['last_modified'].isoformat()}"
    return ObjectMeta(path, meta["size"], etag.strip('"'))


def _translated(error: Exception, where: str, verb: str) -> StoreError | InputError:
    text = str(error)
    if "NoSuchBucket" in text:
        return StoreError(f"{where}: cannot {verb}: no such bucket: check the URL and the endpoint")
    if isinstance(error, exceptions.NotFoundError | FileNotFoundError):
        return MissingObject(f"{where}: no such object")
    refused = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError)
    if isinstance(error, refused) or re.search(r"\b(401|403)\b|Forbidden|AccessDenied", text):
        return StoreError(
            f"{where}: cannot {verb}: the server refuses access: check the credentials in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3), or ask for unsigned access if it is public"
        )
    if "169.254.169.254" in text or "metadata.google" in text:
        return StoreError(
            f"{where}: cannot {verb}: no credentials in the environment: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or ask for unsigned access to a public bucket"
        )
    if "non-partial" in text or "Range request not supported" in text:
        return StoreError(f"{where}: cannot {verb}: this server ignores byte ranges: use one that honours them")
    if re.search(r"\b416\b|Requested range", text, re.IGNORECASE):
        return _truncated(where, "a wanted range")
    reason = _reason(error)
    if verb == "list" and reason != UNREACHABLE and where.startswith("http"):
        return StoreError(f"{where}: this server does not list its objects: name a catalog, or use s3://")
    return StoreError(f"{where}: cannot {verb}: {reason}")


def _truncated(where: str, point: str) -> InputError:
    return InputError(f"{where}: ends before {point}: the file is truncated, fetch it again", "truncated")


def _reason(error: Exception) -> str:
    """The innermost cause on one line, with anything that looks like a credential left out."""
    text = " ".join(str(error).split("Debug source")[0].split())
    text = re.sub(r"(?i)(X-Amz-[A-Za-z-]+|sig|token|key|secret|password)=[^&\s\"')]+", r"\1=…", text)
    if re.search(r"(?i)connect|dns|resolve|refused|timed? ?out", text):
        return UNREACHABLE
    return text[:300]
