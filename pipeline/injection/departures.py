"""What each class of anomaly or artefact does to one spectrum, at full strength and without noise.

Shapes: L=7781 native pixels; W pixels of an arm. Flux in 1e-17 erg/s/cm²/Å, wavelengths in vacuum Å.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.grid import WAVELENGTH_START, WAVELENGTH_STEP
from pipeline.errors import ConfigError
from pipeline.simulate import anomalies, artefacts
from pipeline.simulate.instrument import Arm
from pipeline.simulate.quasars import Quasars

Flux = NDArray[np.float32]

PHYSICAL: Final = tuple(anomalies.CLASSES)
FLUXLESS: Final = ("masked_run", "nan_masked")  # artefacts that take information away and change no flux
ARTEFACT: Final = (*(name for name in artefacts.CLASSES if name not in FLUXLESS), artefacts.GROUP)
CLASSES: Final = (*PHYSICAL, *ARTEFACT)
KINDS: Final = {"physical": PHYSICAL, "artefact": ARTEFACT}

ADDED: Final = frozenset({"extra_bump", "odd_line", "double_quasar", "star_blend", "galaxy_blend", "supernova"})
REPLACED: Final = frozenset({"white_dwarf", "wrong_redshift", "sky_fiber"})  # nothing of the spectrum stays
BOUNDED: Final = frozenset({"dip_4400", "absorption_8600", "arm_step_5800", "arm_step_7570"})
FULL: Final = 20.0  # full strength of an artefact, see ``pipeline.simulate.artefacts``
SKY_REDSHIFT: Final = (3.8, 0.05)  # where redrock puts sky that it takes for a quasar: mean and scatter


@dataclass(frozen=True)
class Departure:
    """A departure of one spectrum from what it was, arm by arm."""

    delta: dict[str, Flux]  # arm → [W]; of a replaced spectrum, the whole new one
    most: float  # largest factor on ``delta`` that leaves the spectrum possible
    replaces: bool  # the new spectrum is ``delta`` alone
    z_seen: float  # redshift that the fitter is led to
    params: dict[str, Any] = field(default_factory=dict)


def checked_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Return the classes named, all where none is.

    Raises:
        ConfigError: there is no such class.
    """
    for name in names:
        if name not in CLASSES:
            near = get_close_matches(name, CLASSES, 1)
            hint = f"did you mean {near[0]}?" if near else f"classes: {', '.join(CLASSES)}"
            raise ConfigError(f"there is no class {name} to inject; {hint}")
    return tuple(dict.fromkeys(names)) or CLASSES


def pixels(arm: Arm) -> slice:
    """Where an arm, or the part of one, lies on the native grid."""
    first = round((float(arm.wavelength[0]) - WAVELENGTH_START) / WAVELENGTH_STEP)
    return slice(first, first + len(arm.wavelength))


def allowed(name: str, z_B: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a class can be seen at redshifts, [B]."""
    _, low, high = anomalies.CLASSES.get(name, (None, -np.inf, np.inf))
    return (low < z_B) & (z_B < high)


def depart(
    rng: np.random.Generator, name: str, arms: list[Arm], flux_L: Flux, quasar: Quasars,
    params: dict[str, Any] | None = None,
) -> Departure:  # fmt: skip
    """Return one class's departure at full strength.

    Args:
        rng: decides what the class leaves open (places, widths, kinds).
        name: one of ``CLASSES``, allowed at the quasar's redshift.
        arms: the arms of one spectrum, noiseless flux and ivar [1, W]; an artefact may lower the ivar in place.
        flux_L: the same noiseless spectrum on the native grid, [L].
        quasar: its parameters, one row.
        params: what a fiber group shares (night, wavelength, sigma, sign).

    Raises:
        ValueError: there is no such class.
    """
    if name in ARTEFACT:
        return _artefact(rng, name, arms, float(quasar.z[0]), params or {})
    if name not in anomalies.CLASSES:
        raise ValueError(f"no class {name}; classes: {', '.join(CLASSES)}")
    made = anomalies.make(rng, name, flux_L[None, :], quasar)
    replaces = name in REPLACED
    change_L = made.flux[0] if replaces else made.flux[0] - flux_L
    delta = {arm.name: change_L[pixels(arm)] * arm.gain[0] for arm in arms}
    most = 3.0 if name in ADDED or replaces else 1.0
    return Departure(delta, most, replaces, made.z_seen, made.params)


def _artefact(rng: np.random.Generator, name: str, arms: list[Arm], z: float, params: dict[str, Any]) -> Departure:
    delta = {arm.name: artefacts.signal(rng, arm, 0, name, FULL, params) for arm in arms}
    if name != "sky_fiber":
        return Departure(delta, 1.0 if name in BOUNDED else 20.0, False, z, params)
    sky = {arm.name: delta[arm.name] + arm.flux[0] for arm in arms}  # the signal takes the quasar's light away
    return Departure(sky, 20.0, True, float(rng.normal(*SKY_REDSHIFT)), params)
