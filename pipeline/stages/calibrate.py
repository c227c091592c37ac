"""Calibrate: what needs a model's whole survey at once, significance, ranks and verdicts, to PostgreSQL and Milvus."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import credibility
from pipeline.errors import RunError
from pipeline.progress import progress
from pipeline.session import Session
from pipeline.significance import Calibrated, calibrate_scores
from pipeline.splits import split_of_model
from pipeline.stages.judge import judge, spread
from pipeline.stores import catalog, registry, runs
from pipeline.stores.postgres import scalar, transaction
from pipeline.verdicts.kinds import VERDICTS

COMPONENTS = {  # raw score → its column of −ln p
    "global_score": "global_surprise",
    "local_emission": "emission_surprise",
    "local_absorption": "absorption_surprise",
    "density": "density_surprise",
    "detection": "detection_surprise",
    "blend": "blend_surprise",
    "instrument": "instrument_surprise",
    "redshift_gain": "redshift_surprise",
}
REFRESH = 65_536  # vectors whose scalar fields are refreshed between two lines of progress
_DONE = "spectra calibrated"  # the metric that says Milvus was refreshed too


@dataclass(frozen=True)
class CalibrateSummary:
    """What calibration found; ``promoted`` when this made the model the promoted one."""

    n_scored: int
    n_calibration: int
    n_extrapolated: int
    verdicts: dict[str, int]  # candidates of each
    look_elsewhere: str  # what is left once the number of spectra is counted, in one sentence
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
    runs.forget_metrics(session.conn, "compare", model_id)  # with scores.disagreement, which goes too
    columns = ("spectrum_id", "healpix", "ra", "dec", "z", "snr", "in_training", *COMPONENTS)
    table = catalog.read_scores(session.conn, model_id, columns=columns)
    if not table.num_rows:
        raise RunError(f"model {model_id} has scored nothing yet: run `skysift score` first")
    split = registry.find_model(session.conn, model_id).config["split"]
    healpix = table["healpix"].fill_null(-1).to_numpy()
    calibration = split_of_model(split, healpix, table["spectrum_id"].to_numpy()) == "calibrate"
    done = _calibrated(table, calibration)
    judged = judge(session, model_id, table, done, COMPONENTS)
    with progress("calibrate", table.num_rows, "spectra") as bar:
        catalog.write_calibration(session.conn, model_id, _rows(table, done, judged))
        scalars = _scalars(table, done, judged)
        for at in range(0, table.num_rows, REFRESH):
            part = scalars.slice(at, REFRESH)
            session.vectors.refresh_scalars(model_id, part)
            bar.advance(part.num_rows)
    promoted = registry.promote_first(session.conn, session.config.run, model_id)
    follow_promotion(session)
    _record(session, model_id, table.num_rows)
    summary = CalibrateSummary(
        table.num_rows,
        int(calibration.sum()),
        int(done.extrapolated.sum()),
        dict(Counter(judged["verdict"].drop_null().to_pylist()).most_common()),
        credibility.look_elsewhere(done.p_value, done.q_value, int(calibration.sum())),
        promoted,
        time.monotonic() - start,
    )
    metrics = _metrics(summary, table, done, calibration)
    runs.record_metrics(session.conn, session.config.run, "calibrate", metrics, model_id=model_id)
    return summary


def follow_promotion(session: Session) -> None:
    """Point Milvus's alias at the promoted model's collection."""
    model = registry.promoted_model(session.conn)
    if model is not None:
        session.vectors.set_alias(model.model_id)


def _calibrated(table: pa.Table, calibration: np.ndarray) -> Calibrated:
    """Scores of before a component was known lack it altogether, and do without."""
    names = [name for name in COMPONENTS if table[name].null_count < table.num_rows]
    columns = {name: np.asarray(table[name].to_numpy(), np.float64) for name in (*names, "z", "snr")}
    return calibrate_scores(
        {name: columns[name] for name in names},
        columns["z"],
        columns["snr"],
        calibration,
        table["spectrum_id"].to_numpy(),
    )


def _rows(table: pa.Table, done: Calibrated, judged: pa.Table) -> pa.Table:
    n = table.num_rows
    columns = {
        "spectrum_id": table["spectrum_id"],
        "anomaly_score": done.anomaly_score,
        "p_value": done.p_value,
        "q_value": done.q_value,
        "rank": pa.array(done.rank, pa.int32(), mask=done.rank == 0),
        "extrapolated": done.extrapolated,
    }
    columns |= {COMPONENTS[name]: values for name, values in done.components.items()}
    columns |= spread(judged, table["spectrum_id"].to_numpy(), judged.column_names[1:])
    missing = {name: pa.nulls(n, kind) for name, kind in catalog.CALIBRATED.items() if name not in columns}
    return pa.table(columns | missing)


def _scalars(table: pa.Table, done: Calibrated, judged: pa.Table) -> pa.Table:
    """What Milvus filters by."""
    columns = {name: table[name] for name in ("spectrum_id", "ra", "dec", "z", "snr")}
    verdict = spread(judged, table["spectrum_id"].to_numpy(), ["verdict"])
    return pa.table(columns | {"anomaly_score": done.anomaly_score, "p_value": done.p_value} | verdict)


def _up_to_date(session: Session, model_id: str) -> bool:
    with transaction(session.conn) as cur:
        cur.execute("SELECT count(*) FILTER (WHERE q_value IS NULL) FROM scores WHERE model_id = %s", (model_id,))
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


def _metrics(
    summary: CalibrateSummary, table: pa.Table, done: Calibrated, calibration: np.ndarray
) -> dict[str, float | tuple[float, str]]:
    z, snr = (np.asarray(table[name].to_numpy(), np.float64) for name in ("z", "snr"))
    training = table["in_training"].to_numpy()
    return {
        "calibration spectra": (summary.n_calibration, "spectra"),
        "anomalies among calibration spectra, estimated share": done.anomalous,
        "p-values extrapolated": (summary.n_extrapolated, "spectra"),
        **credibility.discoveries(done.p_value, done.q_value, summary.n_calibration),
        **{f"verdict {name}": (summary.verdicts.get(name, 0), "spectra") for name in VERDICTS},
        **credibility.uniformity(done.p_value, z, snr, training, calibration),
        "seconds": (summary.seconds, "s"),
    }
