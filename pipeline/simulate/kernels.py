"""Compiled loops over pixels: Gaussians in emission and absorption, Voigt profiles, smooth noise.

Shapes: B spectra, L=7781 native pixels (3600 + 0.8 i Å), K components, each with the row it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

FIRST, STEP = 3600.0, 0.8  # Å
EVERY_CALIBRATION = 64  # pixels between nodes of the calibration's wiggles
_FLAGS = {"contract", "reassoc", "nsz", "arcp", "afn"}  # full fastmath would assume away NaN


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """numba with a cache on disk, so that only a machine's first run compiles."""
    compiled: Callable[..., Any] = numba.njit(cache=True, fastmath=_FLAGS, error_model="numpy")(function)
    return compiled


@_compiled
def add_gaussians(out_BL, row_K, centre_K, sigma_K, peak_K):  # type: ignore[no-untyped-def]
    """out += peak·exp(−x²/2), x = (λ − centre)/sigma, λ in observed Å."""
    n_pixels = out_BL.shape[1]
    for k in range(len(row_K)):
        row, centre, sigma, peak = row_K[k], centre_K[k], sigma_K[k], peak_K[k]
        low = max(0, int((centre - 5.0 * sigma - FIRST) / STEP))
        high = min(n_pixels, int((centre + 5.0 * sigma - FIRST) / STEP) + 1)
        for i in range(low, high):
            x = np.float32((FIRST + STEP * i - centre) / sigma)
            out_BL[row, i] += np.float32(peak) * np.exp(np.float32(-0.5) * x * x)


@_compiled
def transmit(out_BL, row_K, centre_K, sigma_K, depth_K, boxy):  # type: ignore[no-untyped-def]
    """out *= 1 − depth·exp(−x²/2); with ``boxy`` the exponent is x⁴/2 (a flat-bottomed trough)."""
    n_pixels = out_BL.shape[1]
    for k in range(len(row_K)):
        row, centre, sigma, depth = row_K[k], centre_K[k], sigma_K[k], depth_K[k]
        low = max(0, int((centre - 5.0 * sigma - FIRST) / STEP))
        high = min(n_pixels, int((centre + 5.0 * sigma - FIRST) / STEP) + 1)
        for i in range(low, high):
            x = np.float32((FIRST + STEP * i - centre) / sigma)
            power = x * x
            if boxy:
                power *= power
            out_BL[row, i] *= np.float32(1.0) - np.float32(depth) * np.exp(np.float32(-0.5) * power)


@_compiled
def upsample(out_BL, coarse_BN, every):  # type: ignore[no-untyped-def]
    """out = linear interpolation of values given at every ``every``-th pixel (N·every > L)."""
    n_rows, n_pixels = out_BL.shape
    for row in range(n_rows):
        for i in range(n_pixels):
            j = i // every
            part = np.float32(i - j * every) / np.float32(every)
            left = coarse_BN[row, j]
            out_BL[row, i] = left + part * (coarse_BN[row, j + 1] - left)


@_compiled
def add_template(out_BL, row_K, z_K, peak_K, template_T, first, step):  # type: ignore[no-untyped-def]
    """out += peak·template at the rest wavelength; the template's grid is first + step·t Å."""
    n_pixels = out_BL.shape[1]
    last = len(template_T) - 2
    for k in range(len(row_K)):
        row, scale, peak = row_K[k], 1.0 / (1.0 + z_K[k]), np.float32(peak_K[k])
        for i in range(n_pixels):
            place = ((FIRST + STEP * i) * scale - first) / step
            j = int(place)
            if place < 0.0:
                j, place = 0, 0.0
            elif j > last:
                j, place = last, last + 1.0
            part = np.float32(place - j)
            out_BL[row, i] += peak * (template_T[j] + part * (template_T[j + 1] - template_T[j]))


@_compiled
def add_dlas(tau_BL, row_K, centre_K, density_K, rest, oscillator, damping, doppler):  # type: ignore[no-untyped-def]
    """tau += Voigt profile of N atoms/cm² (Tepper-García 2006, MNRAS 369, 2025, eq. 22); b in km/s."""
    n_pixels = tau_BL.shape[1]
    light = 299792.458
    width = rest * doppler / light  # Doppler width, rest Å
    wing = damping * rest * 1e-8 / (4.0 * np.pi * doppler * 1e5)
    for k in range(len(row_K)):
        row, scale = row_K[k], rest / centre_K[k]
        peak = 1.497e-15 * density_K[k] * oscillator * rest / doppler
        for i in range(n_pixels):
            x = ((FIRST + STEP * i) * scale - rest) / width
            p = x * x
            core = np.exp(-p) if p < 50.0 else 0.0
            if p > 1e-4:
                shape = core - wing / (np.sqrt(np.pi) * p) * (
                    core * core * (4.0 * p * p + 7.0 * p + 4.0 + 1.5 / p) - 1.5 / p - 1.0
                )
            else:
                shape = 1.0 - 2.0 * wing / np.sqrt(np.pi)
            tau_BL[row, i] += np.float32(peak * shape)


@_compiled
def correlate(noise_BL, memory):  # type: ignore[no-untyped-def]
    """White noise made smooth by a first-order filter forward and back, in place; unit variance is kept."""
    n_rows, n_pixels = noise_BL.shape
    memory = np.float32(memory)
    # variance of the two passes together: (1−m)⁴ (1+m²)/(1−m²)³
    gain = np.float32(((1 - memory) ** 4 * (1 + memory**2) / (1 - memory**2) ** 3) ** -0.5)
    for row in range(n_rows):
        state = noise_BL[row, 0] * (1 - memory) ** np.float32(0.5)
        for i in range(n_pixels):
            state = memory * state + (1 - memory) * noise_BL[row, i]
            noise_BL[row, i] = state
        state = noise_BL[row, n_pixels - 1]
        for i in range(n_pixels - 1, -1, -1):
            state = memory * state + (1 - memory) * noise_BL[row, i]
            noise_BL[row, i] = state * gain


@_compiled
def scale_runs(array_BW, row_K, start_K, length_K, factor_K):  # type: ignore[no-untyped-def]
    """array[row, start:start+length] *= factor, each run."""
    for k in range(len(row_K)):
        for i in range(start_K[k], min(start_K[k] + length_K[k], array_BW.shape[1])):
            array_BW[row_K[k], i] *= factor_K[k]
