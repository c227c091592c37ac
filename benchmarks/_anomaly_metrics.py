"""Figures of merit of anomaly scores: pure functions of arrays. A larger score is a stranger spectrum.

Legend: N normals, M objects of a class, S spectra of any kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Labels = NDArray[np.str_]


@dataclass(frozen=True)
class Share:
    """A share k/n with its Wilson interval (Wilson 1927) of one σ."""

    k: int
    n: int

    @property
    def value(self) -> float:
        """k/n, NaN of nothing."""
        return self.k / self.n if self.n else float("nan")

    def interval(self, sigma: float = 1.0) -> tuple[float, float]:
        """Return the ends of the Wilson interval."""
        if not self.n:
            return float("nan"), float("nan")
        n, p, s2 = self.n, self.value, sigma * sigma
        middle = (p + s2 / (2 * n)) / (1 + s2 / n)
        half = sigma / (1 + s2 / n) * np.sqrt(p * (1 - p) / n + s2 / (4 * n * n))
        return float(middle - half), float(middle + half)

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.value:.3f} ± {0.5 * (high - low):.3f}" if self.n else ""


def share(mask: Mask) -> Share:
    """Count a mask."""
    return Share(int(mask.sum()), len(mask))


def threshold(normals: Array, rate: float) -> float:
    """Return the score that a share ``rate`` of normals exceeds."""
    return float(np.quantile(normals, 1.0 - rate))


def auc(negatives: Array, positives: Array) -> float:
    """Return the area under the ROC curve: the chance that a positive outscores a negative, ties counted half."""
    if not len(negatives) or not len(positives):
        return float("nan")
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, side="left") + np.searchsorted(ordered, positives, side="right")
    return float(below.mean() / (2 * len(ordered)))


def by_band(found: Mask, values: Array, edges: tuple[float, ...]) -> list[Share]:
    """Return the share found in each band [edge, next edge)."""
    band = np.digitize(values, edges) - 1
    return [share(found[band == index]) for index in range(len(edges) - 1)]


def jaccard(first: Array, second: Array, fraction: float) -> float:
    """Return |A∩B| / |A∪B| of two scores' top ``fraction`` of the same spectra."""
    count = max(1, int(fraction * len(first)))
    tops = [set(np.argsort(-score, kind="stable")[:count].tolist()) for score in (first, second)]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])


def composition(
    scores: dict[str, Array], rates: dict[str, float], k: int, total: int, rng: np.random.Generator, draws: int = 50
) -> dict[str, float]:
    """Return the mean number of spectra of each group among the ``k`` highest of a survey of ``total``.

    Args:
        scores: group → its scores, drawn from with replacement.
        rates: group → its share of the survey; what is left are ``normal``, which ``scores`` must hold.
        k, total: sizes of the list and of the survey.
        rng, draws: for the mean.
    """
    names = list(scores)
    share_of = {name: rates.get(name, 0.0) for name in names}
    share_of["normal"] = 1.0 - sum(rates.values())
    count = np.zeros(len(names))
    for _ in range(draws):
        sizes = rng.multinomial(total, [share_of[name] for name in names])
        drawn = [rng.choice(scores[name], size) for name, size in zip(names, sizes, strict=True)]
        group = np.repeat(np.arange(len(names)), sizes)
        top = np.argpartition(-np.concatenate(drawn), k)[:k]
        count += np.bincount(group[top], minlength=len(names))
    return dict(zip(names, (count / draws).tolist(), strict=True))


def spearman(first: Array, second: Array) -> float:
    """Return the rank correlation."""
    return float(stats.spearmanr(first, second).statistic)


def ks_uniform(p_value: Array) -> float:
    """Return the Kolmogorov–Smirnov distance of p-values to uniform."""
    return float(stats.kstest(p_value, "uniform").statistic) if len(p_value) else float("nan")


def equal_cells(first: Array, second: Array, side: int = 5) -> NDArray[np.int64]:
    """Return each spectrum's cell of ``side`` × ``side`` equal-count ones: by ``first``, then by ``second`` within."""
    cell = np.empty(len(first), np.int64)
    for row, rows in enumerate(np.array_split(np.argsort(first, kind="stable"), side)):
        inner = rows[np.argsort(second[rows], kind="stable")]
        for column, some in enumerate(np.array_split(inner, side)):
            cell[some] = row * side + column
    return cell


def ks_cells(p_value: Array, cell: NDArray[np.int64]) -> Array:
    """Return the KS distance to uniform in each cell."""
    return np.array([ks_uniform(p_value[cell == one]) for one in np.unique(cell)])


@dataclass(frozen=True)
class Discoveries:
    """One draw's discoveries at one q."""

    found: int
    false: int
    true_possible: int

    @property
    def fdr(self) -> float:
        """False share of the discoveries, 0 of none."""
        return self.false / max(self.found, 1)

    @property
    def power(self) -> float:
        """Share of the anomalies discovered."""
        return (self.found - self.false) / max(self.true_possible, 1)


def discoveries(q_value: Array, is_anomaly: Mask, q: float) -> Discoveries:
    """Count what is called at ``q``."""
    called = q_value <= q
    return Discoveries(int(called.sum()), int((called & ~is_anomaly).sum()), int(is_anomaly.sum()))


def mcnemar_worse(ours: Mask, theirs: Mask) -> float:
    """Return the one-sided exact p-value that ours finds fewer of the same objects than theirs (McNemar 1947)."""
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    if not only_ours + only_theirs:
        return 1.0
    return float(stats.binomtest(only_theirs, only_ours + only_theirs, 0.5, alternative="greater").pvalue)


def holm(p_values: list[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    out, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order.tolist()):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        out[index] = largest
    return out


def confusion(truth: Labels, verdict: Labels) -> dict[str, dict[str, int]]:
    """Return truth → verdict → count."""
    table: dict[str, dict[str, int]] = {}
    for name in np.unique(truth).tolist():
        given, count = np.unique(verdict[truth == name], return_counts=True)
        table[name] = dict(zip(given.tolist(), count.tolist(), strict=True))
    return table


def overlaps(centre: Array, width_kms: Array, place: Array, sigma: Array) -> Mask:
    """Tell whether a window, centre ± half its width, meets a feature, place ± 2σ and at least ± 2 Å."""
    half = 0.5 * width_kms / 299_792.458 * centre
    return np.abs(centre - place) <= half + np.maximum(2.0 * np.nan_to_num(sigma), 2.0)
