"""Do several models find the same spectra strange? Where one is alarmed and another is not, neither should be believed.

Legend: M models, N spectra that all of them calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RunError

Floats = NDArray[np.float64]

TOP = 0.01  # the fraction of spectra that a model calls strange
MIN_SPECTRA = 100  # fewer have no top 1 %
_MEDIAN = 0.5
_UNUSUAL = 5.0  # σ of what two models usually differ by, at the same level of surprise
_LEAST = np.log(10.0)  # nat: p-values within a factor of ten are no disagreement
_CELLS = 20  # of surprise, in each of which the usual difference is measured
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Pair:
    """How alike two models' scores are."""

    first: str
    second: str
    spearman: float  # of the anomaly scores
    jaccard: float  # of the two top 1 %: 1 means the same spectra, 0 no common one


@dataclass(frozen=True)
class Disagreement:
    """What M models make of the same N spectra."""

    pairs: tuple[Pair, ...]
    strong: NDArray[np.bool_]  # [N] strange to one model and not to another
    difference: dict[str, Floats]  # model → [N] −ln p here less another's, the largest one; 0 where not strong
    n_top: int  # spectra in any model's top 1 %

    @property
    def fraction(self) -> float:
        """Strong disagreements among all that any model calls strange."""
        return float(self.strong.sum()) / max(self.n_top, 1)


def compare(score: dict[str, Floats], p_value: dict[str, Floats]) -> Disagreement:
    """Compare models, each with all others.

    Two models disagree strongly on a spectrum that is in the top 1 % of at least one of them when the other ranks
    it below its median, or when the p-values differ by more than a factor of ten and by more than five times what
    they usually do at that level of surprise (the median absolute deviation among spectra with like mean −ln p).

    Args:
        score: model → anomaly scores, float64 [N], finite.
        p_value: model → p-values of the same spectra, float64 [N].

    Raises:
        RunError: fewer than two models, or too few spectra that all of them calibrated.
    """
    models = list(score)
    n = len(score[models[0]]) if models else 0
    if len(models) < 2 or n < MIN_SPECTRA:
        raise RunError(
            f"comparing wants at least 2 models and {MIN_SPECTRA} spectra that all of them have calibrated, found "
            f"{len(models)} and {n:,}; run `skysift score` and `skysift calibrate` with each --model"
        )
    place = {name: _place(score[name]) for name in models}
    top = {name: place[name] < TOP for name in models}
    surprise = {name: -np.log(p_value[name]) for name in models}
    strong = np.zeros(n, bool)
    largest = {name: np.zeros(n) for name in models}
    pairs = []
    for one, other in combinations(models, 2):
        strange = top[one] | top[other]
        opposed = (top[one] & (place[other] > _MEDIAN)) | (top[other] & (place[one] > _MEDIAN))
        difference = surprise[one] - surprise[other]
        found = strange & (opposed | _unusual(difference, 0.5 * (surprise[one] + surprise[other])))
        strong |= found
        for name, signed in ((one, difference), (other, -difference)):
            larger = found & (np.abs(signed) > np.abs(largest[name]))
            largest[name] = np.where(larger, signed, largest[name])
        both = int((top[one] & top[other]).sum())
        pairs.append(Pair(one, other, _correlation(place[one], place[other]), both / max(int(strange.sum()), 1)))
    return Disagreement(tuple(pairs), strong, largest, int(np.any(list(top.values()), axis=0).sum()))


def _place(score: Floats) -> Floats:
    """Place among all, 0 the strangest to 1."""
    place = np.empty(len(score))
    place[np.argsort(-score, kind="stable")] = np.arange(len(score))
    return place / len(score)


def _correlation(first: Floats, second: Floats) -> float:
    """Spearman's, of places without ties."""
    return float(np.corrcoef(first, second)[0, 1])


def _unusual(difference: Floats, level: Floats) -> NDArray[np.bool_]:
    order = np.argsort(level, kind="stable")
    sigma = np.empty(len(level))
    for cell in np.array_split(order, min(_CELLS, len(level) // 50 or 1)):
        sigma[cell] = _MAD_TO_SIGMA * np.median(np.abs(difference[cell] - np.median(difference[cell])))
    return np.asarray(np.abs(difference) > np.maximum(_LEAST, _UNUSUAL * sigma))
