"""Models that agree raise no alarm; models that do not, do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from pipeline.disagreement import compare
from pipeline.errors import RunError

N = 20_000
Scores = dict[str, NDArray[np.float64]]


def _p_values(score: Scores) -> Scores:
    return {name: rankdata(-values) / (len(values) + 1) for name, values in score.items()}


@pytest.fixture
def alike() -> Scores:
    """Three models that see the same anomalies (the first 300) and have some noise of their own."""
    rng = np.random.default_rng(3)
    truth = rng.standard_normal(N)
    truth[:300] += rng.uniform(3.0, 9.0, 300)
    return {name: truth + 0.3 * rng.standard_normal(N) for name in ("a", "b", "c")}


def test_models_that_agree(alike: Scores) -> None:
    done = compare(alike, _p_values(alike))
    assert [(pair.first, pair.second) for pair in done.pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in done.pairs:
        assert pair.spearman == pytest.approx(spearmanr(alike[pair.first], alike[pair.second]).statistic, abs=1e-9)
        assert pair.jaccard > 0.6
    assert done.fraction < 0.02


def test_a_spectrum_that_only_one_model_finds_strange_is_flagged(alike: Scores) -> None:
    alike["b"][:5] = 20.0 + np.arange(5)
    for name in ("a", "c"):
        alike[name][:5] = -1.0
    p_value = _p_values(alike)
    done = compare(alike, p_value)
    assert done.strong[:5].all()
    expected = np.log(np.minimum(p_value["a"], p_value["c"])) - np.log(p_value["b"])
    assert np.all(done.difference["b"][:5] >= expected[:5])
    assert np.all(done.difference["b"][:5] > 7)
    assert np.all(done.difference["a"][:5] < -7)
    for values in done.difference.values():
        assert not np.any(values[~done.strong])
        assert np.all(values[done.strong] != 0)


def test_models_that_have_nothing_in_common() -> None:
    rng = np.random.default_rng(4)
    score = {name: rng.standard_normal(N) for name in ("a", "b")}
    done = compare(score, _p_values(score))
    assert done.pairs[0].jaccard < 0.03
    assert 0.4 < done.fraction < 0.6  # half of what one calls strange is below the other's median
    assert done.n_top == pytest.approx(2 * 0.01 * N, rel=0.03)


def test_a_difference_in_strength_alone_must_be_unusual(alike: Scores) -> None:
    """Both call it strange, one by 40 nat more than the other: flagged, though far above the median in both."""
    p_value = _p_values(alike)
    assert not compare(alike, p_value).strong[0]
    p_value["a"][0] = 1e-20
    assert compare(alike, p_value).strong[0]


@pytest.mark.parametrize(("models", "n"), [(("a",), 1000), (("a", "b"), 50), ((), 0)])
def test_too_little_to_compare(models: tuple[str, ...], n: int) -> None:
    score = {name: np.arange(float(n)) for name in models}
    with pytest.raises(RunError, match=r"at least 2 models and 100 spectra .* `skysift score`"):
        compare(score, score)
