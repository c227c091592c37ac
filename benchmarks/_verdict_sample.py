"""What verdicts are fitted to and tested on: injections of every class with their own seeds, measured as the pipeline
measures candidates, and ordinary spectra that a survey's threshold lets through.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._anomaly_sky import Part, Sizes, make
from models.scores import score
from models.trained import TrainedModel, reconstruct
from pipeline.significance import calibrate_scores
from pipeline.stages.calibrate import COMPONENTS
from pipeline.stages.score import score_columns
from pipeline.verdicts.features import FEATURES, features

Table = dict[str, Any]

BATCH = 512
ORDINARY = ("quasar", "bal")  # classes of spectra that are as they should be
DETECTED = 0.01  # p-value


@dataclass(frozen=True)
class Sample:
    """N spectra: what verdicts are made from, and the truth."""

    table: Table
    name: NDArray[np.str_]  # class
    significance: NDArray[np.float64]
    wavelength: NDArray[np.float64]  # of a local feature, Å; NaN where there is none
    width: NDArray[np.float64]  # its σ, Å
    p_value: NDArray[np.float64]

    def rows(self, keep: NDArray[Any]) -> Sample:
        """Return some of the spectra."""
        index = np.flatnonzero(keep) if np.asarray(keep).dtype == bool else np.asarray(keep)
        table = {name: [values[i] for i in index.tolist()] if isinstance(values, list) else values[index]
                 for name, values in self.table.items()}  # fmt: skip
        return Sample(table, *(getattr(self, one.name)[index] for one in fields(self)[1:]))

    @classmethod
    def joined(cls, *samples: Sample) -> Sample:
        """Return several as one."""
        first = samples[0].table
        table: Table = {}
        for name, values in first.items():
            parts = [one.table[name] for one in samples]
            table[name] = [row for part in parts for row in part] if isinstance(values, list) else np.concatenate(parts)
        rest = [np.concatenate([getattr(one, field.name) for one in samples]) for field in fields(cls)[1:]]
        return cls(table, *rest)


def injected(folder: Path, yardstick: Path, each: int, seed: int, model: TrainedModel) -> Sample:
    """Return ``each`` injections a class; their exposures are dealt out anew, but for fiber groups.

    A block of injections is of one class and stands on one petal, which no survey's stars or spikes do.
    """
    part = make(folder, "injected", Sizes(0, 0, 0, 0, each, 0), seed, yardstick)
    sample = measured(part, model)
    rng = np.random.default_rng([seed, 7])
    others = np.flatnonzero(sample.name != "fiber_group")
    n = len(others)
    sample.table["fiber"], sample.table["night"] = list(sample.table["fiber"]), list(sample.table["night"])
    nights = np.unique(np.concatenate(sample.table["night"]))
    for row, times in zip(others.tolist(), rng.integers(1, 5, n).tolist(), strict=True):
        sample.table["fiber"][row] = rng.integers(0, 5000, times).tolist()
        sample.table["night"][row] = rng.choice(nights, times).tolist()
    return sample


def measured(part: Part, model: TrainedModel, most: int | None = None, hurt_seed: int | None = None) -> Sample:
    """Return a part's spectra scored and with their features; with a seed, each has a bad column put in."""
    n = min(most or len(part.flux), len(part.flux))
    z = np.clip(part.column("z")[:n], 0.01, model.vae.config.z_max - 0.01)
    rng = np.random.default_rng(hurt_seed)
    tables = []
    for start in range(0, n, BATCH):
        rows = slice(start, min(start + BATCH, n))
        flux, ivar = np.array(part.flux[rows]), np.array(part.ivar[rows])
        if hurt_seed is not None:
            _bad_columns(rng, flux, ivar)
        columns = {name: np.asarray(values.to_numpy(zero_copy_only=False))
                   for name, values in score_columns(model, score(model, flux, ivar, z[rows])).items()}  # fmt: skip
        columns["windows"] = np.stack(list(columns["windows"]))
        masks = np.split(np.nonzero(ivar <= 0)[1], np.cumsum((ivar <= 0).sum(1))[:-1])
        found = reconstruct(model, flux, ivar, z[rows])
        columns["features"] = features(flux, ivar, found, z[rows], part.arm_difference[rows], masks)
        tables.append(columns)
    table: Table = {name: np.concatenate([one[name] for one in tables]) for name in tables[0]}
    table |= {"z": z, "snr": part.column("snr")[:n].astype(np.float64)}
    table |= {name: part.table[name][:n].to_pylist() for name in ("fiber", "night")}
    name = part.column("class")[:n] if hurt_seed is None else np.full(n, "bad_column")
    truth = [part.column(key)[:n] for key in ("significance", "wavelength", "width")]
    return Sample(table, name.astype("U24"), *truth, np.full(n, np.nan))


def _bad_columns(rng: np.random.Generator, flux: NDArray[np.float32], ivar: NDArray[np.float32]) -> None:
    """Pixels beside a few masked ones are wrong by 4 to 30σ: a bad column that the mask did not cover, in place."""
    for row in range(len(flux)):
        start, lost, wrong = int(rng.integers(40, 7700)), int(rng.integers(1, 5)), int(rng.integers(1, 4))
        beside = slice(start + lost, start + lost + wrong) if rng.random() < 0.5 else slice(start - wrong, start)
        sigma = 1 / np.sqrt(np.maximum(ivar[row, beside], 1e-6))
        flux[row, beside] += rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(4), np.log(30))) * sigma
        ivar[row, start : start + lost] = 0


def detect(samples: list[Sample], reference: Sample) -> list[Sample]:
    """Return the samples with p-values against a reference survey, calibrated as the pipeline does."""
    whole = Sample.joined(reference, *samples)
    known = [name for name in COMPONENTS if name in whole.table]
    n = len(whole.name)
    done = calibrate_scores({name: whole.table[name].astype(np.float64) for name in known}, whole.table["z"],
                            whole.table["snr"], np.arange(n) < len(reference.name), np.arange(n))  # fmt: skip
    edges = np.cumsum([len(reference.name), *(len(one.name) for one in samples)])
    return [Sample(one.table, one.name, one.significance, one.wavelength, one.width, done.p_value[low:high])
            for one, low, high in zip(samples, edges, edges[1:], strict=False)]  # fmt: skip


__all__ = ["DETECTED", "FEATURES", "ORDINARY", "Sample", "detect", "injected", "measured"]
