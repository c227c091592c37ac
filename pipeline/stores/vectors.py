"""Milvus: one collection of embeddings a model, the same calls on a real server and on Milvus Lite."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from pipeline.errors import StoreError
from pipeline.stores.registry import collection_name

ALIAS = "skysift"  # follows the promoted model, for readers other than skysift
KEY = "spectrum_id"
SCALARS = {
    "ra": DataType.DOUBLE,  # deg
    "dec": DataType.DOUBLE,  # deg
    "z": DataType.FLOAT,
    "snr": DataType.FLOAT,
    "anomaly_score": DataType.DOUBLE,  # NaN until calibrated, as is p_value: no filter finds a NaN
    "p_value": DataType.DOUBLE,
}
# Euclidean, because the density of the latents is: their prior is an isotropic Gaussian, and a vector's length
# (how far it is from the ordinary) means something. What the rest gives: benchmarks/results/similarity.md.
METRIC = "L2"
INDEX = {"M": 32, "efConstruction": 200}
SEARCH_EF = 768
VERDICT = "verdict"  # a word; empty: no candidate
VERDICT_LENGTH = 32
LITE_MOST = 100_000  # vectors that Milvus Lite answers quickly
# An idle client's pings, every 10 s by default, are too many for Milvus Lite's server: it ends the connection.
_GRPC = {"grpc.keepalive_time_ms": 360_000, "grpc.keepalive_permit_without_calls": 0}
BATCH = 8192  # rows a request; Milvus answers a query with at most 16,384

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs tracebacks of errors that are raised anyway


@dataclass(frozen=True)
class Hits:
    """Neighbours of one vector, the nearest first."""

    spectrum_id: NDArray[np.int64]  # [K]
    distance: NDArray[np.float32]  # [K], squared Euclidean


class VectorStore:
    """The embeddings of all models on one Milvus server."""

    def __init__(self, client: MilvusClient, where: str) -> None:
        self._client = client
        self._where = where
        self._loaded: set[str] = set()
        self._fields: dict[str, frozenset[str]] = {}

    @classmethod
    def open(cls, uri: str, *, timeout: float = 10.0) -> VectorStore:
        """Connect; the token, where the server wants one, comes from MILVUS_TOKEN.

        Raises:
            StoreError: unreachable or refused; the message has no token in it.
        """
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https", "tcp", "unix"):  # pymilvus would open a file in this process
            raise StoreError(f"stores.milvus is '{uri}'; it should read http://host:19530")
        where = f"{parts.hostname}:{parts.port or 19530}" if parts.hostname else uri
        with _explained(where):
            token = os.environ.get("MILVUS_TOKEN", "")
            return cls(MilvusClient(uri, token=token, timeout=timeout, grpc_options=_GRPC), where)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    @property
    def version(self) -> str:
        """Version of the server, such as ``2.3.5`` or ``milvus_lite-3.2.2``."""
        with _explained(self._where):
            return str(self._client.get_server_version())

    @property
    def _lite(self) -> bool:
        return self.version.startswith("milvus_lite")  # the server of the ``milvus`` wheel calls itself v2.3.5-lite

    def too_small(self, model_id: str) -> str:
        """Say that Milvus Lite holds more vectors than it is made for, and what to do; empty where all is well."""
        if not self._lite or (count := self.count(model_id)) <= LITE_MOST:
            return ""
        return (
            f"Milvus Lite holds {count:,} vectors and is made for up to {LITE_MOST:,}: answers are right but take "
            "seconds; start a Milvus server, name it with stores.milvus and score again"
        )

    def ensure_collection(self, model_id: str, dim: int) -> None:
        """Make a model's collection, indexed and loaded, where there is none.

        Raises:
            StoreError: it exists with vectors of another length.
        """
        name = collection_name(model_id)
        with _explained(self._where):
            if self._client.has_collection(name):
                found = self._dimension(name)
                if found != dim:
                    raise StoreError(
                        f"Milvus at {self._where}: collection {name} holds {found}-d vectors, the model makes {dim}-d "
                        "ones; drop it with `skysift models delete`, or use another server"
                    )
            else:
                self._create(name, dim)
            self._ready(model_id)

    def _ready(self, model_id: str) -> str:
        """Return a model's collection, loaded: a server that was restarted has none in memory."""
        name = collection_name(model_id)
        if name not in self._loaded:
            self._client.load_collection(name)
            self._loaded.add(name)
        return name

    def has_verdicts(self, model_id: str) -> bool:
        """Whether the collection can be filtered by verdict: those of earlier versions cannot."""
        with _explained(self._where):
            return VERDICT in self._names(collection_name(model_id))

    def _names(self, name: str) -> frozenset[str]:
        if name not in self._fields:
            self._fields[name] = frozenset(field["name"] for field in self._client.describe_collection(name)["fields"])
        return self._fields[name]

    def _dimension(self, name: str) -> int:
        fields = self._client.describe_collection(name)["fields"]
        return int(next(field["params"]["dim"] for field in fields if field["name"] == "embedding"))

    def _create(self, name: str, dim: int) -> None:
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(KEY, DataType.INT64, is_primary=True)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
        for field, kind in SCALARS.items():
            schema.add_field(field, kind)
        schema.add_field(VERDICT, DataType.VARCHAR, max_length=VERDICT_LENGTH)
        index = self._client.prepare_index_params()
        # Milvus Lite's graph leaves out most of what a filter keeps, and neighbours of what is far from all. It
        # compares with all vectors instead, and is fast enough for it up to LITE_MOST.
        kind, params = ("FLAT", {}) if self._lite else ("HNSW", INDEX)
        index.add_index("embedding", index_type=kind, metric_type=METRIC, params=params)
        # Session: this client sees its own writes at once, and never waits for what others do.
        self._client.create_collection(name, schema=schema, index_params=index, consistency_level="Session")

    def upsert(self, model_id: str, rows: pa.Table) -> None:
        """Insert or replace vectors by spectrum_id.

        Args:
            model_id: the model; its collection must exist.
            rows: Arrow table [B] with spectrum_id, embedding (lists of float) and any of ``SCALARS`` and verdict;
                those not given become NaN, or no verdict. No spectrum may occur twice.
        """
        with _explained(self._where):
            for start in range(0, rows.num_rows, BATCH):
                self._upsert(collection_name(model_id), rows.slice(start, BATCH).combine_chunks())

    def _upsert(self, name: str, rows: pa.Table) -> None:
        # Columns through the client's own handler: its public upsert takes dict rows, at a third of the rate.
        n = rows.num_rows
        embedding = rows["embedding"].combine_chunks()
        vectors = np.asarray(embedding.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(n, -1)
        columns = [
            {"name": KEY, "type": DataType.INT64, "values": rows[KEY].to_pylist()},
            {"name": "embedding", "type": DataType.FLOAT_VECTOR, "values": vectors.tolist()},
        ]
        for field, kind in SCALARS.items():
            given = field in rows.column_names
            values = rows[field].to_numpy() if given else np.full(n, np.nan)
            columns.append({"name": field, "type": kind, "values": np.asarray(values, np.float64).tolist()})
        if VERDICT in self._names(name):
            words = rows[VERDICT].fill_null("").to_pylist() if VERDICT in rows.column_names else [""] * n
            columns.append({"name": VERDICT, "type": DataType.VARCHAR, "values": words})
        self._client._get_connection().upsert(name, columns)

    def refresh_scalars(self, model_id: str, rows: pa.Table) -> int:
        """Write new scalar fields beside the vectors that are there; return how many vectors were found.

        Milvus replaces whole rows, so vectors are read and written back in batches; repeating it is harmless.

        Args:
            model_id: the model.
            rows: Arrow table [B] with spectrum_id, all of ``SCALARS`` and verdict.
        """
        refreshed = 0
        for start in range(0, rows.num_rows, BATCH):
            batch = rows.slice(start, BATCH)
            found, vectors = self.fetch(model_id, batch[KEY].to_numpy())
            if not len(found):
                continue
            table = pa.table(
                {KEY: found, "embedding": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])}
            )
            keep = batch.filter(pc.is_in(batch[KEY], pa.array(found)))
            for field in (*SCALARS, VERDICT):
                if field in keep.column_names:
                    table = table.append_column(field, keep[field])
            self.upsert(model_id, table)
            refreshed += len(found)
        return refreshed

    def fetch(
        self, model_id: str, spectrum_id: Sequence[int] | NDArray[np.int64], *, timeout: float | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the vectors of these spectra, those without one left out.

        Returns:
            int64 [F] ids in the order asked for, and float32 [F, D].
        """
        wanted = [int(one) for one in spectrum_id]
        found: dict[int, list[float]] = {}
        with _explained(self._where):
            name = self._ready(model_id)
            for start in range(0, len(wanted), BATCH):
                rows = self._client.get(
                    name, wanted[start : start + BATCH], output_fields=["embedding"], timeout=timeout
                )
                found |= {int(row[KEY]): row["embedding"] for row in rows}
            dim = self._dimension(name)
        order = [one for one in wanted if one in found]
        vectors = np.array([found[one] for one in order], np.float32).reshape(-1, dim)
        return np.array(order, np.int64), vectors

    def search(
        self, model_id: str, vectors_BD: NDArray[np.float32], k: int, filter: str = "", *, ef: int = SEARCH_EF,
        timeout: float | None = None,
    ) -> list[Hits]:  # fmt: skip
        """Return the ``k`` nearest neighbours of each vector.

        Args:
            model_id: the model.
            vectors_BD: float32 [B, D].
            k: neighbours wanted; fewer come when fewer pass the filter.
            filter: Milvus expression over ``SCALARS`` and verdict, such as ``z > 2 and p_value < 0.001``.
            ef: breadth of the search in the graph; at least ``k`` is used.
            timeout: s to wait for a server that does not answer; None: as long as the client does.
        """
        with _explained(self._where):
            answers = self._client.search(
                self._ready(model_id),
                np.atleast_2d(np.asarray(vectors_BD, np.float32)).tolist(),
                limit=k,
                filter=filter,
                search_params={"metric_type": METRIC, "params": {"ef": max(ef, k)}},
                output_fields=[KEY],
                timeout=timeout,
            )
        return [_hits(answer) for answer in answers]

    def count(self, model_id: str) -> int:
        """Return the exact number of vectors, all writes by anyone included."""
        with _explained(self._where):
            rows = self._client.query(self._ready(model_id), output_fields=["count(*)"], consistency_level="Strong")
        return int(rows[0]["count(*)"])

    def delete(self, model_id: str, spectrum_id: Sequence[int] | NDArray[np.int64]) -> None:
        """Delete vectors; those that are not there are no error, nor is a missing collection."""
        name = collection_name(model_id)
        ids = [int(one) for one in spectrum_id]
        with _explained(self._where):
            if ids and self._client.has_collection(name):
                self._ready(model_id)
                for start in range(0, len(ids), BATCH):
                    self._client.delete(name, ids=ids[start : start + BATCH])

    def flush(self, model_id: str) -> None:
        """Make what was written durable and let the server index it."""
        with _explained(self._where):
            self._client.flush(collection_name(model_id))

    def drop(self, model_id: str) -> None:
        """Drop a model's collection where there is one."""
        name = collection_name(model_id)
        with _explained(self._where):
            if self._client.has_collection(name):
                for alias in self._client.list_aliases(name)["aliases"]:
                    self._client.drop_alias(alias)
                self._client.drop_collection(name)
            self._loaded.discard(name)
            self._fields.pop(name, None)

    def set_alias(self, model_id: str) -> None:
        """Let the alias ``skysift`` name a model's collection."""
        name = collection_name(model_id)
        with _explained(self._where):
            if self._client.has_collection(ALIAS):
                self._client.alter_alias(name, ALIAS)
            else:
                self._client.create_alias(name, ALIAS)


def _hits(answer: Sequence[Mapping[str, Any]]) -> Hits:
    # A Milvus 2.3 server calls the primary key "id", Milvus Lite by the field's own name.
    ids = [int(hit["id"] if "id" in hit else hit[KEY]) for hit in answer]
    return Hits(np.array(ids, np.int64), np.array([hit["distance"] for hit in answer], np.float32))


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Turn Milvus's errors into one line that says what to do."""
    try:
        yield
    except MilvusException as error:
        said = " ".join(str(error.message).split())[:300] or type(error).__name__
        raise StoreError(f"Milvus at {where}: {_advice(error.code, said)}") from error


def _advice(code: int, said: str) -> str:
    text = said.lower()
    if "unauthenticated" in text or "auth check" in text or "permission" in text:
        return f"the credentials are wrong or missing; set MILVUS_TOKEN in the environment ({said})"
    if "not found" in text or "does not exist" in text:
        return f"the model's collection is missing; score the model again ({said})"
    if "fail connecting" in text or "unavailable" in text or "illegal uri" in text or "deadline" in text or code == 2:
        return f"unreachable; start the server, or correct stores.milvus ({said})"
    if "no space" in text or "disk" in text or "memory quota" in text or "deny to write" in text:
        return f"it is full or read-only; give it more space and run the same command again ({said})"
    return f"{said} (code {code})"
