"""The whole run, as its user types it: counts, results, resuming, growing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import fitsio
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.simulate import simulate
from pipeline.verdicts.features import FEATURES
from pipeline.verdicts.kinds import VERDICTS

from .conftest import Finished, contents, query, skysift

pytestmark = pytest.mark.slow


def test_every_planned_spectrum_is_scored_and_ranked(finished: Finished) -> None:
    planned = query(finished.config, "SELECT sum(n_targets) AS n FROM chunks")["n"][0].as_py()
    rows = query(finished.config, "SELECT * FROM anomaly_catalog ORDER BY rank")
    quarantined = query(finished.config, "SELECT count(*) AS n FROM quarantine")["n"][0].as_py()
    assert int(planned) == rows.num_rows + quarantined
    assert rows["rank"].to_pylist() == list(range(1, rows.num_rows + 1))
    p_value, score = rows["p_value"].to_numpy(), rows["anomaly_score"].to_numpy()
    assert ((p_value > 0) & (p_value <= 1)).all()
    assert (np.diff(score) <= 0).all()
    assert (np.diff(p_value) >= 0).all()


def test_candidates_are_judged_and_explained_and_nobody_else(finished: Finished) -> None:
    rows = query(finished.config, "SELECT * FROM anomaly_catalog ORDER BY rank").to_pylist()
    q_value = np.array([row["q_value"] for row in rows])
    assert (np.diff(q_value) >= 0).all()
    assert ((q_value > 0) & (q_value <= 1)).all()
    judged = [row for row in rows if row["verdict"]]
    n = max(100, sum(row["p_value"] < 0.01 for row in rows))
    assert [row["rank"] for row in judged] == list(range(1, n + 1))
    p_value = {str(row["spectrum_id"]): row["p_value"] for row in rows}
    for row in rows[:n]:
        why = json.loads(row["why"])
        assert row["verdict"] in VERDICTS
        assert 0 <= row["artefact_probability"] <= 1
        assert row["explanation"].endswith(".")
        assert len(why["lookalikes"]) == 3
        assert all(p_value[one["spectrum_id"]] > 0.1 and one["distance"] > 0 for one in why["lookalikes"])
    for name in ("artefact_probability", "why", "explanation"):
        assert {row[name] for row in rows[n:]} == {None}
    assert {row["disagreement"] for row in rows} == {None}


def test_what_verdicts_are_made_from_is_kept(finished: Finished) -> None:
    text = """SELECT verdict, windows, features, z, other_z, other_z_gain, fiber, night
              FROM scores JOIN spectra USING (spectrum_id)"""
    rows = query(finished.config, text)
    for row in rows.to_pylist():
        assert len(row["fiber"]) == len(row["night"]) > 0
        assert len(row["windows"]) % 3 == 0
        assert all(20_000_000 < night < 21_000_000 for night in row["night"])
        assert (row["features"] is None) == (row["verdict"] is None)
        assert row["features"] is None or len(row["features"]) == len(FEATURES)
        assert (row["other_z"] is None) == (row["other_z_gain"] is None) == (row["verdict"] is None)
        assert row["other_z"] is None or abs(np.log10((1 + row["other_z"]) / (1 + row["z"]))) > 0.005
    shown = query(finished.config, "SELECT * FROM other_redshifts").to_pylist()
    assert all(row["other_z_gain"] > 10 and row["explanation"] for row in shown)
    assert len(shown) == sum((row["other_z_gain"] or 0) > 10 for row in rows.to_pylist()) > 0


def test_milvus_holds_every_scored_spectrum_with_its_calibrated_score(finished: Finished) -> None:
    found = contents(finished.config)
    scores = {row["spectrum_id"]: row for row in found["scores"]}
    assert len(found["vectors"]) == len(scores)
    for row in found["vectors"]:
        assert row["anomaly_score"] == pytest.approx(scores[row["spectrum_id"]]["anomaly_score"], rel=1e-6)
        assert row["p_value"] == pytest.approx(scores[row["spectrum_id"]]["p_value"], rel=1e-6)


def test_the_command_says_what_it_did_and_writes_a_report(finished: Finished) -> None:
    for word in ("rows in the catalog", "ingest", "train", "score", "calibrate", "report"):
        assert word in finished.output
    page = finished.workspace / "reports" / "default" / "report.html"
    assert page.stat().st_size > 100_000


def test_the_strangest_are_enriched_in_what_was_put_in(finished: Finished) -> None:
    truth = pq.read_table(f"{finished.survey}-truth.parquet", columns=["targetid", "kind"]).to_pydict()
    kind = dict(zip(truth["targetid"], truth["kind"], strict=True))
    ranked = query(finished.config, "SELECT targetid FROM anomaly_catalog ORDER BY rank")["targetid"].to_pylist()
    strange = np.array([kind[targetid] in ("anomaly", "artefact") for targetid in ranked])
    top = len(ranked) // 20
    assert strange[:top].mean() > 4 * strange.mean()


def test_running_again_changes_nothing_and_says_so(finished: Finished) -> None:
    before = contents(finished.config)
    output = skysift("run", finished.survey, "--workspace", finished.workspace)
    assert "ingest      nothing new" in output
    assert "score       nothing new" in output
    assert "already fits these data" in output
    after = contents(finished.config)
    assert {name: after[name] for name in after if name != "audit"} == {
        name: before[name] for name in before if name != "audit"
    }


def _grow(survey: Path) -> int:
    """Add pixels of another simulated survey to this one; returns how many QSO rows came with them."""
    other = survey.parent / "more"
    simulate(str(other), quasars=200, seed=99, quasar_fraction=0.8, resolution=False)
    name = "zcatalog/v1/zall-pix-iron.fits"
    old, new = (fitsio.read(str(folder / name), ext="ZCATALOG") for folder in (survey, other))
    known = set(zip(old["SURVEY"], old["PROGRAM"], old["HEALPIX"], strict=True))
    added = np.array([key not in known for key in zip(new["SURVEY"], new["PROGRAM"], new["HEALPIX"], strict=True)])
    assert added.any(), "the other survey lies in other pixels"
    shutil.copytree(other / "healpix", survey / "healpix", dirs_exist_ok=True, copy_function=_copy_new)
    fitsio.write(str(survey / name), np.concatenate([old, new[added]]), extname="ZCATALOG", clobber=True)
    gate = (new["SPECTYPE"] == "QSO") & (new["ZWARN"] == 0) & (new["COADD_FIBERSTATUS"] == 0) & (new["TARGETID"] > 0)
    return int((added & gate).sum())


def _copy_new(source: str, target: str) -> str:
    return target if Path(target).exists() else shutil.copy2(source, target)


def test_a_survey_that_has_grown_costs_only_what_is_new(clone: Callable[[], Finished]) -> None:
    run = clone()
    before = contents(run.config)
    n_new = _grow(run.survey)
    output = skysift("run", run.survey, "--workspace", run.workspace, "--model", "promoted")
    after = contents(run.config)
    assert after["models"] == before["models"]
    assert f"ingest      {n_new:,} spectra" in output
    assert f"score       {n_new:,} spectra" in output
    assert len(after["vectors"]) == len(after["scores"]) == len(before["scores"]) + n_new
    old = {row["spectrum_id"]: row for row in before["scores"]}
    raw = ("chi2_reduced", "global_score", "local_emission", "local_absorption", "density")
    kept = [row for row in after["scores"] if row["spectrum_id"] in old]
    assert len(kept) == len(old)
    assert all(row[name] == old[row["spectrum_id"]][name] for row in kept for name in raw)
    assert sorted(row["rank"] for row in after["scores"]) == list(range(1, len(after["scores"]) + 1))


def test_a_changed_file_is_ingested_again_and_its_lost_targets_go(clone: Callable[[], Finished]) -> None:
    run = clone()
    before = contents(run.config)
    coadd = before["spectra"][0]["coadd"]
    lost = next(row for row in before["spectra"] if row["coadd"] == coadd)["targetid"]
    name = run.survey / "zcatalog/v1/zall-pix-iron.fits"
    rows = fitsio.read(str(name), ext="ZCATALOG")
    fitsio.write(str(name), rows[rows["TARGETID"] != lost], extname="ZCATALOG", clobber=True)
    skysift("run", run.survey, "--workspace", run.workspace, "--model", "promoted")
    after = contents(run.config)
    gone = {row["spectrum_id"] for row in before["spectra"] if row["targetid"] == lost}
    assert gone
    for table in ("spectra", "scores", "vectors"):
        assert {row["spectrum_id"] for row in after[table]} == {r["spectrum_id"] for r in before[table]} - gone
