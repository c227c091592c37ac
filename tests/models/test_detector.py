"""The detector of a small model, and how it came by it."""

from __future__ import annotations

import numpy as np
import torch

from models.detector import LOWEST, Detector, Kind
from models.scores import score
from models.trained import TrainedModel
from tests.models.synthetic import Quasars, with_bump, with_step


def test_departures_are_told_from_ordinary_spectra_and_from_each_other(trained: TrainedModel, quasars: Quasars) -> None:
    rng = np.random.default_rng(11)
    ordinary = score(trained, quasars.flux, quasars.ivar, quasars.z)
    bump, step = (score(trained, make(rng, quasars, 30.0), quasars.ivar, quasars.z) for make in (with_bump, with_step))
    threshold = np.quantile(ordinary.detection, 0.99)
    assert (bump.detection > threshold).mean() > 0.9
    assert (step.instrument_kind == 1).all()
    assert (step.instrument > bump.instrument).mean() > 0.8
    assert bump.odds.shape == (300, 2)


def test_what_is_missing_is_no_departure(trained: TrainedModel, quasars: Quasars) -> None:
    """Huge flux with as huge an error weighs nothing."""
    ivar, flux = quasars.ivar.copy(), quasars.flux.copy()
    ivar[:, 4000:4010] = 1e-12
    flux[:, 4000:4010] = 1e5
    clean, spiked = (score(trained, one, ivar, quasars.z) for one in (quasars.flux, flux))
    assert np.abs(clean.detection - spiked.detection).max() < 0.5


def test_nothing_learned_finds_nothing() -> None:
    nothing = Detector.none()
    odds = nothing.log_odds(torch.zeros(3, 7))
    assert odds.shape == (3, 0)
    joint, kind = nothing.family(odds, "")
    assert (joint == LOWEST).all()
    assert (kind == -1).all()


def test_anomalies_among_the_ordinary_examples_are_not_taught_as_ordinary() -> None:
    generator = torch.Generator().manual_seed(5)
    ordinary, strange = torch.randn((2, 3000, 10), generator=generator)
    strange[:, 0] += 6.0
    ordinary[:45, 0] += 6.0  # 1.5% of the survey are what the detector is to find
    label = torch.cat([torch.zeros(3000, dtype=torch.int64), torch.ones(3000, dtype=torch.int64)])
    detector = Detector.fit(torch.cat([ordinary, strange]), label, (Kind("odd", "shape"),), seed=1)
    odds = detector.family(detector.log_odds(ordinary), "")[0]
    assert (odds[:45] > torch.quantile(odds[45:], 0.999)).float().mean() > 0.9


def test_equal_examples_make_equal_detectors() -> None:
    features = torch.randn((600, 6), generator=torch.Generator().manual_seed(6))
    label = (features[:, 0] > 0).long()
    first, second = (Detector.fit(features, label, (Kind("odd", "shape"),), seed=2) for _ in range(2))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
