"""The life of a workspace's servers: shared, counted, found again, stopped by the last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.errors import StoreError
from pipeline.servers import Servers
from pipeline.stores import postgres
from pipeline.stores.vectors import VectorStore

pytestmark = pytest.mark.servers

CLIENT = """
import sys
from pathlib import Path
from pipeline.servers import Servers
with Servers(Path(sys.argv[1])) as servers:
    print(servers.postgres_url, servers.milvus_uri, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def workspace(server_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    folder = server_folder / f"a 'work' space {abs(hash(request.node.name)) % 10**6}"  # as people name folders
    yield folder
    with Servers(folder) as servers:
        servers.stop()


def _running(workspace: Path) -> list[str]:
    """Names of the server processes of a workspace."""
    names = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(workspace / part) in command for part in ("postgres", "milvus")):
            names.append("postgres" if "postgres" in process.name() else "milvus")
    return sorted(names)


def _client(workspace: Path) -> subprocess.Popen[str]:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(workspace)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    assert client.stdout.readline().startswith("postgresql://")
    return client


def _leave(client: subprocess.Popen[str]) -> None:
    client.communicate("\n", timeout=60)
    assert client.returncode == 0


def test_the_last_to_leave_stops_the_servers(workspace: Path) -> None:
    with Servers(workspace) as servers:
        conn = postgres.connect(servers.postgres_url)
        store = VectorStore.open(servers.milvus_uri)
        store.ensure_collection("kept", 4)
        postgres.migrate(conn)
        with Servers(workspace) as others:
            assert others.postgres_url == servers.postgres_url
            assert others.milvus_uri == servers.milvus_uri
        client = _client(workspace)
        assert _running(workspace) == ["milvus", "postgres"]
        _leave(client)
        assert _running(workspace) == ["milvus", "postgres"]
        assert store.count("kept") == 0
        store.close()
        conn.close()
    assert _running(workspace) == []
    with Servers(workspace) as servers:  # what was written is there again
        conn = postgres.connect(servers.postgres_url)
        postgres.check_schema(conn)
        conn.close()
        store = VectorStore.open(servers.milvus_uri)
        assert store.count("kept") == 0
        store.close()


def test_a_killed_client_leaves_servers_that_the_next_one_uses_and_stops(workspace: Path) -> None:
    client = _client(workspace)
    client.kill()
    client.communicate()
    assert _running(workspace) == ["milvus", "postgres"]
    with Servers(workspace) as servers:
        assert servers.postgres_url
        assert servers.milvus_uri
        assert _running(workspace) == ["milvus", "postgres"]
    assert _running(workspace) == []


def test_killed_servers_are_started_again(workspace: Path) -> None:
    """Both die without a word, and their pids may belong to another program by now."""
    client = _client(workspace)
    for process in psutil.process_iter():
        if any(str(workspace / part) in _command(process) for part in ("postgres", "milvus")):
            process.send_signal(signal.SIGKILL)
    client.kill()
    client.communicate()
    deadline = time.monotonic() + 20
    while _running(workspace) and time.monotonic() < deadline:
        time.sleep(0.1)
    pid_file = workspace / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines(keepends=True)
    pid_file.write_text("".join([f"{os.getpid()}\n", *lines[1:]]))
    with Servers(workspace) as servers:
        postgres.connect(servers.postgres_url).close()
        VectorStore.open(servers.milvus_uri).close()


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_kept_servers_stay_until_they_are_stopped(workspace: Path) -> None:
    with Servers(workspace) as servers:
        assert set(servers.keep()) == {"postgres", "milvus"}
    assert _running(workspace) == ["milvus", "postgres"]
    client = _client(workspace)
    with Servers(workspace) as servers:
        assert servers.stop() == {"postgres": False, "milvus": False}  # in use
    _leave(client)
    assert _running(workspace) == []


def test_given_urls_start_nothing(workspace: Path) -> None:
    with Servers(workspace, "postgresql://there/sky", "http://there:19530") as servers:
        assert (servers.postgres_url, servers.milvus_uri) == ("postgresql://there/sky", "http://there:19530")
        assert servers.keep() == servers.stop() == {}
    assert not workspace.exists()


def test_a_workspace_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Servers(tmp_path / "file") as servers, pytest.raises(StoreError, match=r"cannot be written .* choose another"):
        _ = servers.postgres_url


def test_a_workspace_with_a_comma(tmp_path: Path) -> None:
    with Servers(tmp_path / "a,b") as servers, pytest.raises(StoreError, match="has a comma in its name"):
        _ = servers.postgres_url


def test_a_workspace_with_a_long_name(server_folder: Path) -> None:
    """Sockets have short names: beyond 107 bytes the socket lies elsewhere."""
    with Servers(server_folder / ("long" * 25)) as servers:
        conn = postgres.connect(servers.postgres_url)
        assert "long" not in servers.postgres_url
        conn.close()


def test_a_damaged_database_says_where_to_look(workspace: Path) -> None:
    data = workspace / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with Servers(workspace) as servers, pytest.raises(StoreError, match=r"does not start .*choose another") as caught:
        _ = servers.postgres_url
    assert "\n" not in str(caught.value)
    for part in data.iterdir():
        part.unlink()
    data.rmdir()


def test_a_foreign_lite_folder_says_where_to_look(workspace: Path) -> None:
    workspace.mkdir()
    (workspace / "milvus").write_text("not a folder")
    with Servers(workspace) as servers, pytest.raises(StoreError, match=r"Milvus Lite server of .* does not start"):
        _ = servers.milvus_uri
    (workspace / "milvus").unlink()
