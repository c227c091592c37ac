"""Whether p-values and false discovery rates of the product mean what they say, on simulated surveys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import _anomaly_metrics as metrics
from benchmarks._anomaly_baselines import Bench
from benchmarks._anomaly_ours import Variant, components, p_values, raw_scores
from pipeline.significance import calibrate_scores, q_values

Array = NDArray[np.float64]

LEVELS = (0.05, 0.1)  # nominal false discovery rates
DRAWS = 20
SHARE = 0.06  # of a drawn survey that is injected: enough for 100 discoveries a draw
PARTS = ("calibrate", "normals", "injected")


@dataclass(frozen=True)
class Uniformity:
    """KS distances of the normals' p-values to uniform."""

    overall: float
    cells: Array  # 25 equal-count cells of redshift × S/N


@dataclass(frozen=True)
class Rate:
    """Realised false discovery rate at a nominal one, over draws."""

    nominal: float
    fdr: float
    error: float  # of the mean
    power: float
    fewest: int  # discoveries in a draw


def uniformity(bench: Bench, variant: Variant) -> Uniformity:
    """Test the normals' p-values."""
    p = p_values(bench, variant, "normals")
    part = bench.part("normals")
    cell = metrics.equal_cells(part.column("z"), part.column("snr"))
    return Uniformity(metrics.ks_uniform(p), metrics.ks_cells(p, cell))


def false_discoveries(bench: Bench, variant: Variant, draws: int = DRAWS, seed: int = 0) -> list[Rate]:
    """Draw surveys of half the normals with some injections among them, each calibrated by its own half, and count.

    The whole of calibration is redone for each draw: the surveys share no threshold.
    """
    table = {name: components(raw_scores(bench, variant, name)) for name in PARTS}
    plane = {name: [bench.part(name).column(key).astype(np.float64) for key in ("z", "snr")] for name in PARTS}
    size = {name: len(plane[name][0]) for name in PARTS}
    rng = np.random.default_rng(seed)
    found: dict[float, list[metrics.Discoveries]] = {level: [] for level in LEVELS}
    for _ in range(draws):
        wanted = {"calibrate": size["calibrate"] // 2, "normals": size["normals"] // 2}
        wanted["injected"] = min(int(SHARE * wanted["normals"]), size["injected"])
        rows = {name: rng.choice(size[name], wanted[name], replace=False) for name in PARTS}
        joined = {key: np.concatenate([table[name][key][rows[name]] for name in PARTS]) for key in table["normals"]}
        z, snr = (np.concatenate([plane[name][axis][rows[name]] for name in PARTS]) for axis in (0, 1))
        part = np.repeat(np.arange(len(PARTS)), [wanted[name] for name in PARTS])
        done = calibrate_scores(joined, z, snr, part == 0, np.arange(len(part)))
        tested = part > 0
        q_value = q_values(done.p_value[tested])
        for level in LEVELS:
            found[level].append(metrics.discoveries(q_value, part[tested] == 2, level))
    return [_rate(level, some) for level, some in found.items()]


def _rate(level: float, draws: list[metrics.Discoveries]) -> Rate:
    fdr = np.array([one.fdr for one in draws])
    power = float(np.mean([one.power for one in draws]))
    return Rate(level, float(fdr.mean()), float(fdr.std(ddof=1) / np.sqrt(len(fdr))), power,
                min(one.found for one in draws))  # fmt: skip
