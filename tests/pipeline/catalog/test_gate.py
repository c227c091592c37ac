from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.catalog.gate import Cut, Gate, GateReport, among
from pipeline.catalog.layouts import Layout, recognise
from pipeline.catalog.rows import coadd_key, ordered, read_rows, write_rows
from pipeline.catalog.tree import Selection
from pipeline.config import GateConfig
from pipeline.errors import InputError
from pipeline.stores.objects import ObjectStore

from .conftest import Columns


def block_of(columns: Columns) -> dict[str, np.ndarray]:
    """As a FITS catalog would give them: big-endian, strings as bytes padded with blanks."""
    block = {}
    for name, values in columns.items():
        if values.dtype.kind == "U":
            block[name] = np.char.encode(np.char.ljust(values, 8))
        elif values.ndim == 1:
            block[name] = values.astype(values.dtype.newbyteorder(">"))
    return block


def layout_of(block: dict[str, np.ndarray], **options: Any) -> Layout:
    kinds = {name: {"u": "i"}.get(values.dtype.kind, values.dtype.kind) for name, values in block.items()}
    return recognise(kinds, "zcat", survey="main", program="dark", **options)


def gated(
    columns: Columns, config: GateConfig | None = None, selection: Selection | None = None
) -> tuple[pa.Table, GateReport, Gate]:
    block = block_of(columns)
    gate = Gate(config or GateConfig(), selection or Selection())
    batches = [
        gate.keep({k: v[part] for k, v in block.items()}, layout_of(block)) for part in (slice(5), slice(5, None))
    ]
    rows, duplicates = ordered(batches)
    return rows, gate.report(rows.num_rows, duplicates), gate


def test_each_cut_removes_its_row(columns: Columns) -> None:
    rows, report, _ = gated(columns)
    removed = {cut.rule: cut.removed for cut in report.cuts}
    assert removed == {
        "TARGETID > 0": 1,
        "OBJTYPE = TGT": 1,
        "COADD_FIBERSTATUS = 0": 1,
        "SPECTYPE = QSO": 1,
        "ZWARN in 0": 1,
        "Z is finite": 1,
        "0.05 ≤ Z ≤ 6": 1,
        "row names a possible coadd": 0,
        "first row of its target in its coadd": 1,
    }
    assert report.rows == 12
    assert report.kept == rows.num_rows == 4
    assert report.rows == report.kept + sum(removed.values())
    assert not any(cut.untested for cut in report.cuts)
    first = columns["TARGETID"]
    assert rows.column("targetid").to_pylist() == [first[0], first[1], first[10], first[11]]


def test_the_first_of_two_equal_rows_stays(columns: Columns) -> None:
    rows, _, _ = gated(columns)
    assert rows.column("z").to_pylist()[-1] == columns["Z"][9]


def test_same_target_in_two_coadds_is_two_spectra(columns: Columns) -> None:
    columns["HEALPIX"][9] = 17
    rows, report, _ = gated(columns)
    assert report.cuts[-1].removed == 0
    assert rows.column("healpix").to_pylist() == [17, 9144, 9144, 9145, 9145]


def test_zwarn_4_by_choice(columns: Columns) -> None:
    assert gated(columns, GateConfig(zwarn=(0, 4)))[1].kept == 5


def test_survey_program_and_primary(columns: Columns) -> None:
    columns["SURVEY"][:2] = "sv3"
    columns["PROGRAM"][10] = "other"
    columns["ZCAT_PRIMARY"][11] = False
    report = gated(columns, GateConfig(surveys=("main", "sv1"), programs=("dark",), primary_only=True))[1]
    removed = {cut.rule: cut.removed for cut in report.cuts}
    assert removed["SURVEY in main, sv1"] == 2
    assert removed["PROGRAM in dark"] == 1
    assert removed["ZCAT_PRIMARY"] == 1
    assert report.kept == 1


def test_absent_columns_are_reported_not_applied(columns: Columns) -> None:
    few = {name: columns[name] for name in ("TARGETID", "Z", "TARGET_RA", "TARGET_DEC")}
    rows, report, _ = gated(few)
    assert {cut.rule: cut.untested for cut in report.cuts if cut.untested} == {
        "OBJTYPE = TGT": 11, "COADD_FIBERSTATUS = 0": 11, "SPECTYPE = QSO": 11, "ZWARN in 0": 11,
    }  # fmt: skip
    assert "SPECTYPE = QSO" in "\n".join(report.lines())
    assert "not applied to 11 rows (column absent)" in "\n".join(report.lines())
    assert rows.column("zwarn").null_count == rows.num_rows
    assert rows.column("survey").to_pylist()[0] == "main"
    assert rows.column("program").to_pylist()[0] == "dark"


