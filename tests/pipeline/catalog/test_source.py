from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from pipeline.catalog.source import CatalogSource, RedrockSource, find_source, gated_rows
from pipeline.config import GateConfig, SurveyConfig
from pipeline.errors import InputError, MissingObject
from pipeline.stores.objects import ObjectStore

from .conftest import Columns, WriteFits

ANY = GateConfig()


def targets(store: ObjectStore, config: SurveyConfig, gate: GateConfig = ANY) -> list[int]:
    return gated_rows(find_source(store, config), gate)[0].column("targetid").to_pylist()  # type: ignore[no-any-return]


def write_redrock(columns: Columns, path: Path, *, shuffled: bool = False, without: str = "") -> None:
    """A redrock file of the first six rows, with their FIBERMAP in another order when asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    forms = {"TARGETID": "K", "Z": "D", "ZERR": "D", "ZWARN": "K", "SPECTYPE": "6A"}
    of_fiber = {"TARGETID": "K", "COADD_FIBERSTATUS": "J", "TARGET_RA": "D", "TARGET_DEC": "D", "OBJTYPE": "3A"}
    order = np.arange(6)[::-1] if shuffled else np.arange(6)
    tables = [("REDSHIFTS", forms, np.arange(6)), ("FIBERMAP", of_fiber, order)]
    hdus = [
        fits.BinTableHDU.from_columns([fits.Column(k, f, array=columns[k][rows]) for k, f in form.items()], name=name)
        for name, form, rows in tables
        if name != without
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)


def redrock_path(root: Path, pixel: int) -> Path:
    return root / f"healpix/main/dark/{pixel // 100}/{pixel}/redrock-main-dark-{pixel}.fits"


def test_catalog_is_found_without_being_named(columns: Columns, write_fits: WriteFits, store: ObjectStore) -> None:
    write_fits(columns, "zcatalog/v1/zall-tilecumulative-iron.fits")
    write_fits(columns, "zcatalog/v1/zall-pix-iron.fits")
    source = find_source(store, SurveyConfig())
    assert isinstance(source, CatalogSource)
    assert source.meta.path == "zcatalog/v1/zall-pix-iron.fits"


def test_catalog_elsewhere(columns: Columns, write_fits: WriteFits, tmp_path: Path) -> None:
    path = write_fits(columns, "away/zcat.fits")
    empty = ObjectStore.open(str(tmp_path / "survey"))
    assert len(targets(empty, SurveyConfig(catalog=str(path)))) == 4
    assert len(targets(empty, SurveyConfig(catalog=path.as_uri()))) == 4


def test_missing_catalog_lists_what_lies_beside(columns: Columns, write_fits: WriteFits, store: ObjectStore) -> None:
    write_fits(columns, "zcatalog/v1/zall-tilecumulative-iron.fits")
    with pytest.raises(MissingObject, match=r"no redshift catalog .*; there are zcatalog/v1/zall-tilecumulative-iron"):
        find_source(store, SurveyConfig())
    with pytest.raises(MissingObject, match=r"there are zcatalog/v1/zall-tilecumulative-iron.fits"):
        find_source(store, SurveyConfig(catalog="zcatalog/v1/zall-pix-irn.fits"))
    with pytest.raises(MissingObject, match=r"other holds no FITS or Parquet file; correct survey.catalog"):
        find_source(store, SurveyConfig(catalog="other/zall.fits"))


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(MissingObject, match=r"zcatalog/v1 holds no FITS or Parquet file; check survey.root"):
        find_source(ObjectStore.open(str(tmp_path / "nowhere")), SurveyConfig())


def test_catalog_and_pixels(columns: Columns, write_fits: WriteFits, store: ObjectStore) -> None:
    write_fits(columns)
    config = SurveyConfig(catalog="zcat.fits", pixels=("main/dark/9144",))
    assert targets(store, config) == columns["TARGETID"][:2].tolist()
    with pytest.raises(InputError, match=r"no row lies in healpix/main/dark/77, which the config asks for") as caught:
        targets(store, SurveyConfig(catalog="zcat.fits", pixels=("main/dark/9144", "main/dark/77")))
    assert caught.value.reason == "unknown_pixel"


def test_identity_changes_with_the_catalog(columns: Columns, write_fits: WriteFits, store: ObjectStore) -> None:
    write_fits(columns)
    config = SurveyConfig(catalog="zcat.fits")
    before = find_source(store, config).identity
    assert find_source(store, config).identity == before
    write_fits({name: values[:5] for name, values in columns.items()})
    assert find_source(store, config).identity != before


@pytest.mark.parametrize("shuffled", [False, True])
def test_pixels_from_redrock_files(columns: Columns, tmp_path: Path, store: ObjectStore, shuffled: bool) -> None:
    write_redrock(columns, redrock_path(tmp_path, 9144), shuffled=shuffled)
    source = find_source(store, SurveyConfig(pixels=("main/dark/9144",)))
    assert isinstance(source, RedrockSource)
    rows, report = gated_rows(source, ANY)
    assert rows.column("targetid").to_pylist() == columns["TARGETID"][:2].tolist()
    assert rows.column("healpix").to_pylist() == [9144, 9144]
    np.testing.assert_allclose(rows.column("ra").to_numpy(), columns["TARGET_RA"][:2])
    assert report.rows == 6
    assert [cut.removed for cut in report.cuts[:4]] == [1, 1, 1, 1]
    assert not any(cut.untested for cut in report.cuts)


def test_tiles_from_redrock_files(columns: Columns, tmp_path: Path, store: ObjectStore) -> None:
    folder = tmp_path / "tiles/cumulative/80693/20210204"
    for petal in (1, 2, 7):
        write_redrock(columns, folder / f"redrock-{petal}-80693-thru20210204.fits")
    shutil.move(folder / "redrock-7-80693-thru20210204.fits", tmp_path / "x.fits")
    import gzip

    (folder / "redrock-7-80693-thru20210204.fits.gz").write_bytes(gzip.compress((tmp_path / "x.fits").read_bytes()))
    rows, _ = gated_rows(find_source(store, SurveyConfig(tiles=("80693/20210204",))), ANY)
    assert rows.column("petal").to_pylist() == [1, 1, 2, 2, 7, 7]
    assert rows.column("night").to_pylist() == [20210204] * 6
    one = gated_rows(find_source(store, SurveyConfig(tiles=("80693/20210204/2",))), ANY)[0]
    assert one.column("petal").to_pylist() == [2, 2]


def test_unknown_pixels_and_tiles(store: ObjectStore) -> None:
    with pytest.raises(
        MissingObject, match=r"healpix/main/dark/9144 has no healpix/main/dark/91/9144/redrock-"
    ) as caught:
        find_source(store, SurveyConfig(pixels=("main/dark/9144",)))
    assert caught.value.reason == "unknown_pixel"
    with pytest.raises(MissingObject, match=r"tile 80693/20210204 has no tiles/cumulative/80693/20210204/redrock-0-"):
        find_source(store, SurveyConfig(tiles=("80693/20210204",)))


def test_redrock_without_what_it_should_hold(columns: Columns, tmp_path: Path, store: ObjectStore) -> None:
    config = SurveyConfig(pixels=("main/dark/9144",))
    path = redrock_path(tmp_path, 9144)
    write_redrock(columns, path, without="REDSHIFTS")
    with pytest.raises(InputError, match=r"no HDU REDSHIFTS with column TARGETID; is it a redrock file"):
        targets(store, config)
    path.unlink()
    write_redrock(columns, path, without="FIBERMAP")  # positions unknown, three cuts not applied, quasars kept
    rows, report = gated_rows(find_source(store, config), ANY)
    assert rows.column("ra").null_count == rows.num_rows == 4
    assert [cut.rule for cut in report.cuts if cut.untested] == ["OBJTYPE = TGT", "COADD_FIBERSTATUS = 0"]


def test_redrock_whose_fibermap_lists_other_targets(columns: Columns, tmp_path: Path, store: ObjectStore) -> None:
    path = redrock_path(tmp_path, 9144)
    write_redrock(columns, path)
    with fits.open(path, mode="update") as hdus:
        hdus["FIBERMAP"].data["TARGETID"][0] = 12345
    with pytest.raises(InputError, match=r"FIBERMAP lacks targets that REDSHIFTS holds"):
        targets(store, SurveyConfig(pixels=("main/dark/9144",)))


def test_no_row_left(columns: Columns, write_fits: WriteFits, store: ObjectStore) -> None:
    write_fits(columns)
    with pytest.raises(InputError, match=r"zcat.fits: none of its 12 rows passes the gate; the cut \[SURVEY in sv9\]"):
        targets(store, SurveyConfig(catalog="zcat.fits"), GateConfig(surveys=("sv9",)))


def test_real_redrock_file(shared_data: Path, tmp_path: Path, store: ObjectStore) -> None:
    """DESI's own redrock file of a galaxy: read whole, and refused for the right reason."""
    folder = tmp_path / "healpix/special/dark/272/27247"
    folder.mkdir(parents=True)
    (folder / "redrock-special-dark-27247.fits").symlink_to(shared_data / "desi/redrock-special-dark-27247.fits")
    with pytest.raises(InputError, match=r"none of its 1 rows passes the gate; the cut \[SPECTYPE = QSO\]"):
        targets(store, SurveyConfig(pixels=("special/dark/27247",)))


