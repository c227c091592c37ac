"""Trees as arrays give what scikit-learn's own do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.verdicts.trees import Trees

sklearn = pytest.importorskip("sklearn.ensemble")
export = pytest.importorskip("benchmarks.verdicts").exported


def _data(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(n, 9)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows, (np.nan_to_num(rows[:, 0]) > 0).astype(int) + 2 * (np.nan_to_num(rows[:, 1] * rows[:, 2]) > 0.2)


def test_exported_trees_agree_and_survive_the_file(tmp_path: Path) -> None:
    rows, target = _data(1500)
    fitted = sklearn.HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=9).fit(rows, target)
    trees = export(fitted)
    ours, theirs = trees.probabilities(rows), fitted.predict_proba(rows)
    assert np.allclose(ours, theirs, atol=1e-5)
    trees.save(tmp_path / "trees.safetensors", {"kinds": ["a", "b"]})
    again, notes = Trees.load(tmp_path / "trees.safetensors")
    assert notes == {"kinds": ["a", "b"]}
    assert np.array_equal(again.probabilities(rows), ours)


def test_no_rows_give_no_probabilities() -> None:
    rows, target = _data(300)
    trees = export(sklearn.HistGradientBoostingClassifier(max_iter=3).fit(rows, target))
    assert trees.probabilities(rows[:0]).shape == (0, 4)
