"""The baselines of the anomaly benchmark: what a careful astronomer would try before a network.

Every method is fitted on ``train`` with its anomalies in, calibrated on ``calibrate``, and gives one score a spectrum,
larger for a stranger one, of all parts in ``SCORED``. Scores are kept in the folder, one file a method and part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import _anomaly_filters as filters
from benchmarks import _anomaly_linear as linear
from benchmarks._anomaly_calibration import Neighbours, combined, robust_z, surprise
from benchmarks._anomaly_sky import Part

Array = NDArray[np.float64]
Scores = dict[str, Array]  # part → score [N]

SCORED = ("calibrate", "normals", "injected", "traps")
FITTED = 16_384  # training spectra that components are fitted to, at most
FLOOR = 3_000  # early-stopping spectra that give the floor, at most
LATENT_NEIGHBOUR = 20
LATENT_SAMPLE = 8_192  # training spectra whose coefficients are the neighbours
NAIVE_EVERY = 4  # native pixels, 3.2 Å, a bin of the naive method
REFERENCE = "PCA-10, three calibrated scores"


@dataclass
class Bench:
    """The parts, what methods share of them, and where scores are kept."""

    folder: Path
    raw: dict[int, dict[str, dict[str, Array]]] = field(default_factory=dict)  # components → name → part → values

    def part(self, name: str) -> Part:
        """Return a part."""
        return Part(self.folder / name)

    @cached_property
    def neighbours(self) -> dict[str, NDArray[np.int32]]:
        """Each scored part's nearest calibration spectra in (S/N, z)."""
        calibration = self.part("calibrate")
        tree = Neighbours.of(calibration.column("snr"), calibration.column("z"))
        return {name: tree.find(self.part(name).column("snr"), self.part(name).column("z")) for name in SCORED}

    def kept(self, method: str, make: Callable[[], Scores], redo: bool = False) -> Scores:
        """Return a method's scores, from the folder if they are there."""
        home = self.folder / "scores" / method
        if redo or not all((home / f"{name}.npy").is_file() for name in SCORED):
            home.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            for name, values in make().items():
                np.save(home / f"{name}.npy", values)
            (home / "seconds.txt").write_text(f"{time.perf_counter() - started:.1f}\n", encoding="utf-8")
        return {name: np.load(home / f"{name}.npy") for name in SCORED}

    def seconds(self, method: str) -> float:
        """Return how long a method took when it was last made."""
        return float((self.folder / "scores" / method / "seconds.txt").read_text(encoding="utf-8"))

    def components(self, count: int) -> dict[str, dict[str, Array]]:
        """Return all raw scores of an ivar-weighted PCA of ``count`` components."""
        if count not in self.raw:
            self.raw[count] = _principal(self, count)
        return self.raw[count]

    def standardised(self, scores: Scores) -> Scores:
        """Return robust z-scores among the nearest neighbours in (S/N, z)."""
        return {name: robust_z(scores[name], scores["calibrate"], self.neighbours[name]) for name in SCORED}

    def surprises(self, scores: Scores) -> Scores:
        """Return −ln p of the robust z-scores."""
        z = self.standardised(scores)
        return {name: surprise(z[name], z["calibrate"]) for name in SCORED}


def _principal(bench: Bench, count: int) -> dict[str, dict[str, Array]]:
    train, validate = bench.part("train"), bench.part("validate")
    fitted = linear.load(train, np.arange(min(len(train.flux), FITTED)))
    components = linear.fit(fitted, count)
    floor = filters.estimate_floor(linear.load(validate, np.arange(min(len(validate.flux), FLOOR))), components)
    sample = _measured(iter([fitted.pick(torch.arange(min(len(fitted.rows), LATENT_SAMPLE)))]), components, floor)
    out: dict[str, dict[str, Array]] = {name: {} for name in ("chi2", "soft", "box", "latent", "density")}
    out["sample"] = {"train": sample["latent"]}
    for name in SCORED:
        measured = _measured(linear.in_batches(bench.part(name)), components, floor)
        measured["density"] = _density(sample["latent"], measured["latent"])
        for key in ("chi2", "soft", "box", "latent", "density"):
            out[key][name] = measured[key]
    return out


def _measured(batches: Any, components: linear.Components, floor: filters.Floor) -> dict[str, Array]:
    pairs_RP = components.pairs()
    found = [filters.measure(group, components, pairs_RP, floor) for batch in batches for group in batch.groups()]
    order = np.argsort(np.concatenate([one.rows for one in found]), kind="stable")
    columns = {"chi2": "chi2", "soft": "soft_chi2", "box": "box", "latent": "coefficient_BK"}
    return {key: torch.cat([getattr(one, name) for one in found]).double().numpy()[order]
            for key, name in columns.items()}  # fmt: skip


