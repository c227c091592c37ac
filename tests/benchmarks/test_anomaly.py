"""The anomaly benchmark from end to end, on sizes at which its figures mean nothing but must all be there."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from benchmarks import _anomaly_calibration as calibration
from benchmarks import _anomaly_evaluation as evaluation
from benchmarks import _anomaly_latents as latents
from benchmarks import _anomaly_metrics as metrics
from benchmarks import _anomaly_networks as networks
from benchmarks import _anomaly_ours as ours
from benchmarks import _anomaly_sky as sky
from benchmarks import _anomaly_yardstick as yardstick
from benchmarks._anomaly_baselines import REFERENCE, Bench
from benchmarks._anomaly_report import as_csv, page
from benchmarks._anomaly_sky import TRAPS, Sizes
from benchmarks._anomaly_unseen import GROUPS
from benchmarks._anomaly_variants import Variant
from benchmarks.anomaly import TOLD, UNSEEN, WITHOUT, Options, run
from models.config import VAEConfig
from pipeline.injection.departures import CLASSES

TINY = Sizes(train=768, validate=192, calibrate=512, normals=512, injected=1, traps=1)  # in blocks
BLOCK = 32
KINDS = {"physical": ("extra_bump", "white_dwarf"), "artefact": ("arm_step_5800", "sky_fiber")}
CHEAP = ("PCA-10, χ²", "PCA-10, χ² among neighbours", REFERENCE)


@pytest.mark.slow
def test_benchmark_judges_every_method_on_every_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = sum(KINDS.values(), ())
    for module in (sky, evaluation):
        monkeypatch.setattr(module, "CLASSES", classes)
    monkeypatch.setattr(evaluation, "KINDS", KINDS)
    monkeypatch.setattr(sky, "BLOCK", BLOCK)
    monkeypatch.setattr(yardstick, "QUASARS", 256)
    monkeypatch.setattr(latents, "OBJECTS", 40)
    monkeypatch.setattr(ours, "HOSTS", 256)
    monkeypatch.setattr(ours, "departures_a_spectrum", lambda hosts: 1.0)
    monkeypatch.setattr(networks, "PCA_SIZES", (4,))
    bare = "bare:detector=no,encoder=observed,latent=4,segments=1"
    options = Options(tmp_path, TINY, 5, jobs=1, seeds=1, methods=CHEAP, spender=False, verdicts=False, draws=2,
                      settings="latent=4,segments=1", variants=(bare,))  # fmt: skip
    found = run(options)
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    methods = {"skysift", WITHOUT, UNSEEN, TOLD, "skysift embedding, isolation forest", "PCA-4, χ²", "bare",
               "skysift-seed2", *CHEAP}  # fmt: skip
    assert {row["method"] for row in rows} == {*methods, "PCA-4"}
    for method in (WITHOUT, "bare", "PCA-4"):
        assert sum(row["method"] == method and row["metric"].startswith("held-out") for row in rows) == 3
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        assert {row["group"] for row in mine if row["metric"] == "recall 1%"} == {*classes, "physical", "artefact"}
        assert {row["group"] for row in mine if row["metric"] == "trap share 1%"} == set(TRAPS)
    (alike,) = found.stability.values()
    assert 0.0 <= alike.jaccard < 1.0
    assert 0.0 <= alike.disagreement <= 1.0
    text = page(found, ["title"])
    assert text.count("\n## ") == 11
    assert "nan" not in text.lower().split("## methods")[1]
    kept = (tmp_path / "scores" / REFERENCE / "normals.npy").stat().st_mtime_ns
    Bench(tmp_path).kept(REFERENCE, lambda: pytest.fail("made twice"))
    assert (tmp_path / "scores" / REFERENCE / "normals.npy").stat().st_mtime_ns == kept


def test_every_class_is_left_out_once() -> None:
    assert sorted(name for group in GROUPS for name in group) == sorted(CLASSES)


def test_variants_set_fields_of_either_configuration_and_refuse_others() -> None:
    variant = Variant.parse("small:latent=8,beta=0.5")
    assert (variant.name, variant.vae.latent, variant.fit.beta) == ("small", 8, 0.5)
    assert variant.vae.hidden == VAEConfig().hidden
    with pytest.raises(ValueError, match="colour"):
        Variant.parse("odd:colour=red")


def test_scores_among_neighbours_forget_signal_to_noise() -> None:
    rng = np.random.default_rng(0)
    snr, z = rng.lognormal(0.5, 1.0, 8000), rng.uniform(0.3, 3.0, 8000)
    score = rng.normal(size=8000) * (1 + 0.1 * snr) + 2 * np.log(snr)
    tree = calibration.Neighbours.of(snr[:6000], z[:6000])
    standard = calibration.robust_z(score[6000:], score[:6000], tree.find(snr[6000:], z[6000:], 100))
    assert abs(np.median(standard)) < 0.1
    assert metrics.spearman(snr[6000:], score[6000:]) > 0.7
    assert abs(metrics.spearman(snr[6000:], standard)) < 0.1
    assert 0.8 < standard.std() < 1.25


def test_surprise_is_monotone_beyond_the_largest_reference() -> None:
    reference = np.random.default_rng(1).exponential(size=1000)
    value = calibration.surprise(np.array([0.1, 5.0, 20.0, 40.0]), reference)
    assert np.all(np.diff(value) > 0)
    assert value[2] > np.log(1001)
