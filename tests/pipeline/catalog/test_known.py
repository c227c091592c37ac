"""Catalogs of known objects: every format, what tells the class, and one line for each that cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from pipeline.catalog.known import read_known
from pipeline.errors import InputError

ROWS = {
    "TARGETID": np.array([11, 12, 13, 14]),
    "SURVEY": np.array(["main", "main", "sv1", "sv1"]),
    "HPXPIXEL": np.array([1, 1, 2, 2]),
    "AI_CIV": np.array([0.0, 900.0, 1200.0, -99.0]),
    "BI_CIV": np.array([0.0, 0.0, 400.0, 0.0]),
}


def write(folder: Path, kind: str, rows: dict[str, np.ndarray]) -> str:
    """A catalog in one of the formats."""
    path = folder / f"catalog.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({name.lower(): values for name, values in rows.items()}), path)
    elif kind == "csv":
        csv.write_csv(pa.table(rows), path)
    else:
        plain = folder / "plain.fits"
        with fitsio.FITS(str(plain), "rw", clobber=True) as file:
            file.write(np.zeros((2, 2)))
            file.write({"OTHER": np.arange(3)}, extname="FIRST")
            file.write({name: v.astype("S8") if v.dtype.kind == "U" else v for name, v in rows.items()}, extname="BAL")
        path.write_bytes(gzip.compress(plain.read_bytes()) if kind == "fits.gz" else plain.read_bytes())
    return str(path)


@pytest.mark.parametrize("kind", ["fits", "fits.gz", "parquet", "csv"])
def test_every_format_gives_the_same(kind: str, tmp_path: Path) -> None:
    found = {one.label: one for one in read_known(write(tmp_path, kind, ROWS))}
    assert {label: one.targetid.tolist() for label, one in found.items()} == {"bal_ai": [12, 13], "bal_bi": [13]}
    one = found["bal_ai"]
    assert one.how == "AI_CIV > 0"
    assert one.survey is not None
    assert one.survey.tolist() == ["main", "sv1"]
    assert one.healpix is not None
    assert one.healpix.tolist() == [1, 2]
    assert one.program is None


def test_a_label_names_the_rows(tmp_path: Path) -> None:
    plain = {"TARGETID": ROWS["TARGETID"]}
    (one,) = read_known(write(tmp_path, "csv", plain), label="lens")
    assert (one.label, one.targetid.tolist()) == ("lens", [11, 12, 13, 14])
    assert [one.label for one in read_known(write(tmp_path, "csv", ROWS), label="bal")] == ["bal_ai", "bal_bi"]
    (one,) = read_known(write(tmp_path, "csv", ROWS), label="bal", column="bi_civ")
    assert (one.label, one.targetid.tolist()) == ("bal", [13])


def test_words_are_classes(tmp_path: Path) -> None:
    rows = {"TARGETID": ROWS["TARGETID"], "VI_SPECTYPE": np.array(["STAR", "QSO", "STAR", ""])}
    found = {one.label: one.targetid.tolist() for one in read_known(write(tmp_path, "fits", rows))}
    assert found == {"star": [11, 13], "qso": [12]}
    (one,) = read_known(write(tmp_path, "parquet", rows), label="Star")
    assert one.targetid.tolist() == [11, 13]


def test_systems_by_column_density(tmp_path: Path) -> None:
    rows = {"TARGETID": ROWS["TARGETID"], "NHI": np.array([19.9, 20.3, 21.7, np.nan])}
    (one,) = read_known(write(tmp_path, "fits", rows))
    assert (one.label, one.how, one.targetid.tolist()) == ("dla", "NHI ≥ 20.3", [12, 13])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({"ID": np.arange(3), "AI_CIV": np.ones(3)}, {}, "no column TARGETID, by which objects are found; it has "),
        ({"TARGETID": np.ones(3)}, {}, "column TARGETID should hold integers and does not"),
        ({"TARGETID": np.arange(3), "Z": np.ones(3)}, {}, "nothing tells the class of its rows ("),
        ({"TARGETID": np.arange(3)}, {"column": "BAL"}, "no plain column BAL; it has targetid"),
        ({"TARGETID": np.arange(3), "AI_CIV": np.zeros(3)}, {}, "no row tells of a known object"),
    ],
)
@pytest.mark.parametrize("kind", ["fits", "parquet"])
def test_what_cannot_be_used_is_said_in_one_line(
    kind: str, rows: dict[str, np.ndarray], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, kind, rows)
    with pytest.raises(InputError) as refused:
        read_known(path, **options)
    assert path in str(refused.value)
    assert message.lower() in str(refused.value).lower()
    assert "\n" not in str(refused.value)


def test_files_that_are_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_known(str(tmp_path / "none.fits"))
    path = tmp_path / "noise.csv"
    path.write_bytes(b"\x00\xff\xfe" * 50)
    with pytest.raises(InputError, match=r"noise\.csv: (neither FITS, Parquet nor readable CSV|no column TARGETID)"):
        read_known(str(path))
    path.write_text("TARGETID,AI_CIV\n1,2\n3\n")
    with pytest.raises(InputError, match="neither FITS, Parquet nor readable CSV"):
        read_known(str(path))
    whole = Path(write(tmp_path, "fits", ROWS))
    whole.write_bytes(whole.read_bytes()[:-2800])
    with pytest.raises(InputError, match="truncated"):
        read_known(str(whole))
