"""Stores that are really stopped while the service runs: answers say which, and what does not need it still works."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pyarrow as pa
import pytest
from click.testing import CliRunner
from moto.server import ThreadedMotoServer
from starlette.testclient import TestClient

from pipeline import Survey
from pipeline import config as configuration
from pipeline.cli import skysift
from pipeline.errors import StoreError
from pipeline.servers.embedded import EmbeddedPostgres, program
from pipeline.servers.lite import LiteServer
from pipeline.service.app import create_app
from pipeline.stores import postgres
from pipeline.stores.vectors import VectorStore

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@dataclass
class Stores:
    """PostgreSQL, Milvus Lite and S3 servers of this test alone, with a copy of a finished run."""

    folder: Path
    postgres: EmbeddedPostgres
    milvus: LiteServer
    s3: ThreadedMotoServer
    endpoint: str

    def stop_s3(self) -> None:
        """Stop and close the port, which moto's own stop leaves open; its objects stay in this process."""
        self.s3.stop()
        self.s3._server.server_close()  # type: ignore[union-attr]

    def start_s3(self) -> None:
        """Start again at the same address."""
        self.s3 = ThreadedMotoServer(port=int(self.endpoint.rsplit(":", 1)[1]), verbose=False)
        self.s3.start()

    def settings(self) -> list[str]:
        """Of the config: all three by their URLs."""
        names = {"workspace": self.folder, "postgres": self.postgres.url, "milvus": self.milvus.uri,
                 "objects": "s3://stopped", "endpoint": self.endpoint}  # fmt: skip
        return [f'stores.{name}="{value}"' for name, value in names.items()]


@pytest.fixture
def stores(served: Survey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    folder = Path(tempfile.mkdtemp(prefix="skysift-"))
    s3 = ThreadedMotoServer(port=0, verbose=False)
    s3.start()
    port = s3.get_host_and_port()[1]
    made = Stores(folder, EmbeddedPostgres(folder), LiteServer(folder), s3, f"http://127.0.0.1:{port}")
    made.postgres.start()
    made.milvus.start()
    try:
        _copy_catalog(served, made.postgres)
        _copy_vectors(served, made.milvus)
        _copy_objects(served, made.endpoint)
        yield made
    finally:
        made.postgres.stop()
        made.milvus.stop()
        made.stop_s3()
        shutil.rmtree(folder, ignore_errors=True)


def _copy_catalog(served: Survey, there: EmbeddedPostgres) -> None:
    conn = postgres.connect(there.url)
    postgres.migrate(conn)  # makes the roles
    conn.autocommit = True
    with conn.cursor() as cur:
        cur.execute("DROP SCHEMA public CASCADE; DROP SCHEMA tap_schema CASCADE; CREATE SCHEMA public")
    conn.close()
    with tempfile.NamedTemporaryFile() as dump:
        subprocess.run([program("pg_dump"), "-Fc", "-f", dump.name, "-d", served.server_url], check=True)
        subprocess.run([program("pg_restore"), "--clean", "--if-exists", "-d", there.url, dump.name], check=True)


def _copy_vectors(served: Survey, there: LiteServer) -> None:
    model_id = served.model_id
    spectrum_id, vectors = served.vectors.fetch(
        model_id, served.reader.rows("SELECT spectrum_id FROM anomaly_catalog")["spectrum_id"].to_pylist()
    )
    store = VectorStore.open(there.uri)
    store.ensure_collection(model_id, vectors.shape[1])
    lists = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    store.upsert(model_id, pa.table({"spectrum_id": spectrum_id, "embedding": lists}))
    store.close()


def _copy_objects(served: Survey, endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="stopped")
    root = served.config.workspace / "objects"
    for path in root.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "stopped", str(path.relative_to(root)))


def test_a_stopped_store_is_named_and_the_rest_works(stores: Stores) -> None:
    settings = stores.settings()
    with (
        Survey(config=configuration.load(None, settings)) as survey,
        TestClient(create_app(survey), raise_server_exceptions=False) as client,
    ):
        row = client.get("/v1/anomalies?limit=1").json()["rows"][0]
        urls = {
            "postgres": "/v1/anomalies", "milvus": f"/v1/similar/{row['targetid']}",
            "objects": f"/v1/spectra/{row['spectrum_id']}",
        }  # fmt: skip

        commands = {
            "postgres": ("query", "SELECT 1 AS one"), "milvus": ("similar", row["targetid"], "-k", "2"),
            "objects": ("show", row["targetid"], "--no-picture"),
        }  # fmt: skip
        options = [part for one in settings for part in ("-s", one)]

        def look(*down: str, named: str = "", said: str = "") -> None:
            for part, url in urls.items():
                answer = client.get(url)
                assert answer.status_code == (503 if part in down else 200), (part, answer.text)
                if part in down:
                    assert answer.json()["error"]["code"] == f"{named}_down"
                    assert said in answer.json()["error"]["message"]
                    assert answer.headers["retry-after"]
                verb, *rest = commands[part]
                ended = CliRunner().invoke(skysift, [verb, *options, *rest], standalone_mode=False)
                if part in down:
                    assert isinstance(ended.exception, StoreError), (part, ended.exception)
                    assert said in str(ended.exception)
                else:
                    assert ended.exception is None, (part, ended.exception)
            ready = client.get("/ready")
            assert (ready.status_code == 200) == (not down)
            told = ready.json()
            assert (not down and set(told.values()) == {"ok"}) or said in told[named]
            assert {name for name in urls if told[name] == "ok"} >= set(urls) - set(down)
            assert client.get("/health").status_code == 200

        look()
        stores.stop_s3()
        look("objects", named="objects", said="s3://stopped")
        stores.start_s3()
        look()
        stores.postgres.stop()
        look("postgres", "milvus", "objects", named="postgres", said="PostgreSQL at")
        availability = client.get("/tap/availability")
        assert "<vosi:available>false" in availability.text
        stores.postgres.start()
        look()
        stores.milvus.stop()
        look("milvus", named="milvus", said="Milvus at 127.0.0.1")
