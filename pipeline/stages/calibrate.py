"""Calibrate: what needs a model's whole survey at once, significance and ranks, to PostgreSQL and Milvus."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.errors import RunError
from pipeline.progress import progress
from pipeline.session import Session
from pipeline.significance import Calibrated, calibrate_scores
from pipeline.splits import split_of_model
from pipeline.stores import catalog, registry, runs
from pipeline.stores.postgres import scalar, transaction

COMPONENTS = {  # raw score → its column of −ln p
    "global_score": "global_surprise",
    "local_emission": "emission_surprise",
    "local_absorption": "absorption_surprise",
    "density": "density_surprise",
}
REFRESH = 65_536  # vectors whose scalar fields are refreshed between two lines of progress
_DONE = "spectra calibrated"  # the metric that says Milvus was refreshed too


@dataclass(frozen=True)
class CalibrateSummary:
    """What calibration found; ``promoted`` when this made the model the promoted one."""

    n_scored: int
    n_calibration: int
    n_extrapolated: int
    promoted: bool
    seconds: float


def calibrate(session: Session, model_id: str, *, force: bool = False) -> CalibrateSummary | None:
    """Calibrate all scores of a model; None when nothing has changed since the last time.

    Raises:
        RunError: nothing is scored, or too few spectra lie in calibration pixels.
    """
    start = time.monotonic()
    if not force and _up_to_date(session, model_id):
        return None
    _record(session, model_id, float("nan"))
    columns = ("spectrum_id", "healpix", "ra", "dec", "z", "snr", *COMPONENTS)
    table = catalog.read_scores(session.conn, model_id, columns=columns)
    if not table.num_rows:
        raise RunError(f"model {model_id} has scored nothing yet: run `skysift score` first")
    split = registry.find_model(session.conn, model_id).config["split"]
    healpix = table["healpix"].fill_null(-1).to_numpy()
    calibration = split_of_model(split, healpix, table["spectrum_id"].to_numpy()) == "calibrate"
    done = _calibrated(table, calibration)
    with progress("calibrate", table.num_rows, "spectra") as bar:
        catalog.write_calibration(session.conn, model_id, _rows(table, done))
        scalars = _scalars(table, done)
        for at in range(0, table.num_rows, REFRESH):
            part = scalars.slice(at, REFRESH)
            session.vectors.refresh_scalars(model_id, part)
            bar.advance(part.num_rows)
    promoted = registry.promote_first(session.conn, session.config.run, model_id)
    follow_promotion(session)
    _record(session, model_id, table.num_rows)
    summary = CalibrateSummary(
        table.num_rows, int(calibration.sum()), int(done.extrapolated.sum()), promoted, time.monotonic() - start
    )
    runs.record_metrics(session.conn, session.config.run, "calibrate", _metrics(summary, done), model_id=model_id)
    return summary


def follow_promotion(session: Session) -> None:
    """Point Milvus's alias at the promoted model's collection."""
    model = registry.promoted_model(session.conn)
    if model is not None:
        session.vectors.set_alias(model.model_id)


def _calibrated(table: pa.Table, calibration: np.ndarray) -> Calibrated:
    columns = {name: np.asarray(table[name].to_numpy(), np.float64) for name in (*COMPONENTS, "z", "snr")}
    return calibrate_scores(
        {name: columns[name] for name in COMPONENTS},
        columns["z"],
        columns["snr"],
        calibration,
        table["spectrum_id"].to_numpy(),
    )


def _rows(table: pa.Table, done: Calibrated) -> pa.Table:
    columns = {
        "spectrum_id": table["spectrum_id"],
        "anomaly_score": done.anomaly_score,
        "p_value": done.p_value,
        "rank": pa.array(done.rank, pa.int32(), mask=done.rank == 0),
        "extrapolated": done.extrapolated,
    }
    return pa.table(columns | {COMPONENTS[name]: values for name, values in done.components.items()})


def _scalars(table: pa.Table, done: Calibrated) -> pa.Table:
    """What Milvus filters by."""
    columns = {name: table[name] for name in ("spectrum_id", "ra", "dec", "z", "snr")}
    return pa.table(columns | {"anomaly_score": done.anomaly_score, "p_value": done.p_value})


def _up_to_date(session: Session, model_id: str) -> bool:
    with transaction(session.conn) as cur:
        cur.execute("SELECT count(*) FILTER (WHERE rank IS NULL) FROM scores WHERE model_id = %s", (model_id,))
        if scalar(cur):
            return False
        cur.execute(
            """SELECT max(value) = (SELECT count(*) FROM scores WHERE model_id = %(model)s) FROM quality_metrics
               WHERE stage = 'calibrate' AND model_id = %(model)s AND name = %(name)s""",
            {"model": model_id, "name": _DONE},
        )
        return bool(scalar(cur))


def _record(session: Session, model_id: str, spectra: float) -> None:
    metrics = {_DONE: (spectra, "spectra")}
    runs.record_metrics(session.conn, session.config.run, "calibrate", metrics, model_id=model_id)


def _metrics(summary: CalibrateSummary, done: Calibrated) -> dict[str, float | tuple[float, str]]:
    p_value = done.p_value[np.isfinite(done.p_value)]
    return {
        "calibration spectra": (summary.n_calibration, "spectra"),
        "p-values extrapolated": (summary.n_extrapolated, "spectra"),
        "fraction with p < 0.01": float(np.mean(p_value < 0.01)),
        "fraction with p < 0.5": float(np.mean(p_value < 0.5)),
        "seconds": (summary.seconds, "s"),
    }
