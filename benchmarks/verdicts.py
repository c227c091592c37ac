"""Verdicts: fits the trees of ``pipeline.verdicts`` to injections, and tests them on others with fresh seeds.

    python -m benchmarks.verdicts FOLDER [MODEL] [--test] [--write]

FOLDER is one of ``python -m benchmarks.anomaly``'s (yardstick, natural parts, ``models/MODEL``). The trees go into the
package, the test's tables to the standard output and, with ``--write``, to ``results/verdicts.md``. With ``--test`` the
package's trees are tested as they are.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks._anomaly_sky import Part
from benchmarks._verdict_sample import DETECTED, ORDINARY, Sample, detect, injected, measured
from models import files
from pipeline.verdicts import classify
from pipeline.verdicts.kinds import FIBER_GROUP, KINDS, is_artefact, kind_of
from pipeline.verdicts.trees import Trees

RESULTS = Path(__file__).parent / "results" / "verdicts.md"
SEEDS = {"train": 9_301, "test": 9_302}  # of injections; the anomaly benchmark's own are others
EACH = {"train": 512, "test": 256}  # injections a class
NATURAL, BAD_COLUMNS = 8_000, 512  # ordinary spectra looked through, and bad columns made
ORDINARY_WEIGHT = 0.5  # of a detected ordinary spectrum in the fit; it counts as physical
BLIND = 0.4  # share of the examples that is also shown without the detector's odds
FAINT = 6.0  # σ; fainter injections teach noise
ROUNDS, LEAVES, RATE = 110, 12, 0.09
LOCAL = ("extra_bump", "odd_line", "cosmic_ray", FIBER_GROUP)  # classes with one place


def main() -> None:
    """Make or find the samples, fit, test, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model", nargs="?", default="skysift")
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    started = time.perf_counter()
    home = asked.folder / "models" / asked.model
    model = files.load(home)
    reference = measured(Part(asked.folder / "calibrate"), model, NATURAL)

    def sample(which: str) -> Sample:
        where = asked.folder / "verdicts" / which
        return injected(where, asked.folder / "yardstick.npz", EACH[which], SEEDS[which], model)

    if not asked.test:
        natural = measured(Part(asked.folder / "train"), model, NATURAL)
        hurt = measured(Part(asked.folder / "train"), model, BAD_COLUMNS, SEEDS["train"])
        fit(*detect([sample("train"), natural, hurt], reference))
    test, ordinary = detect([sample("test"), measured(Part(asked.folder / "normals"), model, NATURAL)], reference)
    text = _page(report(test, ordinary), time.perf_counter() - started)
    print(text)
    if asked.write:
        RESULTS.write_text(text, encoding="utf-8")


def _page(tables: str, seconds: float) -> str:
    command = "python -m benchmarks.verdicts " + " ".join(Path(word).name for word in sys.argv[1:])
    machine = f"{os.cpu_count()} cores, {platform.machine()}"
    return (
        f"# Verdicts on injections with fresh seeds\n\n`{command}`, {time.strftime('%Y-%m-%d')}, {machine}, "
        f"{seconds:.0f} s (simulating included where it was not done before).\nWhat lost: `verdicts_notes.md`.\n\n"
        f"{tables}\n"
    )


def fit(train: Sample, natural: Sample, hurt: Sample) -> None:
    """Fit the trees and write them into the package."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    chosen = train.rows((train.name != FIBER_GROUP) & ((train.significance > FAINT) | (train.p_value < DETECTED)))
    let_through = natural.rows(np.isin(natural.name, ORDINARY) & (natural.p_value < 2 * DETECTED))
    parts = [chosen, let_through, hurt]
    rows = np.concatenate([classify.inputs(one.table) for one in parts])
    blind = np.random.default_rng(0).random(len(rows)) < BLIND  # as many again as a model without a detector sees them
    rows = np.concatenate([rows, rows[blind]])
    rows[len(blind) :, classify.DETECTOR] = np.nan
    rows[:, np.isnan(rows).all(0)] = 0  # what this model does not say is never asked
    target = np.array([KINDS.index(kind_of(name)) for one in parts for name in one.name.tolist()])
    weight = np.concatenate(
        [np.full(len(one.name), w) for one, w in zip(parts, (1.0, ORDINARY_WEIGHT, 0.5), strict=True)]
    )
    target, weight = (np.concatenate([values, values[blind]]) for values in (target, weight))
    boosted = HistGradientBoostingClassifier(
        max_iter=ROUNDS, learning_rate=RATE, max_leaf_nodes=LEAVES, l2_regularization=1.0, early_stopping=False,
        random_state=0,
    ).fit(rows, target, sample_weight=weight)  # fmt: skip
    trees = exported(boosted)
    trees.save(classify.WEIGHTS, {"inputs": list(classify.INPUTS), "kinds": list(KINDS)})
    classify.forget()


def exported(boosted: Any) -> Trees:
    """Return scikit-learn's trees as plain arrays."""
    nodes = [tree.nodes for step in boosted._predictors for tree in step]
    sizes = np.array([len(one) for one in nodes])
    first = np.cumsum(sizes) - sizes
    flat = np.concatenate(nodes)
    own = np.concatenate([np.arange(size) for size in sizes])
    leaf = flat["is_leaf"].astype(bool)
    left, right = (np.where(leaf, 0, flat[side] - own).astype(np.int8) for side in ("left", "right"))
    return Trees(
        flat["feature_idx"].astype(np.uint8), flat["num_threshold"].astype(np.float32), left, right,
        flat["missing_go_to_left"].astype(bool), np.where(leaf, flat["value"], 0).astype(np.float32),
        first.reshape(len(boosted._predictors), -1).astype(np.int32),
        np.ravel(boosted._baseline_prediction).astype(np.float32),
    )  # fmt: skip


