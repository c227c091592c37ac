"""Look-alikes among 1.6 million embeddings on a real Milvus server: recall, latency with and without a filter, loading.

Vectors are drawn from the latent density of a trained model (a mixture of Gaussians fitted to its embeddings), not from
white noise. Recall is against brute force, in float64. Starts the server of the ``milvus`` wheel in a temporary folder.
Run: ``python -m benchmarks.similarity MODEL_FOLDER [--vectors N] [--ef 64 128 256]``, where MODEL_FOLDER has
model.safetensors and model.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch
from milvus import MilvusServer, MilvusServerConfig
from numpy.typing import NDArray

from models.files import SETTINGS, WEIGHTS, from_bytes
from pipeline.lookalikes import nearest
from pipeline.stores.vectors import VectorStore

RUNS, QUERIES, K = 5, 400, 10
MODEL = "bench"
BLOCK = 65_536


def draw(folder: Path, count: int, seed: int = 1) -> NDArray[np.float32]:
    """Vectors of a model's latent density, float32 [count, D]."""
    model = from_bytes({name: (folder / name).read_bytes() for name in (WEIGHTS, SETTINGS)}, str(folder))
    density = model.density
    rng = np.random.default_rng(seed)
    weight = torch.softmax(density.log_weight_K, 0).numpy().astype(np.float64)
    which = rng.choice(len(weight), count, p=weight / weight.sum())
    mean, factor = density.mean_KD.numpy(), torch.linalg.inv(density.whiten_KDD).numpy()
    noise = rng.standard_normal((count, mean.shape[1])).astype(np.float32)
    out = np.empty_like(noise)
    for component in range(len(weight)):
        rows = which == component
        out[rows] = mean[component] + noise[rows] @ factor[component]
    return out


def load(store: VectorStore, vectors: NDArray[np.float32]) -> float:
    """Load all vectors with fields to filter by; return the rate, vectors/s."""
    rng = np.random.default_rng(2)
    store.ensure_collection(MODEL, vectors.shape[1])
    start = time.perf_counter()
    for at in range(0, len(vectors), BLOCK):
        part = vectors[at : at + BLOCK]
        rows = {"spectrum_id": np.arange(at, at + len(part)), "z": rng.uniform(0, 4, len(part)),
                "p_value": rng.uniform(0, 1, len(part)), "snr": rng.uniform(0, 20, len(part))}  # fmt: skip
        table = pa.table(rows)
        lists = pa.FixedSizeListArray.from_arrays(part.ravel(), part.shape[1])
        store.upsert(MODEL, table.append_column("embedding", lists))
    return len(vectors) / (time.perf_counter() - start)


def latency(store: VectorStore, asked: NDArray[np.float32], expression: str, ef: int) -> tuple[float, float, list]:
    """Median of p50 and p99 over the runs in ms, and the ids found in the last one."""
    middles, tails, found = [], [], []
    for _ in range(RUNS):
        times, found = [], []
        for vector in asked:
            start = time.perf_counter()
            found.append(store.search(MODEL, vector[None], K, expression, ef=ef)[0].spectrum_id)
            times.append(1e3 * (time.perf_counter() - start))
        middles.append(float(np.percentile(times, 50)))
        tails.append(float(np.percentile(times, 99)))
    return median(middles), median(tails), found


def main() -> None:
    """Load, index, ask, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--vectors", type=int, default=1_600_000)
    parser.add_argument("--ef", type=int, nargs="+", default=[64, 128, 256])
    given = parser.parse_args()
    vectors = draw(given.model, given.vectors)
    asked = draw(given.model, QUERIES, seed=9)
    truth = np.concatenate([nearest(asked[at : at + 20], vectors, K)[0] for at in range(0, QUERIES, 20)])
    with tempfile.TemporaryDirectory(prefix="skysift-") as folder:
        server = MilvusServer(MilvusServerConfig(data_dir=folder))
        server.start()
        try:
            store = VectorStore.open(f"http://127.0.0.1:{server.listen_port}")
            measure(store, vectors, asked, truth, given.ef)
            store.close()
        finally:
            server.stop()


def measure(
    store: VectorStore, vectors: NDArray[np.float32], asked: NDArray[np.float32], truth: NDArray[np.int64],
    breadths: list[int],
) -> None:  # fmt: skip
    """Print the table."""
    rate = load(store, vectors)
    start = time.perf_counter()
    store.flush(MODEL)
    while store.count(MODEL) < len(vectors):
        time.sleep(1)
    time.sleep(max(0.0, len(vectors) / 10_000 - (time.perf_counter() - start)))  # the index is built behind the scenes
    print(f"{len(vectors):,} vectors of {vectors.shape[1]} numbers, loaded at {rate:,.0f}/s\n")
    print("| ef | filter | p50 / ms | p99 / ms, median of five runs | recall@10 |\n|---|---|---|---|---|")
    for ef in breadths:
        for expression in ("", "p_value < 0.01"):
            middle, tail, found = latency(store, asked, expression, ef)
            hits = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(found, truth, strict=True)]
            recall = "" if expression else f"{np.mean(hits) / K:.4f}"
            print(f"| {ef} | {expression or 'none'} | {middle:.2f} | {tail:.2f} | {recall} |")


if __name__ == "__main__":
    main()
