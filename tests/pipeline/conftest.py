"""An S3 server that counts what passes, shared by the tests of stores and of reading by ranges."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.stores import postgres
from pipeline.stores.postgres import Connection


@dataclass
class S3Server:
    """moto's S3 over HTTP with a bucket ``sky``; requests signed by ``WRONG`` are refused."""

    endpoint: str = ""
    requests: list[tuple[str, str, bool]] = field(default_factory=list)  # method, path, signed
    bytes_sent: int = 0
    url: str = "s3://sky"

    def reset(self) -> None:
        """Counts anew."""
        self.requests.clear()
        self.bytes_sent = 0

    def client(self) -> Any:
        """A boto3 client of this server."""
        import boto3

        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1")


@pytest.fixture
def conn(postgres_url: str) -> Iterator[Connection]:
    """A connection to a fresh database."""
    connection = postgres.connect(postgres_url)
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running server; the environment holds credentials it takes."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    app = DomainDispatcherApplication(create_backend_app)
    state = S3Server()

    def counting(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        signature = environ.get("HTTP_AUTHORIZATION", "")
        state.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], bool(signature)))
        if "Credential=WRONG" in signature:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>InvalidAccessKeyId</Code></Error>"]
        body = b"".join(app(environ, start_response))
        if environ["REQUEST_METHOD"] == "GET":
            state.bytes_sent += len(body)
        return [body]

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: Any) -> None:
            pass

    server = make_server("127.0.0.1", 0, counting, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "right")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        state.client().create_bucket(Bucket="sky")
        yield state
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Sifted:
    """A simulated survey and the workspace of its finished run."""

    sky: Path
    workspace: Path

    def query(self, text: str) -> list[dict[str, Any]]:
        """Rows of a query on its catalog."""
        from pipeline import Survey

        with Survey(self.workspace) as survey:
            return [dict(zip(row.colnames, row, strict=True)) for row in survey.query(text)]


@pytest.fixture(scope="session")
def sifted() -> Iterator[Sifted]:
    """A small survey, run from start to end in processes of their own; its servers stay up for all tests."""
    folder = Path(tempfile.mkdtemp(prefix="skysift-"))
    sky, workspace = folder / "sky", folder / "w"
    settings = ("ingest.chunk_size=128", "train.fit.segments=4", "train.vae.hidden=128", "train.vae.latent=8",
                "report.anomalies=2", "report.normals=1")  # fmt: skip
    options = [part for one in settings for part in ("--set", one)]
    shape = ("--quasars", "800", "--seed", "3", "--quasar-fraction", "0.8", "--no-resolution")
    try:
        _command("simulate", str(sky), *shape)
        _command("run", str(sky), "--workspace", str(workspace), "--run", "small", *options)
        _command("db", "start", "--workspace", str(workspace))
        yield Sifted(sky, workspace)
        _command("db", "stop", "--workspace", str(workspace))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _command(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
