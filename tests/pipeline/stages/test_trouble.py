"""Bad files, bad places, second drivers: one clear line, a reason in PostgreSQL, and counts that add up."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import fitsio
import numpy as np
import pytest

from pipeline.session import driving, opened
from pipeline.stores.postgres import transaction

from .conftest import Finished, config_of, copy_folder, query, skysift

pytestmark = pytest.mark.slow


def _coadds(survey: Path) -> list[Path]:
    return sorted(survey.glob("healpix/main/dark/*/*/coadd-*.fits"))


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _not_fits(file: Path) -> None:
    file.write_bytes(b"<html>503 Slow Down</html>" * 200)


def _without_ivar(file: Path) -> None:
    with fitsio.FITS(str(file)) as old, fitsio.FITS(str(file) + ".new", "rw", clobber=True) as new:
        for hdu in old:
            if hdu.get_extname() != "R_IVAR":
                new.write(hdu.read(), header=hdu.read_header(), extname=hdu.get_extname())
    os.replace(str(file) + ".new", file)


def _without_targets(file: Path) -> None:
    with fitsio.FITS(str(file), "rw") as fits:
        rows = fits["FIBERMAP"].read()
        rows["TARGETID"][::2] += 1_000_000_000
        fits["FIBERMAP"].write(rows)


def _strange_pixels(file: Path) -> None:
    """Spectra with NaN flux, with negative ivar, and with nothing at all."""
    with fitsio.FITS(str(file), "rw") as fits:
        for arm in "BRZ":
            flux, ivar = fits[f"{arm}_FLUX"].read(), fits[f"{arm}_IVAR"].read()
            ivar[:] = np.maximum(ivar, 0.1)
            flux[0::3, 100:110] = np.nan
            ivar[1::3, 200:210] = -1
            ivar[2::3] = 0
            fits[f"{arm}_FLUX"].write(flux)
            fits[f"{arm}_IVAR"].write(ivar)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated": _truncate,
    "not_fits": _not_fits,
    "missing_hdu": _without_ivar,
    "missing_file": Path.unlink,
    "not_in_coadd": _without_targets,
    "no_information": _strange_pixels,
}


@pytest.fixture(scope="module")
def damaged(finished: Finished, scratch: Path) -> Iterator[Finished]:
    """A run, with the finished run's model, of a survey in which each kind of damage befell one file."""
    folder = scratch / "damaged"
    copy_folder(finished.survey, folder / "sky")
    copy_folder(finished.workspace, folder / "workspace")
    for file, damage in zip(_coadds(folder / "sky"), DAMAGE.values(), strict=False):
        damage(file)
    options = ("-w", folder / "workspace", "-r", "damaged", "-m", "promoted", "--set", "ingest.max_failed=0.9")
    yield Finished(folder / "sky", folder / "workspace", skysift("run", folder / "sky", *options))
    shutil.rmtree(folder)


def test_every_damage_is_quarantined_with_its_reason(damaged: Finished) -> None:
    rows = query(damaged.config, "SELECT DISTINCT reason, detail, coadd FROM quarantine WHERE run_id = 'damaged'")
    reasons = {row["reason"]: row for row in rows.to_pylist()}
    assert set(DAMAGE) <= set(reasons)
    for reason, file in zip(DAMAGE, _coadds_before(damaged), strict=False):
        assert reasons[reason]["coadd"] == f"healpix/main/dark/{file}"
        assert "\n" not in reasons[reason]["detail"]


def _coadds_before(damaged: Finished) -> list[str]:
    rows = query(damaged.config, "SELECT DISTINCT healpix FROM chunks WHERE program = 'dark' ORDER BY 1")
    return sorted(str(row["healpix"]) for row in rows.to_pylist())


def test_the_counts_add_up_and_status_names_the_unscored(damaged: Finished) -> None:
    stages = query(
        damaged.config,
        """SELECT stage, sum(n_in)::bigint AS n_in, sum(n_out)::bigint AS n_out, sum(n_quarantined)::bigint AS lost
           FROM ledger JOIN run_chunks USING (chunk_id) WHERE run_id = 'damaged' GROUP BY stage ORDER BY stage""",
    ).to_pylist()
    planned = query(
        damaged.config,
        "SELECT sum(n_targets)::bigint AS n FROM chunks JOIN run_chunks USING (chunk_id) WHERE run_id = 'damaged'",
    )["n"][0].as_py()
    ingest, score = stages
    assert ingest["n_in"] == planned
    assert ingest["n_in"] == ingest["n_out"] + ingest["lost"]
    assert score["n_in"] == ingest["n_out"] == score["n_out"] + score["lost"]
    shown = skysift("status", "-w", damaged.workspace, "-r", "damaged")
    assert f"{ingest['lost'] + score['lost']:,} of {planned:,} spectra are unscored" in shown
    for reason in DAMAGE:
        assert reason in shown
    listed = skysift("status", "-w", damaged.workspace, "-r", "damaged", "--unscored").splitlines()
    assert len(listed) == 1 + ingest["lost"] + score["lost"]


