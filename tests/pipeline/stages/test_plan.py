from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from pipeline.config import Config, GateConfig, IngestConfig, SurveyConfig
from pipeline.errors import InputError, RunError
from pipeline.servers.embedded import EmbeddedPostgres
from pipeline.stages.plan import PlanResult, gate_report, plan
from pipeline.stores import postgres, runs
from pipeline.stores.manifest import load_chunks
from pipeline.stores.objects import ObjectStore
from pipeline.stores.postgres import Connection

pytestmark = pytest.mark.servers
PIXELS = (9144, 9145, 9200)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated embedded PostgreSQL."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("plan"))
    server.start()
    conn = postgres.connect(server.url)
    postgres.migrate(conn)
    conn.close()
    yield server.url
    server.stop()


@pytest.fixture
def conn(database: str) -> Iterator[Connection]:
    conn = postgres.connect(database)
    yield conn
    conn.close()


def coadd_path(pixel: int) -> str:
    return f"healpix/main/dark/{pixel // 100}/{pixel}/coadd-main-dark-{pixel}.fits"


class Survey:
    """A survey of 40 quasars in each of some pixels; its coadds are placeholders, for plan reads none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = ObjectStore.open(str(root / "survey"))
        self.objects = ObjectStore.open(str(root / "objects"))

    def write(self, pixels: tuple[int, ...]) -> None:
        pixel = np.repeat(pixels, 40)
        n = len(pixel)
        made = [
            fits.Column("TARGETID", "K", array=np.arange(1, n + 1)),
            fits.Column("SURVEY", "7A", array=np.full(n, "main")),
            fits.Column("PROGRAM", "6A", array=np.full(n, "dark")),
            fits.Column("HEALPIX", "J", array=pixel),
            fits.Column("Z", "D", array=0.5 + 0.02 * np.arange(n)),
            fits.Column("ZWARN", "K", array=np.where(np.arange(n) % 10 == 0, 4, 0)),
            fits.Column("SPECTYPE", "6A", array=np.full(n, "QSO")),
        ]
        path = self.root / "survey/zcatalog/v1/zall-pix-test.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(made, name="ZCATALOG")]).writeto(
            path, overwrite=True
        )
        for number in pixels:
            if not self.store.exists(coadd_path(number)):
                self.coadd(number)

    def coadd(self, pixel: int, data: bytes = b"coadd") -> None:
        self.store.write(coadd_path(pixel), data)

    def plan(self, config: Config, conn: Connection) -> PlanResult:
        return plan(config, conn, self.store, self.objects)


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    made = Survey(tmp_path)
    made.write(PIXELS[:2])
    return made


@pytest.fixture
def config(request: pytest.FixtureRequest) -> Config:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:50]
    return Config(run=name, ingest=IngestConfig(chunk_size=20))


def query(conn: Connection, text: str, *arguments: Any) -> list[tuple[Any, ...]]:
    with postgres.transaction(conn) as cur:
        cur.execute(text, arguments)
        return list(cur.fetchall())


def chunk_ids(conn: Connection, run: str) -> list[str]:
    rows = query(conn, "SELECT chunk_id FROM run_chunks WHERE run_id = %s ORDER BY 1", run)
    return [row[0] for row in rows]


def test_manifest_reaches_postgresql(survey: Survey, config: Config, conn: Connection) -> None:
    result = survey.plan(config, conn)
    assert (result.n_coadds, result.n_chunks, result.n_targets, result.n_new) == (2, 4, 72, 4)
    assert result.gate.rows == 80
    assert result.missing == ()
    chunks = load_chunks(conn, chunk_ids(conn, config.run))
    assert sorted(t for c in chunks for t in c.targets["targetid"].to_pylist()) == [
        t for t in range(1, 81) if (t - 1) % 10
    ]
    assert {c.coadd.size for c in chunks} == {5}
    run = runs.find_run(conn, config.run)
    assert run is not None
    assert (run.state, run.stage) == ("running", "plan")
    metrics = dict(query(conn, "SELECT name, value FROM quality_metrics WHERE run_id = %s", config.run))
    assert metrics["rows in catalog"] == 80
    assert metrics["rows kept"] == 72
    assert metrics["cut 05: ZWARN in 0"] == 8
    assert metrics["cut 02: OBJTYPE = TGT"] is None
    assert result.lines()[-1].startswith("72 targets in 2 coadds, 4 chunks (4 new, 0 unchanged, 0 dropped)")


def test_planning_again_changes_nothing_and_reads_no_catalog(survey: Survey, config: Config, conn: Connection) -> None:
    first = survey.plan(config, conn)
    before, read = chunk_ids(conn, config.run), survey.store.bytes_read
    again = survey.plan(config, conn)
    assert not first.reused
    assert again.reused
    assert survey.store.bytes_read == read
    assert (again.n_new, again.n_unchanged, again.n_dropped) == (0, 4, 0)
    assert chunk_ids(conn, config.run) == before
    assert again.gate == first.gate == gate_report(config, survey.store, survey.objects)


def test_a_damaged_file_of_kept_rows_is_made_again(survey: Survey, config: Config, conn: Connection) -> None:
    survey.plan(config, conn)
    (kept,) = survey.objects.list("plans")
    survey.objects.write(kept.path, b"PAR1 but no more")
    again = survey.plan(config, conn)
    assert not again.reused
    assert again.n_unchanged == 4


@pytest.mark.parametrize("change", ["gate", "chunk size", "coadd", "catalog"])
def test_an_unfinished_run_refuses_changed_inputs(
    survey: Survey, config: Config, conn: Connection, change: str
) -> None:
    survey.plan(config, conn)
    before = chunk_ids(conn, config.run)
    changed = config
    if change == "gate":
        changed = replace(config, gate=GateConfig(zwarn=(0, 4)))
    elif change == "chunk size":
        changed = replace(config, ingest=IngestConfig(chunk_size=7))
    elif change == "coadd":
        survey.coadd(9144, b"another coadd")
    else:
        survey.write(PIXELS)
    with pytest.raises(RunError, match="unfinished and its inputs have changed"):
        survey.plan(changed, conn)
    assert chunk_ids(conn, config.run) == before
    other = survey.plan(replace(changed, run=changed.run + "-b"), conn)  # what the message advises
    assert other.n_chunks >= 4


def test_a_touched_catalog_with_the_same_rows_is_the_same_input(
    survey: Survey, config: Config, conn: Connection
) -> None:
    survey.plan(config, conn)
    os.utime(survey.root / "survey/zcatalog/v1/zall-pix-test.fits", (1, 1))
    again = survey.plan(config, conn)
    assert not again.reused
    assert again.n_unchanged == 4


def test_a_finished_run_plans_the_difference(survey: Survey, config: Config, conn: Connection) -> None:
    survey.plan(config, conn)
    runs.end_run(conn, config.run)
    survey.write(PIXELS)
    grown = survey.plan(config, conn)
    assert grown.n_coadds == 3
    assert (grown.n_new, grown.n_unchanged, grown.n_dropped) == (2, 4, 0)
    runs.end_run(conn, config.run)
    survey.coadd(9144, b"another coadd")
    changed = survey.plan(config, conn)
    assert (changed.n_new, changed.n_unchanged, changed.n_dropped) == (2, 4, 2)


def test_listed_but_absent_coadds(survey: Survey, config: Config, conn: Connection) -> None:
    survey.store.delete("healpix/main/dark/91/9145/coadd-main-dark-9145.fits")
    result = survey.plan(config, conn)
    assert result.missing == ("healpix/main/dark/9145",)
    assert "1 coadds are listed but absent" in result.lines()[-1]
    sizes = query(
        conn,
        "SELECT c.size, c.etag FROM chunks c JOIN run_chunks r USING (chunk_id) WHERE run_id = %s AND c.healpix = 9145",
        config.run,
    )
    assert sizes == [(None, None)] * 2


def test_nothing_is_registered_when_no_row_is_left(survey: Survey, config: Config, conn: Connection) -> None:
    with pytest.raises(InputError, match=r"\[0.05 ≤ Z ≤ 0.06\] removed the most, 72"):
        survey.plan(replace(config, gate=GateConfig(z_max=0.06)), conn)
    assert runs.find_run(conn, config.run) is None


def test_real_quasars_laid_out_as_desi_does(
    shared_data: Path, tmp_path: Path, config: Config, conn: Connection
) -> None:
    """The ten real quasars by tile and the two by pixel, all with their coadds in place."""
    desi = shared_data / "desi"
    links = {
        "tiles/cumulative/80693/20210204/coadd-1-80693-thru20210204.fits": "coadd-1-80693-thru20210204.fits",
        "tiles/cumulative/80693/20210204/coadd-2-80693-thru20210204.fits": "coadd-2-80693-thru20210204.fits",
        "healpix/main/dark/91/9144/coadd-main-dark-9144.fits": "coadd-main-dark-9144.fits",
    }
    for path, name in links.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(desi / name)
    store, objects = ObjectStore.open(str(tmp_path)), ObjectStore.open(str(tmp_path / "objects"))
    by_tile = replace(config, survey=SurveyConfig(catalog=str(desi / "QSO_cat_fuji_dark_tile.fits.gz")))
    result = plan(by_tile, conn, store, objects)
    assert (result.n_targets, result.n_coadds, result.missing) == (10, 2, ())
    by_pixel = Config(
        run=config.run + "-pixel",
        survey=SurveyConfig(catalog=str(desi / "QSO_cat_fuji_dark_healpix_with_main.fits.gz")),
        gate=GateConfig(surveys=("main",), programs=("dark",)),
    )
    result = plan(by_pixel, conn, store, objects)
    assert (result.n_targets, result.n_coadds, result.missing) == (2, 1, ())
    (chunk,) = load_chunks(conn, chunk_ids(conn, by_pixel.run))
    assert chunk.coadd.name == "healpix/main/dark/9144"
    assert chunk.targets["zwarn"].null_count == 2
