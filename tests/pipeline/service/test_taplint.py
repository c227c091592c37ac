"""stilts over the service: taplint on TAP and VOSI (schemas included), votlint on what is answered, its own clients."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from pathlib import Path

import httpx2
import pytest
from astropy.table import Table

from pipeline import Survey

pytestmark = [pytest.mark.servers, pytest.mark.slow]

STAGES = "TMV TME TMS TMC CPV CAP AVV QGE QPO MDQ OBS"  # all but uploads and asynchronous queries, which are not there


@pytest.fixture(scope="module")
def stilts() -> str:
    found = shutil.which("stilts")
    if found is None:
        pytest.skip("stilts is not installed (Debian: apt install stilts): VO answers were not checked by taplint")
    return found


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_taplint_finds_nothing(stilts: str, address: str) -> None:
    said = _run(stilts, "taplint", f"tapurl={address}/tap", f"stages={STAGES}", "report=EWF")
    found = [line for line in said.splitlines() if line[:2] in ("E-", "F-")]
    # The tests' uvicorn has no header that names the server; `skysift serve` has one.
    found += [line for line in said.splitlines() if line.startswith("W-") and "No HTTP Server header" not in line]
    assert found == []
    assert "Totals: Errors: 0" in said


@pytest.mark.parametrize(
    "path",
    [
        "/tap/sync?LANG=ADQL&QUERY=SELECT+TOP+20+*+FROM+anomaly_catalog",
        "/tap/sync?LANG=ADQL&QUERY=SELECT+TOP+1+*+FROM+catalog_runs&MAXREC=0",
        "/tap/sync?LANG=ADQL&QUERY=SELECT+nothing+FROM+nowhere",
        "/scs?RA=10&DEC=10&SR=0",
        "/scs?RA=10&DEC=100&SR=1",
    ],
)
def test_votlint_finds_nothing(stilts: str, address: str, tmp_path: Path, path: str) -> None:
    (tmp_path / "answer.vot").write_bytes(httpx2.get(address + path, timeout=60).content)
    assert _run(stilts, "votlint", f"votable={tmp_path / 'answer.vot'}").strip() == ""


def test_stilts_own_clients(stilts: str, address: str, served: Survey, tmp_path: Path) -> None:
    first = served.anomalies(1)
    ra, dec, targetid = float(first["ra"][0]), float(first["dec"][0]), int(first["targetid"][0])
    _run(stilts, "cone", f"serviceurl={address}/scs?", f"lon={ra}", f"lat={dec}", "radius=0.01",
         f"out={tmp_path / 'cone.csv'}")  # fmt: skip
    assert targetid in Table.read(tmp_path / "cone.csv", format="ascii.csv")["targetid"]
    query = f"""SELECT targetid, "rank" FROM anomaly_catalog
                WHERE 1 = CONTAINS(POINT('ICRS', ra, dec), CIRCLE('ICRS', {ra}, {dec}, 0.01))"""
    _run(stilts, "tapquery", f"tapurl={address}/tap", "sync=true", f"adql={query}", f"out={tmp_path / 'tap.csv'}")
    assert targetid in Table.read(tmp_path / "tap.csv", format="ascii.csv")["targetid"]
    catalog = served.config.workspace / "reports" / "small" / "anomalies.fits"
    _run(stilts, "tcopy", str(catalog), str(tmp_path / "copied.vot"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FITS says Angstrom, which VOTable has come to dislike
        copied = Table.read(tmp_path / "copied.vot")
    assert len(copied) == len(Table.read(catalog, hdu="CATALOG"))
    assert str(copied["ra"].unit) == "deg"
