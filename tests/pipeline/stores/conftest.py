"""A connection to a fresh database, and small chunks to fill it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pytest

from pipeline.chunks import Chunk, Coadd
from pipeline.keys import spectrum_id
from pipeline.stores import catalog

MakeChunk = Callable[..., Chunk]


@pytest.fixture
def make_chunk() -> MakeChunk:
    def make(pixel: int, targetid: Sequence[int], etag: str = "a") -> Chunk:
        coadd = Coadd(
            f"healpix/main/dark/{pixel}", f"healpix/main/dark/0/{pixel}/c.fits", 9, etag, "main", "dark", pixel
        )
        n = len(targetid)
        columns = {
            "targetid": np.array(targetid, np.int64),
            "z": np.linspace(1, 2, n),
            "zerr": np.full(n, 1e-4),
            "zwarn": np.zeros(n, np.int64),
            "ra": np.where(np.arange(n) == 0, np.nan, 10.0),
            "dec": np.full(n, -5.0),
        }
        return Chunk.of(coadd, pa.table(columns))

    return make


@pytest.fixture
def calibration() -> Callable[..., pa.Table]:
    """What calibrate writes, the largest score first in rank."""

    def make(spectrum_id: Sequence[int], score: Sequence[float]) -> pa.Table:
        score_B = np.asarray(score, np.float64)
        rank = np.empty(len(score_B), np.int32)
        rank[np.argsort(-score_B)] = np.arange(1, len(score_B) + 1)
        known = {"anomaly_score": score_B, "p_value": 1 - score_B, "rank": rank, "extrapolated": score_B > 0.9}
        texts = {name: ["{}"] * len(score_B) for name, kind in catalog.CALIBRATED.items() if pa.types.is_string(kind)}
        known |= texts | {"features": [[0.5, 1.5]] * len(score_B)}
        columns = {name: pa.array(known.get(name, score_B), kind) for name, kind in catalog.CALIBRATED.items()}
        return pa.table({"spectrum_id": pa.array(spectrum_id, pa.int64()), **columns})

    return make


@pytest.fixture
def spectra_of() -> Callable[..., pa.Table]:
    """Rows for ``spectra`` as ingest makes them, of the targets whose place in the chunk is given."""

    def make(chunk: Chunk, places: Sequence[int] | None = None) -> pa.Table:
        places = range(chunk.targets.num_rows) if places is None else places
        targets = chunk.targets.take(pa.array(list(places), pa.int64()))
        n = targets.num_rows
        coadd = chunk.coadd
        extra = {
            "spectrum_id": spectrum_id(targets["targetid"].to_numpy(), coadd.name),
            "coadd": pa.repeat(coadd.name, n),
            "survey": pa.repeat(coadd.survey, n),
            "program": pa.repeat(coadd.program, n),
            "healpix": pa.array([coadd.healpix] * n, pa.int32()),
            "snr": np.full(n, 2.5, np.float32),
            "ebv": np.full(n, np.nan, np.float32),
            "quality": np.zeros(n, np.int32),
            "chunk_id": pa.repeat(chunk.chunk_id, n),
            "shard": pa.repeat(chunk.shard, n),
            "row_group": np.zeros(n, np.int32),
            "row": np.arange(n, dtype=np.int32),
            "fiber": pa.array([[i, i + 500] for i in range(n)], pa.list_(pa.int32())),
            "night": pa.array([[20210204, 20210205]] * n, pa.list_(pa.int32())),
        }
        for name, values in extra.items():
            targets = targets.append_column(name, pa.array(values) if isinstance(values, np.ndarray) else values)
        return targets

    return make
