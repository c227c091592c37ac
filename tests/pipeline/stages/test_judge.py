"""The parts of judging and examining that need no server."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.stages.examine import MOST, SCHEMA, Candidates, _items
from pipeline.stages.judge import _aligned, _matrix, _windows, spread
from pipeline.verdicts.features import FEATURES

LISTS = pa.list_(pa.float32())


def test_columns_of_some_are_spread_over_all() -> None:
    judged = pa.table({"spectrum_id": [3, 5, 9], "verdict": ["a", "b", "c"], "features": [[1.0], None, [2.0]]})
    found = spread(judged, np.array([1, 9, 5, 3, 12]), ["verdict", "features"])
    assert found["verdict"].to_pylist() == [None, "c", "b", "a", None]
    assert found["features"].to_pylist() == [None, [2.0], None, [1.0], None]
    nobody = spread(judged.slice(0, 0), np.array([1, 2]), ["verdict"])
    assert nobody["verdict"].to_pylist() == [None, None]


def test_a_candidate_whose_shard_is_damaged_has_neither_features_nor_another_redshift() -> None:
    values = np.arange(2.0 * len(FEATURES), dtype=np.float32).reshape(2, -1)
    others = {"other_z": [2.3, 0.4], "other_z_gain": np.float32([120, -8]), "other_z_lines": ["a taken for b", None]}
    found = pa.table({"spectrum_id": [3, 9], "features": pa.array(list(values), LISTS)} | others, schema=SCHEMA)
    measured = _aligned(found, np.array([3, 5, 9, 11]))
    assert measured["features"].is_valid().to_pylist() == [True, False, True, False]
    assert measured["other_z"].to_pylist() == [2.3, None, 0.4, None]
    assert measured["other_z_lines"].to_pylist() == ["a taken for b", None, None, None]
    matrix = _matrix(measured["features"].combine_chunks())
    assert np.array_equal(matrix[[0, 2]], values)
    assert np.isnan(matrix[[1, 3]]).all()


def test_scores_of_before_windows_were_kept_have_none() -> None:
    windows = pa.array([[9.0, 5000.0, 300.0, 4.0, 6000.0, 500.0], None], LISTS)
    assert _windows(windows).tolist() == [[[9, 5000, 300], [4, 6000, 500]], [[0, 0, 0], [0, 0, 0]]]
    assert not _windows(pa.nulls(3, LISTS)).any()


def test_candidates_go_by_shard_and_never_too_many_together() -> None:
    n = 2 * MOST + 3
    group, row = np.divmod(np.arange(n), 64)
    table = pa.table({"shard": ["b"] * n + ["a"], "row_group": [*group, 4], "row": [*row, 7]})
    table = table.take(np.random.default_rng(0).permutation(n + 1))
    items = _items(table)
    assert items[0] == Candidates("a", ((4, 7),))
    assert [len(item.places) for item in items[1:]] == [MOST, MOST, 3]
    assert [place for item in items[1:] for place in item.places] == [(i // 64, i % 64) for i in range(n)]
