"""The README's DR1 examples, those very files, against an S3 server that holds a tree like DR1's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import boto3
import fitsio
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from pipeline.simulate import simulate

from .conftest import config_of, query, skysift

pytestmark = [pytest.mark.slow, pytest.mark.servers]

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
ROOT = "dr1/spectro/redux/iron"
PIXEL = 9144  # the pixel that docs/examples/dr1-pixel.toml names


@pytest.fixture(scope="module")
def bucket(scratch: Path) -> Iterator[str]:
    """An S3 server whose bucket ``desidata`` holds a simulated survey as DR1, public; yields its address."""
    sky = scratch / "dr1"
    simulate(str(sky), quasars=700, seed=11, quasar_fraction=0.8, resolution=False)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="x", region_name="us-west-2"
    )
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # all of a process's moto servers share their buckets
        client.create_bucket(Bucket="desidata", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    for file, name in _as_dr1(sky):
        client.upload_file(str(file), "desidata", f"{ROOT}/{name}", ExtraArgs={"ACL": "public-read"})
    yield endpoint
    server.stop()


def _as_dr1(sky: Path) -> Iterator[tuple[Path, str]]:
    """The survey's files and their names in the bucket; its first dark pixel goes by the number of the example's."""
    dark = sorted(sky.glob("healpix/main/dark/*/*/coadd-*.fits"))
    moved = dark[0].parent.name
    for file in sorted(sky.rglob("*.fits")):
        name = file.relative_to(sky).as_posix()
        if f"main/dark/{int(moved) // 100}/{moved}/" in name:
            name = name.replace(f"/{int(moved) // 100}/{moved}/", f"/{PIXEL // 100}/{PIXEL}/").replace(
                f"-{moved}.fits", f"-{PIXEL}.fits"
            )
        yield file, name
    catalog = sky / "zcatalog/v1/zall-pix-iron.fits"
    rows = fitsio.read(str(catalog), ext="ZCATALOG")
    rows["HEALPIX"] = np.where((rows["HEALPIX"] == int(moved)) & (rows["PROGRAM"] == "dark"), PIXEL, rows["HEALPIX"])
    renamed = sky.parent / "zall-dr1.fits"
    fitsio.write(str(renamed), rows, extname="ZCATALOG", clobber=True)
    yield renamed, "zcatalog/v1/zall-pix-iron.fits"


def _run(example: str, bucket: str, workspace: Path) -> str:
    options = ("--set", f"survey.endpoint={bucket}", "--set", "ingest.chunk_size=512", "--set", "train.fit.segments=1")
    return skysift("run", "--config", EXAMPLES / example, "-w", workspace, *options)


def test_one_pixel(bucket: str, scratch: Path) -> None:
    workspace = scratch / "dr1-pixel"
    assert "model promoted" in _run("dr1-pixel.toml", bucket, workspace)
    rows = query(config_of(workspace, "s3://desidata"), "SELECT DISTINCT coadd FROM anomaly_catalog").to_pylist()
    assert rows == [{"coadd": f"healpix/main/dark/{PIXEL}"}]


def test_all_of_main_dark(bucket: str, scratch: Path) -> None:
    workspace = scratch / "dr1-dark"
    assert "model promoted" in _run("dr1-main-dark.toml", bucket, workspace)
    config = config_of(workspace, "s3://desidata")
    found = query(config, "SELECT survey, program, count(*) AS n FROM anomaly_catalog GROUP BY 1, 2").to_pylist()
    rows = fitsio.read(str(scratch / "dr1" / "zcatalog/v1/zall-pix-iron.fits"), ext="ZCATALOG")
    good = (rows["SPECTYPE"] == "QSO") & (rows["ZWARN"] == 0) & (rows["OBJTYPE"] == "TGT") & (rows["TARGETID"] > 0)
    dark = good & (rows["COADD_FIBERSTATUS"] == 0) & (rows["PROGRAM"] == "dark") & (rows["Z"] >= 0.05)
    assert found == [{"survey": "main", "program": "dark", "n": int(dark.sum())}]


def test_few_bytes_pass_and_requests_are_counted(bucket: str, scratch: Path) -> None:
    """Most rows here are quasars; at DR1's 12% the bytes are counted in tests/pipeline/desi."""
    counted = query(
        config_of(scratch / "dr1-dark", "s3://desidata"),
        """SELECT sum(bytes_read)::bigint AS bytes, sum(requests)::bigint AS requests, sum(n_out)::bigint AS spectra
           FROM ledger WHERE stage = 'ingest'""",
    ).to_pylist()[0]
    needed = counted["spectra"] * (2751 + 2326 + 2881) * 12  # flux, ivar and mask of three arms
    assert needed < counted["bytes"] < 1.3 * needed  # small files: headers and exposure tables weigh more than in DR1
    assert 0 < counted["requests"] < 9 * counted["spectra"]