def report(test: Sample, ordinary: Sample) -> str:
    """Return tables of how verdicts on detected injections do, among detected ordinary spectra of the same survey."""
    noise = ordinary.rows(ordinary.p_value < DETECTED)
    found = test.rows(test.p_value < DETECTED)
    done = classify.verdicts(Sample.joined(found, noise).table)
    n = len(found.name)
    truth = np.array([kind_of(name) for name in found.name.tolist()])
    verdict, artefact = done.verdict[:n], done.artefact_probability[:n]
    right, bright = verdict == truth, found.table["snr"] >= 2
    made = np.array([is_artefact(name) for name in truth.tolist()])
    calls = np.array([is_artefact(name) for name in done.verdict[n:].tolist()])
    lines = [
        f"{len(found.name)} of {len(test.name)} injections detected (p < {DETECTED}); {len(noise.name)} ordinary "
        f"spectra too, {100 * calls.mean():.0f}% of them called artefacts.\n",
        "| of detected | AUC artefact/physical | kind right | at S/N ≥ 2 |", "|---|---|---|---|",
    ]  # fmt: skip
    for what, keep in (("all", np.ones(n, bool)), ("> 8σ", found.significance > 8), ("> 15σ", found.significance > 15)):
        cells = (area(artefact[keep], made[keep]), right[keep].mean(), right[keep & bright].mean())
        lines.append(f"| {what} | " + " | ".join(f"{value:.3f}" for value in cells) + " |")
    lines += [
        "",
        "| class | detected | right | right at S/N ≥ 2 | P(artefact) | most called otherwise |",
        "|" + "---|" * 6,
    ]
    for name in sorted(set(found.name.tolist())):
        rows = found.name == name
        lines.append(_row(name, rows, right, bright, artefact, verdict))
    lines += ["", *places(found)]
    return "\n".join(lines)


def _row(name: str, rows: NDArray[np.bool_], right: Any, bright: Any, artefact: Any, verdict: Any) -> str:
    wrong, count = np.unique(verdict[rows & ~right], return_counts=True)
    most = f"{wrong[count.argmax()]} ({count.max()})" if len(wrong) else ""
    shown = rows & bright
    share = f"{right[shown].mean():.2f}" if shown.any() else "–"
    return f"| {name} | {rows.sum()} | {right[rows].mean():.2f} | {share} | {artefact[rows].mean():.2f} | {most} |"


def area(score: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve."""
    n_up, n_down = int(positive.sum()), int((~positive).sum())
    return float((rankdata(score)[positive].sum() - n_up * (n_up + 1) / 2) / (n_up * n_down))


def places(found: Sample) -> list[str]:
    """Return how often the top window overlaps the injected feature."""
    lines = ["| local class | detected | top window overlaps | one of the first two |", "|---|---|---|---|"]
    windows = np.asarray(found.table["windows"], np.float64).reshape(len(found.name), -1, 3)
    half = 0.5 * windows[:, :, 2] / 299792.458 * windows[:, :, 1]
    size = np.nan_to_num(found.width, nan=1.0)
    meets = np.abs(windows[:, :, 1] - found.wavelength[:, None]) <= half + 1.5 * size[:, None]
    for name in (*LOCAL, "all"):
        rows = np.isin(found.name, LOCAL) if name == "all" else found.name == name
        if rows.any():
            lines.append(
                f"| {name} | {rows.sum()} | {meets[rows, 0].mean():.3f} | {meets[rows, :2].any(1).mean():.3f} |"
            )
    return lines


if __name__ == "__main__":
    main()
