"""The product under test: its model fitted, its scores measured and calibrated as the pipeline does it, side by side
with variants of its settings (``benchmarks._anomaly_variants``).

Everything is kept in the folder: the model under ``models/NAME``, raw score tables under ``raw/NAME``, scores under
``scores``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._anomaly_baselines import FITTED, LATENT_SAMPLE, SCORED, Bench, Scores, isolation
from benchmarks._anomaly_sky import Part
from benchmarks._anomaly_variants import Variant, changed, exchanged, forward_of, load, save
from models import fit
from models.fit import Examples, FitState, begin, finish, judge, train_segment, validate
from models.scores import features, score
from models.trained import TrainedModel, load_spectra, refined
from models.vae import VAE, Prepared
from pipeline.injection.examples import KINDS, Sample, examples
from pipeline.significance import Calibrated, calibrate_scores
from pipeline.stages.calibrate import COMPONENTS
from pipeline.training import HOSTS, departures_a_spectrum, makers

Table = dict[str, NDArray[Any]]

OURS = "skysift"
EXAMPLES = "examples.npz"  # what the detector learned from, beside the model
SEGMENT = 16_384  # training spectra of a segment, as in ``pipeline.training``
SCORE_BATCH = 512
SAMPLE = 256  # spectra that departures are put into at a time


def model_of(bench: Bench, variant: Variant, redo: bool = False) -> TrainedModel:
    """Return a variant's model: the folder's, or fitted on ``train`` with ``validate`` to stop it."""
    home = bench.folder / "models" / variant.name
    if redo or not (home / "seconds.txt").is_file():
        started = time.perf_counter()
        seen: list[torch.Tensor] = []
        labels: list[torch.Tensor] = []

        def noted(*spectra: Any) -> torch.Tensor:
            seen.append(features(*spectra).half())
            return seen[-1]

        with changed(variant), exchanged(fit, "features", noted):
            model = _fitted(bench, variant, labels)
        save(model, home)
        if seen:
            np.savez(home / EXAMPLES, features=torch.cat(seen).numpy(), label=torch.cat(labels).numpy())
        (home / "seconds.txt").write_text(f"{time.perf_counter() - started:.1f}\n", encoding="utf-8")
    return load(home)


def seconds_of(bench: Bench, variant: Variant) -> float:
    """Return the wall-clock time that a variant's fit took."""
    return float((bench.folder / "models" / variant.name / "seconds.txt").read_text(encoding="utf-8"))


