"""Calibration of a survey's scores against the spectra in sky pixels set aside for it.

Legend: N spectra, C calibration spectra. Every raw component is larger for a stranger spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RunError
from pipeline.significance.conditional import Conditional
from pipeline.significance.discovery import q_values, ranks
from pipeline.significance.null import Null
from pipeline.significance.surface import plane_of

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_CALIBRATION = 10  # with C of them p-values below 1/(C + 1) are extrapolated; with fewer, meaningless
MOST_FITTED = 60_000  # calibration spectra that conditional distributions are fitted to; more change nothing
SHARE_OF_COMPONENT = 0.08  # of calibration spectra that speak for a place in (z, S/N)
SHARE_OF_SCORE = 0.1


@dataclass(frozen=True)
class Calibrated:
    """Significance of N spectra; NaN (rank 0) where a spectrum has no raw score."""

    anomaly_score: Floats  # −ln p of the combination
    p_value: Floats
    q_value: Floats  # false discovery rate of the list of spectra as strange, over the survey
    extrapolated: Mask  # p is below 1/(C+1) and comes from the tail's extrapolation
    rank: NDArray[np.int64]  # 1 is the strangest
    components: dict[str, Floats]  # −ln p of each component
    anomalous: float  # estimated share of anomalies among the calibration spectra, those far enough out to tell


def calibrate_scores(
    components: dict[str, Floats], z: Floats, snr: Floats, calibration: Mask, key: NDArray[np.int64]
) -> Calibrated:
    """Calibrate the components and their combination.

    Each component is standardised by a location and scale, and then by its local quantiles, at its redshift and
    S/N; turned into −ln p by its conformal p-value against the calibration spectra, from which real anomalies are
    discounted (``null``); and the components are combined by log-sum-exp, which lets one strong reason suffice.
    The combination goes through the same steps. Its conformal p-value is marginally valid as far as calibration and
    tested spectra are exchangeable (Vovk, Gammerman & Shafer 2005) and the discount is right; given redshift and
    S/N it holds only as well as the fit does.

    Args:
        components: name → float64 [N]; NaN where a spectrum could not be scored.
        z, snr: float64 [N].
        calibration: bool [N], spectra in the sky pixels set aside for this.
        key: int64 [N], breaks ties of the rank so that it is stable.

    Raises:
        RunError: fewer than ``MIN_CALIBRATION`` calibration spectra have scores.
    """
    scored = np.all([np.isfinite(values) for values in components.values()], axis=0)
    reference = np.flatnonzero(calibration & scored)
    if len(reference) < MIN_CALIBRATION:
        raise RunError(
            f"only {len(reference)} scored spectra lie in calibration sky pixels, at least {MIN_CALIBRATION} are "
            "needed: use a larger survey, or score with the promoted model of one (--model promoted)"
        )
    reference = reference[np.argsort(key[reference], kind="stable")]  # the same whatever the order of the rows
    plane = plane_of(z, snr)
    surprise = {}
    for name, values in components.items():
        height = np.arcsinh(np.where(scored, values, 0.0))  # tails that are powers become exponential
        surprise[name] = _surprise(height, plane, reference, SHARE_OF_COMPONENT)[0]
    joined = np.logaddexp.reduce(list(surprise.values()), axis=0)
    score, null = _surprise(joined, plane, reference, SHARE_OF_SCORE)
    score = np.where(scored, score, np.nan)
    p_value = np.maximum(np.exp(-score), np.finfo(float).tiny)  # NaN stays NaN
    return Calibrated(
        anomaly_score=score,
        p_value=p_value,
        q_value=q_values(p_value),
        extrapolated=scored & null.extrapolated(score),
        rank=ranks(score, key),
        components={name: np.where(scored, values, np.nan) for name, values in surprise.items()},
        anomalous=null.anomalous,
    )


def _surprise(value: Floats, plane: Floats, reference: NDArray[np.int64], share: float) -> tuple[Floats, Null]:
    """Return −ln p of a score given (z, S/N), [N], and the null that says so."""
    fitted = reference[:: -(-len(reference) // MOST_FITTED)]
    conditional = Conditional.fit(value[fitted], plane[fitted], np.ones(len(fitted)), share)
    given = conditional.surprise(value, plane)
    null = Null.fit(given[reference])
    return null.surprise(given), null
