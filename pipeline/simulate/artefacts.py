"""What the instrument and the pipeline do to spectra: the known false positives of anomaly hunts in DESI.

Shapes: B rows of a file, W pixels of an arm. Effects are applied to the observed flux and ivar, before the
noise is added where they are signals, after it where they are accidents of single pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.grid import WAVELENGTH_STEP
from pipeline.simulate import night_sky
from pipeline.simulate.exposures import Exposures
from pipeline.simulate.instrument import LSF_SIGMA, SOMEBADPIX, Arm
from pipeline.simulate.redshifts import RedshiftFits

Array = NDArray[np.float64]
Flux = NDArray[np.float32]

CLASSES = (
    "sky_residual_9400", "sky_residual_red", "spike_5600", "arm_step_5800", "arm_step_7570", "step_within_r",
    "dip_4400", "absorption_8600", "masked_run", "sky_fiber", "cosmic_ray", "nan_masked",
)  # fmt: skip
GROUP = "fiber_group"
LINE_REACH = 6.0  # σ of a sky line, beyond which nothing is left of it
GROUP_EVERY = 8  # one pixel in so many has a group of neighbouring fibers hurt on one night


@dataclass
class Hurt:
    """Which artefact hurts each row ('' for none), its strength and what to know of it."""

    label: NDArray[np.str_]  # [B]
    strength: Array  # [B]
    params: list[dict[str, Any]]  # [B]


def choose(
    rng: np.random.Generator, usual: NDArray[np.bool_], exposures: Exposures,
    fraction: float,
    with_group: bool,
) -> Hurt:  # fmt: skip
    """Pick a ``fraction`` of the ``usual`` rows [B], and a group of neighbouring fibers if asked."""
    n = len(usual)
    label = np.where(rng.random(n) < fraction, rng.choice(CLASSES, n), "").astype("U24")
    label[~usual] = ""
    hurt = Hurt(label, np.where(label != "", np.exp(rng.uniform(0, np.log(20), n)), np.nan), [{} for _ in range(n)])
    if with_group:
        _choose_group(rng, hurt, usual, exposures)
    return hurt


def _choose_group(rng: np.random.Generator, hurt: Hurt, usable: NDArray[np.bool_], exposures: Exposures) -> None:
    """Six to ten quasars in neighbouring fibers of one night share a bump or a dip."""
    tile = int(np.argmax(exposures.seen[usable].sum(axis=0))) if usable.any() else 0
    rows = np.flatnonzero(usable & exposures.seen[:, tile] & (hurt.label == ""))
    rows = rows[np.argsort(exposures.fiber[rows, tile])]
    size = min(int(rng.integers(6, 11)), len(rows))
    start = int(rng.integers(0, len(rows) - size + 1))
    params = {"night": int(exposures.night[tile]), "wavelength": rng.uniform(4500, 8800), "sigma": rng.uniform(15, 80),
              "sign": float(rng.choice([-1, 1]))}  # fmt: skip
    strength = rng.uniform(1.5, 8)
    for row in rows[start : start + size].tolist():
        hurt.label[row], hurt.strength[row] = GROUP, strength * rng.lognormal(0, 0.2)
        hurt.params[row] = params | {"fiber": int(exposures.fiber[row, tile])}


def apply(rng: np.random.Generator, arms: list[Arm], hurt: Hurt) -> Array:
    """Hurt the arms in place, before noise. Returns the noiseless significance √Σ ivar·Δ² [B]."""
    total = np.zeros(len(hurt.label))
    for row in np.flatnonzero(hurt.label != "").tolist():
        for arm in arms:
            delta = signal(rng, arm, row, str(hurt.label[row]), float(hurt.strength[row]), hurt.params[row])
            total[row] += float(np.sum(arm.ivar[row] * delta * delta))
            arm.flux[row] += delta
    return np.sqrt(total)


def signal(rng: np.random.Generator, arm: Arm, row: int, label: str, strength: float, params: dict[str, Any]) -> Flux:
    """What an artefact of a row adds to an arm's flux [W]; may lower the ivar."""
    wave, flux, ivar = arm.wavelength, arm.flux[row], arm.ivar[row]
    sigma = np.sqrt(1 / np.maximum(ivar, 1e-6))
    level = float(np.median(np.abs(flux))) + 0.5 * float(np.median(sigma))
    delta = np.zeros(len(wave))
    match label:
        case "sky_residual_9400" if arm.name == "Z":
            delta = _sky_residual(rng, arm, sigma, (9300.0, 9600.0)) * 0.35 * strength
        case "sky_residual_red" if arm.name in "RZ":
            delta = _sky_residual(rng, arm, sigma, (7200.0, 9824.0)) * 0.2 * strength
        case "spike_5600" if arm.name == "B":
            window = np.exp(-0.5 * ((wave - 5578.4) / 4.0) ** 2)
            ivar /= (1 + (30 * window) ** 2).astype(np.float32)
            delta = window * np.sqrt(1 / np.maximum(ivar, 1e-6)) * min(0.6 * strength, 5.4) * (wave > 5560)
        case "arm_step_5800" if arm.name == "B":
            delta = flux * 0.04 * strength * np.clip((wave - 5000) / 800, 0, 1)
        case "arm_step_7570" if arm.name == "Z":
            delta = flux * 0.03 * strength * rng.choice([-0.8, 1.0])
        case "step_within_r" if arm.name == "R":
            params["wavelength"] = rng.uniform(6700, 7650)
            delta = level * 0.02 * strength * (1 + np.tanh((wave - params["wavelength"]) / 6.0))
        case "dip_4400" if arm.name == "B":
            delta = -flux * min(0.06 * strength, 0.8) * np.exp(-0.5 * ((wave - 4390) / 55) ** 2)
        case "absorption_8600" if arm.name == "Z":
            delta = -flux * min(0.06 * strength, 0.9) * np.exp(-0.5 * ((wave - 8630) / 14) ** 4)
        case "sky_fiber":
            delta = -flux + (_sky_residual(rng, arm, sigma, (3600.0, 9824.0)) * 0.08 * strength)
        case "cosmic_ray" if arm.name == params.setdefault("arm", str(rng.choice(list("BRZ")))):
            start = int(rng.integers(20, len(wave) - 20))
            params["wavelength"] = float(wave[start])
            delta[start : start + 3] = sigma[start] * 3 * strength * np.array([0.6, 1.0, 0.5])
        case "fiber_group":
            shape = np.exp(-0.5 * ((wave - params["wavelength"]) / params["sigma"]) ** 2)
            delta = params["sign"] * strength * 0.4 * np.median(sigma) * shape
        case _:
            pass
    return np.asarray(delta, dtype=np.float32)


