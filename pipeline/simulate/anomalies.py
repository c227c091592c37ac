"""Quasars that are not as quasars are: fourteen classes, each of graded strength.

Each maker takes one normal spectrum [1, L] with its parameters and returns it changed, the strength in
the class's own unit, and the parameters worth knowing. Flux in 1e-17 erg/s/cm²/Å.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.grid import ARMS, WAVELENGTH
from pipeline.simulate import lines
from pipeline.simulate.absorption import absorb_forest, absorb_metals
from pipeline.simulate.galaxies import STAR_TYPES, galaxies, stars
from pipeline.simulate.instrument import Arm
from pipeline.simulate.kernels import add_gaussians, transmit
from pipeline.simulate.quasars import LSF, Quasars, draw_quasars, emission, smc_extinction
from pipeline.simulate.redshifts import SMALL_DELTA_CHI2, RedshiftFits

Array = NDArray[np.float64]
Flux = NDArray[np.float32]
LIGHT = 299792.458  # km/s
CONFUSED = {"Lyα": 1215.67, "C IV": 1549.06, "C III]": 1908.73, "Mg II": 2798.75, "Hβ": 4862.68}


@dataclass(frozen=True)
class Made:
    """An anomalous spectrum [1, L], its strength, the redshift the fitter is led to, and notes."""

    flux: Flux
    strength: float
    z_seen: float
    params: dict[str, Any] = field(default_factory=dict)


Maker = Callable[[np.random.Generator, Flux, Quasars], tuple[Flux, float, dict[str, Any]]]


def choose(rng: np.random.Generator, z: Array, fraction: float) -> NDArray[np.str_]:
    """Class [B] of each quasar, empty for most: a ``fraction`` of them is anomalous, of a class its redshift allows."""
    names = np.array(list(CLASSES))
    low, high = (np.array([entry[i] for entry in CLASSES.values()], dtype=float) for i in (1, 2))
    allowed = (z[:, None] > low) & (z[:, None] < high)
    preference = rng.random(allowed.shape) * allowed
    picked = names[np.argmax(preference, axis=1)] if len(z) else np.zeros(0, "U24")
    return np.where(rng.random(len(z)) < fraction, picked, "").astype("U24")


def make(rng: np.random.Generator, name: str, flux: Flux, quasar: Quasars) -> Made:
    """Turn one normal spectrum [1, L] into an anomaly of class ``name``."""
    z = float(quasar.z[0])
    if name == "wrong_redshift":
        return _wrong_redshift(rng, flux, z)
    changed, strength, params = CLASSES[name][0](rng, flux.copy(), quasar)
    return Made(changed, strength, z, params)


def significance(arms: list[Arm], difference: dict[int, Flux]) -> Array:
    """Noiseless significance √Σ ivar·Δ² [B] of what anomalies changed; 0 where nothing did."""
    total = np.zeros(len(arms[0].flux))
    for row, delta in difference.items():
        for arm in arms:
            total[row] += np.sum(arm.ivar[row] * (delta[ARMS[arm.name]] * arm.gain[row]) ** 2)
    return np.sqrt(total)


def mislead_fits(fits: RedshiftFits, anomaly: NDArray[np.str_]) -> None:
    """The fitter is sure of its quasar in every anomaly: those it doubts would not pass the science gate."""
    rows = anomaly != ""
    fits.spectype[rows] = "QSO"
    fits.subtype[rows] = ""
    fits.zwarn[rows] &= ~SMALL_DELTA_CHI2


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """One number, log-uniform between two."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _free_wavelength(rng: np.random.Generator, z: float, low: float = 3900, high: float = 9300) -> float:
    """An observed wavelength (Å) away from the quasar's own strong lines."""
    places = rng.uniform(low, high, 24)
    strong = np.concatenate([lines.BROAD.wavelength[lines.BROAD.strength > 4], [5008.24]]) * (1 + z)
    return float(places[np.argmax(np.min(np.abs(np.log(places[:, None] / strong)), axis=1))])


def _level(flux: Flux, centre: float) -> float:
    """Typical flux around an observed wavelength."""
    middle = int((centre - 3600) / 0.8)
    return float(np.median(flux[0, max(0, middle - 150) : middle + 150]))


def _add_line(flux: Flux, centre: float, sigma: float, area: float) -> None:
    """Add one Gaussian of observed σ (Å) and area (flux·Å)."""
    peak = area / (sigma * np.sqrt(2 * np.pi))
    add_gaussians(flux, np.array([0]), np.array([centre]), np.array([sigma]), np.array([peak]))


