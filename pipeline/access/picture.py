"""A spectrum as the report draws it: flux, error and reconstruction, the residual in σ, a close-up of the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.errors import StoreError
from pipeline.report import choice, spectra
from pipeline.report import contents as report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.access.spectra import Spectrum


def picture(source: Spectrum) -> Figure:
    """Draw a spectrum."""
    facts = source.facts
    return spectra.spectrum(
        report.Spectrum(
            targetid=source.targetid, coadd=facts["coadd"], z=source.z, rank=facts["rank"] or 0,
            score=_number(facts, "anomaly_score"), extrapolated=bool(facts["extrapolated"]), reason=_reason(facts),
            flux=source.flux_L, ivar=np.where(source.good, source.ivar_L, np.float32(0)), model=source.model_L,
            verdict=facts["verdict"] or "", explanation=facts["explanation"] or "",
            ra=_number(facts, "ra"), dec=_number(facts, "dec"), snr=_number(facts, "snr"),
            p_value=_number(facts, "p_value"), q_value=_number(facts, "q_value"),
            artefact_probability=_number(facts, "artefact_probability"),
        )
    )  # fmt: skip


def save(source: Spectrum, path: str | Path) -> Path:
    """Write a spectrum's picture as PNG, PDF or SVG, by the name's ending.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        picture(source).savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot write the picture {path}: {error}") from None
    return Path(path)


def lookalikes(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the ordinary spectra that an anomaly is most like, as its ``why`` has them."""
    return list(json.loads(facts["why"] or "{}").get("lookalikes", []))


def _reason(facts: Mapping[str, Any]) -> report.Reason | None:
    row = {name: value for name, value in facts.items() if name != "windows"}
    found = choice.reasons(pa.Table.from_pylist([row])).get(facts["spectrum_id"])
    return choice.close_up(found, facts["windows"]) if facts["explanation"] else found


def _number(facts: Mapping[str, Any], name: str) -> float:
    return float("nan") if facts[name] is None else float(facts[name])