def test_real_quasar_catalog_by_tile(shared_data: Path) -> None:
    store = ObjectStore.open(str(shared_data / "desi"))
    rows, report = gated_rows(find_source(store, SurveyConfig(catalog="QSO_cat_fuji_dark_tile.fits.gz")), ANY)
    with fits.open(shared_data / "desi/QSO_cat_fuji_dark_tile.fits.gz") as hdus:
        truth = hdus["QSO_CAT"].data
        assert sorted(rows.column("targetid").to_pylist()) == sorted(truth["TARGETID"].tolist())
        assert sorted(rows.column("z").to_pylist()) == sorted(truth["Z"].tolist())
    assert rows.column("petal").to_pylist() == [1] * 5 + [2] * 5
    assert set(rows.column("tile").to_pylist()) == {80693}
    assert {cut.untested for cut in report.cuts if "SPECTYPE" in cut.rule or "ZWARN" in cut.rule} == {10}


def test_real_quasar_catalog_by_position(shared_data: Path) -> None:
    store = ObjectStore.open(str(shared_data / "desi"))
    config = SurveyConfig(catalog="QSO_cat_fuji_dark_healpix_with_main.fits.gz")
    rows, report = gated_rows(find_source(store, config), GateConfig(surveys=("main",), programs=("dark",)))
    assert rows.column("healpix").to_pylist() == [9144, 9144]
    assert report.cuts[0].removed == 173
    with fits.open(shared_data / "desi/coadd-main-dark-9144.fits") as hdus:
        assert sorted(hdus["FIBERMAP"].data["TARGETID"].tolist()) == rows.column("targetid").to_pylist()
    everything = gated_rows(find_source(store, config), ANY)[0]
    assert set(everything.column("survey").to_pylist()) == {"main", "sv1"}
    assert everything.num_rows == 175


