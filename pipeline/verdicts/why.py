"""Why a spectrum is an anomaly: structured, as JSON (schema in docs/why.md), and in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from pipeline.verdicts.classify import Verdicts
from pipeline.verdicts.kinds import MEANING
from pipeline.verdicts.naming import Window, name_windows
from pipeline.verdicts.sentences import LIKELY, Case, OtherRedshift, known, sentence

SCHEMA_VERSION: Final = 1
DRIVERS: Final = {  # column of −ln p → what drove the score
    "global_surprise": "global", "emission_surprise": "emission", "absorption_surprise": "absorption",
    "density_surprise": "density", "blend_surprise": "blend", "instrument_surprise": "instrument",
    "redshift_surprise": "redshift", "detection_surprise": "detection",
}  # fmt: skip

Table = Mapping[str, Any]


def why(table: Table, judged: Verdicts) -> tuple[list[dict[str, Any]], list[str]]:
    """Explain candidates.

    Args:
        table: columns of candidates as for ``classify.verdicts``, with −ln p of each component (``global_surprise``
            and so on) as far as they are known.
        judged: their verdicts.

    Returns:
        One JSON object and one sentence a candidate. Look-alikes are the caller's to add.
    """
    cases = [_case(_row(table, i), judged, i) for i in range(len(judged.verdict))]
    return [_json(case) for case in cases], [sentence(case) for case in cases]


def _row(table: Table, i: int) -> dict[str, Any]:
    wanted = ("z", "snr", "features", "windows", "blend", "blend_kind", "instrument", "instrument_kind",
              "redshift_gain", "other_z", "other_z_gain", "other_z_lines", "chi2_reduced", *DRIVERS)  # fmt: skip
    return {name: table[name][i] for name in wanted if name in table and table[name] is not None}


def _case(row: dict[str, Any], judged: Verdicts, i: int) -> Case:
    windows = np.asarray(row["windows"], np.float64).reshape(-1, 3)
    surprises = {DRIVERS[name]: _number(row.get(name)) for name in DRIVERS}
    known = {name: value for name, value in surprises.items() if np.isfinite(value)}
    driver = max(known, key=lambda name: known[name]) if known else ""
    cluster = judged.cluster
    member = bool(cluster.member[i])
    return Case(
        verdict=str(judged.verdict[i]),
        probability=float(judged.probability[i]),
        artefact_probability=float(judged.artefact_probability[i]),
        z=float(row["z"]),
        snr=_number(row.get("snr")),
        windows=name_windows(windows, float(row["z"])),
        driver=driver,
        surprises=known,
        chi2_reduced=_number(row.get("chi2_reduced")),
        features=None if row.get("features") is None else np.asarray(row["features"], np.float32),
        blend=(str(row.get("blend_kind") or ""), _number(row.get("blend"))),
        instrument=(str(row.get("instrument_kind") or ""), _number(row.get("instrument"))),
        redshift=_number(row.get("redshift_gain")),
        other=OtherRedshift(
            _number(row.get("other_z")), _number(row.get("other_z_gain")), str(row.get("other_z_lines") or "")
        ),
        cluster={
            "grouping": str(cluster.grouping[i]),
            "size": int(cluster.size[i]),
            "expected": round(float(cluster.expected[i]), 2),
            "observed": round(float(cluster.wavelength[i]), 1),
            "kind": "emission" if cluster.sign[i] > 0 else "absorption",
            "p_value": float(cluster.p_value[i]),
        }
        if member
        else None,
    )  # fmt: skip


def _json(case: Case) -> dict[str, Any]:
    kind, odds = case.blend
    name, strength = case.instrument
    return {
        "version": SCHEMA_VERSION,
        "verdict": case.verdict,
        "meaning": MEANING[case.verdict],
        "probability": round(case.probability, 3),
        "artefact_probability": round(case.artefact_probability, 3),
        "driver": case.driver or None,
        "surprises": {name: round(value, 2) for name, value in case.surprises.items()},
        "windows": [window.as_json() for window in case.windows],
        "blend": {"kind": kind, "log_odds": round(odds, 2)} if odds > LIKELY else None,
        "redshift": case.other.as_json() | {"log_odds": known(case.redshift)}
        if case.redshift > LIKELY or case.verdict == "wrong_redshift"
        else None,
        "instrument": {"kind": name, "log_odds": round(strength, 2)} if strength > LIKELY else None,
        "cluster": case.cluster,
    }


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


__all__ = ["DRIVERS", "SCHEMA_VERSION", "Window", "why"]
