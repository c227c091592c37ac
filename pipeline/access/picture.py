"""A spectrum as the report draws it: flux, error and reconstruction, the residual in σ, a close-up of the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from pipeline.errors import ConfigError, StoreError
from pipeline.report import choice, spectra
from pipeline.report import contents as report
from pipeline.report.style import INK, VERMILLION, styled, tidy

if TYPE_CHECKING:
    from pipeline.access.spectra import Spectrum

_ENDINGS = (".png", ".pdf", ".svg")


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
        ConfigError: the name has another ending.
        StoreError: the file cannot be written.
    """
    return _saved(picture(source), path)


@styled
def gallery(sources: Sequence[Spectrum], said: Sequence[str]) -> Figure:
    """Draw spectra below each other at rest wavelengths, each with its reconstruction and a line on it."""
    figure = Figure(figsize=(10.4, 0.5 + 1.35 * len(sources)), layout="constrained")
    axes = figure.subplots(len(sources), 1, sharex=True, squeeze=False)[:, 0]
    for ax, source, line in zip(axes, sources, said, strict=True):
        rest = 1.0 + source.z
        bins = spectra.binned(source.flux_L, np.where(source.good, source.ivar_L, 0), source.model_L)
        ax.plot(bins.wavelength / rest, bins.mean, color=INK, lw=0.7, label="flux, means of 6.4 Å")
        if source.model_L is not None:
            ax.plot(source.rest_wavelength[::4], source.model_L[::4], color=VERMILLION, lw=1.0,
                    label="reconstruction")  # fmt: skip
        known = bins.mean[np.isfinite(bins.mean)]
        if len(known):
            low, high = np.percentile(known, [0.5, 99.5])
            ax.set_ylim(min(0.0, low) - 0.05 * (high - low), high + 0.15 * (high - low))
        ax.set_title(line, loc="left", fontsize=8.6)
        tidy(ax)
    tidy(axes[-1], "rest wavelength / Å")
    axes[0].legend(loc="upper left", ncols=2, fontsize=7.2)
    figure.supylabel("flux / $10^{-17}$ erg s$^{-1}$ cm$^{-2}$ Å$^{-1}$", fontsize=8.0)
    return figure


def save_gallery(sources: Sequence[Spectrum], said: Sequence[str], path: str | Path) -> Path:
    """Write such a picture as PNG, PDF or SVG, by the name's ending.

    Raises:
        ConfigError: the name has another ending.
        StoreError: the file cannot be written.
    """
    return _saved(gallery(sources, said), path)


def check_name(path: str | Path) -> None:
    """See that a picture's name says its format.

    Raises:
        ConfigError: it does not.
    """
    if Path(path).suffix.lower() not in _ENDINGS:
        raise ConfigError(f"{path}: a picture's name should end in {', '.join(_ENDINGS)}")


def _saved(figure: Figure, path: str | Path) -> Path:
    check_name(path)
    try:
        figure.savefig(path, dpi=150, facecolor="white")
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
