"""What the latents encode beyond the object: copies of the same quasars, moved in redshift or made fainter.

A copy keeps every parameter of its quasar; forest, exposures and noise are its own, as they would be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks import _anomaly_sky as sky
from models.scores import score
from models.trained import TrainedModel
from pipeline.simulate import instrument
from pipeline.simulate.exposures import draw_exposures
from pipeline.simulate.quasars import draw_quasars
from pipeline.simulate.spectra import render

Array = NDArray[np.float64]

OBJECTS, COPIES = 384, 5
MOVED = 0.1  # most that 1 + z is changed by, as a fraction
FAINTER = 0.5  # dex, most that the flux is changed by, either way
REDSHIFTS = (0.7, 2.8)  # of the quasars, so that every copy stays in range
FOLDS = 5
DRAWS = 5


@dataclass(frozen=True)
class Leak:
    """Cross-validated R² of what a regression reads off the latents' changes between copies of the same object."""

    redshift: float  # of the change in ln(1 + z), copies moved in redshift
    flux: float  # of the change in ln(flux), copies made fainter or brighter: of S/N


def leaks(model: TrainedModel, seed: int) -> Leak:
    """Measure both on fresh quasars: the mean of some draws, as one alone is uncertain by 0.02."""
    found = [[_explained(*_copies(model, seed + draw, name)) for name in ("z", "flux_r")] for draw in range(DRAWS)]
    return Leak(*np.mean(found, axis=0).tolist())


def _copies(model: TrainedModel, seed: int, changed: str) -> tuple[Array, Array, NDArray[np.int64]]:
    """Return latents and the changed quantity of all copies, each less its object's mean, and the objects."""
    rng = np.random.default_rng([seed, 77, changed == "z"])
    quasars = draw_quasars(rng, OBJECTS, rng.random(OBJECTS) < sky.BRIGHT_SHARE)
    quasars = quasars.with_values(z=np.clip(quasars.z, *REDSHIFTS))
    latents, values = [], []
    for _ in range(COPIES):
        some = rng.uniform(-1, 1, OBJECTS)
        if changed == "z":
            factor = 1.0 + MOVED * some
            copy = quasars.with_values(z=(1.0 + quasars.z) * factor - 1.0)
        else:
            factor = 10 ** (FAINTER * some)
            copy = quasars.with_values(flux_r=quasars.flux_r * factor)
        latents.append(_embedding(rng, model, copy))
        values.append(np.log(factor))
    latent, value = np.stack(latents), np.stack(values)
    latent, value = latent - latent.mean(0), value - value.mean(0)
    objects = np.tile(np.arange(OBJECTS), COPIES)
    return latent.reshape(len(objects), -1), value.reshape(-1), objects


def _embedding(rng: np.random.Generator, model: TrainedModel, quasars: sky.Quasars) -> Array:
    flux_BL, _, _ = render(rng, quasars)
    faint = np.zeros(len(quasars), bool)
    exposures = draw_exposures(rng, "dark", 0, rng.uniform(0.0, 0.9, len(quasars)), quasars.z > 2.1, faint)
    arms = [instrument.observe_arm(rng, name, flux_BL, exposures) for name in "BRZ"]
    for arm in arms:
        instrument.add_noise(rng, arm)
    flux, ivar, _, _ = sky.joined(arms)
    return score(model, flux, ivar, quasars.z).embedding.astype(np.float64)


def _explained(latent: Array, value: Array, objects: NDArray[np.int64]) -> float:
    """Return R² of boosted trees on objects that they were not fitted to; 0 if they do worse than the mean."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    guess = np.empty(len(value))
    for fold in range(FOLDS):
        held = objects % FOLDS == fold
        trees = HistGradientBoostingRegressor(max_iter=150, learning_rate=0.08, random_state=0)
        guess[held] = trees.fit(latent[~held], value[~held]).predict(latent[held])
    return max(0.0, 1.0 - float(np.mean((value - guess) ** 2) / np.var(value)))
