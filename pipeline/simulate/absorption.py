"""What lies before a quasar: the Lyman forest and limit, damped systems, metals, broad absorption lines.

Shapes: B quasars, L=7781 native pixels. All functions multiply flux [B, L] in place and return what they did
as arrays [B], for the truth table.
Sources: mean forest opacity Kamble et al. 2020 (ApJ 892, 70); DLA incidence and Voigt constants as in
desisim; broad troughs after baltools (Guo & Martini 2019, ApJ 879, 72); Mg II incidence Zhu & Ménard 2013.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import lines
from pipeline.simulate.kernels import FIRST, STEP, add_dlas, correlate, transmit

Array = NDArray[np.float64]
Flux = NDArray[np.float32]
Rows = NDArray[np.int64]

LYA, LYB, LIMIT = 1215.67, 1025.72, 911.76  # Å
LIGHT = 299792.458  # km/s
LSF = 0.75  # instrument's σ, Å
_ROUGHNESS = 1.6  # σ of ln τ of the forest at DESI's resolution
BAL_FRACTION = 0.12
BAL_REDSHIFTS = (1.57, 5.0)  # where a C IV trough is in view


def absorb_forest(rng: np.random.Generator, flux: Flux, z: Array) -> None:
    """Lyα and Lyβ forests: lognormal optical depth along λ whose mean transmission is the observed one."""
    rows = np.flatnonzero(z > FIRST / LYA - 1)
    if len(rows) == 0:
        return
    n_pixels = min(flux.shape[1], int((LYA * (1 + z.max()) - FIRST) / STEP) + 1)
    field = rng.standard_normal((len(rows), n_pixels), dtype=np.float32)
    correlate(field, 0.62)
    z_pixel = (FIRST + STEP * np.arange(n_pixels)) / LYA - 1
    table, amplitude = _amplitudes()
    ground = np.interp(_opacity(z_pixel), table, amplitude).astype(np.float32)
    z_beta = (FIRST + STEP * np.arange(n_pixels)) / LYB - 1
    ground_beta = np.interp(0.2 * _opacity(z_beta), table, amplitude).astype(np.float32)
    rough = np.exp(_ROUGHNESS * field)
    tau = np.where(z_pixel[None, :] < z[rows, None] - 0.004, rough * ground, 0)
    tau += np.where(z_beta[None, :] < z[rows, None], rough[:, ::-1] * ground_beta, 0)
    through = np.exp(-tau)
    blurred = 0.28 * (np.roll(through, 1, axis=1) + np.roll(through, -1, axis=1)) + 0.44 * through
    flux[rows, :n_pixels] *= blurred  # the instrument's line spread, 0.75 Å


def _opacity(z: Array) -> Array:
    """Effective optical depth of Lyα: 0.00554 (1+z)^3.18 (Kamble et al. 2020)."""
    return np.asarray(0.00554 * (1 + z) ** 3.18)


@lru_cache(maxsize=1)
def _amplitudes() -> tuple[Array, Array]:
    """(effective optical depth, median τ of the lognormal field that gives it)."""
    x = np.linspace(-5, 5, 401)
    weight = np.exp(-0.5 * x * x)
    weight /= weight.sum()
    median = np.geomspace(1e-4, 50, 200)
    mean = np.exp(-median[:, None] * np.exp(_ROUGHNESS * x)) @ weight
    return -np.log(mean), median


def absorb_limit(rng: np.random.Generator, flux: Flux, z: Array) -> None:
    """Lyman-limit systems: a cut below 912 Å at a redshift behind the forest (about one a Δz of 0.5)."""
    system = z - rng.exponential(0.45, len(z))
    depth = rng.exponential(2.5, len(z)) + 0.5
    rows = np.flatnonzero(LIMIT * (1 + system) > FIRST)
    for_rows = (FIRST + STEP * np.arange(2400))[None, :] / (LIMIT * (1 + system[rows, None]))
    tau = np.where(for_rows < 1, depth[rows, None] * for_rows**3, 0)
    flux[rows, :2400] *= np.exp(-tau).astype(np.float32)


def absorb_dlas(rng: np.random.Generator, flux: Flux, z: Array) -> tuple[NDArray[np.int64], Array]:
    """Damped Lyα systems with their metals. Returns how many [B] and the largest log N [B] (0: none)."""
    start = np.maximum(FIRST / LYA - 1, (1 + z) * 930 / LYA - 1)
    path = np.maximum(z - 0.02 - start, 0)
    incidence = np.where(z > 1.96, 0.6 * np.exp(-7 / np.maximum(z, 1) ** 2), 0)
    count = rng.poisson(path * incidence)
    rows = np.repeat(np.arange(len(z)), count)
    system = start[rows] + rng.random(len(rows)) * path[rows]
    log_density = 20.3 + np.minimum(rng.exponential(0.42, len(rows)), 2.2)
    largest = np.zeros(len(z))
    np.maximum.at(largest, rows, log_density)
    if len(rows):
        tau = np.zeros_like(flux[: len(np.unique(rows))])
        unique, local = np.unique(rows, return_inverse=True)
        add_dlas(tau, local, LYA * (1 + system), 10**log_density, LYA, 0.4164, 6.265e8, 30.0)
        add_dlas(tau, local, LYB * (1 + system), 10**log_density, LYB, 0.0791, 1.897e8, 30.0)
        flux[unique] *= np.exp(-tau)
        absorb_metals(flux, rows, system, 0.25 * 10 ** rng.normal(0, 0.3, len(rows)) + 0.3, (0.6, 1.0, 1.0))
    return count, largest


def absorb_metals(flux: Flux, rows: Rows, z: Array, strength: Array, species: tuple[float, float, float]) -> None:
    """Narrow metal systems at ``z`` [K] before the quasars ``rows`` [K].

    ``strength`` [K] is the rest EW (Å) of the strongest lines; ``species`` weighs high-ionisation,
    low-ionisation and Fe II lines.
    """
    table = lines.METALS
    weight = np.asarray(species)[table.extra.astype(int) - 1] * table.strength
    centre = table.wavelength * (1 + z[:, None])
    equivalent = strength[:, None] * weight * (1 + z[:, None])  # observed Å
    sigma = np.maximum(np.hypot(LSF, 60 / LIGHT * centre), equivalent / (0.92 * np.sqrt(2 * np.pi)))
    depth = equivalent / (sigma * np.sqrt(2 * np.pi))
    keep = (depth > 0.003) & (centre > FIRST) & (centre < 9826)
    row = np.broadcast_to(np.asarray(rows)[:, None], centre.shape)[keep]
    transmit(flux, row, centre[keep], sigma[keep], depth[keep], False)


def absorb_intervening(rng: np.random.Generator, flux: Flux, z: Array) -> NDArray[np.int64]:
    """Mg II and C IV systems along the way and associated ones near the quasar. Returns how many [B]."""
    count = rng.poisson(0.25 * np.clip(z, 0, 3))
    rows = np.repeat(np.arange(len(z)), count)
    system = 0.3 + (z[rows] - 0.3) * rng.random(len(rows))
    high = rng.random(len(rows)) < 0.4
    equivalent = np.minimum(0.15 + rng.exponential(0.55, len(rows)), 4.0)
    for is_high, species in ((True, (1.0, 0.15, 0.05)), (False, (0.1, 1.0, 0.7))):
        pick = high == is_high
        absorb_metals(flux, rows[pick], system[pick], equivalent[pick], species)
    associated = np.flatnonzero(rng.random(len(z)) < 0.2)
    speed = rng.normal(-400, 900, len(associated)) / LIGHT
    near = (1 + z[associated]) * (1 + np.clip(speed, -0.01, 0.003)) - 1
    absorb_metals(flux, associated, near, 0.1 + rng.exponential(0.4, len(near)), (1.3, 0.3, 0.05))
    count[associated] += 1
    return count


def absorb_bals(rng: np.random.Generator, flux: Flux, z: Array) -> tuple[NDArray[np.bool_], Array]:
    """Broad absorption in 12% of the quasars. Returns which [B] and the C IV trough's widest speed, km/s [B]."""
    is_bal = rng.random(len(z)) < BAL_FRACTION
    is_low = is_bal & (rng.random(len(z)) < 0.13)
    rows = np.flatnonzero(is_bal)
    pieces = rng.integers(1, 4, len(rows))
    row = np.repeat(rows, pieces)
    centre_speed = np.repeat(rng.uniform(2500, 17000, len(rows)), pieces) + rng.uniform(-2500, 2500, len(row))
    half = rng.uniform(900, 3200, len(row))  # half-width of a flat-bottomed trough, km/s
    centre_speed = np.clip(centre_speed, half, 25000 - half)
    depth = np.clip(rng.beta(2.2, 1.8, len(row)), 0.15, 0.97)
    absorb_troughs(flux, row, z[row], centre_speed, half, depth, is_low[row])
    widest = np.zeros(len(z))
    np.maximum.at(widest, row, 2 * half)
    return is_bal, widest


def absorb_troughs(
    flux: Flux, row: Rows, z: Array, speed: Array, half: Array, depth: Array, low: NDArray[np.bool_]
) -> None:
    """Flat-bottomed troughs [K] at ``speed`` ± ``half`` (km/s, outflowing) in every BAL transition."""
    table = lines.BAL
    centre = table.wavelength * (1 + z[:, None]) * (1 - speed[:, None] / LIGHT)
    sigma = np.broadcast_to(centre * half[:, None] / LIGHT, centre.shape)
    deep = depth[:, None] * table.strength * np.where(table.extra > 0, low[:, None], True)
    keep = (deep > 0.01) & (centre > 3500) & (centre < 9900)
    rows = np.broadcast_to(np.asarray(row)[:, None], centre.shape)[keep]
    transmit(flux, rows, centre[keep], sigma[keep], deep[keep], True)
