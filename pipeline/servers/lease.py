"""Who uses a server of the workspace: counted by file locks, which end with their process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StoreError


class Lease:
    """One process's use of one server.

    Every user holds a shared lock on ``{name}.users``. The last to leave is the one that can turn its own into an
    exclusive one, and it stops the server. A user that is killed leaves no lock behind: the server goes on, the
    next command finds and uses it, and stops it when it leaves. ``{name}.keep`` keeps a server without users.
    """

    def __init__(self, folder: Path, name: str, start: Callable[[], None], stop: Callable[[], None]) -> None:
        self._folder = folder
        self._name = name
        self._start = start
        self._stop = stop
        self._users: int | None = None

    def take(self) -> None:
        """Become a user; start the server where it is not running.

        Raises:
            StoreError: the workspace is not writable, or the server does not start.
        """
        with self._changing():
            users = os.open(self._path("users"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(users, fcntl.LOCK_SH)
                self._start()
            except BaseException:
                os.close(users)
                raise
            self._users = users

    def release(self) -> None:
        """Stop being a user; stop the server when nobody else is one and nobody asked to keep it."""
        if self._users is None:
            return
        users, self._users = self._users, None
        try:
            with self._changing():
                if _alone(users) and not self._path("keep").exists():
                    self._stop()
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)  # a forked child may hold the descriptor open
            os.close(users)

    def keep(self) -> None:
        """Let the server run on after its last user."""
        self._path("keep").touch()

    def unkeep(self) -> bool:
        """Let the server stop again, and stop it now unless somebody uses it; return whether it was stopped."""
        with self._changing():
            self._path("keep").unlink(missing_ok=True)
            users = os.open(self._path("users"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if not _alone(users):
                    return False
                self._stop()
                return True
            finally:
                os.close(users)

    def _path(self, suffix: str) -> Path:
        return self._folder / f"{self._name}.{suffix}"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"workspace {self._folder.parent} cannot be written ({error.strerror}); choose another with --workspace"
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _alone(users: int) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
