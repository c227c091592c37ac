"""Every figure of merit of one method's scores, as rows of one long table."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import _anomaly_metrics as metrics
from benchmarks._anomaly_baselines import Bench, Scores
from benchmarks._anomaly_sky import FRACTIONS, TRAPS
from pipeline.injection.departures import ARTEFACT, CLASSES, PHYSICAL

Array = NDArray[np.float64]

RATES = (0.01, 0.05)  # false positives
KINDS = {"physical": PHYSICAL, "artefact": ARTEFACT}
BANDS = {
    "significance": (5.0, 8.0, 15.0, 25.0, 50.001),
    "snr": (-np.inf, 1.0, 2.0, 5.0, np.inf),
    "z": (0.0, 1.0, 2.0, 3.0, np.inf),
}
BAND_NAMES = {
    "significance": ("5–8σ", "8–15σ", "15–25σ", "25–50σ"),
    "snr": ("S/N<1", "S/N 1–2", "S/N 2–5", "S/N>5"),
    "z": ("z<1", "z 1–2", "z 2–3", "z>3"),
}
NEAR_TEN = (8.5, 11.8)  # σ
TOPS = (100, 1000)
TRAP_RATE = 0.01  # share of a survey that each kind of trap is taken to be


@dataclass(frozen=True)
class Row:
    """One figure; ``low`` and ``high`` bound it by one binomial σ where it is a share of ``n``."""

    method: str
    group: str  # class, kind, trap, or what the figure is of
    metric: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    n: int = 0

    def cells(self) -> dict[str, object]:
        """Return the row for a CSV file."""
        return {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in asdict(self).items()}


@dataclass
class Judged:
    """A method's rows, and what was found at 1% false positives, for paired tests."""

    method: str
    rows: list[Row]
    found: dict[str, NDArray[np.bool_]]  # class → bool [M]
    scored: dict[str, NDArray[np.bool_]]  # class → bool [M], which had scores

    def value(self, group: str, metric: str) -> float:
        """Return one figure, NaN where there is none."""
        return next((row.value for row in self.rows if (row.group, row.metric) == (group, metric)), float("nan"))

    def row(self, group: str, metric: str) -> Row:
        """Return one row."""
        return next(row for row in self.rows if (row.group, row.metric) == (group, metric))


def judge(bench: Bench, method: str, scores: Scores) -> Judged:
    """Return every figure of a method's scores; spectra without one (NaN) are left out."""
    normals, injected = bench.part("normals"), bench.part("injected")
    ordinary = np.isfinite(scores["normals"])
    normal = scores["normals"][ordinary]
    label = injected.column("class").astype(str)
    bars = [metrics.threshold(normal, rate) for rate in RATES]
    judged = Judged(method, [], {}, {})
    for name in CLASSES:
        mine = label == name
        score = scores["injected"][mine]
        known = np.isfinite(score)
        judged.found[name], judged.scored[name] = score > bars[0], known
        judged.rows.append(Row(method, name, "auc", metrics.auc(normal, score[known]), n=int(known.sum())))
        for rate, bar in zip(RATES, bars, strict=True):
            judged.rows.append(_share(method, name, f"recall {rate:.0%}", metrics.share(score[known] > bar)))
        strength, bright = (injected.column(axis)[mine][known] for axis in ("significance", "snr"))
        found = score[known] > bars[0]
        near = (strength > NEAR_TEN[0]) & (strength < NEAR_TEN[1])
        judged.rows += [_share(method, name, "at 10σ", metrics.share(found[near])),
                        _share(method, name, "S/N≥2", metrics.share(found[bright >= 2]))]  # fmt: skip
        for axis, edges in BANDS.items():
            values = injected.column(axis)[mine][known]
            shares = metrics.by_band(found, values, edges)
            judged.rows += [_share(method, name, band, one)
                            for band, one in zip(BAND_NAMES[axis], shares, strict=True)]  # fmt: skip
    judged.rows += _means(judged)
    judged.rows += _traps(bench, method, scores, bars[0])
    for axis in ("snr", "z"):
        value = metrics.spearman(normal, normals.column(axis)[ordinary].astype(np.float64))
        judged.rows.append(Row(method, "normals", f"spearman {axis}", value, n=len(normal)))
    judged.rows += _tops(bench, method, scores)
    return judged


