"""How alike are models of the same settings and other seeds: among what is strange, and by the disagreement alarm."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from benchmarks._anomaly_baselines import Bench, Scores
from benchmarks._anomaly_metrics import jaccard
from benchmarks._anomaly_ours import p_values
from benchmarks._anomaly_variants import Variant
from pipeline.disagreement import compare

TOP = 0.01
INJECTED = 0.03  # share of injections in the survey that the alarm is tried on


@dataclass(frozen=True)
class Alike:
    """Two models' agreement."""

    jaccard: float  # of the top 1% of normals and injections together
    disagreement: float  # what ``skysift compare`` says of a survey of normals and a few injections


def stability(bench: Bench, scores: dict[str, Scores], variants: dict[str, Variant]) -> dict[str, Alike]:
    """Compare every two models."""
    count = len(bench.part("normals").flux)
    rng = np.random.default_rng(0)
    few = rng.permutation(len(bench.part("injected").flux))[: int(INJECTED * count)]
    both = {name: np.concatenate([one["normals"], one["injected"]]) for name, one in scores.items()}
    survey = {name: np.concatenate([one["normals"], one["injected"][few]]) for name, one in scores.items()}
    p_value = {
        name: np.concatenate([p_values(bench, one, "normals"), p_values(bench, one, "injected")[few]])
        for name, one in variants.items()
    }
    known = np.all([np.isfinite(survey[name]) & np.isfinite(p_value[name]) for name in scores], axis=0)
    out = {}
    for one, other in combinations(scores, 2):
        kept = {name: survey[name][known] for name in (one, other)}
        found = compare(kept, {name: p_value[name][known] for name in (one, other)})
        out[f"{one}, {other}"] = Alike(jaccard(both[one], both[other], TOP), found.fraction)
    return out
