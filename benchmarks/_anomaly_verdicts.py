"""Verdicts and windows of the product on the benchmark's own injections, which no verdict was fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import _verdict_sample as sample
from benchmarks import verdicts
from benchmarks._anomaly_baselines import Bench
from benchmarks._anomaly_metrics import auc, overlaps
from models.trained import TrainedModel
from pipeline.verdicts import classify
from pipeline.verdicts.kinds import is_artefact, kind_of

ORDINARY = 12_000  # spectra that calibrate, and as many that join the test
BRIGHT = 2.0  # S/N


@dataclass(frozen=True)
class Judgement:
    """What was asked of verdicts, over detected injections, and the whole page."""

    auc: float  # artefact probability, artefacts against all others
    right: float  # share with the right kind at S/N ≥ 2
    overlap: float  # share of local features that the top window meets
    page: str


def judgement(bench: Bench, model: TrainedModel, stick: Path, each: int, seed: int) -> Judgement:
    """Score the injections and ordinary spectra among them, and judge the verdicts on those detected."""
    test = sample.injected(bench.folder, stick, each, seed, model)
    reference, ordinary = (sample.measured(bench.part(name), model, ORDINARY) for name in ("calibrate", "normals"))
    test, ordinary = sample.detect([test, ordinary], reference)
    found, noise = (one.rows(one.p_value < sample.DETECTED) for one in (test, ordinary))
    n = len(found.name)
    done = classify.verdicts(sample.Sample.joined(found, noise).table)
    truth = np.array([kind_of(name) for name in found.name.tolist()])
    artefact = np.array([is_artefact(name) for name in truth.tolist()])
    probability = done.artefact_probability[:n].astype(np.float64)
    bright = found.table["snr"] >= BRIGHT
    window = np.asarray(found.table["windows"], np.float64).reshape(n, -1, 3)[:, 0]
    local = np.isin(found.name, verdicts.LOCAL)
    meets = overlaps(window[:, 1], window[:, 2], found.wavelength, found.width)
    return Judgement(
        auc(probability[~artefact], probability[artefact]), float((done.verdict[:n] == truth)[bright].mean()),
        float(meets[local].mean()), verdicts.report(test, ordinary),
    )  # fmt: skip
