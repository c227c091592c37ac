"""Judge: the candidates' verdicts and explanations, from their scores, their pixels, each other and look-alikes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.candidates import COMPARED, LOOKALIKES, candidates, pool
from pipeline.lookalikes import nearest
from pipeline.session import Session
from pipeline.significance import Calibrated
from pipeline.stages.examine import OTHER, SCHEMA, examine
from pipeline.stores import catalog

_PLACES = ("spectrum_id", "shard", "row_group", "row")
_KNOWN = (
    "targetid", "z", "snr", "windows", "fiber", "night", "chi2_reduced", "blend_kind", "instrument_kind",
    "emission_wavelength", "emission_width", "absorption_wavelength", "absorption_width",
)  # fmt: skip
_SCHEMA = pa.schema(
    [
        *SCHEMA,
        *((name, catalog.CALIBRATED[name]) for name in ("verdict", "artefact_probability", "why", "explanation")),
    ]
)


def judge(session: Session, model_id: str, table: pa.Table, done: Calibrated, columns: Mapping[str, str]) -> pa.Table:
    """Return what the candidates get beside their ranks, a row each.

    Args:
        session: open stores.
        model_id: the model.
        table: Arrow table of all that it has scored, in the order of ``done``; of it spectrum_id is used.
        done: their significance.
        columns: component → its column of −ln p.

    Returns:
        Arrow table (spectrum_id, features, other_z, other_z_gain, other_z_lines, verdict, artefact_probability, why,
        explanation), by spectrum_id.
    """
    from pipeline.verdicts.classify import verdicts
    from pipeline.verdicts.why import why

    places = np.sort(candidates(done.p_value, done.rank))
    ids = table["spectrum_id"].to_numpy()
    if not len(places):
        return _SCHEMA.empty_table()
    places = places[np.argsort(ids[places])]
    rows = catalog.read_scores_of(session.conn, model_id, ids[places], [*_PLACES, *_KNOWN, *columns])
    found = examine(session, model_id, rows.select(_PLACES))
    measured = _aligned(found, ids[places])
    nothing = np.full(len(done.rank), np.nan)  # −ln p of a component that the scores lack
    facts = _facts(rows, (*_KNOWN, *columns)) | _facts(measured, OTHER)
    facts |= {column: done.components.get(name, nothing)[places] for name, column in columns.items()}
    facts |= {
        "features": _matrix(measured["features"].combine_chunks()),
        "p_value": done.p_value[places],
        "rank": done.rank[places],
    }
    judged = verdicts(facts)
    reasons, sentences = why(facts, judged)
    alike = _lookalikes(session, model_id, table, done, places)
    texts = [
        json.dumps(reason | {"lookalikes": alike.get(at, [])})
        for at, reason in zip(places.tolist(), reasons, strict=True)
    ]
    told = [judged.verdict, judged.artefact_probability, texts, sentences]
    return pa.table([pa.array(ids[places]), *measured.columns, *told], schema=_SCHEMA)


def _aligned(found: pa.Table, ids: NDArray[np.int64]) -> pa.Table:
    """What was measured of the candidates, null where nothing was."""
    place = np.searchsorted(found["spectrum_id"].to_numpy(), ids)
    known = np.isin(ids, found["spectrum_id"].to_numpy())
    return found.drop_columns("spectrum_id").combine_chunks().take(pa.array(place, mask=~known))


def _matrix(features: pa.Array) -> NDArray[np.float32]:
    """Features [K, F], NaN of candidates without any."""
    from pipeline.verdicts import features as measured

    values = np.full((len(features), len(measured.FEATURES)), np.nan, np.float32)
    known = features.is_valid().to_numpy(zero_copy_only=False)
    values[known] = features.flatten().to_numpy().reshape(-1, values.shape[1])
    return values


def _facts(rows: pa.Table, names: Sequence[str]) -> dict[str, Any]:
    """Columns as arrays [K], lists as lists of int, windows [K, 5, 3]."""
    facts: dict[str, Any] = {}
    for name in names:
        column = rows[name].combine_chunks()
        if name == "windows":
            facts[name] = _windows(column)
        elif pa.types.is_list(column.type):
            facts[name] = [one or [] for one in column.to_pylist()]
        elif pa.types.is_string(column.type):
            facts[name] = column.to_pylist()  # None where there is no name
        else:
            facts[name] = column.to_numpy(zero_copy_only=False)
    return facts


def _windows(column: pa.ListArray) -> NDArray[np.float32]:
    """Windows [K, W, 3]; none (σ = 0) where the scores are of before they were kept."""
    known = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy().reshape(known.sum(), -1) if known.any() else np.zeros((0, 3))
    windows = np.zeros((len(column), values.shape[1]), np.float32)
    windows[known] = values
    return windows.reshape(len(column), -1, 3)


def _lookalikes(
    session: Session, model_id: str, table: pa.Table, done: Calibrated, places: NDArray[np.int64]
) -> dict[int, list[dict[str, Any]]]:
    """Nearest ordinary spectra of the best ranked candidates: place → what the why-JSON says of them.

    Sought here and not by Milvus: its graph is another one after an interruption, its filter knows the last
    calibration's p-values, and embedded it takes seconds for a hundred searches among 100,000 vectors.
    """
    best = places[np.argsort(done.rank[places], kind="stable")[:COMPARED]]
    ids = table["spectrum_id"].to_numpy()
    strange, strange_BD = session.vectors.fetch(model_id, ids[best])
    ordinary = pool(done.p_value, ids)
    ordinary = ordinary[~np.isin(ordinary, places)]  # in small surveys some candidates are hardly unlikely
    others, others_ND = session.vectors.fetch(model_id, ids[ordinary])
    if not len(strange) or not len(others):
        return {}
    nearby, distance = nearest(strange_BD, others_ND, LOOKALIKES)
    told = _told(session, model_id, others[np.unique(nearby)])
    at = dict(zip(ids[best].tolist(), best.tolist(), strict=True))
    return {
        at[key]: [told[other] | {"distance": float(f"{far:.4g}")} for other, far in zip(row, away, strict=True)]
        for key, row, away in zip(strange.tolist(), others[nearby].tolist(), distance.tolist(), strict=True)
    }


def _told(session: Session, model_id: str, ids: NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    rows = catalog.read_scores_of(session.conn, model_id, ids, ["spectrum_id", "targetid", "coadd", "z"])
    return {
        row["spectrum_id"]: {
            "spectrum_id": str(row["spectrum_id"]),  # beyond 2⁵³: no number in JSON
            "targetid": str(row["targetid"]),
            "coadd": row["coadd"],
            "z": round(row["z"], 5),
        }
        for row in rows.to_pylist()
    }


def spread(judged: pa.Table, spectrum_id: NDArray[np.int64], names: Sequence[str]) -> dict[str, pa.Array]:
    """The candidates' columns over all spectra [N], null elsewhere."""
    known = judged["spectrum_id"].to_numpy()
    place = np.searchsorted(known, spectrum_id)
    at = pa.array(place, mask=~np.isin(spectrum_id, known))
    return {name: judged[name].combine_chunks().take(at) for name in names}
