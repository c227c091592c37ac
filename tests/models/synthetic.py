"""Synthetic quasars whose truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.grid import native_wavelength

# rest wavelength Å, equivalent width Å, σ Å (Vanden Berk et al. 2001, rounded)
LINES = np.array(
    [
        (1216.25, 92.9, 19.5), (1398.3, 8.1, 12.5), (1546.2, 23.8, 14.3), (1906.0, 21.2, 23.6),
        (2800.3, 32.3, 35.0), (4341.0, 12.6, 20.3), (4853.1, 46.2, 40.4), (5008.2, 13.2, 6.0), (6564.9, 194.5, 47.4),
    ]
)  # fmt: skip


@dataclass
class Quasars:
    """Observed spectra and the truth beneath."""

    flux: NDArray[np.float32]
    ivar: NDArray[np.float32]
    z: NDArray[np.float64]
    truth: NDArray[np.float32]


def make_quasars(count: int, seed: int, signal_to_noise: float = 4.0) -> Quasars:
    """Power laws with broad lines of scattered strength, heteroscedastic noise, 2% of pixels without information."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.4, 3.4, count)
    rest = native_wavelength() / (1.0 + z[:, None])
    continuum = (rest / 2500.0) ** rng.normal(-1.5, 0.4, (count, 1))
    lines = np.zeros_like(rest)
    for centre, width, sigma in LINES:
        strength = width * 10 ** rng.normal(0.0, 0.2, (count, 1)) / (sigma * np.sqrt(2 * np.pi))
        lines += strength * np.exp(-0.5 * ((rest - centre) / sigma) ** 2)
    truth = (continuum * (1.0 + lines)).astype(np.float32)
    noise = (
        np.median(truth, 1, keepdims=True) / signal_to_noise * (1.0 + np.exp((3600.0 - native_wavelength()) / 300.0))
    )
    ivar = (noise**-2).astype(np.float32) * np.ones_like(truth)
    ivar[rng.random(ivar.shape) < 0.02] = 0.0
    flux = (truth + noise * rng.standard_normal(truth.shape)).astype(np.float32)
    flux[ivar == 0] = np.nan
    return Quasars(flux, ivar, z, truth)


def with_bump(rng: np.random.Generator, data: Quasars, sigma: float) -> NDArray[np.float32]:
    """Flux with a Gaussian of a noiseless significance at a random place."""
    wavelength = native_wavelength()
    centre, width = rng.uniform(4500, 8500, (len(data.z), 1)), rng.uniform(15, 80, (len(data.z), 1))
    return _added(data, np.exp(-0.5 * ((wavelength - centre) / width) ** 2), sigma)


def with_step(rng: np.random.Generator, data: Quasars, sigma: float) -> NDArray[np.float32]:
    """Flux with a step at 5800 Å, up or down."""
    shape = np.where(native_wavelength() > 5800.0, 1.0, -1.0) * rng.choice([-1.0, 1.0], (len(data.z), 1))
    return _added(data, shape, sigma)


def _added(data: Quasars, shape: NDArray[np.float64], sigma: float) -> NDArray[np.float32]:
    height = sigma / np.sqrt((data.ivar * shape**2).sum(1, keepdims=True))
    return (data.flux + height * shape).astype(np.float32)