def _sky_residual(rng: np.random.Generator, arm: Arm, sigma: Array, span: tuple[float, float]) -> Array:
    """Residuals of imperfectly subtracted sky lines [W], in units of σ at each line: a slip in λ and in strength."""
    low, high = max(span[0], arm.wavelength[0]), min(span[1], arm.wavelength[-1])
    place_NP, x_NP = _lines(float(arm.wavelength[0]), len(arm.wavelength), LSF_SIGMA[arm.name], low, high)
    common, slip = rng.normal(), rng.normal()
    own_N2 = 0.5 * rng.normal(size=(len(x_NP), 2))
    value_NP = (common + own_N2[:, :1] + (slip + own_N2[:, 1:]) * x_NP) * np.exp(-0.5 * x_NP * x_NP)
    inside_NP = (place_NP >= 0) & (place_NP < len(sigma))
    return np.bincount(place_NP[inside_NP], value_NP[inside_NP], len(sigma)) * sigma


@lru_cache(maxsize=64)
def _lines(first: float, n_pixels: int, width: float, low: float, high: float) -> tuple[NDArray[np.int64], Array]:
    """Return the pixels around each sky line between two wavelengths, and their distance from it in σ, [N, P] each."""
    lines = night_sky.LINE_WAVELENGTH
    centre_N1 = lines[(lines > low) & (lines < high)][:, None]
    side = int(LINE_REACH * width / WAVELENGTH_STEP) + 1
    place_NP = np.round((centre_N1 - first) / WAVELENGTH_STEP).astype(np.int64) + np.arange(-side, side + 1)
    return place_NP, (first + WAVELENGTH_STEP * place_NP - centre_N1) / width


def apply_after_noise(rng: np.random.Generator, arms: list[Arm], hurt: Hurt) -> None:
    """Long masked runs, and NaN where the mask says there is nothing."""
    for row in np.flatnonzero(np.isin(hurt.label, ("masked_run", "nan_masked"))).tolist():
        arm = arms[int(rng.integers(3))]
        width = len(arm.wavelength)
        long = hurt.label[row] == "masked_run"
        length = int(min(0.05 * hurt.strength[row], 1.0) * width) if long else int(rng.integers(3, 40))
        start = int(rng.integers(0, width - length + 1))
        run = slice(start, start + length)
        arm.ivar[row, run], arm.mask[row, run] = 0, SOMEBADPIX
        arm.flux[row, run] = 0 if long else np.nan
        hurt.params[row] |= {"arm": arm.name, "start": float(arm.wavelength[start]), "pixels": length}


def hurt_broken_fibers(rng: np.random.Generator, arms: list[Arm], is_bad: NDArray[np.bool_]) -> None:
    """Broken fibers: half have no data at all, the rest a spectrum that means nothing."""
    rows = np.flatnonzero(is_bad)
    empty = rng.random(len(rows)) < 0.5
    for arm in arms:
        arm.ivar[rows[empty]] = 0
        arm.mask[rows[empty]] = SOMEBADPIX | 1 << 9
        scale = rng.normal(0, 3, (int((~empty).sum()), 1)).astype(np.float32)
        arm.flux[rows[~empty]] *= scale


def mislead_fits(rng: np.random.Generator, fits: RedshiftFits, hurt: Hurt) -> None:
    """Sky taken for a quasar sits near z = 3.8; all of them pass the science gate."""
    hit = hurt.label != ""
    fits.spectype[hit], fits.subtype[hit] = "QSO", ""
    fits.zwarn[hit] = 0
    sky = hurt.label == "sky_fiber"
    fits.z[sky] = rng.normal(3.8, 0.05, int(sky.sum()))
