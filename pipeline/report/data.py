"""What the report reads: counts, metrics and scores from PostgreSQL, pixels from the shards, embeddings from Milvus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.report import choice
from pipeline.report.contents import (
    STAGES,
    Catalog,
    Contents,
    Embedding,
    Facts,
    Metric,
    Quarantined,
    Reason,
    Spectrum,
    Step,
)
from pipeline.stores import accounts, registry, runs
from pipeline.stores.postgres import Connection, fetch_table, scalar, transaction

if TYPE_CHECKING:
    from models.trained import TrainedModel
    from pipeline.session import Session

TOP = 24  # anomalies marked in the embeddings' map
SAMPLE = 20_000  # embeddings on the map


def gather(session: Session) -> Contents:
    """Read all that the page shows of the session's run.

    Raises:
        RunError: there is no such run.
        StoreError, InputError: a store does not answer, or a shard is damaged.
    """
    conn, run, shown = session.conn, runs.require_run(session.conn, session.config.run), session.config.report
    model_id = run.model_id or ""
    catalog = read_catalog(conn, run.run_id, model_id)
    model = _load(session, model_id)
    top = catalog.spectrum_id[choice.best(catalog.rank, shown.anomalies)]
    ordinary = catalog.spectrum_id[choice.ordinary(catalog, shown.normals)]
    return Contents(
        facts=facts(conn, run),
        planned=planned(conn, run.run_id),
        steps=steps(conn, run.run_id, model_id),
        metrics=metrics(conn, run.run_id, model_id),
        quarantine=quarantine(conn, run.run_id, model_id),
        catalog=catalog,
        history=list(model.history) if model else [],
        top=read_spectra(session, model_id, top, model),
        examples=read_spectra(session, model_id, ordinary, model),
        embedding=_embedding(session, model_id, catalog),
    )


def facts(conn: Connection, run: runs.Run) -> Facts:
    """Return who and what the run is."""
    model = registry.find_model(conn, run.model_id) if run.model_id else None
    said = _model_facts(model) if model else {}
    trained_on = model.config.get("n_train") if model else None
    survey = str(run.config.get("survey", {}).get("root", ""))
    now = datetime.now(UTC).replace(microsecond=0)
    created = run.created_at.astimezone(UTC)
    return Facts(run.run_id, survey, run.state, created, now, version("skysift"), run.model_id, said, trained_on)


def _model_facts(model: registry.Model) -> dict[str, str]:
    network = model.config.get("vae", {})
    said = {
        "model trained": f"{model.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC, in run {model.run_id}",
        "promoted": "yes" if model.promoted else "no",
    }
    if "latent" in network:
        said["network"] = f"{network['latent']} latent dimensions, {network.get('hidden', '?')} hidden units"
    return said


def planned(conn: Connection, run_id: str) -> int:
    """Return the number of targets in the run's manifest."""
    with transaction(conn) as cur:
        cur.execute(
            "SELECT coalesce(sum(n_targets), 0) FROM run_chunks JOIN chunks USING (chunk_id) WHERE run_id = %s",
            (run_id,),
        )
        return int(scalar(cur))


def steps(conn: Connection, run_id: str, model_id: str) -> list[Step]:
    """Return the ledger's counts of the stages that keep one."""
    found = [("ingest", accounts.counts(conn, run_id, "ingest"))]
    if model_id:
        found.append(("score", accounts.counts(conn, run_id, "score", model_id)))
    return [
        Step(stage, c.n_in, c.n_out, c.n_quarantined, c.chunks, c.seconds, c.bytes_read, c.requests)
        for stage, c in found
    ]


def metrics(conn: Connection, run_id: str, model_id: str) -> list[Metric]:
    """Return the run's quality metrics in the order of the stages and of their recording."""
    with transaction(conn) as cur:
        cur.execute(
            """SELECT stage, name, value, unit FROM quality_metrics WHERE run_id = %s AND model_id IN ('', %s)
               ORDER BY array_position(%s, stage), at, name""",
            (run_id, model_id, list(STAGES)),
        )
        return [Metric(*row) for row in cur.fetchall()]


