"""The README's DR1 examples, those very files, against an S3 server that holds a tree like DR1's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import fitsio
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from .conftest import Finished, config_of, query, skysift

pytestmark = [pytest.mark.slow, pytest.mark.servers]

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
ROOT = "dr1/spectro/redux/iron"
PIXEL = 9144  # the pixel that docs/examples/dr1-pixel.toml names


@pytest.fixture(scope="module")
def bucket(sky: Path) -> Iterator[dict[str, str]]:
    """An S3 server whose bucket ``desidata`` holds the simulated survey as DR1; yields the environment to reach it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="x", region_name="us-west-2"
    )
    client.create_bucket(Bucket="desidata", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    for file, name in _as_dr1(sky):
        client.upload_file(str(file), "desidata", f"{ROOT}/{name}")
    yield {"AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true"}
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
    rows["HEALPIX"] = np.where((rows["HEALPIX"] == int(moved)) & (rows["PROGRAM"] == b"dark"), PIXEL, rows["HEALPIX"])
    renamed = sky.parent / "zall-dr1.fits"
    fitsio.write(str(renamed), rows, extname="ZCATALOG", clobber=True)
    yield renamed, "zcatalog/v1/zall-pix-iron.fits"


def test_one_pixel(bucket: dict[str, str], scratch: Path) -> None:
    workspace = scratch / "dr1-pixel"
    output = skysift("run", "--config", EXAMPLES / "dr1-pixel.toml", "-w", workspace, env=bucket)
    assert "model promoted" in output
    rows = query(config_of(workspace, "s3://desidata"), "SELECT DISTINCT coadd FROM anomaly_catalog").to_pylist()
    assert rows == [{"coadd": f"healpix/main/dark/{PIXEL}"}]


def test_all_of_main_dark(bucket: dict[str, str], finished: Finished, scratch: Path) -> None:
    workspace = scratch / "dr1-dark"
    output = skysift("run", "--config", EXAMPLES / "dr1-main-dark.toml", "-w", workspace, env=bucket)
    assert "model promoted" in output
    found = query(
        config_of(workspace, "s3://desidata"), "SELECT program, count(*) AS n FROM anomaly_catalog GROUP BY 1"
    )
    expected = query(
        finished.config, "SELECT program, count(*) AS n FROM anomaly_catalog WHERE program = 'dark' GROUP BY 1"
    )
    assert found.to_pylist() == expected.to_pylist()


def test_few_bytes_pass_and_requests_are_counted(bucket: dict[str, str], scratch: Path) -> None:
    workspace = scratch / "dr1-dark"
    counted = query(
        config_of(workspace, "s3://desidata"),
        """SELECT sum(bytes_read)::bigint AS bytes, sum(requests)::bigint AS requests, sum(n_out)::bigint AS spectra
           FROM ledger WHERE stage = 'ingest'""",
    ).to_pylist()[0]
    needed = counted["spectra"] * (2751 + 2326 + 2881) * 12  # flux, ivar and mask of three arms
    assert counted["bytes"] < 1.15 * needed
    assert counted["requests"] < 3 * counted["spectra"]
