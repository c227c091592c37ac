"""An S3 server that counts what passes, shared by the tests of stores and of reading by ranges."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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
