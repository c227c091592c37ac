"""Spectra with known faults: simulated quasars over a model that is right but for noise and what was injected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.desi.grid import ARMS, N_PIXELS
from pipeline.desi.join import ArmRows, join
from pipeline.injection.departures import depart
from pipeline.injection.grading import inject
from pipeline.simulate.exposures import draw_exposures
from pipeline.simulate.instrument import Arm, add_noise, observe_arm
from pipeline.simulate.quasars import draw_quasars
from pipeline.simulate.spectra import render

Float = NDArray[np.float32]
CLASSES = ("cosmic_ray", "odd_line", "step_within_r", "spike_5600", "sky_residual_9400", "extra_bump")
EACH = 8


@dataclass(frozen=True)
class Spectra:
    """B spectra, what they would be without fault or noise, and what was done to them."""

    flux: Float
    ivar: Float
    model: Float
    difference: Float
    z: NDArray[np.float64]
    name: NDArray[np.str_]
    wavelength: NDArray[np.float64]


def _joined(arms: list[Arm]) -> tuple[Float, Float, Float]:
    rows = {}
    for arm in arms:
        words = (arm.flux.astype(">f4"), arm.ivar.astype(">f4"), arm.mask.astype(">i4"))
        rows[arm.name] = ArmRows(ARMS[arm.name].start, *(values.view(np.uint32) for values in words))
    done = join(rows, np.arange(len(arms[0].flux)))
    return done.flux.copy(), done.ivar.copy(), done.arm_difference.copy()


def _significance(arms: list[Arm], departure: object) -> float:
    return float(np.sqrt(sum(np.sum(arm.ivar[0] * departure.delta[arm.name] ** 2) for arm in arms)))  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def spectra() -> Spectra:
    """A few spectra of some classes at 30σ, and as many without fault ("")."""
    rng = np.random.default_rng(20)
    made: list[tuple[Float, Float, Float, Float, float, str, float]] = []
    for name in (*CLASSES, ""):
        for _ in range(EACH):
            quasar = draw_quasars(rng, 1, np.zeros(1, bool))
            exposures = draw_exposures(rng, "dark", 7, np.zeros(1), quasar.z > 2.1, np.zeros(1, bool))
            truth, _, _ = render(rng, quasar)
            arms = [observe_arm(rng, arm, truth, exposures) for arm in "BRZ"]
            clean = _joined(arms)[0]
            place = np.nan
            if name:
                departure = depart(rng, name, arms, truth[0], quasar)
                inject(arms, departure, 30.0 / _significance(arms, departure))
                place = departure.params.get("wavelength", np.nan)
            for arm in arms:
                add_noise(rng, arm)
            made.append((*_joined(arms), clean, float(quasar.z[0]), name, float(place)))
    flux, ivar, difference, model = (np.concatenate([one[i] for one in made]) for i in range(4))
    assert flux.shape == (EACH * (len(CLASSES) + 1), N_PIXELS)
    z, name, place = (np.array([one[i] for one in made]) for i in (4, 5, 6))
    return Spectra(flux, ivar, model, difference, z, name, place)
