"""The same verbs on a folder and on S3; trouble told in one line."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, InputError, MissingObject, StoreError
from pipeline.stores import files, remote
from pipeline.stores.objects import ObjectStore, merge_ranges

DATA = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind that can be written."""
    if request.param == "folder":
        return ObjectStore.open(str(tmp_path))
    server = request.getfixturevalue("s3_server")
    return ObjectStore.open(f"{server.url}/{tmp_path.name}", endpoint=server.endpoint)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One retry only."""
    monkeypatch.setattr(remote, "RETRY", remote.RETRY | {"max_retries": 1})


def test_round_trip(store: ObjectStore) -> None:
    assert store.write("a/b.bin", DATA)
    assert store.read("a/b.bin") == DATA
    assert b"".join(store.stream("a/b.bin", 700_000)) == DATA
    assert bytes(store.read_uncached("a/b.bin")) == DATA
    assert store.head("a/b.bin").size == len(DATA)
    assert store.exists("a/b.bin")
    assert not store.exists("a/c.bin")


@pytest.mark.parametrize("uncached", [False, True])
@pytest.mark.parametrize("size", [0, 1, 4096, len(DATA)])
def test_parts_are_joined(store: ObjectStore, uncached: bool, size: int) -> None:
    middle = size // 3
    store.write("parts", [DATA[:middle], b"", memoryview(DATA)[middle:size]], uncached=uncached)
    assert store.read("parts") == DATA[:size]


def test_more_parts_than_one_call_takes(store: ObjectStore) -> None:
    store.write("many", [DATA[i : i + 1] for i in range(3000)])
    assert store.read("many") == DATA[:3000]


def test_files_larger_than_the_aligned_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BUFFER", 64 << 10)
    store = ObjectStore.open(str(tmp_path))
    store.write("large", [DATA[:100_001], DATA[100_001:]], uncached=True)
    assert store.read("large") == DATA


@pytest.mark.parametrize("call", ["open", "write"])
def test_file_systems_without_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    real = getattr(os, call)

    def refusing(*arguments: Any) -> Any:
        if call == "write" or arguments[1] & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(*arguments)

    monkeypatch.setattr(os, call, refusing)
    store = ObjectStore.open(str(tmp_path))
    store.write("file", DATA, uncached=True)
    assert (tmp_path / "file").read_bytes() == DATA


def test_ranges_in_any_order(store: ObjectStore) -> None:
    store.write("x", DATA)
    starts, lengths = [2_000_000, 5, 100, 3, 1_000_000], [7, 10, 0, 4, 90_000]
    found = store.read_ranges("x", starts, lengths)
    assert [part.tobytes() for part in found] == [DATA[a : a + n] for a, n in zip(starts, lengths, strict=True)]


def test_many_ranges(store: ObjectStore) -> None:
    store.write("x", DATA)
    starts = list(range(0, 2_900_000, 29_000))
    found = store.read_ranges("x", starts, [100] * 100)
    assert [part.tobytes() for part in found] == [DATA[a : a + 100] for a in starts]


def test_start_comes_with_size_and_tag(store: ObjectStore) -> None:
    store.write("x", DATA)
    start, meta = store.read_start("x", 1000)
    assert start.tobytes() == DATA[:1000]
    assert meta == store.head("x")
    whole, _ = store.read_start("x", 10**9)
    assert whole.tobytes() == DATA


def test_tag_changes_with_content(store: ObjectStore) -> None:
    store.write("x", b"one")
    before = store.head("x").etag
    store.write("x", b"two!")
    assert store.head("x").etag != before


def test_heads_tell_what_is_missing(store: ObjectStore) -> None:
    store.write("x", b"123")
    sizes = [meta and meta.size for meta in store.heads(["x", "y", "x"])]
    assert sizes == [3, None, 3]


def test_if_absent_keeps_what_is_there(store: ObjectStore) -> None:
    assert store.write("x", b"first", if_absent=True)
    assert not store.write("x", b"second", if_absent=True)
    assert store.read("x") == b"first"
    assert [meta.path for meta in store.list()] == ["x"]


def test_list_and_delete(store: ObjectStore) -> None:
    for name in ("b/2", "b/1", "a", "bc/3"):
        store.write(name, b"x")
    assert sorted(meta.path for meta in store.list()) == ["a", "b/1", "b/2", "bc/3"]
    assert [meta.path for meta in store.list("b")] == ["b/1", "b/2"]
    assert list(store.list("nothing")) == []
    store.delete("b/1")
    store.delete("b/1")
    assert [meta.path for meta in store.list("b")] == ["b/2"]


def test_pickle_holds_no_connection(store: ObjectStore) -> None:
    store.write("x", b"123")
    store.heads(["x", "x"])
    again = pickle.loads(pickle.dumps(store))
    assert again.read("x") == b"123"
    assert again.url == store.url


def test_counters(store: ObjectStore) -> None:
    store.write("x", DATA)
    requests, size = store.requests, store.bytes_read
    store.read_ranges("x", [0, 1_000_000], [10, 20])
    assert (store.requests - requests, store.bytes_read - size) == (2, 30)


def test_counters_equal_what_the_server_sent(s3_server) -> None:
    store = ObjectStore.open(s3_server.url, endpoint=s3_server.endpoint)
    store.write("counted", DATA)
    requests = store.requests
    s3_server.reset()
    starts = [0, 1000, 50_000, 2_000_000]  # the first two are close enough for one request
    store.read_ranges("counted", starts, [100] * 4)
    assert s3_server.bytes_sent == store.bytes_read == 1100 + 100 + 100
    assert len(s3_server.requests) == store.requests - requests == 3


@pytest.mark.parametrize("verb", ["head", "read", "read_start", "read_ranges", "stream"])
def test_missing_object(store: ObjectStore, verb: str) -> None:
    arguments = {"read_start": (10,), "read_ranges": ([0], [1])}.get(verb, ())
    act = partial(getattr(store, verb), "nothing/here", *arguments)
    with pytest.raises(MissingObject, match="nothing/here") as caught:
        _ = [*act()] if verb == "stream" else act()
    assert caught.value.reason == "missing_file"


@pytest.mark.parametrize("start", [2_999_995, 4_000_000])
def test_range_beyond_the_end(store: ObjectStore, start: int) -> None:
    store.write("x", DATA)
    with pytest.raises(InputError, match="truncated") as caught:
        store.read_ranges("x", [start], [10])
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b"])
def test_paths_stay_below_the_store(store: ObjectStore, path: str) -> None:
    with pytest.raises(InputError, match="stay below"):
        store.read(path)


def test_local_temporary_files_are_gone_and_unseen(tmp_path: Path) -> None:
    store = ObjectStore.open(f"file://{tmp_path}")
    store.write("a/x", DATA)
    (tmp_path / "a" / ".y.0123.tmp").write_bytes(b"left by a killed process")
    assert [meta.path for meta in store.list()] == ["a/x"]
    assert len(list((tmp_path / "a").iterdir())) == 2


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied")],
)
def test_local_trouble_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str) -> None:
    def failing(fd: int, parts: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "writev", failing)
    with pytest.raises(StoreError, match=advice) as caught:
        ObjectStore.open(str(tmp_path)).write("x", DATA)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_full_disk_for_real() -> None:
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full here")
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space left"):
            files._write_cached(fd, [b"x"])
    finally:
        os.close(fd)


def test_folder_that_cannot_be_made() -> None:
    with pytest.raises(StoreError, match="cannot write"):
        ObjectStore.open("/proc/nowhere").write("x", b"")


def test_wrong_credentials(s3_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "WRONG")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    store = ObjectStore.open(s3_server.url, endpoint=s3_server.endpoint)
    for act in (partial(store.read, "x"), partial(store.write, "x", b""), partial(list, store.list())):
        with pytest.raises(StoreError, match="refuses access") as caught:
            act()
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_unsigned_requests(s3_server, monkeypatch: pytest.MonkeyPatch) -> None:
    client = s3_server.client()
    client.put_object(Bucket="sky", Key="public", Body=b"for all", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3_server.reset()
    assert ObjectStore.open(s3_server.url, endpoint=s3_server.endpoint, anonymous=True).read("public") == b"for all"
    assert s3_server.requests == [("GET", "/sky/public", False)]


def test_endpoint_from_the_environment(s3_server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    store = ObjectStore.open(s3_server.url)
    store.write("from-environment", b"x")
    assert store.read("from-environment") == b"x"


def test_bucket_that_does_not_exist(s3_server) -> None:
    with pytest.raises(StoreError, match="no such bucket"):
        ObjectStore.open("s3://nowhere", endpoint=s3_server.endpoint).read("x")


@pytest.mark.usefixtures("impatient", "s3_server")
def test_unreachable_server() -> None:
    store = ObjectStore.open("s3://sky", endpoint="http://127.0.0.1:9")
    for act in (partial(store.read, "x"), partial(store.write, "x", b""), partial(list, store.list())):
        with pytest.raises(StoreError, match=r"s3://sky.*unreachable"):
            act()


def test_https_reads_and_does_not_list(s3_server) -> None:
    s3_server.client().put_object(Bucket="sky", Key="open/x", Body=DATA, ACL="public-read")
    store = ObjectStore.open(f"{s3_server.endpoint}/sky/open")
    assert store.head("x").size == len(DATA)
    assert store.read_ranges("x", [100], [20])[0].tobytes() == DATA[100:120]
    with pytest.raises(StoreError, match="does not list"):
        list(store.list())


@pytest.fixture
def rangeless_server(tmp_path: Path) -> Iterator[str]:
    """A server that answers ranges with the whole file and status 200."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    (tmp_path / "x").write_bytes(DATA[:1000])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_server_that_ignores_ranges(rangeless_server: str) -> None:
    store = ObjectStore.open(rangeless_server)
    with pytest.raises(StoreError, match="ignores byte ranges"):
        store.read_ranges("x", [5], [5])


@pytest.mark.parametrize("url", ["https://me:hunter2@example.org/x", "https://example.org/x?sig=hunter2"])
def test_credentials_in_a_url_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="environment") as caught:
        ObjectStore.open(url)
    assert "hunter2" not in str(caught.value)


def test_unknown_scheme() -> None:
    with pytest.raises(ConfigError, match="unknown scheme 'ftp'"):
        ObjectStore.open("ftp://example.org")


def test_merged_ranges_hold_their_parts() -> None:
    starts, lengths, owner = merge_ranges(np.array([0, 10, 12, 40]), np.array([5, 20, 2, 5]), 5)
    assert starts.tolist() == [0, 40]
    assert lengths.tolist() == [30, 5]
    assert owner.tolist() == [0, 0, 0, 1]