def test_rows_without_a_possible_coadd_are_counted(columns: Columns) -> None:
    columns["HEALPIX"][0] = -1
    columns["HEALPIX"][1] = 49152
    assert gated(columns)[1].cuts[-2] == Cut("row names a possible coadd", 2)
    del columns["HEALPIX"]
    columns["TARGET_RA"][0] = np.nan
    columns["TARGET_DEC"][1] = 91
    assert gated(columns)[1].cuts[-2].removed == 2


def test_unknown_positions_are_null(columns: Columns) -> None:
    columns["TARGET_RA"][0] = np.nan
    assert gated(columns)[0].column("ra").to_pylist()[0] is None


def test_pixels_asked_for(columns: Columns) -> None:
    selection = Selection.parse(["main/dark/9145", "main/bright/9144", "main/dark/3"], [])
    rows, report, gate = gated(columns, selection=selection)
    assert report.cuts[0] == Cut("in the pixels asked for", 6)
    assert set(rows.column("healpix").to_pylist()) == {9145}
    assert gate.unseen() == ["healpix/main/bright/9144", "healpix/main/dark/3"]


def test_a_pixel_in_the_catalog_is_seen_even_when_a_cut_empties_it(columns: Columns) -> None:
    selection = Selection.parse(["main/dark/9145"], [])
    _, report, gate = gated(columns, GateConfig(surveys=("sv3",)), selection)
    assert gate.unseen() == []
    with pytest.raises(InputError, match=r"\[SURVEY in sv3\] removed"):
        report.require_rows("zcat.fits")


def test_tiles_asked_for() -> None:
    n = 6
    columns = {
        "TARGETID": np.arange(1, n + 1),
        "Z": np.ones(n),
        "TILEID": np.array([5, 5, 5, 6, 6, 5]),
        "PETAL_LOC": np.array([1, 2, 1, 3, 3, 11], dtype=np.int16),
        "LASTNIGHT": np.array([20210101, 20210101, 20210102, 20210101, 20210101, 20210101]),
    }
    rows, report, gate = gated(columns, selection=Selection.parse([], ["6/20210101", "5/20210101/1", "7/20210101"]))
    assert report.cuts[0] == Cut("in the tiles asked for", 3)
    assert rows.select(["tile", "petal"]).to_pylist() == [
        {"tile": 5, "petal": 1}, {"tile": 6, "petal": 3}, {"tile": 6, "petal": 3},
    ]  # fmt: skip
    assert gate.unseen() == ["tile 7/20210101"]
    assert gated(columns)[1].cuts[-2].removed == 1  # petal 11


def test_nothing_left_names_the_cut_that_removed_most(columns: Columns) -> None:
    columns["SPECTYPE"][:] = "STAR"
    report = gated(columns)[1]
    with pytest.raises(InputError, match=r"none of its 12 rows .* \[SPECTYPE = QSO\] removed the most, 9;") as caught:
        report.require_rows("zcat.fits")
    assert caught.value.reason == "no_rows"
    with pytest.raises(InputError, match="the catalog has no rows"):
        replace(report, rows=0, kept=0).require_rows("zcat.fits")


def test_order_does_not_depend_on_the_catalog_s(columns: Columns) -> None:
    shuffle = np.r_[np.random.default_rng(0).permutation(9), 9, 10, 11]
    rows = gated(columns)[0]
    again = gated({name: values[shuffle] for name, values in columns.items()})[0]
    assert again.to_pylist() == rows.to_pylist()


def test_key_orders_surveys_then_programs_then_pixels() -> None:
    def column(words: list[str]) -> pa.Array:
        return pa.array(words).dictionary_encode()

    table = pa.table(
        {
            "survey": column(["sv3", "main", "main", "main"]),
            "program": column(["dark", "dark", "bright", "dark"]),
            "healpix": pa.array([1, 3, 9, 2], pa.int32()),
            "tile": pa.nulls(4, pa.int32()),
        }
    )
    assert np.argsort(coadd_key(table)).tolist() == [2, 3, 1, 0]


def test_rows_and_report_survive_their_file(columns: Columns, store: ObjectStore) -> None:
    rows, report, _ = gated(columns)
    write_rows(store, "plans/x.parquet", rows, report)
    again, same = read_rows(store, "plans/x.parquet")
    assert again.to_pylist() == rows.to_pylist()
    assert same == report


def test_strings_padded_with_blanks_or_nuls() -> None:
    values = np.array([b"QSO", b"QSO   ", b"QSOX", b"", b"GALAXY"], dtype="S6")
    assert among(values, ["QSO"]).tolist() == [True, True, False, False, False]
    assert among(values, ["GALAXYZ", "GALAXY"]).tolist() == [False, False, False, False, True]