def quarantine(conn: Connection, run_id: str, model_id: str) -> list[Quarantined]:
    """Return what was kept back, by stage and reason, the most frequent first."""
    with transaction(conn) as cur:
        cur.execute(
            """
            SELECT q.stage, q.reason, sum(CASE WHEN q.targetid IS NULL THEN l.n_quarantined ELSE 1 END),
                   count(DISTINCT q.coadd), min(coalesce(q.detail, ''))
            FROM quarantine q JOIN run_chunks r USING (chunk_id)
            JOIN ledger l ON l.chunk_id = q.chunk_id AND l.stage = q.stage AND l.model_id = q.model_id
            WHERE r.run_id = %s AND q.model_id IN ('', %s) GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2""",
            (run_id, model_id),
        )
        return [Quarantined(stage, reason, int(n), coadds, text) for stage, reason, n, coadds, text in cur.fetchall()]


def read_catalog(conn: Connection, run_id: str, model_id: str) -> Catalog:
    """Return the run's spectra with the model's scores, where it has them."""
    with transaction(conn) as cur:
        table = fetch_table(cur, _CATALOG, {"run": run_id, "model": model_id})
    numbers = {name: _floats(table, name) for name in ("ra", "dec", "z", "snr", "anomaly_score", "p_value", "chi2")}
    return Catalog(
        spectrum_id=_integers(table, "spectrum_id"),
        targetid=_integers(table, "targetid"),
        ra=numbers["ra"],
        dec=numbers["dec"],
        z=numbers["z"],
        snr=numbers["snr"],
        score=numbers["anomaly_score"],
        p_value=numbers["p_value"],
        rank=_integers(table, "rank"),
        extrapolated=_integers(table, "extrapolated") > 0,
        training=_integers(table, "training") > 0,
        chi2_reduced=numbers["chi2"],
    )


_CATALOG = """
    SELECT s.spectrum_id, s.targetid, s.ra, s.dec, s.z, s.snr, x.anomaly_score, x.p_value, coalesce(x.rank, 0) AS rank,
           coalesce(x.extrapolated, false)::int AS extrapolated,
           coalesce(x.in_training, false)::int AS training, x.chi2_reduced AS chi2
    FROM (SELECT DISTINCT t.targetid, c.coadd
          FROM run_chunks r JOIN chunks c USING (chunk_id) JOIN targets t USING (chunk_id)
          WHERE r.run_id = %(run)s) AS wanted
    JOIN spectra s USING (targetid, coadd)
    LEFT JOIN scores x ON x.spectrum_id = s.spectrum_id AND x.model_id = %(model)s
    ORDER BY s.spectrum_id"""


