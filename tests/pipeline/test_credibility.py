"""The metrics of a calibration see what is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from pipeline.credibility import BEYOND, CELL, discoveries, distance, look_elsewhere, uniformity

N = 25_000
NONE = np.zeros(N, bool)


def _spectra(seed: int = 1) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng, rng.uniform(0.5, 4.0, N), rng.lognormal(0.7, 0.6, N)


def test_uniform_p_values_are_found_uniform_everywhere() -> None:
    rng, z, snr = _spectra()
    done = uniformity(rng.random(N), z, snr, NONE, NONE)
    assert done["neither: p-values' distance from uniform"] < 0.015
    assert done["p-values in 25 cells: largest distance from uniform"] < 0.06
    assert sum(name.startswith("p-values in cell") for name in done) == 25


def test_a_cell_that_is_off_shows_though_the_whole_does_not() -> None:
    rng, z, snr = _spectra()
    p = rng.random(N)
    low, high = (z < np.quantile(z, 0.2)), (z > np.quantile(z, 0.8))
    p[low], p[high] = p[low] ** 1.3, 1.0 - (1.0 - p[high]) ** 1.3
    done = uniformity(p, z, snr, NONE, NONE)
    assert done["neither: p-values' distance from uniform"] < 0.02
    assert done[CELL.format(1, 3)] > 0.06
    assert done[CELL.format(3, 3)] < 0.06
    assert done["p-values in 25 cells: largest distance from uniform"] == max(
        value for name, value in done.items() if "in cell" in name
    )


def test_what_the_model_was_trained_on_is_told_apart() -> None:
    rng, z, snr = _spectra()
    training = rng.random(N) < 0.5
    p = np.where(training, rng.random(N) ** 0.5, rng.random(N))
    done = uniformity(p, z, snr, training, NONE)
    assert done["trained on: spectra"] == (int(training.sum()), "spectra")
    assert done["trained on: p-values' distance from uniform"] > 0.2
    assert done["neither: p-values' distance from uniform"] < 0.02
    assert done["trained on: share with p < 0.5"] == pytest.approx(0.25, abs=0.02)
    assert np.isnan(done["calibrated by: share with p < 0.1"])


def test_discoveries_and_the_look_elsewhere_effect() -> None:
    p = np.concatenate([[1e-9, 1e-7, 1e-4], np.linspace(0.001, 1, 997), [np.nan]])
    q = np.minimum(p * 1000 / np.arange(1, 1002), 1.0)
    done = discoveries(p, q, 399)
    assert done["spectra with q < 0.05"] == (3, "spectra")
    assert done["spectra with p < 0.05 / survey"] == (2, "spectra")
    assert done["smallest p-value"] == 1e-9
    assert done[BEYOND] == (4000.0, "spectra")
    text = look_elsewhere(p, q, 399)
    for part in (
        "3 with q < 0.05, of which 5% may be normal",
        "2 with a 5% chance",
        "among 1,000",
        "4,000 would",
        "all 399",
    ):
        assert part in text, text
    assert look_elsewhere(p[-1:], q[-1:], 399) == "no spectrum has a p-value"


def test_the_distance_is_kolmogorov_and_smirnovs() -> None:
    p = np.random.default_rng(2).random(500) ** 1.5
    assert distance(p) == pytest.approx(kstest(p, "uniform").statistic, rel=1e-12)
    assert np.isnan(distance(p[:9]))
