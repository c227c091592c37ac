"""The service over a finished run, called in this process and over a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.testclient import TestClient

from pipeline import Survey
from pipeline.service.app import create_app

from ..conftest import Sifted


@pytest.fixture(scope="session")
def served(sifted: Sifted) -> Iterator[Survey]:
    """The survey that is served."""
    with Survey(sifted.workspace) as survey:
        yield survey


@pytest.fixture(scope="session")
def client(served: Survey) -> Iterator[TestClient]:
    """Calls without a socket."""
    with TestClient(create_app(served, rate=1e6), raise_server_exceptions=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def address(served: Survey) -> Iterator[str]:
    """The root of a server on a real socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(served, rate=1e6), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    for _ in range(200):
        if server.started:
            break
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()
