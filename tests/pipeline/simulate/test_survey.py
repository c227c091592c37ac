"""The survey as a whole: DR1's layout, one truth, the same for any number of processes."""

from __future__ import annotations

import hashlib
import shutil
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.errors import ConfigError, StoreError
from pipeline.simulate import simulate
from pipeline.simulate.survey import expected_size, plan_survey

GALAXY = "coadd-special-dark-27247.fits"


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_counts_add_up(made):
    kinds = Counter(made.truth["kind"])
    quasars = kinds["normal"] + kinds["anomaly"] + kinds["artefact"]
    assert quasars == 400 == made.summary.quasars
    assert len(made.truth["kind"]) == 1000 == made.summary.rows
    assert dict(kinds) == made.summary.counts
    assert kinds["anomaly"] > 20
    assert kinds["artefact"] > 20
    assert made.summary.size == sum(p.stat().st_size for p in made.folder.rglob("*.fits"))
    assert made.summary.files == len(list(made.folder.rglob("*.fits")))
    assert len({h for h, p in zip(made.truth["healpix"], made.truth["program"], strict=True) if p == "dark"}) == 8


def test_truth_lies_beside_the_survey_and_not_inside(made):
    assert made.summary.truth == f"{made.folder}-truth.parquet"
    assert not [path for path in made.folder.rglob("*") if path.is_file() and path.suffix != ".fits"]
    header = fits.getheader(made.coadd(), "FIBERMAP")
    assert not any("anomal" in str(value).lower() for value in header.values())


def test_desispec_reads_the_same_arrays(made):
    desispec_io = pytest.importorskip("desispec.io")
    path = made.coadd(1)
    read = desispec_io.read_spectra(str(path))
    with fits.open(path) as hdus:
        for arm in "BRZ":
            band = arm.lower()
            np.testing.assert_array_equal(read.wave[band], hdus[f"{arm}_WAVELENGTH"].data)
            np.testing.assert_array_equal(read.flux[band], hdus[f"{arm}_FLUX"].data)
            np.testing.assert_array_equal(read.ivar[band], hdus[f"{arm}_IVAR"].data)
            np.testing.assert_array_equal(read.mask[band], hdus[f"{arm}_MASK"].data)
            np.testing.assert_array_equal(read.resolution_data[band], hdus[f"{arm}_RESOLUTION"].data)
        np.testing.assert_array_equal(read.target_ids(), hdus["FIBERMAP"].data["TARGETID"])
        assert len(read.exp_fibermap) == hdus["FIBERMAP"].data["COADD_NUMEXP"].sum()
        snr = np.asarray(read.scores["MEDIAN_COADD_SNR_R"])
        assert 0.05 < np.median(snr) < 5


@pytest.mark.parametrize("kind", ["coadd", "redrock"])
def test_format_is_that_of_a_real_file(made, shared_data, kind):
    ours = Path(str(made.coadd()).replace("coadd-", f"{kind}-"))
    with fits.open(shared_data / "desi" / GALAXY.replace("coadd", kind)) as real, fits.open(ours) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == [hdu.name for hdu in real]
        for theirs, mine in zip(real, hdus, strict=True):
            assert mine.header.get("BUNIT") == theirs.header.get("BUNIT")
            if isinstance(theirs, fits.BinTableHDU):
                assert mine.columns.names == theirs.columns.names
                assert mine.columns.formats == theirs.columns.formats
                if kind == "coadd":  # redrock drops the units of the tables that it copies
                    assert [c.unit for c in mine.columns] == [c.unit for c in theirs.columns]
            elif theirs.data is not None:
                assert mine.data.dtype == theirs.data.dtype
                assert mine.data.shape[-1] == theirs.data.shape[-1]
        for key in ("SPGRP", "HPXNSIDE", "HPXNEST", "HPXPIXEL", "SURVEY", "PROGRAM"):
            assert key in hdus[0].header


def test_targets_lie_in_their_pixel(made):
    from astropy import units
    from astropy_healpix import HEALPix

    grid = HEALPix(64, order="nested")
    for program in ("dark", "bright"):
        path = made.coadd(0, program)
        with fits.open(path) as hdus:
            table = hdus["FIBERMAP"].data
            found = grid.lonlat_to_healpix(table["TARGET_RA"] * units.deg, table["TARGET_DEC"] * units.deg)
            assert set(found.tolist()) == {hdus[0].header["HPXPIXEL"]} == {int(path.stem.split("-")[-1])}
            assert ((table["TARGETID"] < 0) == (table["OBJTYPE"] == "SKY")).all()


def test_catalog_repeats_the_redrock_files(made):
    with fits.open(made.folder / "zcatalog/v1/zall-pix-iron.fits") as hdus:
        table = hdus["ZCATALOG"].data
        assert len(table.names) == 136
        assert len(table) <= 1000
        for path in sorted((made.folder / "healpix").rglob("redrock-*.fits")):
            with fits.open(path) as redrock:
                fitted = redrock["REDSHIFTS"].data
                here = (table["HEALPIX"] == redrock[0].header["HPXPIXEL"]) & (
                    table["PROGRAM"] == redrock[0].header["PROGRAM"]
                )
                order = {t: i for i, t in enumerate(fitted["TARGETID"].tolist())}
                rows = [order[t] for t in table["TARGETID"][here].tolist()]
                for name in ("Z", "ZERR", "ZWARN", "SPECTYPE", "DELTACHI2"):
                    np.testing.assert_array_equal(table[name][here], fitted[name][rows])
        number = Counter(table["TARGETID"].tolist())
        assert max(number.values()) == 2
        primary = Counter(table["TARGETID"][table["ZCAT_PRIMARY"]].tolist())
        assert set(primary.values()) == {1}
        assert set(primary) == set(number)


