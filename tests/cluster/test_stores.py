"""The end-to-end tests' own S3, against the client that will use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import MissingObject
from pipeline.stores.objects import ObjectStore
from tests.cluster.stores import PAGE, serve_s3


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    (tmp_path / "skysift").mkdir()
    server = serve_s3(tmp_path, "127.0.0.1", 0)
    yield ObjectStore.open("s3://skysift/results", endpoint=f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_objects_are_written_read_in_ranges_listed_and_deleted(store: ObjectStore) -> None:
    data = np.arange(1 << 22, dtype=np.int32).tobytes()  # 16 MiB: in parts
    store.write("a/b c.bin", data)
    assert store.read("a/b c.bin") == data
    out = np.zeros(8, np.uint8)
    store.read_into("a/b c.bin", np.array([4, 1 << 23]), np.array([4, 4]), out)
    assert out.view(np.int32).tolist() == [1, 1 << 21]
    assert store.write("a/b c.bin", b"x", if_absent=True) is False
    assert [(meta.path, meta.size) for meta in store.list("a")] == [("a/b c.bin", len(data))]
    store.delete("a/b c.bin")
    with pytest.raises(MissingObject):
        store.head("a/b c.bin")


def test_listings_of_many_pages(store: ObjectStore, tmp_path: Path) -> None:
    folder = tmp_path / "skysift" / "results" / "many"
    folder.mkdir(parents=True)
    for number in range(PAGE + 7):
        (folder / f"{number:05d}").write_bytes(b"")
    assert len(list(store.list("many"))) == PAGE + 7