def _fitted(bench: Bench, variant: Variant, labels: list[torch.Tensor]) -> TrainedModel:
    train = bench.part("train")
    n_train = len(train.flux)
    parts = max(1, -(-n_train // SEGMENT))
    size = -(-n_train // parts)
    steps = -(-size // variant.fit.batch)
    state = FitState.new(variant.vae, variant.fit, steps * variant.fit.segments)
    judges = _prepared(state.vae, bench.part("validate"), np.arange(len(bench.part("validate").flux)))
    segment, held = None, -1
    for number in range(variant.fit.segments):
        if held != number % parts or segment is None:
            held = number % parts
            segment = _prepared(state.vae, train, np.arange(n_train)[held::parts])
        if number == 0:
            segment = begin(state, segment)
            judges = refined(state.vae, judges)
        state.generator.manual_seed(variant.fit.seed * 1000 + number)
        train_segment(state, segment, variant.fit.batch, steps, forward_of(variant, state))
        judge(state, validate(state, judges))
        if state.finished:
            break
    provenance = {"split": {}, "data_hash": variant.name, "n_train": n_train}
    if not variant.special.detector:
        return finish(state, segment, judges, provenance)
    examples_ = partial(_examples, train, variant.fit.seed, labels)
    return finish(state, segment, judges, provenance, examples_, KINDS)


def _examples(train: Part, seed: int, labels: list[torch.Tensor], model: TrainedModel) -> Iterator[Examples]:
    """What the detector learns from, as ``pipeline.training`` makes it; the labels are noted down."""
    hosts = np.random.default_rng(seed).permutation(len(train.flux))[:HOSTS]
    samples = (
        Sample(np.array(train.flux[rows]), np.array(train.ivar[rows]), z, train.column("snr")[rows])
        for rows in np.split(np.sort(hosts), range(SAMPLE, len(hosts), SAMPLE))
        for z in [np.clip(train.column("z")[rows].astype(np.float64), 0.0, model.vae.config.z_max)]
    )
    each = departures_a_spectrum(len(hosts))
    for one in examples(model, samples, each, seed, makers(each * len(hosts))):
        labels.append(one[3])
        yield one


def _prepared(vae: VAE, part: Part, rows: NDArray[np.int64]) -> Prepared:
    z = np.clip(part.column("z"), 0.0, vae.config.z_max)
    pieces = [load_spectra(vae, np.array(part.flux[some]), np.array(part.ivar[some]), z[some])
              for some in np.array_split(rows, max(1, len(rows) // 1024))]  # fmt: skip
    return Prepared.cat(pieces)


def raw_scores(bench: Bench, variant: Variant, part: str, redo: bool = False) -> Table:
    """Return every raw score of a part's spectra, from the folder if they are there; ``train`` gives a sample."""
    path = bench.folder / "raw" / variant.name / f"{part}.npz"
    if redo or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path, **_scored(model_of(bench, variant), bench.part(part), LATENT_SAMPLE if part == "train" else None)
        )
    with np.load(path) as kept:
        return {name: kept[name] for name in kept.files}


def _scored(model: TrainedModel, part: Part, most: int | None) -> Table:
    z = np.clip(part.column("z"), 0.0, model.vae.config.z_max)
    order = np.argsort(z[:most], kind="stable")
    found: list[Table] = []
    for rows in _runs(order):
        rows = np.sort(rows)
        found.append(vars(score(model, np.array(part.flux[rows]), np.array(part.ivar[rows]), z[rows])) | {"_row": rows})
    back = np.argsort(np.concatenate([one["_row"] for one in found]), kind="stable")
    return {name: np.concatenate([one[name] for one in found])[back] for name in found[0] if name != "_row"}


def _runs(order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order), SCORE_BATCH):
        yield order[start : start + SCORE_BATCH]


def calibrated_tables(
    bench: Bench, tables: dict[str, Table], leave: tuple[str, ...] = ()
) -> tuple[Calibrated, dict[str, slice]]:
    """Return the product's significance of all scored parts together, and where each part's rows are.

    Args:
        bench: the parts.
        tables: part → raw scores.
        leave: components to leave out.
    """
    parts = {name: components(tables[name]) for name in SCORED}
    return calibrated(bench, {name: {key: one[key] for key in one if key not in leave} for name, one in parts.items()})


def calibrated(bench: Bench, parts: dict[str, Table]) -> tuple[Calibrated, dict[str, slice]]:
    """Return the significance of all scored parts together from any components, and where each part's rows are."""
    edges = np.cumsum([0] + [len(bench.part(name).flux) for name in SCORED]).tolist()
    where = {name: slice(*edges[index : index + 2]) for index, name in enumerate(SCORED)}
    joined = {key: np.concatenate([parts[name][key] for name in SCORED]) for key in parts[SCORED[0]]}
    z, snr = (np.concatenate([bench.part(name).column(key) for name in SCORED]).astype(np.float64)
              for key in ("z", "snr"))  # fmt: skip
    calibration = np.arange(edges[-1]) < edges[1]
    return calibrate_scores(joined, z, snr, calibration, np.arange(edges[-1])), where


def components(table: Table) -> dict[str, NDArray[np.float64]]:
    """Return what calibrate reads of a raw score table."""
    return {name: table[name].astype(np.float64) for name in COMPONENTS}


def made(bench: Bench, variant: Variant, only: tuple[str, ...] = ()) -> Scores:
    """Return a variant's scores; its model and raw scores too are made anew where its name is in ``only``."""
    if variant.name in only:
        model_of(bench, variant, redo=True)
        for stale in (bench.folder / "raw" / variant.name).glob("features_*.npy"):
            stale.unlink()
        for name in (*SCORED, "train"):
            raw_scores(bench, variant, name, redo=True)
    return scores(bench, variant)


def scores(bench: Bench, variant: Variant) -> Scores:
    """Return a variant's anomaly scores of all scored parts; its p-values are kept beside them."""
    done, where = calibrated_tables(bench, {name: raw_scores(bench, variant, name) for name in SCORED})
    home = bench.folder / "raw" / variant.name
    kept = {key: getattr(done, key) for key in ("anomaly_score", "p_value", "extrapolated")}
    kept |= {f"component {name}": values for name, values in done.components.items()}
    for name, rows in where.items():
        np.savez(home / f"calibrated_{name}.npz", **{key: values[rows] for key, values in kept.items()})
    return {name: done.anomaly_score[rows] for name, rows in where.items()}


def p_values(bench: Bench, variant: Variant, part: str) -> NDArray[np.float64]:
    """Return the p-values kept by ``scores``."""
    with np.load(bench.folder / "raw" / variant.name / f"calibrated_{part}.npz") as kept:
        return np.asarray(kept["p_value"])


def forest(bench: Bench, variant: Variant) -> Scores:
    """Isolation forest on the embedding."""
    sample = raw_scores(bench, variant, "train")["embedding"]
    return isolation(sample[:FITTED], {name: raw_scores(bench, variant, name)["embedding"] for name in SCORED})
