"""Verdicts on candidates: what each spectrum looks like by itself, then what the survey says of its neighbours.

Legend: N candidates, F features, G columns of the model's, K kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.verdicts import clusters
from pipeline.verdicts.features import FEATURES
from pipeline.verdicts.kinds import ARTEFACTS, FAULTS, FIBER_GROUP, KINDS, SOURCES
from pipeline.verdicts.trees import Trees

Float = NDArray[np.float32]
Table = Mapping[str, Any]

WEIGHTS: Final = Path(__file__).parent / "trees.safetensors"  # made by `python -m benchmarks.verdicts`
SURE: Final = 0.6  # a star or a wrong redshift this probable is not overruled by its neighbours
N_WINDOWS = 3
ODDS: Final = ("detection", "blend", "instrument", "redshift_gain")  # of the model's detector, where it has one
SCORES: Final = ("global_score", "local_emission", "local_absorption")  # σ
_WINDOW_NAMES = tuple(f"window_{i}_{what}" for i in range(N_WINDOWS) for what in ("sigma", "wavelength", "width"))
COLUMNS: Final = (
    *ODDS, *(f"blend_{name}" for name in SOURCES), *(f"instrument_{name}" for name in FAULTS),
    *SCORES, *_WINDOW_NAMES, "z", "snr",
)  # fmt: skip
DETECTOR: Final = slice(len(FEATURES), len(FEATURES) + len(ODDS) + len(SOURCES) + len(FAULTS))  # its inputs
INPUTS: Final = (*FEATURES, *COLUMNS)


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on N candidates."""

    verdict: NDArray[np.str_]  # [N], one of ``pipeline.verdicts.kinds.VERDICTS``
    artefact_probability: Float  # [N]
    probability: Float  # [N] of the verdict
    kinds: Float  # [N, K] of each of KINDS, of the spectrum by itself
    cluster: clusters.Clusters


def verdicts(table: Table) -> Verdicts:
    """Judge all candidates of a survey together.

    Args:
        table: columns of candidates, N values each: ``features`` [N, F] (a row None or NaN where unknown),
            ``windows`` [N, 15] or [N, 5, 3], ``z``, ``snr``, ``fiber`` and ``night`` (a list a candidate), and as far
            as they are known ``blend``, ``blend_kind``, ``instrument``, ``instrument_kind``, ``redshift_gain``,
            ``detection``, ``global_score``, ``local_emission`` and ``local_absorption`` as scored.
    """
    single = alone(table)
    cluster = clusters.find(table["windows"], table["fiber"], table["night"])
    return combine(single, cluster)


def alone(table: Table) -> Float:
    """Return the probability of each kind, judging each spectrum by itself, [N, K]."""
    return _trees().probabilities(inputs(table))


def combine(single_NK: Float, cluster: clusters.Clusters) -> Verdicts:
    """Let clusters overrule: of ``size`` look-alikes ``expected`` are there by chance, the others for one cause."""
    best = single_NK.argmax(1)
    verdict = np.array(KINDS)[best].astype("U16")
    probability = single_NK.max(1)
    is_artefact = np.isin(KINDS, ARTEFACTS)
    artefact = single_NK[:, is_artefact].sum(1)
    chance = np.where(cluster.member, np.minimum(cluster.expected / np.maximum(cluster.size, 1), 1.0), 1.0)
    group = cluster.member & (cluster.grouping != "survey")
    sure = np.isin(verdict, ("star_or_blend", "wrong_redshift")) & (probability > SURE)
    taken = group & ~is_artefact[best] & ~sure
    odds = artefact / np.maximum(1 - artefact, 1e-6) / np.maximum(chance, 1e-6)
    raised = odds / (1 + odds)
    artefact = np.where(taken, 1 - (1 - artefact) * chance, np.where(cluster.member & ~sure, raised, artefact))
    verdict[taken] = FIBER_GROUP
    probability = np.where(taken, 1 - chance, probability)
    return Verdicts(verdict, artefact.astype(np.float32), probability.astype(np.float32), single_NK, cluster)


def inputs(table: Table) -> Float:
    """Return what the trees ask of candidates, [N, F + G]; NaN where a table does not say."""
    features_NF = np.full((len(table["z"]), len(FEATURES)), np.nan, np.float32)
    for row, values in enumerate(table["features"]):
        if values is None:
            continue
        if len(values) != len(FEATURES):
            raise ValueError(f"expected {len(FEATURES)} features a candidate, found {len(values)}: calibrate again")
        features_NF[row] = values
    return np.concatenate([features_NF, _columns(table)], 1)


def _columns(table: Table) -> Float:
    n = len(table["z"])
    unknown = np.full(n, np.nan)
    odds, scores = ([np.arcsinh(_numbers(table.get(name, unknown)) / 3) for name in names] for names in (ODDS, SCORES))
    kinds = [_is(table.get("blend_kind"), name, n) for name in SOURCES]
    kinds += [_is(table.get("instrument_kind"), name, n) for name in FAULTS]
    detected = np.isfinite(kinds).any(0)  # a model without a detector has odds that mean nothing
    odds = [np.where(detected, values, np.nan) for values in odds]
    z = _numbers(table["z"])
    windows = np.nan_to_num(
        np.asarray(table["windows"], np.float64).reshape(n, clusters.n_windows(table["windows"], n), 3)
    )
    windows = np.pad(windows, ((0, 0), (0, N_WINDOWS), (0, 0)))[:, :N_WINDOWS]
    seen = windows[:, :, 0] != 0
    parts = np.stack([np.arcsinh(windows[:, :, 0] / 3), np.where(seen, windows[:, :, 1], np.nan),
                      np.log10(np.where(seen, windows[:, :, 2], np.nan))], 2)  # fmt: skip
    columns = [*odds, *kinds, *scores, *parts.reshape(n, 3 * N_WINDOWS).T, z, np.arcsinh(_numbers(table["snr"]))]
    return np.stack(columns, 1).astype(np.float32)


def _numbers(values: Any) -> NDArray[np.float64]:
    return np.asarray(values, np.float64)


def _is(names: Any, name: str, n: int) -> NDArray[np.float64]:
    """1 where a kind is the named one, 0 where it is another, NaN where there is none."""
    if names is None:
        return np.full(n, np.nan)
    return np.array([np.nan if one is None else float(one == name) for one in names])


@cache
def _trees() -> Trees:
    trees, notes = Trees.load(WEIGHTS)
    if tuple(notes["inputs"]) != INPUTS or tuple(notes["kinds"]) != KINDS:
        raise ValueError(f"{WEIGHTS.name} was made for other features: run `python -m benchmarks.verdicts` again")
    return trees


def forget() -> None:
    """Read the trees anew when they are asked next."""
    _trees.cache_clear()
