"""Reasons in words: what about a spectrum is strange, where, and how much."""

from __future__ import annotations

import math

from pipeline.report.contents import Reason
from pipeline.report.lines import identify, mark


def words(reason: Reason, z: float) -> str:
    """Say a reason in one phrase, such as "absorption at 6543 Å (rest 1549 Å, C IV), 3,400 km/s wide, 9.1σ"."""
    if reason.local:
        return (
            f"{reason.kind} at {reason.wavelength:.0f} Å ({_where(reason, z)}), "
            f"{_round(reason.width):,.0f} km/s wide, {reason.strength:.1f}σ"
        )
    if reason.kind == "global":
        chi2 = "" if math.isnan(reason.chi2_reduced) else f" (χ² {reason.chi2_reduced:.2f} a bin)"
        return f"poor fit all along{chi2}, {reason.strength:.1f}σ"
    if reason.kind == "blend":
        return f"a second light source{_like(reason)}, log odds {reason.strength:.1f}"
    if reason.kind == "instrument":
        return f"a fault of the instrument{_like(reason)}, log odds {reason.strength:.1f}"
    if reason.kind == "redshift":
        return f"another redshift fits better, log odds {reason.strength:.1f}"
    if reason.kind == "detection":
        return f"like departures put into spectra for training, log odds {reason.strength:.1f}"
    return f"a rare combination of features (−ln density {reason.strength:.1f})"


def _like(reason: Reason) -> str:
    return f" ({reason.template.replace('_', ' ')})" if reason.template else ""


def judged(verdict: str, artefact_probability: float) -> str:
    """Say a verdict in a few words, such as "sky residual (artefact 98%)"; nothing without one."""
    return f"{verdict.replace('_', ' ')} (artefact {artefact_probability:.0%})" if verdict else ""


def _where(reason: Reason, z: float) -> str:
    rest = reason.wavelength / (1.0 + z)
    name, trouble = identify(rest, reason.width, reason.kind), mark(reason.wavelength)
    return f"rest {rest:.0f} Å" + (f", {name}" if name else "") + (f"; {trouble}" if trouble else "")


def _round(width: float) -> float:
    """Two figures: filters' widths are no measurement of the feature's."""
    return float(f"{width:.2g}")


def chance(p_value: float, extrapolated: bool = False) -> str:
    """Write a p-value briefly: 0.031, 4.0e-5, with ≈ before one that was extrapolated."""
    if math.isnan(p_value):
        return "–"
    text = f"{p_value:.2g}" if p_value >= 1e-3 else f"{p_value:.1e}".replace("e-0", "e-")
    return ("≈" if extrapolated else "") + text
