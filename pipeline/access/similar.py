"""What else looks like this? Nearest neighbours in the promoted model's latent space, with what is known of each.

Distances are Euclidean. Their percentile says what a distance is worth in this survey: of random pairs of its spectra,
so many percent are nearer to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.access import catalog
from pipeline.access.filters import Cone, Filters, separation
from pipeline.errors import NotFoundError, QueryError
from pipeline.stores.reader import Reader

if TYPE_CHECKING:
    from pipeline.stores.vectors import VectorStore

MAX_K: Final = 1_000
MAX_SEARCH: Final = 16_384  # hits that Milvus gives at once
SAMPLE: Final = 1_500  # spectra whose pairs say what distances there are: a million pairs
SAME_PLACE: Final = 2.0 / 3600  # deg; DESI's fibers are 1.5″ wide
TIMEOUT: Final = 10.0  # s
COLUMNS: Final = ("distance", "distance_percentile", *catalog.BRIEF)


@dataclass(frozen=True)
class Alike:
    """Look-alikes of one spectrum.

    Attributes:
        rows: nearest first: distance, distance_percentile (percent) and the columns ``catalog.BRIEF``.
        query: the row of the spectrum that was asked about; empty for one that is not in the catalog.
        left_out: spectra of the same object that were near and are not in ``rows``.
        notice: what is wrong with the store for such a search; empty where nothing is.
    """

    rows: pa.Table
    query: dict[str, Any]
    left_out: tuple[int, ...]
    notice: str


class Neighbours:
    """The embeddings of one model, and how far apart its spectra are."""

    def __init__(self, reader: Reader, vectors: VectorStore, model_id: str) -> None:
        self._reader, self._vectors, self.model_id = reader, vectors, model_id
        self._pairs: NDArray[np.float64] | None = None
        self._notice: str | None = None
        self._schema: pa.Schema | None = None

    def of_spectrum(self, row: dict[str, Any], k: int, filters: Filters) -> Alike:
        """Return the look-alikes of a spectrum of the catalog; itself and its duplicates are left out.

        Duplicates are the target's other spectra, and spectra within 2″ of it.

        Raises:
            NotFoundError: it has no embedding.
            QueryError: ``k`` or a filter is out of range.
            StoreError: Milvus or PostgreSQL is down.
        """
        found, vectors = self._vectors.fetch(self.model_id, [row["spectrum_id"]], timeout=TIMEOUT)
        if not len(found):
            raise NotFoundError(f"spectrum {row['spectrum_id']} has no embedding in Milvus; score it again")
        return self._search(vectors[0], k, filters, row, self._same(row))

    def of_vector(self, vector_D: NDArray[np.float32], k: int, filters: Filters) -> Alike:
        """Return the look-alikes of an embedding; errors as above."""
        return self._search(vector_D, k, filters, {}, frozenset())

    def _same(self, row: dict[str, Any]) -> frozenset[int]:
        """The same object's spectra, the query's own among them."""
        query, given = "SELECT spectrum_id FROM anomaly_catalog WHERE targetid = %s", [row["targetid"]]
        if row["ra"] is not None and row["dec"] is not None:
            query += " UNION SELECT spectrum_id FROM cone_search(%s, %s, %s)"
            given += [row["ra"], row["dec"], SAME_PLACE]
        return frozenset(self._reader.rows(query, given)["spectrum_id"].to_pylist()) | {row["spectrum_id"]}

    def _search(
        self, vector_D: NDArray[np.float32], k: int, filters: Filters, row: dict[str, Any], same: frozenset[int]
    ) -> Alike:
        if not 1 <= k <= MAX_K:
            raise QueryError(f"k is {k}, expected 1 to {MAX_K:,} look-alikes", "out_of_range")
        if filters.verdict and not self._vectors.has_verdicts(self.model_id):
            raise QueryError("this model was scored before verdicts were kept beside the embeddings; score and "
                             "calibrate a new model to filter by verdict")  # fmt: skip
        expression, want = filters.milvus(), k + len(same)
        while True:
            want = min(want, MAX_SEARCH)
            hits = self._vectors.search(self.model_id, vector_D[None], want, expression, timeout=TIMEOUT)[0]
            facts = catalog.of_ids(self._reader, hits.spectrum_id.tolist())
            kept = [at for at, key in enumerate(hits.spectrum_id.tolist())
                    if key in facts and key not in same and _inside(filters.cone, facts[key])]  # fmt: skip
            if len(kept) >= k or len(hits.spectrum_id) < want or want == MAX_SEARCH:
                break
            want *= 4  # a cone is searched as the box around it
        kept = kept[:k]
        distance = np.sqrt(np.maximum(hits.distance[kept].astype(np.float64), 0.0))
        left_out = tuple(key for key in hits.spectrum_id.tolist() if key in same and key != row.get("spectrum_id"))
        chosen = [facts[int(key)] for key in hits.spectrum_id[kept]]
        return Alike(self._table(chosen, distance), row, left_out, self.notice())

    def _table(self, chosen: Sequence[dict[str, Any]], distance: NDArray[np.float64]) -> pa.Table:
        pairs = self._pair_distances() if len(chosen) else np.ones(1)
        percentile = 100.0 * np.searchsorted(pairs, distance, side="left") / len(pairs)
        if self._schema is None:
            self._schema = self._reader.rows(f"SELECT {', '.join(catalog.BRIEF)} FROM anomaly_catalog LIMIT 0").schema
        rows = pa.Table.from_pylist(list(chosen), schema=self._schema)
        return rows.add_column(0, "distance_percentile", pa.array(percentile)).add_column(
            0, "distance", pa.array(distance)
        )

    def _pair_distances(self) -> NDArray[np.float64]:
        """Sorted distances of the pairs of a sample: every n-th spectrum in the order of rank."""
        if self._pairs is None:
            rows = self._reader.rows(
                """SELECT spectrum_id FROM anomaly_catalog WHERE rank IN (
                       SELECT 1 + (i * (SELECT max(rank)::bigint FROM anomaly_catalog)) / %(n)s
                       FROM generate_series(0, %(n)s - 1) i)""",
                {"n": SAMPLE},
            )
            _, found = self._vectors.fetch(self.model_id, rows["spectrum_id"].to_pylist(), timeout=TIMEOUT)
            vectors = found.astype(np.float64)
            square = np.einsum("nd,nd->n", vectors, vectors)
            upper = np.triu_indices(len(vectors), 1)
            squares = (square[:, None] + square - 2.0 * vectors @ vectors.T)[upper]
            self._pairs = np.sort(np.sqrt(np.maximum(squares, 0.0))) if len(squares) else np.zeros(1)
        return self._pairs

    def alive(self) -> str:
        """Return Milvus's version.

        Raises:
            StoreError: it does not answer, or lacks this model's embeddings.
        """
        self._vectors.fetch(self.model_id, [0], timeout=TIMEOUT)
        return self._vectors.version

    def notice(self) -> str:
        """What is wrong with the store for such a search."""
        if self._notice is None:
            self._notice = self._vectors.too_small(self.model_id)
        return self._notice


def _inside(cone: Cone | None, row: dict[str, Any]) -> bool:
    return cone is None or (row["ra"] is not None and separation(cone, row["ra"], row["dec"]) <= cone.radius)