@pytest.fixture(scope="module")
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    """Endpoint of an S3 server with an empty bucket ``surveys``."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/surveys", method="PUT")).close()
    yield endpoint
    server.stop()


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["fits", "fits.gz", "parquet"])
def test_catalog_on_s3(
    columns: Columns,
    write_fits: WriteFits,
    tmp_path: Path,
    bucket: str,
    kind: str,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    path = write_fits(columns, "zall-pix-iron.fits")
    if kind == "fits.gz":
        import gzip

        path = path.with_name("zall-pix-iron.fits.gz")
        path.write_bytes(gzip.compress((tmp_path / "zall-pix-iron.fits").read_bytes()))
    elif kind == "parquet":
        path = path.with_name("zall-pix-iron.parquet")
        pq.write_table(pa.table({k: v for k, v in columns.items() if v.ndim == 1}), path)
    remote = ObjectStore.open(f"s3://surveys/{kind}/iron", endpoint=bucket, region="us-east-1")
    remote.write(f"zcatalog/v1/{path.name}", path.read_bytes())
    here = gated_rows(find_source(store, SurveyConfig(catalog=path.name)), ANY)
    there = gated_rows(find_source(remote, SurveyConfig()), ANY)
    assert there[0].to_pylist() == here[0].to_pylist()
    assert there[1] == here[1]
    with pytest.raises(MissingObject, match=f"there are zcatalog/v1/{path.name}"):
        find_source(remote, SurveyConfig(catalog="zcatalog/v1/none.fits"))
