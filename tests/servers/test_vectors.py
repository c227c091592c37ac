"""The vector store on Milvus Lite and on a real Milvus server: the same tests, the same answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipeline.errors import StoreError
from pipeline.stores.registry import collection_name
from pipeline.stores.vectors import ALIAS, SCALARS, VectorStore

pytestmark = pytest.mark.servers

DIM = 8
POOL = np.random.default_rng(9).integers(2**60, 2**62, 2000)  # ids beyond what a double can hold


@pytest.fixture(scope="module", params=["milvus_lite_uri", "milvus_server_uri"])
def store(request: pytest.FixtureRequest) -> Iterator[VectorStore]:
    opened = VectorStore.open(request.getfixturevalue(request.param))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def collection(store: VectorStore) -> Iterator[str]:
    """One for all tests: a real server takes three seconds to make one."""
    store.ensure_collection("m0", DIM)
    yield "m0"
    store.drop("m0")


@pytest.fixture
def model(store: VectorStore, collection: str) -> str:
    store.delete(collection, POOL)
    return collection


def _vectors(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def _ids(n: int) -> NDArray[np.int64]:
    return POOL[:n]


def _rows(ids: NDArray[np.int64], vectors: NDArray[np.float32], **scalars: NDArray[np.float64]) -> pa.Table:
    embedding = pa.FixedSizeListArray.from_arrays(vectors.ravel(), DIM)
    return pa.table({"spectrum_id": ids, "embedding": embedding, **scalars})


def test_version(store: VectorStore) -> None:
    assert "2.3.5" in store.version or "lite-3.2" in store.version


def test_a_server_has_a_graph_and_lite_compares_with_all(
    request: pytest.FixtureRequest, store: VectorStore, model: str
) -> None:
    of_lite = request.node.callspec.params["store"] == "milvus_lite_uri"
    name = collection_name(model)
    assert store._client.describe_index(name, "embedding")["index_type"] == ("FLAT" if of_lite else "HNSW")


def test_written_vectors_are_found_at_once(store: VectorStore, model: str) -> None:
    ids, vectors = _ids(500), _vectors(500)
    store.upsert(model, _rows(ids, vectors, z=np.linspace(0, 5, 500)))
    assert store.count(model) == 500
    hits = store.search(model, vectors[:3], 2)
    assert [hit.spectrum_id[0] for hit in hits] == ids[:3].tolist()
    assert all(hit.distance[0] < 1e-5 < hit.distance[1] for hit in hits)


def test_upserting_again_replaces(store: VectorStore, model: str) -> None:
    ids, vectors = _ids(100), _vectors(100)
    store.upsert(model, _rows(ids, vectors))
    store.upsert(model, _rows(ids, vectors))
    store.upsert(model, _rows(ids[:10], vectors[:10] + 100))
    assert store.count(model) == 100
    found, back = store.fetch(model, ids[:20])
    assert found.tolist() == ids[:20].tolist()
    np.testing.assert_array_equal(back[:10], vectors[:10] + 100)
    np.testing.assert_array_equal(back[10:], vectors[10:20])


def test_search_agrees_with_brute_force(store: VectorStore, model: str) -> None:
    ids, vectors, queries = _ids(2000), _vectors(2000), _vectors(20, seed=5)
    store.upsert(model, _rows(ids, vectors))
    store.flush(model)
    distance = ((queries[:, None] - vectors[None]) ** 2).sum(-1)
    nearest = np.argsort(distance, axis=1)[:, :10]
    hits = store.search(model, queries, 10)
    shared = [
        len(set(hit.spectrum_id.tolist()) & set(ids[row].tolist())) for hit, row in zip(hits, nearest, strict=True)
    ]
    assert np.mean(shared) / 10 >= 0.98
    np.testing.assert_allclose(hits[0].distance[0], distance[0].min(), rtol=1e-4)


def test_filters_on_scalar_fields(store: VectorStore, model: str) -> None:
    ids, vectors = _ids(300), _vectors(300)
    z = np.linspace(0, 3, 300)
    p = np.where(np.arange(300) % 3 == 0, np.nan, 0.5)
    store.upsert(model, _rows(ids, vectors, z=z, p_value=p))
    (hits,) = store.search(model, vectors[:1], 300, "z > 1 and z < 2 and p_value <= 0.5")
    chosen = (z > 1) & (z < 2) & ~np.isnan(p)
    assert set(hits.spectrum_id.tolist()) == set(ids[chosen].tolist())


def test_fetch_leaves_out_what_is_not_there(store: VectorStore, model: str) -> None:
    ids, vectors = _ids(5), _vectors(5)
    store.upsert(model, _rows(ids, vectors))
    found, back = store.fetch(model, [7, int(ids[3]), int(ids[1])])
    assert found.tolist() == [ids[3], ids[1]]
    np.testing.assert_array_equal(back, vectors[[3, 1]])
    nothing, empty = store.fetch(model, [7])
    assert nothing.shape == (0,)
    assert empty.shape == (0, DIM)


def test_refreshing_scalars_keeps_the_vectors(store: VectorStore, model: str) -> None:
    ids, vectors = _ids(50), _vectors(50)
    store.upsert(model, _rows(ids, vectors))
    new = {name: np.arange(51.0) for name in SCALARS}
    rows = pa.table({"spectrum_id": np.append(ids, 3), **new})  # one without a vector
    assert store.refresh_scalars(model, rows) == 50
    assert store.refresh_scalars(model, rows) == 50
    assert store.count(model) == 50
    np.testing.assert_array_equal(store.fetch(model, ids)[1], vectors)
    (hits,) = store.search(model, vectors[:1], 50, "anomaly_score >= 40 and p_value < 45")
    assert set(hits.spectrum_id.tolist()) == set(ids[40:45].tolist())


def test_deleting(store: VectorStore, model: str) -> None:
    ids, vectors = _ids(20), _vectors(20)
    store.upsert(model, _rows(ids, vectors))
    store.delete(model, np.append(ids[:5], 12345))
    store.delete(model, ids[:5])
    assert store.count(model) == 15
    assert store.search(model, vectors[:1], 1)[0].spectrum_id[0] != ids[0]
    store.delete("nosuch", ids)


def test_the_alias_follows(store: VectorStore) -> None:
    for name in ("alias_a", "alias_b", "alias_a"):
        store.ensure_collection(name, DIM)
        store.set_alias(name)
        described = store._client.describe_collection(ALIAS)
        assert described["collection_name"] == f"skysift_{name}"
    store.drop("alias_a")
    assert not store._client.has_collection(ALIAS)
    store.drop("alias_b")
    store.drop("alias_b")


def test_a_collection_of_another_length_is_refused(store: VectorStore, model: str) -> None:
    store.ensure_collection(model, DIM)
    with pytest.raises(StoreError, match=f"holds {DIM}-d vectors, the model makes 9-d ones"):
        store.ensure_collection(model, 9)


def test_a_missing_collection_says_what_to_do(store: VectorStore) -> None:
    with pytest.raises(StoreError, match="collection is missing; score the model again") as caught:
        store.search("nosuch", _vectors(1), 1)
    assert "\n" not in str(caught.value)


def test_verdicts_are_kept_and_filtered_by(store: VectorStore, model: str) -> None:
    ids, vectors = _ids(50), _vectors(50)
    store.upsert(model, _rows(ids, vectors))
    assert store.has_verdicts(model)
    known = {name: np.arange(50.0) for name in SCALARS}
    verdict = pa.array(["physical" if place % 5 == 0 else None for place in range(50)])
    assert store.refresh_scalars(model, pa.table({"spectrum_id": ids, **known, "verdict": verdict})) == 50
    hits = store.search(model, vectors[:1], 50, 'verdict in ["physical"]')[0]
    assert sorted(hits.spectrum_id.tolist()) == sorted(ids[::5].tolist())
    assert store.search(model, vectors[:1], 50, 'verdict == "spike"')[0].spectrum_id.tolist() == []


def test_a_bad_filter_is_one_line(store: VectorStore, model: str) -> None:
    store.upsert(model, _rows(_ids(5), _vectors(5)))
    with pytest.raises(StoreError, match="Milvus at") as caught:
        store.search(model, _vectors(1), 1, "zz >< 3")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("uri", ["http://ada:hush@127.0.0.1:9", "http://nowhere.invalid:19530"])
def test_an_unreachable_server(uri: str) -> None:
    with pytest.raises(StoreError, match=r"unreachable; start the server, or correct stores.milvus") as caught:
        VectorStore.open(uri, timeout=1)
    assert "hush" not in str(caught.value)


def test_a_file_is_not_opened_in_this_process() -> None:
    with pytest.raises(StoreError, match=r"stores.milvus is './sky.db'; it should read http://host:19530"):
        VectorStore.open("./sky.db")
