"""The workspace's own Milvus: one Milvus Lite server process, found by its address file.

``python -m pipeline.servers.lite DATA ADDRESS`` is that process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from pipeline.errors import StoreError
from pipeline.servers.processes import alive, ended

_START_SECONDS = 120.0  # reading a large collection's files included


class LiteServer:
    """A Milvus Lite server over ``{workspace}/milvus``; ``start`` finds a running one or starts it."""

    def __init__(self, workspace: Path) -> None:
        self._data = workspace.resolve() / "milvus"
        self._address = workspace.resolve() / "servers" / "milvus.json"
        self._log = workspace.resolve() / "servers" / "milvus.log"

    @property
    def uri(self) -> str:
        """Address that pymilvus connects to; valid while the server runs."""
        found = self._read()
        if found is None:
            raise StoreError(f"the Milvus Lite server of {self._data} is not running; run the command again")
        return f"http://127.0.0.1:{found[1]}"

    @property
    def running(self) -> bool:
        """Whether the process that wrote the address file is alive."""
        return self._read() is not None

    def start(self) -> None:
        """Make the server run.

        Raises:
            StoreError: it does not start; the message quotes its log.
        """
        if self.running:
            return
        self._address.parent.mkdir(parents=True, exist_ok=True)
        self._address.unlink(missing_ok=True)
        command = [sys.executable, "-m", "pipeline.servers.lite", str(self._data), str(self._address)]
        with self._log.open("ab") as log:
            started = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, check=False
            )
        if started.returncode or not self.running:
            raise StoreError(self._complaint())

    def stop(self) -> None:
        """Stop the server; it writes out what it holds in memory."""
        found = self._read()
        if found is None:
            return
        process = found[0]
        process.terminate()
        if not ended(process, 60):
            process.kill()  # its write-ahead log is read at the next start
            ended(process, 30)
        self._address.unlink(missing_ok=True)

    def _read(self) -> tuple[psutil.Process, int] | None:
        try:
            found = json.loads(self._address.read_text())
            process = psutil.Process(int(found["pid"]))
            # A pid may have gone to another program since: the start time tells them apart.
            if abs(process.create_time() - float(found["started"])) < 1 and alive(process):
                return process, int(found["port"])
        except (OSError, ValueError, KeyError, psutil.Error):
            pass
        return None

    def _complaint(self) -> str:
        try:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1]
        except (OSError, IndexError):
            last = "no word in its log"
        return (
            f"the Milvus Lite server of {self._data} does not start ({last}); see {self._log}, free disk space or "
            "choose another --workspace, or give a server with stores.milvus"
        )


def main(data: str, address: str) -> int:
    """Serve ``data`` from a process of its own on a free local port, named with its pid in the ``address`` file.

    Returns:
        0 once it serves, 1 when it ended before or was not ready in two minutes.
    """
    server = os.fork()  # not a child of whoever started it, who may end earlier or later
    if not server:
        _serve(data, address)
        return 0
    deadline = time.monotonic() + _START_SECONDS
    while not Path(address).exists():
        if os.waitpid(server, os.WNOHANG)[0] or time.monotonic() > deadline:
            return 1
        time.sleep(0.02)
    return 0


def _serve(data: str, address: str) -> None:
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server, database, port = start_server_in_thread(data)
    found = {"pid": os.getpid(), "started": psutil.Process().create_time(), "port": port}
    partial = Path(f"{address}.partial")
    partial.write_text(json.dumps(found))
    partial.replace(address)
    stop.wait()
    server.stop(grace=5).wait()
    database.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
