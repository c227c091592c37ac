"""The report on real stores: shards in a folder, PostgreSQL, Milvus Lite, a real (if hardly trained) model."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from pipeline.chunks import Chunk, Coadd
from pipeline.config import ReportConfig, load
from pipeline.errors import RunError, StoreError
from pipeline.keys import spectrum_id
from pipeline.report import data
from pipeline.report.contents import Contents, Reason, Spectrum
from pipeline.report.summary import print_summary
from pipeline.session import Session, opened
from pipeline.stages.calibrate import calibrate
from pipeline.stages.report import report
from pipeline.stages.score import SCORE_COLUMNS
from pipeline.stores import catalog, ledger, registry, runs
from pipeline.stores.manifest import store_manifest
from pipeline.stores.postgres import transaction

N, N_CHUNKS = 40, 4
RUN = "a-run"
SPLIT = {"seed": 1, "unit": "spectrum"}


@dataclass(frozen=True)
class Survey:
    """Spectra of four coadds, their pixels and the chunks that hold them."""

    chunks: list[Chunk]
    flux: list[np.ndarray]
    ivar: list[np.ndarray]


def _survey(spectrum_of: Callable[..., Spectrum]) -> Survey:
    rng = np.random.default_rng(8)
    chunks, flux, ivar = [], [], []
    for number in range(N_CHUNKS):
        name, path = f"healpix/main/dark/{number}", f"healpix/main/dark/0/{number}/c.fits"
        coadd = Coadd(name, path, 9, "a", "main", "dark", number)
        z = rng.uniform(0.4, 3.0, N)
        drawn = [spectrum_of(z=float(one), snr=3.0, seed=number, rank=k) for k, one in enumerate(z)]
        targets = pa.table(
            {
                "targetid": 39_627_700_000_000_000 + 1000 * number + np.arange(N),
                "z": z, "zerr": np.full(N, 1e-4), "zwarn": np.zeros(N, np.int64),
                "ra": 150.0 + rng.uniform(0, 4, N), "dec": 2.0 + rng.uniform(0, 4, N),
            }
        )  # fmt: skip
        chunks.append(Chunk.of(coadd, targets))
        flux.append(np.nan_to_num(np.stack([one.flux for one in drawn])))
        ivar.append(np.stack([one.ivar for one in drawn]))
    strange = slice(3000, 3400)  # one spectrum that nobody would call ordinary
    flux[0][7, strange] += 4.0
    return Survey(chunks, flux, ivar)


def _write_shards(session: Session, survey: Survey) -> None:
    """Shards as ingest writes them, but for the FITS file before."""
    from pipeline.desi.coadd import CoaddRows
    from pipeline.desi.exposures import Exposures
    from pipeline.shards import build_table, write_shard

    nothing = pa.array([[]] * N, pa.list_(pa.int32()))
    for chunk, flux, ivar in zip(survey.chunks, survey.flux, survey.ivar, strict=True):
        rows = CoaddRows(
            targetid=chunk.targets["targetid"].to_numpy(), flux=flux, ivar=ivar,
            mask_offset=np.arange(N + 1, dtype=np.int32), mask_pixel=np.full(N, 4000, np.int16),
            mask_bits=np.ones(N, np.int32), arm_difference=np.zeros((N, 177), np.float32),
            quality=np.zeros(N, np.int32), snr=np.full(N, 3.0, np.float32), ra=np.full(N, np.nan),
            dec=np.full(N, np.nan), ebv=np.full(N, np.nan, np.float32),
            exposures=Exposures(nothing, nothing, nothing, nothing), missing=np.empty(0, np.int64),
            bytes_read=0, requests=0, read_seconds=0.0, join_seconds=0.0,
        )  # fmt: skip
        write_shard(session.objects, chunk.shard, build_table(rows, chunk))


def _ingested(session: Session, survey: Survey) -> None:
    runs.register_run(session.conn, RUN, session.config.as_dict(), "hash")
    store_manifest(session.conn, RUN, survey.chunks)
    _write_shards(session, survey)
    with transaction(session.conn) as cur:
        for number, chunk in enumerate(survey.chunks):
            table = chunk.targets.select(["targetid", "z", "zerr", "zwarn", "ra", "dec"])
            columns = {
                "spectrum_id": _ids(chunk), "coadd": pa.repeat(chunk.coadd.name, N),
                "healpix": pa.array([number] * N, pa.int32()), "snr": np.full(N, 3.0, np.float32),
                "chunk_id": pa.repeat(chunk.chunk_id, N), "shard": pa.repeat(chunk.shard, N),
                "row_group": np.zeros(N, np.int32), "row": np.arange(N, dtype=np.int32),
            }  # fmt: skip
            for name, values in columns.items():
                table = table.append_column(name, pa.array(values) if isinstance(values, np.ndarray) else values)
            catalog.upsert_spectra(cur, table)
        outcomes = [ledger.Outcome(c.chunk_id, "done", N, N, 0, seconds=0.5, bytes_read=10**6) for c in survey.chunks]
        ledger.finish(cur, RUN, "ingest", outcomes)


def _ids(chunk: Chunk) -> np.ndarray:
    return spectrum_id(chunk.targets["targetid"].to_numpy(), chunk.coadd.name)


def _scored(session: Session, survey: Survey) -> str:
    """Score all with a small model that stands in for a trained one."""
    import torch

    from models.config import VAEConfig
    from models.density import Flow
    from models.detector import Detector
    from models.filters import ModelError
    from models.scores import score
    from models.sky import Sky
    from models.trained import TrainedModel
    from models.vae import VAE
    from pipeline.modelstore import save_model

    torch.manual_seed(3)
    vae = VAE(VAEConfig(latent=4, hidden=16)).eval()
    density = Flow.fit(torch.randn(400, 4), torch.randn(400, 4), seed=1)
    history = [{"train_loss": 1.0, "validation_loss": 1.1, "validation_chi2": 1.3, "validation_chi2_median": 1.2}]
    parts = (ModelError.none(vae.grid.n_rest), Sky.none(), Detector.none(), torch.zeros(4))
    model = TrainedModel(vae, density, *parts, {"n_train": 2 * N}, history)
    model_id = save_model(session.objects, model)
    registry.register_model(
        session.conn,
        model_id,
        run_id=RUN,
        uri="models",
        data_hash="d",
        config={"n_train": 2 * N, "split": SPLIT},
        metrics={},
    )
    runs.enter_stage(session.conn, RUN, "score", model_id)
    session.vectors.ensure_collection(model_id, 4)
    for chunk, flux, ivar in zip(survey.chunks, survey.flux, survey.ivar, strict=True):
        done = score(model, flux, ivar, chunk.targets["z"].to_numpy())
        rows = pa.table({"spectrum_id": _ids(chunk)} | {a: getattr(done, b) for a, b in SCORE_COLUMNS.items()})
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(done.embedding.ravel()), 4)
        session.vectors.upsert(model_id, pa.table({"spectrum_id": _ids(chunk), "embedding": vectors}))
        with transaction(session.conn) as cur:
            catalog.upsert_scores(cur, model_id, rows)
            outcome = ledger.Outcome(chunk.chunk_id, "done", N, N, 0, seconds=0.1)
            ledger.finish(cur, RUN, "score", [outcome], model_id=model_id)
    return model_id


@pytest.fixture
def session(tmp_path: Path, postgres_url: str, milvus_lite_uri: str) -> Iterator[Session]:
    stores = {"workspace": tmp_path, "postgres": postgres_url, "milvus": milvus_lite_uri}
    given = {"run": RUN, "survey.root": tmp_path} | {f"stores.{name}": value for name, value in stores.items()}
    config = load(None, [f'{key}="{value}"' for key, value in given.items()])
    with opened(config) as found:
        yield found


def _summary(session: Session) -> str:
    out = io.StringIO()
    print_summary(session, Console(file=out, highlight=False))
    return out.getvalue()


def test_a_run_from_its_manifest_to_its_page(session: Session, spectrum_of: Callable[..., Spectrum]) -> None:
    survey = _survey(spectrum_of)
    _ingested(session, survey)
    early = report(session).read_text()
    assert "160 spectra planned, 160 ingested, 0 with an anomaly score" in early
    assert "no model is trained yet" in early
    assert early.count("<img") == 1 + ReportConfig().normals

    model_id = _scored(session, survey)
    calibrate(session, model_id)
    page = report(session)
    assert page == session.config.workspace / "reports" / RUN / "report.html"
    text, contents = page.read_text(), data.gather(session)
    assert text.count("<img") == 2 + 4 + 2 + data.TOP + len(contents.examples)
    assert model_id in text
    assert not list(page.parent.glob("*.part"))
    _check_gallery(contents, session, survey, model_id)
    _check_metrics(session, model_id)
    _check_summary(session)


def _check_gallery(contents: Contents, session: Session, survey: Survey, model_id: str) -> None:
    strange = contents.top[0]
    assert strange.targetid == survey.chunks[0].targets["targetid"][7].as_py()
    assert strange.rank == 1
    by_hand = _strongest(session, model_id)
    assert strange.reason is not None
    assert strange.reason.kind == by_hand.kind
    numbers = [list(vars(one).values())[1:5] for one in (strange.reason, by_hand)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-5, nan_ok=True)
    assert [one.rank for one in contents.top] == list(range(1, data.TOP + 1))
    assert np.array_equal(strange.flux, survey.flux[0][7])
    assert strange.ivar[4000] == 0.0  # masked
    assert strange.model is not None
    assert np.isfinite(strange.model).all()
    assert contents.embedding is not None
    assert contents.embedding.vectors.shape == (N * N_CHUNKS, 4)
    assert contents.embedding.top.sum() == data.TOP
    assert {one.p_value > 0.1 for one in contents.examples} == {True}
    first = data.read_rows(session.conn, model_id, contents.catalog.spectrum_id[:5])
    assert [row["spectrum_id"] for row in first] == contents.catalog.spectrum_id[:5].tolist()


def _strongest(session: Session, model_id: str) -> Reason:
    """The first spectrum's strongest component, by hand."""
    with transaction(session.conn) as cur:
        cur.execute(
            """SELECT emission_surprise, absorption_surprise, global_surprise, density_surprise,
                      local_emission, local_absorption, global_score, density, emission_wavelength, emission_width,
                      absorption_wavelength, absorption_width, chi2_reduced
               FROM scores WHERE model_id = %s AND rank = 1""",
            (model_id,),
        )
        row = cur.fetchone()
    assert row is not None
    at = int(np.argmax(row[:4]))
    place = row[8 + 2 * at : 10 + 2 * at] if at < 2 else (np.nan, np.nan)
    return Reason(("emission", "absorption", "global", "density")[at], row[4 + at], *place, row[12])


