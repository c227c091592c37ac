"""`skysift evaluate` on a finished run: injections, known objects, and one line for each thing that is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from pyarrow import csv

from pipeline.injection.departures import CLASSES
from pipeline.session import opened
from pipeline.stores.postgres import transaction

from .conftest import Finished, query, skysift

pytestmark = pytest.mark.slow


def rows_of(finished: Finished, where: str = "true") -> list[dict[str, Any]]:
    return query(
        finished.config,
        "SELECT kind, class, threshold, sigma_low, snr_low, z_low, n, recovered, completeness FROM completeness "
        f"WHERE {where} ORDER BY 1, 2, 3, sigma_low NULLS FIRST, snr_low NULLS FIRST, z_low NULLS FIRST",
    ).to_pylist()


@pytest.fixture(scope="module")
def evaluated(finished: Finished) -> str:
    """Six injections of every class."""
    return skysift("evaluate", "--workspace", finished.workspace, "-n", "6")


def test_every_class_is_measured_and_every_injection_counted(finished: Finished, evaluated: str) -> None:
    folder = finished.workspace / "reports" / "default" / "completeness"
    made = pq.read_table(folder / "injections.parquet")
    whole = [
        row
        for row in rows_of(finished, "kind <> 'catalog'")
        if row["sigma_low"] == row["snr_low"] == row["z_low"] is None
    ]
    counts = {row["class"]: row["n"] for row in whole if row["threshold"] == "p<0.01"}
    left_out = made.num_rows - 6 * (len(CLASSES) + 1)
    assert (left_out < 0) == ("left out" in evaluated)
    assert left_out > -30
    assert set(counts) == {*CLASSES, "none", "all_physical", "all_artefact"}
    assert counts["all_physical"] + counts["all_artefact"] + counts["none"] == made.num_rows
    label, p_value = made["class"].to_numpy(zero_copy_only=False), made["p_value"].to_numpy()
    assert np.isfinite(p_value).all()
    for row in whole:
        if row["threshold"] == "p<0.01" and not row["class"].startswith("all_"):
            assert row["recovered"] == (p_value[label == row["class"]] < 0.01).sum()
    assert f"{made.num_rows:,} injections" in evaluated
    assert "physical, 25–50σ" in evaluated


def test_files_for_a_paper_are_written(finished: Finished, evaluated: str) -> None:
    folder = finished.workspace / "reports" / "default" / "completeness"
    table = Table.read(folder / "completeness.ecsv", format="ascii.ecsv")
    assert len(table) == len(rows_of(finished))
    assert table.meta["run"] == "default"
    assert "Wilson" in table["low"].description
    for name in ("physical.png", "artefact.png", "bands.png"):
        assert (folder / name).stat().st_size > 20_000
        assert str(folder / name) in evaluated


def test_injections_lie_in_spectra_that_no_training_saw(finished: Finished, evaluated: str) -> None:
    made = pq.read_table(finished.workspace / "reports" / "default" / "completeness" / "injections.parquet")
    scores = query(finished.config, "SELECT spectrum_id, in_training, snr, p_value FROM scores JOIN spectra USING "
                                    "(spectrum_id)").to_pylist()  # fmt: skip
    known = {row["spectrum_id"]: row for row in scores}
    assert not any(known[key]["in_training"] for key in made["spectrum_id"].to_pylist())
    for row in made.to_pylist():
        if row["class"] == "none":  # scored as it is, it gets its own p-value back
            assert row["p_value"] == pytest.approx(known[row["spectrum_id"]]["p_value"], rel=0.2)
            assert row["snr"] == pytest.approx(known[row["spectrum_id"]]["snr"], rel=1e-5)


def test_a_class_by_itself_gives_what_it_gave_among_all(finished: Finished, evaluated: str) -> None:
    before = rows_of(finished)
    skysift("evaluate", "--workspace", finished.workspace, "-n", "6", "--class", "extra_bump")
    assert rows_of(finished) == before


def test_the_stronger_are_found_more_often(finished: Finished, evaluated: str) -> None:
    share = {row["sigma_low"]: row["completeness"] for row in rows_of(finished, "class = 'all_physical'")
             if row["threshold"] == "p<0.01" and row["snr_low"] is None and row["z_low"] is None}  # fmt: skip
    assert share[25.0] > share[5.0] + 0.1


def test_known_objects_are_looked_up(finished: Finished, tmp_path: Path) -> None:
    truth = pq.read_table(f"{finished.survey}-truth.parquet", columns=["targetid", "kind"])
    strange = truth.filter(pa.compute.field("kind") == "anomaly")["targetid"].to_pylist()
    csv.write_csv(pa.table({"TARGETID": [*strange, 12345]}), tmp_path / "known.csv")
    output = skysift("evaluate", "--workspace", finished.workspace, "-n", "0", "--catalog", tmp_path / "known.csv",
                     "--label", "anomaly")  # fmt: skip
    here = query(finished.config, "SELECT count(*) AS n FROM scores JOIN spectra USING (spectrum_id) WHERE targetid = "
                                  "ANY(%s)", (strange,))["n"][0].as_py()  # fmt: skip
    assert f"{len(set(strange)) + 1:,} objects" in output
    assert f"{int(here):,} spectra found" in output
    rows = [row for row in rows_of(finished, "kind = 'catalog'") if row["snr_low"] == row["z_low"] is None]
    share = {row["threshold"]: row["completeness"] for row in rows}
    assert {row["n"] for row in rows} == {int(here)}
    assert share["top 10%"] > 0.15  # by chance it would be 0.1
    assert all(row["sigma_low"] is None for row in rows)
    assert (finished.workspace / "reports" / "default" / "completeness" / "known.png").is_file()


def test_what_is_missing_is_said_in_one_line(clone: Callable[[], Finished], tmp_path: Path) -> None:
    run = clone()
    steps = (
        ("UPDATE scores SET p_value = p_value * 0.5", 5, "have other p-values than their scores give"),
        ("UPDATE scores SET q_value = NULL, rank = NULL", 5, "are not calibrated: run `skysift calibrate` first"),
        ("UPDATE scores SET rank = 1, q_value = 1; DELETE FROM scores WHERE spectrum_id % 500 > 0", 5, "are held out"),
        ("DELETE FROM scores", 5, "has scored nothing yet: run `skysift score` first"),
        ("DELETE FROM promotion", 6, "no model is promoted yet"),
    )
    with opened(run.config) as session:
        for statement, code, message in steps:
            with transaction(session.conn) as cur:
                cur.execute(statement)
            said = skysift("evaluate", "--workspace", run.workspace, "-n", "2", "--class", "odd_line", expect=code)
            assert message in said.splitlines()[-1]
    plain = tmp_path / "plain.csv"
    plain.write_text("ID\n1\n")
    for arguments, code, message in (
        (("--class", "odd_lines"), 2, "there is no class odd_lines to inject; did you mean odd_line?"),
        (("-n", "0"), 2, "nothing to do"),
        (("--run", "other"), 5, "there is no run other: known runs: default"),
    ):
        said = skysift("evaluate", "--workspace", run.workspace, *arguments, expect=code)
        assert message in said


def test_catalogs_that_cannot_be_used_stop_it(finished: Finished, tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    for text, message in (
        ("ID\n1\n", "no column TARGETID"),
        ("TARGETID\n1\n", "none of its 1 objects is in the survey"),
    ):
        path.write_text(text)
        said = skysift("evaluate", "--workspace", finished.workspace, "-n", "0", "--catalog", path, "--label", "x",
                       expect=3)  # fmt: skip
        assert message in said
