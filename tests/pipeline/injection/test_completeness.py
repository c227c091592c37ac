"""Completeness: counts in cells, and intervals that hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from pipeline.injection.completeness import SCHEMA, Objects, tabulate, wilson


def objects(n: int = 400) -> Objects:
    rng = np.random.default_rng(1)
    label = np.where(np.arange(n) % 4 == 0, "dip_4400", np.where(np.arange(n) % 4 == 1, "reddened", "odd_line"))
    kind = np.where(label == "dip_4400", "artefact", "physical")
    sigma = np.exp(rng.uniform(np.log(5), np.log(50), n))
    return Objects(label, kind, sigma, rng.normal(2, 2, n), rng.uniform(0.1, 4, n), {"p<0.01": sigma > 15,
                   "p<0.001": sigma > 25})  # fmt: skip


def test_every_object_is_counted_once_in_every_cut() -> None:
    table = tabulate(objects(), pooled=("physical", "artefact"))
    assert table.schema == SCHEMA
    rows = table.to_pylist()
    for cut in ((), ("sigma",), ("snr",), ("z",), ("sigma", "snr"), ("sigma", "z"), ("snr", "z")):
        found = [row for row in rows if all((row[f"{axis}_low"] is not None) == (axis in cut)
                                            for axis in ("sigma", "snr", "z"))]  # fmt: skip
        for name, n in (("odd_line", 200), ("reddened", 100), ("dip_4400", 100), ("all_physical", 300)):
            assert sum(r["n"] for r in found if r["class"] == name and r["threshold"] == "p<0.01") == n
    assert all(row["n"] > 0 and 0 <= row["recovered"] <= row["n"] for row in rows)
    assert all(row["low"] <= row["completeness"] <= row["high"] for row in rows)


def test_cells_hold_what_they_say() -> None:
    source = objects()
    rows = tabulate(source, pooled=("physical",)).to_pylist()
    bands = {(row["sigma_low"], row["sigma_high"]): row["completeness"] for row in rows
             if row["class"] == "odd_line" and row["threshold"] == "p<0.01" and row["sigma_low"] is not None
             and row["snr_low"] is None and row["z_low"] is None}  # fmt: skip
    assert bands == {(5.0, 8.0): 0.0, (8.0, 15.0): 0.0, (15.0, 25.0): 1.0, (25.0, 50.0): 1.0}
    faint = [row for row in rows if row["class"] == "all_physical" and row["snr_low"] == 0.0 and row["z_low"] is None
             and row["sigma_low"] is None and row["threshold"] == "p<0.01"]  # fmt: skip
    assert faint[0]["n"] == int(((source.snr < 1) & (source.kind == "physical")).sum())  # negative S/N included


def test_without_significance_there_are_no_bands_of_it() -> None:
    n = 10
    nothing = np.full(n, np.nan)
    found = tabulate(Objects(np.full(n, "bal"), np.full(n, "catalog"), nothing, np.ones(n), np.ones(n),
                             {"p<0.01": np.arange(n) < 3}))  # fmt: skip
    assert found["sigma_low"].null_count == found.num_rows
    assert {row["n"] for row in found.to_pylist()} == {10}
    assert found["class"].unique().to_pylist() == ["bal"]


def test_no_objects_no_rows() -> None:
    none = np.empty(0)
    assert tabulate(Objects(np.empty(0, "U1"), np.empty(0, "U1"), none, none, none, {})).num_rows == 0


@pytest.mark.parametrize(("share", "n"), [(0.1, 60), (0.5, 50), (0.97, 300)])
def test_wilson_intervals_cover_what_they_promise(share: float, n: int) -> None:
    counts = np.arange(n + 1)
    low, high = wilson(counts, np.full(n + 1, n))
    coverage = binom.pmf(counts, n, share)[(low <= share) & (share <= high)].sum()
    assert coverage == pytest.approx(0.683, abs=0.12)
    assert low[0] == 0.0
    assert high[-1] == pytest.approx(1.0)
