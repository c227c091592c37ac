"""Clusters: found where many spectra of few fibers agree, and only there."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import hypergeom

from pipeline.verdicts import clusters

Lists = list[list[int]]


def _survey(n: int, seed: int = 1) -> tuple[NDArray[np.float64], Lists, Lists]:
    """Candidates with windows anywhere, seen anywhere."""
    rng = np.random.default_rng(seed)
    windows = np.stack(
        [rng.normal(0, 9, (n, 5)), rng.uniform(3700, 9700, (n, 5)), rng.choice([276.0, 2209.0], (n, 5))], 2
    )
    windows = windows[np.arange(n)[:, None], np.argsort(-np.abs(windows[:, :, 0]), axis=1)]
    times = rng.integers(1, 5, n)
    fiber = [rng.integers(0, 5000, k).tolist() for k in times]
    night = [rng.integers(20210101, 20210301, k).tolist() for k in times]
    return windows, fiber, night


def _hurt(windows: NDArray[np.float64], rows: range, wavelength: float) -> None:
    rng = np.random.default_rng(2)
    windows[rows.start : rows.stop, 0] = [[15.0, wavelength + shift, 2209.0] for shift in rng.normal(0, 3, len(rows))]


def test_neighbouring_fibers_of_one_night_are_found() -> None:
    windows, fiber, night = _survey(1500)
    _hurt(windows, range(7), 6543.0)
    for row in range(7):
        fiber[row].append(2040 + 2 * row)
        night[row].append(20210115)
    found = clusters.find(windows, fiber, night)
    assert found.member[:7].all()
    assert found.member[7:].sum() <= 2
    assert set(found.grouping[:7]) <= {"fibers", "petal_night"}
    assert (found.size[:7] >= 6).all()
    assert (found.expected[:7] < 2).all()
    assert np.abs(found.wavelength[:7] - 6543).max() < 15
    assert (found.sign[:7] == 1).all()


def test_the_same_wavelength_in_scattered_fibers_is_no_group() -> None:
    windows, fiber, night = _survey(1500)
    _hurt(windows, range(7), 6543.0)
    assert not clusters.find(windows, fiber, night).member[:7].any()


def test_a_bad_night_of_many_different_anomalies_is_no_cluster() -> None:
    windows, fiber, night = _survey(1500)
    for row in range(80):
        fiber[row], night[row] = [2000 + row], [20210115]
    assert clusters.find(windows, fiber, night).member.sum() <= 2


def test_emission_and_absorption_are_kept_apart() -> None:
    windows, fiber, night = _survey(1500)
    _hurt(windows, range(6), 6543.0)
    windows[0:6:2, 0, 0] *= -1
    for row in range(6):
        fiber[row], night[row] = [2040 + row], [20210115]
    found = clusters.find(windows, fiber, night)
    assert (found.size[:6] <= 3).all()


def test_an_excess_at_one_wavelength_over_the_whole_survey_is_found() -> None:
    windows, fiber, night = _survey(1500)
    _hurt(windows, range(120), 5578.0)
    found = clusters.find(windows, fiber, night)
    assert found.member[:120].mean() > 0.9
    assert set(found.grouping[:120][found.member[:120]]) == {"survey"}
    assert found.member[120:].mean() < 0.1


def test_stars_own_lines_are_no_fault_of_the_instrument() -> None:
    windows, fiber, night = _survey(1500)
    _hurt(windows, range(120), 6564.6)
    assert clusters.find(windows, fiber, night).member[:120].mean() < 0.1


def test_false_discoveries_are_rare() -> None:
    false = [clusters.find(*_survey(1000, seed)).member.sum() for seed in range(10)]
    assert np.mean(false) < 5


CHANGES: dict[str, Callable[..., tuple[NDArray[np.float64], Lists, Lists]]] = {
    "nobody": lambda windows, fiber, night: (windows[:0], [], []),
    "unknown exposures": lambda windows, fiber, night: (windows, [[]] * len(fiber), [[]] * len(night)),
    "no windows": lambda windows, fiber, night: (windows * 0, fiber, night),
    "flat windows": lambda windows, fiber, night: (windows.reshape(len(windows), -1), fiber, night),
}


@pytest.mark.parametrize("change", CHANGES)
def test_little_to_go_by_is_no_error(change: str) -> None:
    windows, fiber, night = CHANGES[change](*_survey(60))
    found = clusters.find(windows, fiber, night)
    assert len(found.member) == len(windows)
    assert np.isfinite(found.p_value).all()


def test_thousands_of_candidates_take_seconds() -> None:
    survey = _survey(16_000)
    start = time.process_time()
    clusters.find(*survey)
    assert time.process_time() - start < 10


def test_the_tail_is_the_hypergeometric_one() -> None:
    rng = np.random.default_rng(3)
    marked, drawn = rng.integers(2, 200, (2, 500))
    k = np.minimum(np.minimum(marked, drawn), marked * drawn // 500 + 1 + rng.integers(0, 8, 500))
    keep = k > marked * drawn / 500
    ours = clusters._tail(k[keep], 500, marked[keep], drawn[keep])
    assert np.allclose(ours, hypergeom.sf(k[keep] - 1, 500, marked[keep], drawn[keep]), rtol=1e-8)
