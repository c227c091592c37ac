"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pipeline.servers import Servers

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real DESI files and KubeRay schemas beside the checkout."""
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip(f"real DESI files are not at {data}: checks against real data did not run")
    return data


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A short-named folder for servers: sockets want short paths, and pytest's own folders are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="skysift-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def workspace_servers(server_folder: Path) -> Iterator[Servers]:
    """The embedded servers of one workspace, shared by all tests."""
    with Servers(server_folder / "workspace") as servers:
        yield servers


@pytest.fixture(scope="session")
def _migrated(workspace_servers: Servers) -> tuple[str, Iterator[int]]:
    """URL of a migrated database that the tests' own are copied from, and their numbers."""
    from pipeline.stores import postgres

    conn = postgres.connect(workspace_servers.postgres_url)
    postgres.migrate(conn)
    conn.autocommit = True
    with conn.cursor() as cur:  # making and dropping databases waits for the disk otherwise
        cur.execute("ALTER SYSTEM SET fsync = off")
        cur.execute("SELECT pg_reload_conf()")
    conn.close()
    return workspace_servers.postgres_url, count()


@pytest.fixture
def postgres_url(_migrated: tuple[str, Iterator[int]]) -> Iterator[str]:
    """A fresh, migrated database of a real PostgreSQL for one test."""
    import psycopg2

    url, numbers = _migrated
    name = f"test_{next(numbers)}"
    conn = psycopg2.connect(url.replace("/skysift?", "/postgres?"))
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute(f"CREATE DATABASE {name} TEMPLATE skysift")
        cur.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")  # privileges of a database are not copied
        cur.execute(f"GRANT CONNECT ON DATABASE {name} TO skysift_reader")
        cur.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO skysift_pipeline")
        yield url.replace("/skysift?", f"/{name}?")
        cur.execute(f"DROP DATABASE {name} WITH (FORCE)")
    conn.close()


@pytest.fixture(scope="session")
def milvus_lite_uri(workspace_servers: Servers) -> str:
    """Address of a Milvus Lite server process."""
    return workspace_servers.milvus_uri


@pytest.fixture(scope="session")
def milvus_server_uri(server_folder: Path) -> Iterator[str]:
    """Address of a real Milvus 2.3 server."""
    from milvus import MilvusServer, MilvusServerConfig

    server = MilvusServer(MilvusServerConfig(data_dir=str(server_folder / "milvus-server")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the wheel drops its sockets of ports that are taken
        server.start()
        gc.collect()
    yield f"http://127.0.0.1:{server.listen_port}"
    server.stop()
