"""DESI's spectrographs: errors, calibration, resolution, masks, and exact noise.

Shapes: B rows, L=7781 native pixels, W pixels of an arm, T exposures. Flux 1e-17 erg/s/cm²/Å, ivar its
inverse square. The level of the errors is that of single main-survey exposures in DESI's early data
release; their shape over wavelength is in ``night_sky.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.grid import ARMS, WAVELENGTH
from pipeline.simulate import night_sky
from pipeline.simulate.exposures import Exposures
from pipeline.simulate.kernels import EVERY_CALIBRATION, scale_runs, upsample

Flux = NDArray[np.float32]
Array = NDArray[np.float64]

MEDIAN_SIGMA = {"B": 0.57, "R": 0.26, "Z": 0.215}  # of one 1000 s exposure, 1e-17 erg/s/cm²/Å
LSF_SIGMA = {"B": 0.84, "R": 0.68, "Z": 0.88}  # Å, from the width of sky lines in the errors
SHOT = 0.30  # object's variance over the smooth sky's, for a flux of 1 in one exposure
SOMEBADPIX, COSMIC = 1, 4  # mask bits of desispec.maskbits.specmask
N_DIAGONALS = 11
_BANDS = np.array([7200.0, 8700.0])  # Å, the sky's lines vary together between these


@dataclass
class Arm:
    """One arm of a coadd: everything that is written, and what only the truth may know."""

    name: str
    wavelength: Array  # [W] Å
    flux: Flux  # [B, W]
    ivar: Flux  # [B, W]
    mask: NDArray[np.int32]  # [B, W]
    gain: Flux  # [B, W] calibration, observed over true


@lru_cache(maxsize=8)
def _sky(arm: str) -> tuple[Array, Array]:
    """Smooth variance [W] and line variance by band [3, W] of one nominal exposure, flux units squared."""
    wave = WAVELENGTH[ARMS[arm]]
    smooth = night_sky.smooth_sigma(arm, wave) ** 2
    x = (wave[:, None] - night_sky.LINE_WAVELENGTH) / LSF_SIGMA[arm]
    shape = np.exp(-0.5 * x * x) * night_sky.LINE_VARIANCE
    # a line in the overlap was measured in the arm that sees it best; throughput lowers the other alike
    band = np.searchsorted(_BANDS, night_sky.LINE_WAVELENGTH)
    lines = np.stack([shape[:, band == i].sum(axis=1) for i in range(3)])
    return MEDIAN_SIGMA[arm] ** 2 * smooth, MEDIAN_SIGMA[arm] ** 2 * lines


def observe_arm(rng: np.random.Generator, name: str, truth: Flux, exposures: Exposures) -> Arm:
    """One arm's coadd of true fluxes [B, L]; noise is added later, by :func:`add_noise`."""
    smooth, lines = _sky(name)
    n_rows, width = len(truth), len(smooth)
    variance = exposures.noise[:, None] ** 2 * (smooth + exposures.airglow @ lines)  # [T, W]
    ivar = exposures.seen.astype(np.float32) @ (1 / variance).astype(np.float32)  # [B, W]
    ivar *= rng.lognormal(0, 0.08, (n_rows, 1)).astype(np.float32)
    if name == "B":
        ivar /= _reflectivity_dip(exposures)
    gain = calibration(rng, n_rows, width, exposures)
    flux = truth[:, ARMS[name]] * gain
    shot = (SHOT * smooth / np.sqrt(smooth.min())).astype(np.float32) / exposures.count[:, None].astype(np.float32)
    ivar /= 1 + ivar * shot * np.maximum(flux, 0)
    mask = _lost_pixels(rng, ivar, exposures)
    return Arm(name, WAVELENGTH[ARMS[name]], flux, ivar, mask, gain)


def _reflectivity_dip(exposures: Exposures) -> Flux:
    """Factor on the variance [B, W] of the collimators' reflectivity dip near 4325 Å, each petal's own depth."""
    depth = np.random.default_rng(4325).lognormal(np.log(2.5), 0.8, 10)  # the spectrographs stay the same ten
    wave = WAVELENGTH[ARMS["B"]]
    shape = np.exp(-0.5 * ((wave - 4325.0) / 8.0) ** 2) + 0.15 * np.exp(-0.5 * ((wave - 4335.0) / 25.0) ** 2)
    return np.asarray(1 + depth[exposures.petal][:, None] * shape, dtype=np.float32)


def calibration(rng: np.random.Generator, n_rows: int, width: int, exposures: Exposures) -> Flux:
    """Flux calibration errors [B, W]: a step of 1% between arms and cubic wiggles of 1.5%, fewer exposures worse."""
    n_nodes = width // EVERY_CALIBRATION + 2
    x = np.linspace(-1, 1, n_nodes)
    basis = np.stack([np.ones_like(x), x, 1.5 * x**2 - 0.5, 2.5 * x**3 - 1.5 * x])
    size = np.array([0.008, 0.008, 0.006, 0.005])
    coefficients = rng.normal(0, 1, (n_rows, 4)) * size / np.sqrt(exposures.count[:, None])
    gain = np.empty((n_rows, width), np.float32)
    upsample(gain, (1 + coefficients @ basis).astype(np.float32), EVERY_CALIBRATION)
    return gain


def _lost_pixels(rng: np.random.Generator, ivar: Flux, exposures: Exposures) -> NDArray[np.int32]:
    """Cosmic rays and bad pixels: whole loss where one exposure is all there is, part of the ivar otherwise."""
    n_rows, width = ivar.shape
    mask = np.zeros((n_rows, width), np.int32)
    once = exposures.count == 1
    number = rng.poisson(np.where(once, 2.2, 1.2 * exposures.count))
    row = np.repeat(np.arange(n_rows), number)
    start = rng.integers(0, width, len(row))
    length = rng.integers(1, 6, len(row))
    scale_runs(ivar, row, start, length, (1 - 1 / exposures.count[row]).astype(np.float32))
    lost, column = np.nonzero(ivar == 0)
    mask[lost, column] = SOMEBADPIX | np.where(rng.random(len(lost)) < 0.7, COSMIC, 0)
    return mask


def add_noise(rng: np.random.Generator, arm: Arm) -> None:
    """Add N(0, 1/ivar) to the arm's flux, in place; flux without information becomes 0."""
    noise = rng.standard_normal(arm.flux.shape, dtype=np.float32)
    known = arm.ivar > 0
    np.divide(noise, np.sqrt(arm.ivar), out=noise, where=known)
    arm.flux += noise
    arm.flux[~known] = 0


@lru_cache(maxsize=8)
def _resolutions(arm: str) -> Flux:
    """Resolution matrices' diagonals [8, 11, W] for eight widths about the arm's own."""
    offset = (N_DIAGONALS // 2 - np.arange(N_DIAGONALS))[:, None] * 0.8
    x = np.linspace(-1, 1, len(WAVELENGTH[ARMS[arm]]))
    kernels = []
    for factor in np.linspace(0.93, 1.07, 8):
        sigma = LSF_SIGMA[arm] * factor * (1 + 0.06 * x**2)
        kernel = np.exp(-0.5 * (offset / sigma) ** 2)
        kernels.append(kernel / kernel.sum(axis=0))
    return np.asarray(kernels, dtype=np.float32)


def resolution(arm: str, exposures: Exposures) -> Flux:
    """RESOLUTION [B, 11, W]; neighbouring fibers share a width."""
    return np.asarray(_resolutions(arm)[(exposures.first_fiber // 25) % 8])
