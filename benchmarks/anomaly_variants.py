"""Variants of the network side by side, without the rest of the anomaly benchmark.

    python -m benchmarks.anomaly_variants FOLDER NAME:key=value,… [NAME:…] [--redo NAME …] [--seed N]

takes the parts that ``python -m benchmarks.anomaly --folder FOLDER`` simulated, fits each variant, scores it and prints
the page's table "Variants of the network, without a detector". Settings are those of ``_anomaly_variants``;
``detector=no`` is meant. The folder keeps everything, for the whole benchmark too.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from benchmarks import _anomaly_networks as networks
from benchmarks._anomaly_baselines import Bench
from benchmarks._anomaly_evaluation import KINDS, judge
from benchmarks._anomaly_sky import PARTS
from benchmarks._anomaly_variants import Variant


def main() -> None:
    """Fit, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("variants", nargs="+", metavar="NAME:key=value,…")
    parser.add_argument("--redo", nargs="*", default=[], metavar="NAME", help="variants to be fitted anew")
    parser.add_argument("--seed", type=int, default=1, help="of the copies that the latents are tested on")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="threads")
    asked = parser.parse_args()
    missing = [name for name in PARTS if not (asked.folder / name / "table.parquet").is_file()]
    if missing:
        parser.error(f"{asked.folder} has no part {missing[0]}: simulate with python -m benchmarks.anomaly --folder …")
    try:
        variants = [Variant.parse(text) for text in asked.variants]
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(asked.jobs)
    print("\n".join(table(Bench(asked.folder), variants, asked.seed, tuple(asked.redo))))


def table(bench: Bench, variants: list[Variant], seed: int, redo: tuple[str, ...] = ()) -> list[str]:
    """Return the lines of the table of some variants and of PCA."""
    found, recall = [], {}
    for one in variants:
        scores = bench.kept(one.name, lambda one=one: networks.scored(bench, one, redo), redo=one.name in redo)
        judged = judge(bench, one.name, scores)
        recall |= {(one.name, kind): judged.value(kind, "recall 1%") for kind in KINDS}
        found.append(networks.network(bench, one, seed, one.name in redo))
    return networks.page(found + [networks.pca(bench, count) for count in networks.PCA_SIZES], recall)


if __name__ == "__main__":
    main()