def test_bad_pixels_are_named_by_quality_bits(damaged: Finished) -> None:
    from pipeline.quality import Quality

    found = query(damaged.config, "SELECT quality FROM spectra")["quality"].to_pylist()
    for bit in (Quality.NONFINITE_FLUX, Quality.BAD_IVAR, Quality.NO_INFORMATION):
        assert any(quality & bit for quality in found), bit.name


def test_too_many_bad_files_end_the_run_with_the_reason(finished: Finished, scratch: Path) -> None:
    survey = scratch / "mostly-bad"
    shutil.copytree(finished.survey, survey)
    for file in _coadds(survey):
        _not_fits(file)
    output = skysift("run", survey, "-w", scratch / "mostly-bad-ws", expect=5)
    assert "more than ingest.max_failed = 0.05" in output
    assert "failed" in skysift("status", "-w", scratch / "mostly-bad-ws")


def test_a_second_driver_of_a_run_is_refused(finished: Finished) -> None:
    with driving(finished.config):
        output = skysift("run", finished.survey, "-w", finished.workspace, expect=5)
    assert "run default is already driven by skysift pid" in output


def test_an_unfinished_run_refuses_changed_inputs(finished: Finished, scratch: Path) -> None:
    workspace = scratch / "changed"
    skysift("plan", finished.survey, "-w", workspace)
    output = skysift("run", finished.survey, "-w", workspace, "--set", "gate.z_max=2.5", expect=5)
    assert "run default is unfinished and its inputs have changed (gate.z_max was 6.0, now 2.5)" in output


def test_a_read_only_database_is_named(finished: Finished, postgres_url: str) -> None:
    import psycopg2

    with psycopg2.connect(postgres_url) as conn, conn.cursor() as cur:
        cur.execute("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',"
                    " current_database()); END $$")  # fmt: skip
    conn.close()
    output = skysift(
        "run", finished.survey, "-w", finished.workspace, "--set", f"stores.postgres={postgres_url}", expect=4
    )
    assert "read-only" in output


_STATES = "SELECT state, count(*) AS n FROM ledger WHERE stage = 'ingest' GROUP BY 1"


def test_a_full_object_store_ends_in_one_line_and_resumes_with_room(finished: Finished, scratch: Path) -> None:
    full = scratch / "full"
    full.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(full)], check=False)
    if mounted.returncode:
        pytest.skip("a file system of 20 MB cannot be mounted here: a full store was not tried")
    try:
        options = ("-w", scratch / "full-ws", "--set", f"stores.objects={full}/objects")
        skysift("plan", finished.survey, *options)
        output = skysift("ingest", finished.survey, *options, expect=4)
        assert "full" in output or "No space left" in output
        subprocess.run(["mount", "-o", "remount,size=1g", str(full)], check=True)
        skysift("ingest", finished.survey, *options)
        (chunks,) = query(config_of(scratch / "full-ws", finished.survey), _STATES).to_pylist()
        assert chunks == {"state": "done", "n": chunks["n"]}
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_unreachable_servers_are_named(finished: Finished, scratch: Path) -> None:
    for key, url in (("postgres", "postgresql://me@127.0.0.1:9/x"), ("milvus", "http://127.0.0.1:9")):
        output = skysift("run", finished.survey, "-w", scratch / "away", "--set", f"stores.{key}={url}", expect=4)
        assert "127.0.0.1:9" in output
        assert "unreachable" in output


def test_a_model_of_another_grid_is_refused(clone: Callable[[], Finished]) -> None:
    run = clone()
    (settings,) = (run.workspace / "objects" / "models").glob("*/model.json")
    settings.write_text(settings.read_text().replace('"native_pixels": 7781', '"native_pixels": 7780'))
    config = config_of(run.workspace, run.survey)
    with opened(config) as session, transaction(session.conn) as cur:
        cur.execute("UPDATE ledger SET state = 'pending' WHERE stage = 'score'")
    output = skysift("score", run.survey, "-w", run.workspace, expect=6)
    assert "model.json" in output or "grid" in output