def test_every_cut_of_the_science_gate_finds_work(made):
    with fits.open(made.folder / "zcatalog/v1/zall-pix-iron.fits") as hdus:
        table = hdus["ZCATALOG"].data
        quasar = table["SPECTYPE"] == "QSO"
        assert (quasar & (table["OBJTYPE"] == "SKY")).any()
        assert (quasar & (table["COADD_FIBERSTATUS"] != 0)).any()
        assert (quasar & (table["ZWARN"] != 0)).any()
        assert (quasar & (table["TARGETID"] < 0)).any()
        gated = quasar & (table["OBJTYPE"] == "TGT") & (table["COADD_FIBERSTATUS"] == 0) & (table["ZWARN"] == 0)
        gated &= table["TARGETID"] > 0
    assert 0.8 * 400 < gated.sum() < 1.03 * 400


def test_anomalies_and_artefacts_pass_the_gate(made):
    truth = made.truth
    for i, kind in enumerate(truth["kind"]):
        if kind in ("anomaly", "artefact"):
            assert truth["spectype"][i] == "QSO"
            assert truth["zwarn"][i] in (0, 16)
    strong = [s for k, s in zip(truth["kind"], truth["significance"], strict=True) if k == "anomaly"]
    assert np.percentile(strong, 80) > 10
    assert all(s == 0 for k, s in zip(truth["kind"], truth["significance"], strict=True) if k == "normal")


def test_seed_decides_and_jobs_do_not(tmp_path):
    for name, seed, jobs in (("one", 9, 1), ("two", 9, 2), ("other", 10, 1)):
        simulate(str(tmp_path / name), 40, seed, quasar_fraction=0.8, resolution=False, jobs=jobs)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert (tmp_path / "one-truth.parquet").read_bytes() == (tmp_path / "two-truth.parquet").read_bytes()
    different = digest(tmp_path / "other")
    assert different.keys() == digest(tmp_path / "one").keys()
    assert all(different[key] != value for key, value in digest(tmp_path / "one").items())


def test_progress_is_reported_after_every_pixel(tmp_path):
    seen: list[tuple[int, int]] = []
    simulate(str(tmp_path / "sky"), 8, 1, quasar_fraction=1, resolution=False, jobs=1,
             progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen == [(i + 1, len(seen)) for i in range(len(seen))]


@pytest.mark.parametrize("quasars", [1, 3, 40, 700, 10_000])
def test_plan_spends_every_row(quasars):
    plans = plan_survey(quasars, 0.12)
    total = sum(plan.dark_quasars + plan.bright_quasars for plan in plans)
    assert total == quasars
    others = sum(plan.dark_others + plan.bright_others for plan in plans)
    assert total + others == round(quasars / 0.12)
    assert max(plan.dark_quasars for plan in plans) <= 118
    assert len(plans) >= 8 or quasars < 40


def test_no_resolution_is_a_fifth_of_the_size(tmp_path, made):
    simulate(str(tmp_path / "sky"), 40, 9, quasar_fraction=0.4, resolution=False, jobs=1)
    path = next((tmp_path / "sky" / "healpix" / "main" / "dark").glob("*/*/coadd-*.fits"))
    with fits.open(path) as hdus, fits.open(made.coadd()) as full:
        assert "B_RESOLUTION" not in hdus
        assert path.stat().st_size / len(hdus["FIBERMAP"].data) < 0.35 * made.coadd().stat().st_size / len(
            full["FIBERMAP"].data
        )


def test_expected_size_is_near_the_real_one(made):
    assert made.summary.size == pytest.approx(expected_size(plan_survey(400, 0.4), True), rel=0.08)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"quasars": 0}, "--quasars is 0"), ({"quasar_fraction": 0.0}, "--quasar-fraction is 0.0"),
     ({"anomaly_fraction": 1.5}, "anomaly_fraction is 1.5")],
)  # fmt: skip
def test_bad_numbers_are_refused(tmp_path, changes, says):
    arguments = {"quasars": 10, "quasar_fraction": 0.5, "anomaly_fraction": 0.01} | changes
    with pytest.raises(ConfigError, match=says):
        simulate(str(tmp_path / "sky"), seed=1, **arguments)


def test_a_survey_is_not_written_over_another(made):
    with pytest.raises(StoreError, match="already holds a survey"):
        simulate(str(made.folder), 10, 1)


def test_too_small_a_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 5, 5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match=r"needs .* GB and .* has 0.0 GB free"):
        simulate(str(tmp_path / "new" / "sky"), 100, 1)
    assert not (tmp_path / "new").exists()


@pytest.mark.servers
def test_a_survey_can_be_written_to_s3(monkeypatch):
    from moto.server import ThreadedMotoServer

    from pipeline.stores.objects import ObjectStore

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        request = urllib.request.Request(f"http://{host}:{port}/simulated", method="PUT")
        urllib.request.urlopen(request).close()
        summary = simulate("s3://simulated/dr1", 12, 1, quasar_fraction=1, resolution=False, jobs=1)
        found = {meta.path: meta.size for meta in ObjectStore.open("s3://simulated").list("")}
        assert "dr1/zcatalog/v1/zall-pix-iron.fits" in found
        assert "dr1-truth.parquet" in found
        assert sum(found.values()) - found["dr1-truth.parquet"] == summary.size
    finally:
        server.stop()
