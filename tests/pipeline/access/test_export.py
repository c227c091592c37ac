"""Files and matches: what astropy, pyarrow and lsdb read of an exported catalog, and crossmatching with others'."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from pipeline import Survey
from pipeline.access.crossmatch import crossmatch
from pipeline.access.export import COLUMNS, export
from pipeline.errors import ConfigError, InputError, StoreError

from ..conftest import Sifted

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture(scope="module")
def survey(sifted: Sifted) -> Iterator[Survey]:
    with Survey(sifted.workspace) as opened:
        yield opened


def test_fits_has_units_ucds_and_provenance(survey: Survey, tmp_path: Path) -> None:
    path, count = export(survey.reader, str(tmp_path / "a.fits"))
    with fits.open(path, checksum=True) as file:
        header, rows = file["CATALOG"].header, file["CATALOG"].data
        assert rows.names == list(COLUMNS)
        assert len(rows) == count == survey.query("SELECT count(*) AS n FROM anomaly_catalog")["n"][0]
        assert rows["rank"].tolist() == list(range(1, count + 1))
        assert header["MODEL"] == survey.model_id
        assert header["RUN"] == "small"
        assert header["SURVEY"].endswith("/sky")
        assert len(header["INPHASH"]) == 32
        assert header["TUNIT3"] == "deg"
        assert header["TUCD3"] == "pos.eq.ra;meta.main"
        assert header["TCOMM5"] == "Catalogued redshift"
    table = Table.read(path)
    assert table["emission_wavelength"].unit == "Angstrom"


@pytest.mark.parametrize("ending", ["parquet", "vot", "ecsv", "csv"])
def test_other_formats_hold_the_same(survey: Survey, tmp_path: Path, ending: str) -> None:
    path, count = export(survey.reader, str(tmp_path / f"a.{ending}"))
    form = {"vot": "votable", "csv": "ascii.csv", "ecsv": "ascii.ecsv"}.get(ending)
    table = Table.read(path, format=form) if form else Table(pq.read_table(path).to_pydict())
    truth = survey.query("SELECT targetid, p_value FROM anomaly_catalog ORDER BY rank")
    assert len(table) == count
    assert np.asarray(table["targetid"]).astype(np.int64).tolist() == truth["targetid"].tolist()
    np.testing.assert_allclose(np.asarray(table["p_value"], float), truth["p_value"])
    if ending == "parquet":
        schema = pq.read_schema(path)
        assert schema.metadata[b"model"].decode() == survey.model_id
        assert schema.field("ra").metadata == {
            b"unit": b"deg", b"ucd": b"pos.eq.ra;meta.main", b"description": b"Right ascension, deg, ICRS"
        }  # fmt: skip


def test_each_promoted_run_leaves_its_catalog_files(survey: Survey, sifted: Sifted) -> None:
    folder = sifted.workspace / "reports" / "small"
    header = fits.getheader(folder / "anomalies.fits", "CATALOG")
    assert header["MODEL"] == survey.model_id
    assert json.loads(header["CONFIG"])["run"] == "small"
    assert pq.read_table(folder / "anomalies.parquet").num_rows == header["NAXIS2"]


@pytest.mark.filterwarnings("ignore")  # of dask, hats and their like
def test_lsdb_opens_and_crossmatches_a_hats_catalog(survey: Survey, tmp_path: Path) -> None:
    lsdb = pytest.importorskip("lsdb")
    path, count = export(survey.reader, str(tmp_path / "strange"))
    catalog = lsdb.open_catalog(path)
    assert len(catalog.compute()) == count
    matched = catalog.crossmatch(catalog, radius_arcsec=1, suffixes=("_a", "_b")).compute()
    assert len(matched) == count
    assert (matched["targetid_a"] == matched["targetid_b"]).all()  # some targets have two spectra at one place
    with pytest.raises(StoreError, match="exists already"):
        export(survey.reader, str(path))


def test_what_cannot_be_written(survey: Survey, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the format is not clear from '.xyz'"):
        export(survey.reader, str(tmp_path / "a.xyz"))
    with pytest.raises(StoreError, match="cannot write"):
        export(survey.reader, str(tmp_path / "no such folder" / "a.fits"))


def _theirs(survey: Survey, count: int = 40) -> Table:
    rows = survey.query(f"SELECT targetid, ra, dec, z FROM anomaly_catalog ORDER BY rank LIMIT {count}")
    table = Table({"TARGETID": rows["targetid"], "TARGET_RA": rows["ra"], "TARGET_DEC": rows["dec"], "Z": rows["z"]})
    table["AI_CIV"], table["BI_CIV"] = np.arange(count) * 1.0, np.zeros(count)
    return table


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no column TARGETID, nor columns RA and DEC, to match by; it has a, b"),
        ("RA,DEC\n10,1\n10:00:00,1\n", "column RA should hold angles in degrees, found '10:00:00' in row 2"),
        ("TARGETID\n1.5\n", "column TARGETID should hold integers, found float64"),
    ],
)
def test_what_cannot_be_matched_is_named(survey: Survey, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        crossmatch(survey.reader, str(tmp_path / "a.csv"))


def test_impossible_positions_are_counted(survey: Survey, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("RA,DEC\n10,1\n10,95\n,\n")
    found = crossmatch(survey.reader, str(tmp_path / "a.csv"))
    assert found.how == "by RA, DEC within 1″; rows without a possible position: 2"


@pytest.mark.parametrize("ending", ["fits", "vot", "parquet", "csv"])
def test_matching_by_targetid_knows_published_layouts(survey: Survey, tmp_path: Path, ending: str) -> None:
    table, path = _theirs(survey), tmp_path / f"bal.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table({name: np.asarray(table[name]) for name in table.colnames}), path)
    else:
        table.write(path, format={"vot": "votable", "csv": "ascii.csv", "fits": "fits"}[ending])
    found = crossmatch(survey.reader, str(path))
    assert (found.layout, found.how, found.n_file) == ("BAL", "by TARGETID", 40)
    assert set(range(1, 41)) <= set(found.rows["rank"].to_pylist())  # a target may have other spectra too
    for row in found.rows.to_pylist():
        assert np.asarray(table["TARGETID"])[int(row["file_ai_civ"])] == row["targetid"]


def _published(name: str, ids: np.ndarray) -> Table:
    """Rows with the columns of a published catalog, in its order and kinds."""
    n = len(ids)
    number, place, troughs = np.linspace(1, 2, n), np.linspace(10, 20, n), np.zeros((n, 5), np.float32)
    words = np.full(n, "QSO", "S6")
    columns: dict[str, dict[str, object]] = {
        "bal": {  # EDR's, cut to those of each kind
            "TARGETID": ids, "Z": number, "ZERR": number, "ZWARN": np.zeros(n, np.int64), "SPECTYPE": words,
            "COADD_FIBERSTATUS": np.zeros(n, np.int32), "TARGET_RA": place, "TARGET_DEC": place, "MORPHTYPE": words,
            "EBV": number, "MASKBITS": np.zeros(n, np.int16), "BI_CIV": number, "ERR_BI_CIV": number,
            "NCIV_2000": np.ones(n, np.int32), "VMIN_CIV_2000": troughs, "VMAX_CIV_2000": troughs, "AI_CIV": number,
            "ERR_AI_CIV": number, "NCIV_450": np.ones(n, np.int32), "VMIN_CIV_450": troughs, "SNR_CIV": number,
        },
        "dla_toolkit": {  # DR1's v2.0
            "TARGETID": ids, "RA": place, "DEC": place, "Z_QSO": number, "SNR_FOREST": number, "SNR_REDSIDE": number,
            "DLAID": np.array([f"{one}00" for one in ids], "S24"), "Z_DLA": number, "Z_DLA_ERR": number,
            "NHI": number + 19, "NHI_ERR": number, "COEFF": troughs[:, :4], "DELTACHI2": number,
        },
        "dla_cnn_gp": {
            "TARGET_RA": place, "TARGET_DEC": place, "Z_QSO": number, "TARGETID": ids, "S2N": number,
            "DLAID": np.array([f"{one}000" for one in ids], "S24"), "CNN_NHI": np.zeros(n), "GP_NHI": number + 19,
            "CNN_Z_DLA": np.zeros(n), "GP_Z_DLA": number,
        },
        "prospect": {
            "TARGETID": ids, "EXPID": np.ones(n, int), "Redrock_spectype": words.astype(str), "Redrock_z": number,
            "VI_scanner": np.full(n, "abc"), "VI_quality": np.full(n, 4), "VI_issue": np.full(n, "--"),
            "VI_z": number, "VI_spectype": words.astype(str), "VI_comment": np.full(n, "BAL, strong"),
        },
        "vi_merged": {
            "TARGETID": ids, "Redrock z": number, "best z": number, "best quality": np.full(n, 3.5),
            "best spectype": words.astype(str), "all VI issues": np.full(n, "RC"),
        },
    }  # fmt: skip
    return Table(columns[name])


@pytest.mark.parametrize(
    ("name", "ending", "layout", "kept"),
    [
        ("bal", "fits", "BAL", ("z", "bi_civ", "nciv_450", "snr_civ")),
        ("dla_toolkit", "fits", "DLA", ("dlaid", "z_dla", "z_dla_err", "nhi", "deltachi2")),
        ("dla_cnn_gp", "fits", "DLA", ("dlaid", "gp_nhi", "cnn_z_dla")),
        ("prospect", "csv", "visual inspection", ("vi_z", "vi_quality", "vi_spectype", "vi_comment")),
        ("vi_merged", "csv", "visual inspection", ("best_z", "best_quality", "best_spectype")),
    ],
)
def test_each_published_layout_is_known(
    survey: Survey, tmp_path: Path, name: str, ending: str, layout: str, kept: tuple[str, ...]
) -> None:
    rows = survey.query("SELECT targetid FROM anomaly_catalog WHERE rank <= 30 ORDER BY rank")
    table = _published(name, np.asarray(rows["targetid"], np.int64))
    table.write(tmp_path / f"theirs.{ending}", format={"csv": "ascii.csv", "fits": "fits"}[ending])
    found = crossmatch(survey.reader, str(tmp_path / f"theirs.{ending}"))
    assert (found.layout, found.how) == (layout, "by TARGETID")
    assert {f"file_{one}" for one in kept} <= set(found.rows.column_names)
    assert not {"file_vmin_civ_2000", "file_coeff", "file_expid"} & set(found.rows.column_names)
    first = next(one for one in found.rows.to_pylist() if one["rank"] == 1)
    original = table[np.flatnonzero(np.asarray(table["TARGETID"]) == first["targetid"])[0]]
    for one in kept:
        theirs = next(column for column in table.colnames if column.lower().replace(" ", "_") == one)
        value = original[theirs]
        assert first[f"file_{one}"] == (value.decode() if isinstance(value, bytes) else value)


@pytest.mark.parametrize("name", ["QSO_cat_fuji_dark_healpix_with_main", "QSO_cat_fuji_dark_tile"])
def test_desis_own_quasar_catalogs_are_known(survey: Survey, shared_data: Path, tmp_path: Path, name: str) -> None:
    table = Table.read(shared_data / "desi" / f"{name}.fits.gz", hdu="QSO_CAT")
    rows = survey.query("SELECT targetid, ra, dec FROM anomaly_catalog WHERE rank <= 5 ORDER BY rank")
    table["TARGETID"][:5], table["TARGET_RA"][:5], table["TARGET_DEC"][:5] = rows["targetid"], rows["ra"], rows["dec"]
    table.write(tmp_path / f"{name}.fits.gz")
    for by in ("targetid", "position"):
        found = crossmatch(survey.reader, str(tmp_path / f"{name}.fits.gz"), by=by)
        assert (found.layout, found.n_file) == ("QSO", len(table))
        assert set(rows["targetid"]) <= set(found.rows["targetid"].to_pylist())
        assert {"file_z", "file_lastnight"} <= set(found.rows.column_names)


def test_matching_by_position_takes_the_nearest(survey: Survey, tmp_path: Path) -> None:
    table = _theirs(survey)["TARGET_RA", "TARGET_DEC"]
    table["TARGET_DEC"] += 0.5 / 3600
    table.add_row((10.0, 80.0))
    table.add_row((np.nan, np.nan))
    table.write(tmp_path / "a.fits")
    found = crossmatch(survey.reader, str(tmp_path / "a.fits"), radius=1.0)
    assert sorted(found.rows["targetid"].to_pylist()) == sorted(np.asarray(_theirs(survey)["TARGETID"]).tolist())
    np.testing.assert_allclose(found.rows["sky_distance"].to_numpy(), 0.5, rtol=1e-4)
    assert crossmatch(survey.reader, str(tmp_path / "a.fits"), radius=0.4).rows.num_rows == 0


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"NAME": ["a"]}, "no column TARGETID, nor columns RA and DEC,"),
        ({"TARGETID": [1.5]}, "should hold integers"),
        ({"RA": ["x"], "DEC": ["y"]}, "should hold angles in degrees"),
    ],
)
def test_files_that_cannot_be_matched(survey: Survey, tmp_path: Path, columns: dict[str, list], said: str) -> None:
    Table(columns).write(tmp_path / "a.ecsv")
    with pytest.raises(InputError, match=said):
        crossmatch(survey.reader, str(tmp_path / "a.ecsv"))


def test_files_that_are_none(survey: Survey, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "b.fits").write_bytes(b"SIMPLE  =                    T" + bytes(100))
    for name in ("a", "b.fits"):
        with pytest.raises(InputError, match=r"neither FITS, VOTable, Parquet, ECSV nor CSV|rows, expected"):
            crossmatch(survey.reader, str(tmp_path / name))
    with pytest.raises(InputError, match="no such file"):
        crossmatch(survey.reader, str(tmp_path / "none"))
    with pytest.raises(InputError, match="radius is 0"):
        crossmatch(survey.reader, str(tmp_path / "a"), radius=0)
