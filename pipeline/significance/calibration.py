"""Calibration of a survey's scores against the spectra in sky pixels set aside for it.

Legend: N spectra, C calibration spectra. Every raw component is larger for a stranger spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

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
DETECTION = "detection"
LOG_ODDS = frozenset({DETECTION, "blend", "instrument", "redshift_gain"})  # components on a logarithmic scale already
WEIGHTS = {  # of the evidence beside a detector; components without any are calibrated and not joined
    DETECTION: 0.9,
    "global_score": 0.025,
    "local_emission": 0.025,
    "local_absorption": 0.025,
    "density": 0.025,
}
DOUBTFUL = 0.3  # probability of being an anomaly from which a calibration spectrum shapes no distribution
MOST_ANOMALOUS = 0.3  # share of the survey that anomalies can be
DOUBT_ROUNDS = 200
MOST_STRATA, FEWEST_ALIKE = 40, 200  # of S/N, in which log odds are brought to one scale; spectra in each


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
    discounted; and the components are combined by a weighted log-sum-exp (``WEIGHTS``), which lets one strong reason
    suffice. The combination goes through the same steps. Its conformal p-value is marginally valid as far as
    calibration and tested spectra are exchangeable (Vovk, Gammerman & Shafer 2005) and the discount is right; given
    redshift and S/N it holds only as well as the fit does.

    The discount: where a detector gives log odds (``DETECTION``), every calibration spectrum counts by its
    probability of being ordinary (``_Reference.of``), and doubtful ones shape no conditional distribution; else by
    ``null``'s mixture.

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
    against = _Reference.of(plane_of(z, snr), reference, components.get(DETECTION))
    surprise = {}
    for name, values in components.items():
        value = np.where(scored, values, 0.0)
        height = value if name in LOG_ODDS else np.arcsinh(value)  # tails that are powers become exponential
        surprise[name] = against.surprise(height, SHARE_OF_COMPONENT)[0]
    score, null = against.surprise(_joined(surprise), SHARE_OF_SCORE)
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


def _joined(surprise: dict[str, Floats]) -> Floats:
    """Log-sum-exp of −ln p + ln weight; without a detector all components count alike."""
    alike = dict.fromkeys(surprise, 1.0)
    weights = {name: WEIGHTS[name] for name in surprise if name in WEIGHTS} if DETECTION in surprise else alike
    return np.asarray(np.logaddexp.reduce([surprise[name] + np.log(share) for name, share in weights.items()], axis=0))


def doubts(log_odds_C: Floats) -> Floats:
    """Return the probability that each calibration spectrum is an anomaly, [C].

    The share of anomalies is found from the log odds themselves, by expectation and maximisation (Saerens, Latinne &
    Decaestecker 2002, Neural Comput. 14, 21), as the detector learned from a mixture of its own.
    """
    share = 0.02
    doubt_C = np.zeros(len(log_odds_C))
    for _ in range(DOUBT_ROUNDS):
        doubt_C = expit(log_odds_C + np.log(share / (1.0 - share)))
        share = float(np.clip(doubt_C.mean(), 1e-6, MOST_ANOMALOUS))
    return doubt_C


def at_usual_snr(log_odds_C: Floats, log_snr_C: Floats) -> Floats:
    """Return log odds as they would be at the survey's usual S/N, [C]: median and width are those of all strata.

    Models' errors show in bright spectra, so that ordinary ones among them have larger log odds, and more unlike each
    other (taken as they are, they doubt a tenth of the ordinary spectra above S/N 20). Redshift plays no part: where
    most spectra are artefacts, as sky fibers at z = 3.8, these are not to become the usual.
    """
    count = int(np.clip(len(log_odds_C) // FEWEST_ALIKE, 1, MOST_STRATA))
    strata = np.array_split(np.argsort(log_snr_C, kind="stable"), count)
    where = np.array([np.median(log_snr_C[rows]) for rows in strata])
    middle = np.array([np.median(log_odds_C[rows]) for rows in strata])
    width = np.array([_upper_width(log_odds_C[rows], at) for rows, at in zip(strata, middle, strict=True)])
    middle_C, width_C = (np.interp(log_snr_C, where, values) for values in (middle, width))
    usual = np.minimum(middle_C, np.median(middle))  # never made larger than they are
    return np.asarray((log_odds_C - middle_C) * np.minimum(1.0, np.median(width) / width_C) + usual)


def _upper_width(values: Floats, middle: float) -> float:
    above = values[values > middle] - middle
    return float(np.median(above)) if len(above) else 1.0


@dataclass(frozen=True)
class _Reference:
    """Calibration spectra: where all spectra lie in the plane, which these are, and how doubtful each is."""

    plane: Floats
    rows: NDArray[np.int64]
    doubt: Floats | None

    @classmethod
    def of(cls, plane: Floats, rows: NDArray[np.int64], detection: Floats | None) -> _Reference:
        """Doubt calibration spectra by a detector's log odds, if there is one."""
        if detection is None:
            return cls(plane, rows, None)
        return cls(plane, rows, doubts(at_usual_snr(detection[rows], plane[rows, 1])))

    def surprise(self, value: Floats, share: float) -> tuple[Floats, Null]:
        """Return −ln p of a score given (z, S/N), [N], and the null that says so."""
        given = self.conditional(value, share)
        at_reference = given[self.rows]
        null = Null.fit(at_reference) if self.doubt is None else Null.weighed(at_reference, 1.0 - self.doubt)
        return null.surprise(given), null

    def conditional(self, value: Floats, share: float) -> Floats:
        """Return a score on the scale of −ln p given (z, S/N), [N], before any discount."""
        shaping = self.rows if self.doubt is None else self.rows[self.doubt < DOUBTFUL]
        fitted = shaping[:: max(1, -(-len(shaping) // MOST_FITTED))]
        return Conditional.fit(value[fitted], self.plane[fitted], share).surprise(value, self.plane)
