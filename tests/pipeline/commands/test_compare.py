"""``skysift models compare`` against a real PostgreSQL: what it flags, records and says, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ModelError, ModelsDisagree, RunError
from pipeline.stores import catalog, registry, runs
from pipeline.stores.postgres import Connection, fetch_table, transaction

pytestmark = pytest.mark.servers

Run = Callable[..., str]
N = 2000


def _calibrate(conn: Connection, model: str, score: np.ndarray) -> None:
    registry.register_model(conn, model, run_id="default", uri="", data_hash="", config={}, metrics={})
    ids = np.arange(len(score))
    rank = np.empty(len(score), np.int32)
    rank[np.argsort(-score)] = np.arange(1, len(score) + 1)
    known = {"anomaly_score": score, "p_value": rank / (len(score) + 1), "rank": rank}
    columns = {name: known.get(name, pa.nulls(len(score), kind)) for name, kind in catalog.CALIBRATED.items()}
    with transaction(conn) as cur:
        catalog.upsert_scores(cur, model, pa.table({"spectrum_id": ids, "density": score.astype(np.float32)}))
    catalog.write_calibration(conn, model, pa.table({"spectrum_id": ids} | columns))


@pytest.fixture
def scores(conn: Connection) -> np.ndarray:
    """A run, its spectra, and models aa11 and bb22 that agree on them but for spectrum 7; cc33 lacks the last 500."""
    runs.register_run(conn, "default", {}, "")
    with transaction(conn) as cur:
        cur.execute(
            f"""INSERT INTO spectra (spectrum_id, targetid, coadd, z, chunk_id, shard, row_group, row)
                SELECT i, 39627700000000000 + i, 'healpix/main/dark/1', 2, 'x', 'x', 0, 0
                FROM generate_series(0, {N - 1}) i"""
        )
    rng = np.random.default_rng(1)
    score = rng.standard_normal(N)
    score[10:40] += 6.0
    first, second, third = (score + 0.1 * rng.standard_normal(N) for _ in range(3))
    first[7], second[7], third[7] = 9.0, -1.0, 9.0
    _calibrate(conn, "aa11", first)
    _calibrate(conn, "bb22", second)
    _calibrate(conn, "cc33", third[:1500])
    return score


def _flags(conn: Connection, model: str) -> dict[int, float]:
    rows = catalog.read_scores(conn, model, columns=["spectrum_id", "disagreement"]).to_pylist()
    return {row["spectrum_id"]: row["disagreement"] for row in rows}


@pytest.mark.usefixtures("scores")
def test_what_models_disagree_on_is_listed_flagged_and_recorded(run: Run, conn: Connection) -> None:
    output = run("models", "compare", "aa", "bb22", "-s", "score.max_disagreement=0.2")
    assert "2,000 spectra calibrated by all of aa11, bb22" in output
    assert "aa11 and bb22: rank correlation 0.98" in output
    assert "39627700000000007" in output
    first, second = _flags(conn, "aa11"), _flags(conn, "bb22")
    assert len(first) == N
    assert first[7] > 5
    assert second[7] == -first[7]
    assert sum(value != 0 for value in first.values()) < 5
    with transaction(conn) as cur:
        rows = fetch_table(cur, "SELECT name, value FROM quality_metrics WHERE stage = 'compare' AND model_id = 'bb22'")
    found = dict(zip(rows["name"].to_pylist(), rows["value"].to_pylist(), strict=True))
    assert found["with aa11: rank correlation of scores"] > 0.98
    assert 0.5 < found["with aa11: Jaccard index of the top 1%"] < 1
    assert found["models may disagree on strange spectra"] == 0.2
    assert 0 < found["models disagree on strange spectra"] < 0.2
    assert found["spectra compared"] == N


@pytest.mark.usefixtures("scores")
def test_too_much_disagreement_is_an_error_after_the_fact(run: Run, conn: Connection) -> None:
    with pytest.raises(ModelsDisagree, match=r"MODELS DISAGREE strongly on \d of \d+ .*max_disagreement is 1.0%"):
        run("models", "compare", "aa11", "bb22", "-s", "score.max_disagreement=0.01")
    assert ModelsDisagree.exit_code == 7
    assert _flags(conn, "aa11")[7] > 5


@pytest.mark.usefixtures("scores")
def test_three_models_on_what_all_of_them_have(run: Run, conn: Connection) -> None:
    found = json.loads(run("models", "compare", "aa11", "bb22", "cc33", "--json", "-s", "score.max_disagreement=1"))
    assert found["spectra"] == 1500
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        ("aa11", "bb22"), ("aa11", "cc33"), ("bb22", "cc33"),
    ]  # fmt: skip
    assert found["flagged"][0]["targetid"] == "39627700000000007"
    assert {"rank_aa11", "rank_bb22", "rank_cc33", "difference_cc33"} <= set(found["flagged"][0])
    flags = _flags(conn, "aa11")
    assert all(flags[key] is None for key in range(1500, N))
    assert all(flags[key] is not None for key in range(1500))


@pytest.mark.usefixtures("scores")
def test_what_cannot_be_compared(run: Run) -> None:
    with pytest.raises(RunError, match=r"at least 2 models .* found 1"):
        run("models", "compare", "aa11", "aa")
    with pytest.raises(ModelError, match="'zz' names no model"):
        run("models", "compare", "aa11", "zz")
    with pytest.raises(RunError, match="there is no run other: known runs: default"):
        run("models", "compare", "aa11", "bb22", "-r", "other")
