"""A folder as an object store."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, MissingObject, StoreError
from pipeline.stores.files import read_file, write_file
from pipeline.stores.objects import Bytes, Content, Metas, ObjectMeta, ObjectStore, checked

TEMPORARY_SUFFIX = ".tmp"

ADVICE = {
    errno.ENOSPC: "the disk is full: free some space or choose another folder, then run again",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another folder, then run again",
    errno.EROFS: "the file system is read-only: choose a folder that can be written",
    errno.EACCES: "permission denied: change its permissions or choose another folder",
    errno.EPERM: "operation not permitted: change its permissions or choose another folder",
}


class LocalStore(ObjectStore):
    """The files below one folder; tags are made of size and modification time."""

    def __init__(self, root: str) -> None:
        super().__init__(os.path.abspath(os.path.expanduser(root)))

    def head(self, path: str) -> ObjectMeta:
        self.requests += 1
        with self._errors(path, "stat"):
            return _meta(path, os.stat(self._file(path)))

    def heads(self, paths: Sequence[str]) -> Metas:
        found: Metas = []
        for path in paths:
            try:
                found.append(self.head(path))
            except MissingObject:
                found.append(None)
        return found

    def read(self, path: str) -> bytes:
        with self._errors(path, "read"), open(self._file(path), "rb") as file:
            data = file.read()
        self._count(1, len(data))
        return data

    def read_uncached(self, path: str) -> memoryview:
        with self._errors(path, "read"):
            content = read_file(self._file(path))
        self._count(1, len(content))
        return content

    def read_start(self, path: str, length: int) -> tuple[Bytes, ObjectMeta]:
        with self._errors(path, "read"), self._descriptor(path) as fd:
            meta = _meta(path, os.fstat(fd))
            data = np.empty(min(length, meta.size), np.uint8)
            self._fill(fd, path, 0, data.data)
        self._count(1, len(data))
        return data, meta

    def read_into(self, path: str, starts: NDArray[np.int64], lengths: NDArray[np.int64], out: Bytes) -> None:
        view = out.data
        at = 0
        ranges = list(zip(starts.tolist(), lengths.tolist(), strict=True))
        with self._errors(path, "read"), self._descriptor(path) as fd:
            if len(ranges) > 1 and hasattr(os, "posix_fadvise"):
                # The disk fetches what is not cached all at once: 3,600 spectra/s where one by one gave 1,550.
                for start, length in ranges:
                    os.posix_fadvise(fd, start, length, os.POSIX_FADV_WILLNEED)
            for start, length in ranges:
                piece = view[at : at + length]
                if os.preadv(fd, (piece,), start) != length:
                    self._fill(fd, path, start, piece)
                at += length
        self._count(len(starts), at)

    def stream(self, path: str, block: int = 8 << 20) -> Iterator[bytes]:
        with self._errors(path, "read"), open(self._file(path), "rb", buffering=0) as file:
            while data := file.read(block):
                self._count(1, len(data))
                yield data

    def write(self, path: str, data: Content, *, if_absent: bool = False, uncached: bool = False) -> bool:
        target = self._file(path)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
        self.requests += 1
        with self._errors(path, "write"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_file(temporary, data, uncached)
                if not if_absent:
                    os.replace(temporary, target)
                    return True
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    return False
                return True
            finally:
                with suppress(FileNotFoundError):
                    temporary.unlink()

    def list(self, prefix: str = "") -> Iterator[ObjectMeta]:
        self.requests += 1
        root = Path(self.url)
        with self._errors(prefix, "list"):
            for folder, folders, files in os.walk(self._file(prefix), onerror=_raise_unless_missing):
                folders.sort()
                for name in sorted(files):
                    if not (name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)):
                        file = Path(folder, name)
                        yield _meta(file.relative_to(root).as_posix(), file.stat())

    def delete(self, path: str) -> None:
        self.requests += 1
        with self._errors(path, "delete"), suppress(FileNotFoundError):
            self._file(path).unlink()

    def _file(self, path: str) -> Path:
        return Path(self.url, checked(path))

    def _count(self, requests: int, size: int) -> None:
        self.requests += requests
        self.bytes_read += size

    @contextmanager
    def _descriptor(self, path: str) -> Iterator[int]:
        fd = os.open(self._file(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def _fill(self, fd: int, path: str, start: int, out: memoryview) -> None:
        done = 0
        while done < len(out):
            count = os.preadv(fd, (out[done:],), start + done)
            if not count:
                raise InputError(
                    f"{self.locate(path)}: ends at byte {start + done:,}, expected {start + len(out):,} or more: "
                    "the file is truncated, fetch it again",
                    "truncated",
                )
            done += count

    @contextmanager
    def _errors(self, path: str, verb: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if verb == "write":
                raise StoreError(f"{self.locate(path)}: cannot write: {error.strerror}") from error
            raise MissingObject(f"{self.locate(path)}: no such file") from error
        except OSError as error:
            why = ADVICE.get(error.errno or 0, (error.strerror or str(error)).lower())
            raise StoreError(f"{self.locate(path)}: cannot {verb}: {why}") from error


def _meta(path: str, status: os.stat_result) -> ObjectMeta:
    if status.st_mode & 0o170000 == 0o040000:
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    return ObjectMeta(path, status.st_size, f"{status.st_size:x}-{status.st_mtime_ns:x}")


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
