"""Look-alikes among 1.6 million embeddings on a real Milvus server: recall, latency with and without a filter, loading.

Vectors are drawn from the latent density of a trained model (a flow fitted to its embeddings), not from white noise.
Recall is against brute force, in float64. Starts the server of the ``milvus`` wheel in a temporary folder.
Run: ``python -m benchmarks.similarity MODEL_FOLDER [--write]``, where MODEL_FOLDER has
model.safetensors and model.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow as pa
import torch
from milvus import MilvusServer, MilvusServerConfig
from numpy.typing import NDArray

from benchmarks._machine import machine
from models.density import STRETCH
from models.files import SETTINGS, WEIGHTS, from_bytes
from pipeline.lookalikes import nearest
from pipeline.stores.registry import collection_name
from pipeline.stores.vectors import INDEX, SEARCH_EF, VectorStore

RUNS, QUERIES, K = 5, 400, 10
MODEL = "bench"
BLOCK = 65_536
FILTER = "p_value < 0.01"
ALLOWED = {"": 10.0, FILTER: 15.0}  # ms
RECALL, RATE = 0.99, 80_000  # asked for; vectors/s
CALM = 10  # s without a change of segments and without work
IDLE = 25.0  # percent of a CPU
WHOLE = 0.3  # standardised share of the range that a spectrum without gaps has
SEALED = 3  # SegmentState of Milvus
RESULTS = Path(__file__).parent / "results" / "similarity.md"
Truth = NDArray[np.int64]  # [query, K]
Fields = dict[str, NDArray[np.float64]]


def draw(folder: Path, count: int, seed: int = 1) -> NDArray[np.float32]:
    """Vectors of a model's latent density, float32 [count, D]: normal numbers back through the flow's couplings.

    Of the conditions that the density depends on, ln(1 + z) is even over what the model was trained on, S/N and weight
    are normal and go together, and the whole range of wavelengths was seen.
    """
    model = from_bytes({name: (folder / name).read_bytes() for name in (WEIGHTS, SETTINGS)}, str(folder))
    flow, random = model.density, torch.Generator().manual_seed(seed)
    mean_D, scatter_D = flow.latent_2D
    parts = []
    with torch.inference_mode():
        for at in range(0, count, BLOCK):
            size = min(BLOCK, count - at)
            value_BD = torch.randn(size, len(mean_D), generator=random)
            place_B = 3**0.5 * (2 * torch.rand(size, generator=random) - 1)
            bright_B = torch.randn(size, generator=random).clamp(-1.5, 1.5)
            given_BQ = torch.stack([place_B, bright_B, bright_B, torch.full_like(place_B, WHOLE)], 1)
            for order_D, net in reversed(list(zip(flow.order_ND, flow.nets, strict=True))):
                kept, moved = value_BD[:, : flow.kept], value_BD[:, flow.kept :]
                shift, stretch = net(torch.cat([kept, given_BQ], 1)).chunk(2, dim=1)
                moved = moved * torch.exp(-STRETCH * torch.tanh(stretch)) - shift
                value_BD = torch.cat([kept, moved], 1)[:, torch.argsort(order_D)]
            parts.append((value_BD * scatter_D + mean_D).numpy())
    return np.concatenate(parts)


def load(store: VectorStore, vectors: NDArray[np.float32], fields: Fields) -> float:
    """Load all vectors with fields to filter by; return the rate, vectors/s."""
    store.ensure_collection(MODEL, vectors.shape[1])
    start = time.perf_counter()
    for at in range(0, len(vectors), BLOCK):
        part = vectors[at : at + BLOCK]
        rows = {"spectrum_id": np.arange(at, at + len(part))}
        table = pa.table(rows | {name: values[at : at + BLOCK] for name, values in fields.items()})
        lists = pa.FixedSizeListArray.from_arrays(part.ravel(), part.shape[1])
        store.upsert(MODEL, table.append_column("embedding", lists))
    return len(vectors) / (time.perf_counter() - start)


def settle(store: VectorStore, count: int, server: psutil.Process) -> list[int]:
    """Wait until all is indexed, compacted and in memory and the server has nothing to do; return segments' rows.

    What compaction wrote is indexed again while the old segments answer, and no call says so: the server's idling does.
    """
    store.flush(MODEL)
    connection, name = store._client._get_connection(), collection_name(MODEL)
    before: dict[int, int] = {}
    calm = 0
    while calm < CALM:
        idle = server.cpu_percent(interval=1) < IDLE
        told = store._client.describe_index(name, "embedding")  # pending_index_rows counts compacted segments too
        found = {one.segmentID: one.num_rows for one in connection.get_query_segment_info(name)
                 if one.indexID and one.state == SEALED}  # fmt: skip
        steady = idle and found == before and sum(found.values()) == count and told.get("state") == "Finished"
        calm, before = calm + 1 if steady else 0, found
    return sorted(before.values(), reverse=True)


def say(text: str) -> None:
    """Show what is being done."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Measured:
    """One row of the table: how wide, which filter, ms at p50 and p99 (median of the runs), all runs' p99, recall."""

    ef: int
    expression: str
    middle: float
    tails: tuple[float, ...]
    recall: float