def extra_bump(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """A broad emission line where no quasar has one; strength: observed EW, Å."""
    centre = _free_wavelength(rng, quasar.z[0])
    width, equivalent = rng.uniform(1500, 4500), log_uniform(rng, 25, 350)
    _add_line(flux, centre, centre * width / LIGHT, equivalent * _level(flux, centre))
    return flux, equivalent, {"wavelength": centre, "sigma_kms": width}


def odd_line(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """A narrow emission line at a wavelength of no known transition; strength: observed EW, Å."""
    centre = _free_wavelength(rng, quasar.z[0])
    width, equivalent = rng.uniform(60, 300), log_uniform(rng, 3, 60)
    _add_line(flux, centre, float(np.hypot(centre * width / LIGHT, LSF)), equivalent * _level(flux, centre))
    return flux, equivalent, {"wavelength": centre, "sigma_kms": width}


def absorber_swarm(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """Many metal systems crowded in redshift; strength: their number."""
    count = round(log_uniform(rng, 6, 40))
    centre = rng.uniform(0.45, 0.97) * (1 + quasar.z[0]) - 1
    z = np.maximum(centre + rng.normal(0, 0.012 * (1 + centre), count), 0.32)
    absorb_metals(flux, np.zeros(count, np.int64), z, rng.uniform(0.3, 1.6, count), (0.9, 1.0, 0.9))
    return flux, float(count), {"z": float(centre)}


def felobal(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """An iron low-ionisation broad absorber over a reddened continuum; strength: covering, 0–1."""
    covering, half = rng.uniform(0.35, 1.0), rng.uniform(700, 2600)
    speed = half + rng.uniform(200, 6000)
    table = lines.FELOBAL
    _redden(flux, quasar, rng.uniform(0.05, 0.25))
    centre = table.wavelength * (1 + quasar.z[0]) * (1 - speed / LIGHT)
    row = np.zeros(len(centre), np.int64)
    transmit(flux, row, centre, centre * half / LIGHT, covering * table.strength, True)
    return flux, covering, {"speed": speed, "half_width": half}


def double_quasar(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """Two quasars at different redshifts in one fiber; strength: second over first."""
    ratio = log_uniform(rng, 0.15, 1.0)
    second = draw_quasars(rng, 1, np.zeros(1, bool)).with_values(flux_r=ratio * quasar.flux_r)
    if abs(second.z[0] - quasar.z[0]) < 0.1:
        second = second.with_values(z=second.z + 0.4)
    added = emission(second)
    absorb_forest(rng, added, second.z)
    return flux + added, ratio, {"z": float(second.z[0])}


def star_blend(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """A star in the quasar's fiber; strength: star over quasar in r."""
    ratio = log_uniform(rng, 0.2, 2.0)
    kind = int(rng.choice([3, 4, 5, 6, 6]))
    return flux + stars(rng, np.array([kind]), ratio * quasar.flux_r), ratio, {"star": STAR_TYPES[kind]}


def galaxy_blend(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """A foreground galaxy (a lens, perhaps) in the quasar's fiber; strength: galaxy over quasar in r."""
    ratio, z = log_uniform(rng, 0.25, 2.0), rng.uniform(0.15, 0.8)
    old = float(rng.choice([0.3, 0.95]))
    added = galaxies(np.array([z]), np.array([old]), np.array([40 * (1 - old)]), np.array([130.0]),
                     ratio * quasar.flux_r)  # fmt: skip
    return flux + added, ratio, {"z": z, "old": old}


def _wrong_redshift(rng: np.random.Generator, flux: Flux, z: float) -> Made:
    """One line taken for another: 1+z' = (1+z)·λa/λb; strength: |Δz|/(1+z)."""
    pairs = [(a, b, (1 + z) * CONFUSED[a] / CONFUSED[b] - 1) for a in CONFUSED for b in CONFUSED if a != b]
    seen = [p for p in pairs if 0.1 < p[2] < 4.5 and 3700 < CONFUSED[p[0]] * (1 + z) < 9700]
    a, b, z_seen = seen[int(rng.integers(len(seen)))]
    return Made(flux.copy(), abs(z_seen - z) / (1 + z), z_seen, {"line": a, "taken_for": b})


def _redden(flux: Flux, quasar: Quasars, reddening: float) -> None:
    """SMC dust at the quasar's redshift, E(B−V) in mag, in place."""
    flux *= 10 ** (-0.4 * reddening * smc_extinction(WAVELENGTH / (1 + quasar.z[0]))).astype(np.float32)


def reddened(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """Extreme dust in the host, the r flux kept; strength: E(B−V)."""
    amount = log_uniform(rng, 0.3, 1.3)
    before = flux[:, 2800:4400].mean()
    _redden(flux, quasar, amount)
    return flux * np.float32(before / flux[:, 2800:4400].mean()), amount, {}


def continuum_kink(rng: np.random.Generator, flux: Flux, _: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """The power law changes slope at one wavelength; strength: change of slope."""
    centre, change = rng.uniform(4500, 8200), float(rng.choice([-1, 1])) * rng.uniform(1, 4.5)
    factor = np.maximum(WAVELENGTH / centre, 1) ** change
    return flux * factor.astype(np.float32), abs(change), {"wavelength": centre, "change": change}


def _remade(flux: Flux, quasar: Quasars, **changes: Array) -> Flux:
    """The spectrum with other parameters of its emission; what absorbs it stays."""
    ratio = emission(quasar.with_values(**changes)) / np.maximum(emission(quasar), np.float32(1e-6))
    return np.asarray(flux * ratio, dtype=np.float32)


def weak_lines(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """A weak-line quasar; strength: share of the broad lines that is gone."""
    left = rng.uniform(0.02, 0.35)
    return _remade(flux, quasar, ew_broad=left * quasar.ew_broad), 1 - left, {}


def strong_iron(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """Iron far above the usual, and narrow; strength: factor on the mean iron."""
    factor = log_uniform(rng, 3, 12)
    iron = factor * np.array([[75.0, 34.0]])
    return _remade(flux, quasar, iron=iron, width=0.45 * quasar.width), factor, {}


def double_peaked(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """Broad lines split as from a disk or two black holes; strength: half the splitting, km/s."""
    split = log_uniform(rng, 2200, 7000)
    changes = {"split": np.array([split]), "width": 0.8 * quasar.width, "ew_broad": 1.3 * quasar.ew_broad}
    return _remade(flux, quasar, **changes), split, {}


def white_dwarf(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """A white dwarf called a quasar; strength: 1."""
    return stars(rng, np.array([0]), quasar.flux_r), 1.0, {}


def supernova(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    """A type Ia supernova near maximum, at the host's redshift or before; strength: its r flux over the quasar's."""
    ratio, z = log_uniform(rng, 0.2, 1.5), float(np.minimum(quasar.z[0], rng.uniform(0.05, 0.35)))
    rest = WAVELENGTH / (1 + z)
    light = np.interp(rest, [2800, 3400, 4000, 5000, 6500, 9000], [0.1, 0.6, 1.35, 1.0, 0.62, 0.35])
    for centre, depth, sigma in ((3760, 0.55, 70), (4300, 0.35, 80), (4850, 0.35, 90), (5430, 0.25, 60),
                                 (5750, 0.25, 60), (6130, 0.5, 70), (8150, 0.5, 130)):  # fmt: skip
        light *= 1 - depth * np.exp(-0.5 * ((rest - centre) / sigma) ** 2)
        light *= 1 + 0.35 * depth * np.exp(-0.5 * ((rest - centre - 2.6 * sigma) / sigma) ** 2)
    scale = ratio * quasar.flux_r[0] / light[2800:4400].mean()
    return flux + (scale * light).astype(np.float32), ratio, {"z": z}


def _never(rng: np.random.Generator, flux: Flux, quasar: Quasars) -> tuple[Flux, float, dict[str, Any]]:
    raise AssertionError("a wrong redshift changes no flux: see make()")


CLASSES: dict[str, tuple[Maker, float, float]] = {  # maker, redshifts between which it shows
    "extra_bump": (extra_bump, 0, 6), "odd_line": (odd_line, 0, 6), "absorber_swarm": (absorber_swarm, 0.9, 4),
    "felobal": (felobal, 0.7, 3.5), "double_quasar": (double_quasar, 0, 6), "star_blend": (star_blend, 0, 6),
    "galaxy_blend": (galaxy_blend, 0.5, 6), "wrong_redshift": (_never, 0.4, 4.2), "reddened": (reddened, 0.3, 6),
    "continuum_kink": (continuum_kink, 0, 6), "weak_lines": (weak_lines, 0, 6), "strong_iron": (strong_iron, 0, 2.2),
    "double_peaked": (double_peaked, 0.05, 3), "white_dwarf": (white_dwarf, 0, 6), "supernova": (supernova, 0.05, 1.2),
}  # fmt: skip