def _floats(table: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _integers(table: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(table[name].to_numpy(), dtype=np.int64)


def read_reasons(conn: Connection, model_id: str, spectrum_id: NDArray[np.int64]) -> dict[int, Reason]:
    """Return the strongest reason of each of the spectra that has scores."""
    with transaction(conn) as cur:
        table = fetch_table(cur, _COMPONENTS, {"model": model_id, "ids": spectrum_id.tolist()})
    return choice.reasons(table) if table.num_rows else {}


_COMPONENTS = """
    SELECT * FROM scores WHERE model_id = %(model)s AND spectrum_id = ANY(%(ids)s)"""


def read_spectra(
    session: Session, model_id: str, spectrum_id: NDArray[np.int64], model: TrainedModel | None
) -> list[Spectrum]:
    """Return spectra with pixels and reconstructions, in the order asked for."""
    if not len(spectrum_id):
        return []
    rows = read_rows(session.conn, model_id, spectrum_id)
    flux, ivar = _pixels(session, rows)
    why = read_reasons(session.conn, model_id, spectrum_id) if model_id else {}
    fits: Sequence[NDArray[np.float32] | None] = [None] * len(rows)
    if model is not None:
        from models.trained import reconstruct

        fits = list(reconstruct(model, flux, ivar, np.array([row["z"] for row in rows])))
    return [
        Spectrum(
            **{name: row[name] for name in _TOLD},
            score=row["anomaly_score"], extrapolated=bool(row["extrapolated"]), lookalikes=_lookalikes(row["why"]),
            verdict=row["verdict"] or "", explanation=row["explanation"] or "",
            reason=_drawn(why.get(row["spectrum_id"]), row), flux=flux[at], ivar=ivar[at], model=fits[at],
        )
        for at, row in enumerate(rows)
    ]  # fmt: skip


_TOLD = ("targetid", "coadd", "ra", "dec", "z", "snr", "p_value", "q_value", "artefact_probability", "rank")


def _drawn(reason: Reason | None, row: dict[str, Any]) -> Reason | None:
    """An explanation in words leaves the picture free to show the strongest window."""
    return choice.close_up(reason, row["windows"]) if row["explanation"] else reason


def _lookalikes(why: str | None) -> tuple[str, ...]:
    found = json.loads(why or "{}").get("lookalikes", [])
    return tuple(f"{one['targetid']} (z {one['z']:.3f})" for one in found)


def read_rows(conn: Connection, model_id: str, spectrum_id: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the rows of spectra and their scores, in the order asked for; unknown numbers are NaN, no rank is 0."""
    with transaction(conn) as cur:
        table = fetch_table(cur, _ROWS, {"model": model_id, "ids": spectrum_id.tolist()})
    known = {row["spectrum_id"]: row for row in table.to_pylist()}
    for row in known.values():
        row |= {name: float("nan") for name in _NUMBERS if row[name] is None}
    return [known[key] for key in spectrum_id.tolist()]


_NUMBERS = ("ra", "dec", "snr", "anomaly_score", "p_value", "q_value", "artefact_probability")
_ROWS = """
    SELECT s.spectrum_id, s.targetid, s.coadd, s.ra, s.dec, s.z, s.snr, s.shard, s.row_group, s.row,
           x.anomaly_score, x.p_value, coalesce(x.rank, 0) AS rank, coalesce(x.extrapolated, false) AS extrapolated,
           x.q_value, x.verdict, x.artefact_probability, x.explanation, x.why, x.windows
    FROM spectra s LEFT JOIN scores x ON x.spectrum_id = s.spectrum_id AND x.model_id = %(model)s
    WHERE s.spectrum_id = ANY(%(ids)s)"""


def _pixels(session: Session, rows: Sequence[dict[str, Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Flux and ivar [B, L]; a masked pixel's ivar is 0."""
    from pipeline.shards import read_spectrum

    found = [read_spectrum(session.objects, row["shard"], row["row_group"], row["row"]) for row in rows]
    flux = np.concatenate([shard.flux_BL for shard in found])
    mask = np.concatenate([shard.dense_mask() for shard in found])
    return flux, np.where(mask == 0, np.concatenate([shard.ivar_BL for shard in found]), np.float32(0))


def _load(session: Session, model_id: str) -> TrainedModel | None:
    if not model_id:
        return None
    from pipeline.modelstore import load_model

    return load_model(session.objects, model_id)


def _embedding(session: Session, model_id: str, catalog: Catalog) -> Embedding | None:
    """Embeddings of a sample of the scored spectra, the top anomalies always among them."""
    picked = choice.sample(catalog, SAMPLE, TOP)
    if not model_id or not len(picked):
        return None
    found, vectors = session.vectors.fetch(model_id, catalog.spectrum_id[picked])
    places = np.searchsorted(catalog.spectrum_id, found)
    return Embedding(vectors, catalog.z[places], np.isin(places, choice.best(catalog.rank, TOP)))