def _density(sample: Array, latent: Array) -> Array:
    """Return ln of the distance to the 20th neighbour among training spectra's coefficients, in their own spread."""
    spread = np.percentile(sample, 84, axis=0) - np.percentile(sample, 16, axis=0)
    near, points = (torch.from_numpy(values / spread).float() for values in (sample, latent))
    parts = [torch.cdist(some, near).topk(LATENT_NEIGHBOUR, largest=False).values[:, -1]
             for some in torch.split(points, 512)]  # fmt: skip
    return np.asarray(torch.cat(parts).clamp(min=1e-6).log().double().numpy())


def chi2(bench: Bench, count: int) -> Scores:
    """Reduced χ² against the noise alone."""
    return dict(bench.components(count)["chi2"])


def neighbour_chi2(bench: Bench, count: int) -> Scores:
    """Robust z-score of ln χ² among the nearest neighbours in (S/N, z)."""
    return bench.standardised({name: np.log(values) for name, values in chi2(bench, count).items()})


def reference(bench: Bench, count: int = 10) -> Scores:
    """Global misfit, matched filters and latent density, each calibrated, joined by log-sum-exp."""
    raw = bench.components(count)
    parts = [bench.surprises({name: np.log(np.maximum(values, 1e-6)) for name, values in raw[key].items()})
             for key in ("soft", "box")]  # fmt: skip
    parts.append(bench.surprises(raw["density"]))
    return {name: combined([one[name] for one in parts]) for name in SCORED}


def forest(bench: Bench, count: int = 10) -> Scores:
    """Isolation forest on the coefficients."""
    raw = bench.components(count)
    return isolation(raw["sample"]["train"], raw["latent"])


def isolation(train_ND: Array, latent: dict[str, Array], seed: int = 0) -> Scores:
    """Isolation forest (Liu, Ting & Zhou 2008) fitted on training vectors."""
    from sklearn.ensemble import IsolationForest

    made = IsolationForest(n_estimators=300, max_samples=min(1024, len(train_ND)), random_state=seed).fit(train_ND)
    return {name: -made.score_samples(values) for name, values in latent.items()}


def naive(bench: Bench, count: int = 10) -> Scores:
    """Unweighted PCA of median-normalised flux at rest, unknown pixels set to 0; score: the residual's RMS."""
    train = bench.part("train")
    rows = np.arange(min(len(train.flux), FITTED // 2))
    sketch = torch.cat([_naive_rest(train, some) for some in np.array_split(rows, max(1, len(rows) // 1024))])
    mean = sketch.mean(0)
    basis = torch.svd_lowrank(sketch - mean, q=count + 10, niter=4)[2][:, :count]
    out = {}
    for name in SCORED:
        part, scores = bench.part(name), []
        for some in np.array_split(np.arange(len(part.flux)), max(1, len(part.flux) // 1024)):
            rest = _naive_rest(part, some) - mean
            scores.append((rest - (rest @ basis) @ basis.T).square().mean(1).sqrt())
        out[name] = torch.cat(scores).double().numpy()
    return out


def _naive_rest(part: Part, rows: NDArray[np.int64]) -> torch.Tensor:
    """Interpolate to a rest-frame grid of 1,600 bins of 6e-4 dex from 700 Å; 0 where there is nothing."""
    flux, ivar = np.array(part.flux[rows]), np.asarray(part.ivar[rows])
    flux = np.where(ivar > 0, flux, np.float32(0))[:, : 7780 // NAIVE_EVERY * NAIVE_EVERY]
    flux = flux.reshape(len(rows), -1, NAIVE_EVERY).mean(2)
    middle = np.median(flux, axis=1, keepdims=True)
    flux = flux / np.where(np.abs(middle) > 1e-3, middle, 1e-3)
    rest = 700.0 * 10.0 ** (6e-4 * np.arange(1600))
    place = (rest[None, :] * (1.0 + part.column("z")[rows, None]) - 3601.2) / (0.8 * NAIVE_EVERY)
    low = np.clip(np.floor(place).astype(np.int64), 0, flux.shape[1] - 2)
    share = place - low
    value = np.take_along_axis(flux, low, 1) * (1 - share) + np.take_along_axis(flux, low + 1, 1) * share
    return torch.from_numpy(np.where((share >= 0) & (share <= 1), value, 0.0).astype(np.float32))


METHODS: dict[str, Callable[[Bench], Scores]] = {
    "PCA-10, χ²": lambda bench: chi2(bench, 10),
    "PCA-20, χ²": lambda bench: chi2(bench, 20),
    "PCA-10, χ² among neighbours": lambda bench: neighbour_chi2(bench, 10),
    "PCA-20, χ² among neighbours": lambda bench: neighbour_chi2(bench, 20),
    REFERENCE: reference,
    "PCA-10, isolation forest": forest,
    "naive PCA": naive,
}