def _check_metrics(session: Session, model_id: str) -> None:
    found = {row.name: row.value for row in data.metrics(session.conn, RUN, model_id) if row.stage == "report"}
    assert found["spectra with a score"] == N * N_CHUNKS
    assert found["reduced χ² of the fit, median"] is not None


def _check_summary(session: Session) -> None:
    lines = _summary(session).splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for said in (RUN, "ingest", "score", "TARGETID", "39627700000000007"):
        assert said in text
    assert sum("39627700" in line for line in lines) == 10
    assert len(re.findall(r"\n +q ≈?[\d.e-]+, [a-z ]+ \(artefact \d+%\):", text)) == 10


def test_quarantined_spectra_are_told_by_reason(session: Session, spectrum_of: Callable[..., Spectrum]) -> None:
    survey = _survey(spectrum_of)
    _ingested(session, survey)
    chunk = survey.chunks[3]
    lost = pa.table(
        [[chunk.chunk_id], [chunk.coadd.name], [None], [None], ["truncated"], ["c.fits ends early"]],
        schema=ledger.QUARANTINE_SCHEMA,
    )
    with transaction(session.conn) as cur:
        cur.execute("DELETE FROM spectra WHERE chunk_id = %s", (chunk.chunk_id,))
        outcome = ledger.Outcome(chunk.chunk_id, "failed", N, 0, N, reason="truncated")
        ledger.finish(cur, RUN, "ingest", [outcome], quarantined=lost)
    assert "160 spectra planned, 120 ingested, 0 with an anomaly score, 40 in quarantine" in report(session).read_text()
    found = data.quarantine(session.conn, RUN, "")
    assert [(row.reason, row.spectra, row.coadds, row.example) for row in found] == [
        ("truncated", N, 1, "c.fits ends early")
    ]
    assert re.search(r"truncated +40 +1", _summary(session))


def test_a_run_that_does_not_exist_is_one_clear_line(session: Session) -> None:
    with pytest.raises(RunError, match=f"there is no run {RUN}: no run is planned yet"):
        report(session)
    runs.register_run(session.conn, "other", {}, "hash")
    with pytest.raises(RunError, match="known runs: other"):
        print_summary(session)


def test_a_planned_run_has_a_page(session: Session) -> None:
    runs.register_run(session.conn, RUN, session.config.as_dict(), "hash")
    assert "0 spectra planned" in report(session).read_text()
    assert "plan" in _summary(session)


def test_a_workspace_that_cannot_be_written_is_named(session: Session) -> None:
    runs.register_run(session.conn, RUN, session.config.as_dict(), "hash")
    (session.config.workspace / "reports").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write the report .*report\.html: "):
        report(session)


def test_pictures_in_the_page_are_whole(session: Session, spectrum_of: Callable[..., Spectrum]) -> None:
    _ingested(session, _survey(spectrum_of))
    text = report(session).read_text()
    for code in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', text):
        assert base64.b64decode(code, validate=True).decode().rstrip().endswith("</svg>")