def latency(store: VectorStore, asked: NDArray[np.float32], expression: str, ef: int, truth: Truth) -> Measured:
    """Ask one query after the other, in several runs."""
    middles, tails, found = [], [], []
    for _ in range(RUNS):
        times, found = [], []
        for vector in asked:
            start = time.perf_counter()
            found.append(store.search(MODEL, vector[None], K, expression, ef=ef)[0].spectrum_id)
            times.append(1e3 * (time.perf_counter() - start))
        middles.append(float(np.percentile(times, 50)))
        tails.append(float(np.percentile(times, 99)))
    hits = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(found, truth, strict=True)]
    return Measured(ef, expression, median(middles), tuple(sorted(tails)), float(np.mean(hits)) / K)


def exact(asked: NDArray[np.float32], vectors: NDArray[np.float32], ids: NDArray[np.int64]) -> Truth:
    """The ids of the nearest by brute force, among the rows ``ids``."""
    chosen = vectors[ids]
    return np.concatenate([ids[nearest(asked[at : at + 20], chosen, K)[0]] for at in range(0, len(asked), 20)])


def main() -> None:
    """Load, index, ask, print; with ``--write`` keep the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--vectors", type=int, default=1_600_000)
    parser.add_argument("--ef", type=int, nargs="+", default=[256, 512, 768, 1024])
    parser.add_argument("--index", type=int, nargs=2, metavar=("M", "EF"), help="others than the product's")
    parser.add_argument("--write", action="store_true", help="keep the page in benchmarks/results")
    given = parser.parse_args()
    load_before = os.getloadavg()[0]
    if given.index:
        INDEX.update(M=given.index[0], efConstruction=given.index[1])
    say("drawing vectors, and their nearest by brute force")
    vectors, asked = draw(given.model, given.vectors), draw(given.model, QUERIES, seed=9)
    rng = np.random.default_rng(2)
    fields = {"z": rng.uniform(0, 4, len(vectors)), "p_value": rng.uniform(0, 1, len(vectors)),
              "snr": rng.uniform(0, 20, len(vectors))}  # fmt: skip
    truth = {"": exact(asked, vectors, np.arange(len(vectors))),
             FILTER: exact(asked, vectors, np.flatnonzero(fields["p_value"] < 0.01))}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="skysift-") as folder:
        server = MilvusServer(MilvusServerConfig(data_dir=folder))
        server.start()
        try:
            store = VectorStore.open(f"http://127.0.0.1:{server.listen_port}")
            process = psutil.Process(server.server_proc.pid)
            lines = measure(store, process, vectors, asked, fields, truth, given.ef)
            store.close()
        finally:
            server.stop()
    head = ["# Look-alikes among 1.6 million embeddings on a Milvus server", "",
            f"`python -m benchmarks.similarity MODEL_FOLDER --write` · {time.strftime('%Y-%m-%d')} · {machine()} · "
            f"load average before {load_before:.1f} · Milvus 2.3.5. Vectors drawn from the latent density of a trained "
            "model; recall against brute force in float64. What was tried: `similarity_notes.md`.", ""]  # fmt: skip
    page = "\n".join([*head, *lines, ""])
    print(page)
    if given.write:
        RESULTS.write_text(page, encoding="utf-8")


def measure(
    store: VectorStore, server: psutil.Process, vectors: NDArray[np.float32], asked: NDArray[np.float32],
    fields: Fields, truth: dict[str, Truth], breadths: list[int],
) -> list[str]:  # fmt: skip
    """Return the table's lines."""
    say(f"loading {len(vectors):,} vectors")
    rate = load(store, vectors, fields)
    say("indexing")
    start = time.perf_counter()
    segments = settle(store, len(vectors), server)
    built = time.perf_counter() - start - CALM
    lines = [
        f"{len(vectors):,} vectors of {vectors.shape[1]} numbers, loaded at {rate:,.0f}/s (asked: {RATE:,}); HNSW with "
        f"M={INDEX['M']}, efConstruction={INDEX['efConstruction']} built in {built:.0f} s after it, in "
        f"{len(segments)} segments ({', '.join(f'{rows:,}' for rows in segments)}).",
        "",
        "| ef | filter | p50 / ms | p99 / ms, median of five runs | all five | allowed | recall@10 | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for ef in breadths:
        for expression in ("", FILTER):
            say(f"asking, ef={ef}, {expression or 'no filter'}")
            found = latency(store, asked, expression, ef, truth[expression])
            allowed, tail = ALLOWED[expression], median(found.tails)
            verdict = "met" if tail <= allowed and found.recall >= RECALL else "NOT MET"
            every = ", ".join(f"{one:.1f}" for one in found.tails)
            name = f"{ef} (the default)" if ef == SEARCH_EF else str(ef)
            cells = [name, expression or "none", f"{found.middle:.2f}", f"{tail:.2f}", every, f"{allowed:.0f}",
                     f"{found.recall:.4f}", verdict]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
