"""What an injected spectrum's scores would have been worth in the survey, and which known objects it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.catalog.known import Known
from pipeline.errors import RunError
from pipeline.injection.completeness import Objects
from pipeline.injection.departures import ARTEFACT
from pipeline.injection.hosts import CONTROL
from pipeline.significance import calibrate_scores

Floats = NDArray[np.float64]

LIMITS: Final = {"p<0.01": 0.01, "p<0.001": 0.001}  # thresholds of the p-value
FALSE_DISCOVERY: Final = 0.1
BY_DISCOVERY: Final = f"q<{FALSE_DISCOVERY:g}"
TOPS: Final = {"top 0.1%": 0.001, "top 1%": 0.01, "top 10%": 0.1}  # shares of the ranks, for known objects
BLIND: Final = "blind p<0.01"  # by what no injection taught: what an unknown class can count on
UNLEARNED: Final = frozenset({"global_score", "local_emission", "local_absorption", "density"})
THRESHOLDS: Final = (*LIMITS, BY_DISCOVERY, BLIND, *TOPS)
DRIFT: Final = 1e-3  # largest difference of ln p between a stored calibration and the same made again


@dataclass(frozen=True)
class Survey:
    """A model's calibrated scores of its survey, and which of them are held out.

    ``table`` has the columns spectrum_id, targetid, survey, program, healpix, z, snr, shard, p_value, q_value, rank,
    in_training and the raw ``components``.
    """

    table: pa.Table
    held_out: NDArray[np.bool_]
    components: tuple[str, ...]

    def column(self, name: str) -> Floats:
        """A column as float64 [N]."""
        return np.asarray(self.table[name].to_numpy(), np.float64)

    @property
    def p_limit(self) -> float:
        """The p-value up to which one more spectrum would be found at a false discovery rate of ``FALSE_DISCOVERY``.

        With k found among m, that is α (k + 1)/(m + 1) at least (Benjamini & Hochberg 1995).
        """
        p_value, q_value = self.column("p_value"), self.column("q_value")
        found = p_value[q_value < FALSE_DISCOVERY]
        return max(float(found.max(initial=0.0)), FALSE_DISCOVERY * (len(found) + 1) / (len(p_value) + 1))

    def recovered(self, p_value: Floats) -> dict[str, NDArray[np.bool_]]:
        """Return which p-values are beyond each threshold."""
        by_limit = {name: p_value < limit for name, limit in LIMITS.items()}
        return by_limit | {BY_DISCOVERY: p_value <= self.p_limit}


def p_values(survey: Survey, injected: pa.Table) -> Floats:
    """Return the p-values [N] that injected spectra would have had in the survey.

    The calibration spectra alone decide them, so these and the injected ones are calibrated together, and the
    calibration spectra must get their stored p-values back.

    Raises:
        RunError: they do not: the stored calibration is another one.
    """
    p_value = _calibrated(survey, injected, survey.components)
    n = int(survey.held_out.sum())
    with np.errstate(divide="ignore"):
        drift = np.abs(np.log(p_value[:n]) - np.log(survey.column("p_value")[survey.held_out]))
    if np.nanmax(drift, initial=0.0) > DRIFT:
        raise RunError(
            f"{int((drift > DRIFT).sum())} of {n} calibration spectra have other p-values than their scores give: run "
            "`skysift calibrate` first"
        )
    return p_value[n:]


def blind_p_values(survey: Survey, injected: pa.Table) -> Floats:
    """Return the p-values [N] that ``UNLEARNED`` components alone would have given injected spectra."""
    names = tuple(name for name in survey.components if name in UNLEARNED)
    return _calibrated(survey, injected, names)[int(survey.held_out.sum()) :]


def _calibrated(survey: Survey, injected: pa.Table, names: Sequence[str]) -> Floats:
    """P-values of the held-out spectra and then of the injected ones."""
    columns = {
        name: np.concatenate([survey.column(name)[survey.held_out], np.asarray(injected[name].to_numpy(), np.float64)])
        for name in (*names, "z", "snr")
    }
    key = np.arange(len(columns["z"]))
    calibration = key < survey.held_out.sum()
    components = {name: columns[name] for name in names}
    return np.asarray(calibrate_scores(components, columns["z"], columns["snr"], calibration, key).p_value)


def injected_objects(survey: Survey, injected: pa.Table) -> Objects:
    """Return injected spectra (class, significance, snr, z, p_value, p_blind) as objects to count."""
    label = np.array(injected["class"].to_pylist())
    kind = np.where(np.isin(label, ARTEFACT), "artefact", np.where(label == CONTROL, "control", "physical"))
    names = ("significance", "snr", "z", "p_value", "p_blind")
    numbers = {name: np.asarray(injected[name].to_numpy(), np.float64) for name in names}
    significance = np.where(label == CONTROL, np.nan, numbers["significance"])
    recovered = survey.recovered(numbers["p_value"]) | {BLIND: numbers["p_blind"] < 0.01}
    return Objects(label, kind, significance, numbers["snr"], numbers["z"], recovered)


@dataclass(frozen=True)
class Found:
    """Known objects of one label in the survey."""

    label: str
    how: str  # why these rows of the catalog
    objects: Objects
    share: Floats  # each one's rank over the number of ranked spectra
    n_known: int  # in the catalog
    n_missing: int  # of these not in the survey
    n_training: int  # spectra found that the model was trained on


def find_known(survey: Survey, known: Known) -> Found:
    """Find known objects by TARGETID, and by survey, program and healpix where both sides know them."""
    ours = survey.table.append_column("row", pa.array(np.arange(survey.table.num_rows)))
    keys = {"targetid": known.targetid, "survey": known.survey, "program": known.program, "healpix": known.healpix}
    shared = {
        name: pa.array(values).cast(ours[name].type)
        for name, values in keys.items()
        if values is not None and ours[name].null_count < ours.num_rows
    }
    unique = pa.table(shared).group_by(list(shared)).aggregate([])
    match = ours.select([*shared, "row"]).join(unique, list(shared), join_type="inner")
    missing = unique.join(ours.select(list(shared)), list(shared), join_type="left anti").num_rows
    rows = np.sort(match["row"].to_numpy())
    ranked = survey.column("rank")
    share = ranked[rows] / max(np.isfinite(ranked).sum(), 1)
    recovered = survey.recovered(survey.column("p_value")[rows])
    recovered |= {name: share <= limit for name, limit in TOPS.items()}
    label, kind = (np.full(len(rows), word) for word in (known.label, "catalog"))
    nothing = np.full(len(rows), np.nan)
    objects = Objects(label, kind, nothing, survey.column("snr")[rows], survey.column("z")[rows], recovered)
    trained = pc.sum(survey.table["in_training"].take(pa.array(rows))).as_py() or 0
    return Found(known.label, known.how, objects, share, unique.num_rows, missing, int(trained))