def _share(method: str, group: str, metric: str, share: metrics.Share) -> Row:
    return Row(method, group, metric, share.value, *share.interval(), share.n)


def _means(judged: Judged) -> list[Row]:
    """Means over the classes of a kind; errors from those of the classes."""
    out = []
    names = ["auc", *(f"recall {rate:.0%}" for rate in RATES), *(band for axis in BAND_NAMES.values() for band in axis)]
    for kind, classes in KINDS.items():
        for metric in names:
            rows = [row for row in judged.rows if row.metric == metric and row.group in classes]
            rows = [row for row in rows if np.isfinite(row.value)]
            if not rows:
                continue
            error = float(np.sqrt(np.nansum([(0.5 * (row.high - row.low)) ** 2 for row in rows])) / len(rows))
            value = float(np.mean([row.value for row in rows]))
            bounds = (value - error, value + error) if metric != "auc" else ()
            out.append(Row(judged.method, kind, metric, value, *bounds, n=sum(row.n for row in rows)))
    return out


def _traps(bench: Bench, method: str, scores: Scores, bar: float) -> list[Row]:
    label = bench.part("traps").column("class").astype(str)
    known = np.isfinite(scores["traps"])
    return [_share(method, name, "trap share 1%", metrics.share(scores["traps"][known & (label == name)] > bar))
            for name in TRAPS]  # fmt: skip


def _tops(bench: Bench, method: str, scores: Scores) -> list[Row]:
    """What the top of a survey as large as the normals holds, every group at its natural rate."""
    label = {name: bench.part(name).column("class").astype(str) for name in ("injected", "traps")}
    groups, rates = {"normal": scores["normals"]}, {}
    for kind, fraction in zip(KINDS, FRACTIONS, strict=True):
        groups[kind] = scores["injected"][np.isin(label["injected"], KINDS[kind])]
        rates[kind] = fraction
    for trap in TRAPS:
        groups[trap] = scores["traps"][label["traps"] == trap]
        rates[trap] = TRAP_RATE
    groups = {name: values[np.isfinite(values)] for name, values in groups.items()}
    rng = np.random.default_rng(0)
    total = len(scores["normals"])
    return [
        Row(method, name, f"top {top}", count, n=top)
        for top in TOPS if top < total
        for name, count in metrics.composition(groups, rates, top, total, rng).items()
    ]  # fmt: skip


def reconstruction(bench: Bench, chi2: dict[str, Array]) -> dict[str, dict[str, float]]:
    """Return method → band → median reduced χ² of the normals, against the noise alone."""
    normals = bench.part("normals")
    out = {}
    for method, values in chi2.items():
        bands = {"all": float(np.median(values))}
        for axis in ("snr", "z"):
            band = np.digitize(normals.column(axis), BANDS[axis]) - 1
            bands |= {name: float(np.median(values[band == index])) if (band == index).any() else float("nan")
                      for index, name in enumerate(BAND_NAMES[axis])}  # fmt: skip
        out[method] = bands
    return out


@dataclass(frozen=True)
class Duel:
    """Ours against the best baseline of a class, on the same objects."""

    group: str
    baseline: str
    ours: float
    theirs: float
    p_worse: float  # one-sided McNemar, Holm-corrected over the classes


def duels(ours: Judged, others: list[Judged]) -> list[Duel]:
    """Compare ours with each class's best baseline at 1% false positives."""
    best = {name: max(others, key=lambda one: one.value(name, "recall 1%")) for name in CLASSES}
    worse = metrics.holm([_worse(ours, best[name], name) for name in CLASSES])
    return [
        Duel(name, best[name].method, ours.value(name, "recall 1%"), best[name].value(name, "recall 1%"), p)
        for name, p in zip(CLASSES, worse, strict=True)
    ]


def paired(ours: Judged, other: Judged) -> list[Row]:
    """Return for each class how likely a method would find so many more than ours by chance, Holm-corrected."""
    worse = metrics.holm([_worse(ours, other, name) for name in CLASSES])
    return [Row(other.method, name, "p ours worse", p) for name, p in zip(CLASSES, worse, strict=True)]


def _worse(ours: Judged, other: Judged, name: str) -> float:
    both = ours.scored[name] & other.scored[name]
    return metrics.mcnemar_worse(ours.found[name][both], other.found[name][both])
