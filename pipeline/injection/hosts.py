"""Injection into observed spectra: a survey's own noise and masks, departures at a chosen significance.

A host's noiseless light is not known; the model's reconstruction of it stands in wherever a departure multiplies or
replaces light, and for its quasar's parameters a drawn quasar that looks like it. Shapes: B hosts, L=7781 native
pixels. Flux in 1e-17 erg/s/cm²/Å, ivar its inverse square.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.grid import N_PIXELS, OVERLAP_BR, OVERLAP_RZ, WAVELENGTH
from pipeline.injection.departures import Departure, allowed, depart, pixels
from pipeline.injection.grading import Yardstick
from pipeline.simulate.instrument import Arm
from pipeline.simulate.quasars import R_BAND, Quasars, draw_quasars, emission

Flux = NDArray[np.float32]

SIGNIFICANCE: Final = (5.0, 50.0)  # σ, between which injections are log-uniform
TRIES: Final = (8, 8)  # hosts tried for one departure: any, then of the brighter quarter
TRIES_REMADE: Final = (2, 6)  # each costs more, and most hosts are too faint
CANDIDATES: Final = 6  # drawn quasars among which a host's likeness is sought
MARGIN: Final = 3.0  # by which drawn quasars' departures may differ in strength
COARSE: Final = 8  # pixels a step when likeness is judged
REMADE: Final = frozenset({"weak_lines", "strong_iron", "double_peaked"})  # made of the quasar's own lines
CONTROL: Final = "none"  # nothing is injected: what share of spectra passes anyway
RESHOT: Final = "wrong_redshift"  # the spectrum itself stays, at a redshift that is not its own

_SPLIT = tuple((span.start + span.stop) // 2 for span in (OVERLAP_BR, OVERLAP_RZ))
PARTS: Final = {"B": slice(0, _SPLIT[0]), "R": slice(*_SPLIT), "Z": slice(_SPLIT[1], N_PIXELS)}


@dataclass(frozen=True)
class Hosts:
    """B observed spectra that take injections."""

    flux_BL: Flux  # anything where ivar is 0
    ivar_BL: Flux
    base_BL: Flux  # their noiseless light, as the model has it
    z_B: NDArray[np.float64]
    snr_B: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.z_B)

    @cached_property
    def light_B(self) -> Flux:  # noqa: N802 - the name tells the shape
        """Mean noiseless flux in the r band; a class needs some to act upon."""
        return np.asarray(self.base_BL[:, R_BAND].mean(axis=1))


@dataclass(frozen=True)
class Injected:
    """One spectrum with a departure in it."""

    host: int  # its row among the hosts
    flux_L: Flux
    ivar_L: Flux
    z: float  # redshift that it would be catalogued with
    wavelength: float  # of a local feature, observed Å; NaN where there is none


def parts(base_L: Flux, ivar_L: Flux) -> list[Arm]:
    """Return a joined spectrum as three arms that do not overlap, each up to the middle of the overlaps."""
    arms = []
    for name, span in PARTS.items():
        flux, ivar = base_L[None, span].copy(), ivar_L[None, span].copy()
        arms.append(Arm(name, WAVELENGTH[span], flux, ivar, np.zeros(ivar.shape, np.int32), np.ones_like(flux)))
    return arms


def likeness(rng: np.random.Generator, base_L: Flux, ivar_L: Flux, z: float, count: int) -> Quasars:
    """Return the one of ``count`` drawn quasars whose emission at ``z`` is most like a spectrum, scaled to its light.

    The simulator's classes ask for parameters that no observed spectrum comes with, such as its lines' widths.
    """
    drawn = draw_quasars(rng, count, np.zeros(count, bool))
    level = float(base_L[R_BAND].mean())
    drawn = drawn.with_values(z=np.full(count, z), flux_r=np.full(count, level))
    if count == 1:
        return drawn
    shape_KP = emission(drawn)[:, ::COARSE].astype(np.float64)
    seen_P, weight_P = base_L[::COARSE].astype(np.float64), (ivar_L[::COARSE] > 0).astype(np.float64)
    scale_K = (shape_KP * weight_P) @ seen_P / np.maximum((shape_KP**2) @ weight_P, 1e-30)
    misfit_K = np.square(scale_K[:, None] * shape_KP - seen_P) @ weight_P
    return drawn.rows(np.array([np.argmin(misfit_K)]))


def inject(
    rng: np.random.Generator, name: str, wanted: float, hosts: Hosts, yardstick: Yardstick, z_max: float
) -> Injected | None:
    """Inject a class at a significance into the first host, in random order, that can show it so.

    Args:
        rng: decides the host and what the class leaves open.
        name: one of ``departures.CLASSES``, or ``CONTROL``.
        wanted: significance, σ, see ``grading``.
        hosts: the spectra to choose from.
        yardstick: grades the departure.
        z_max: largest redshift that the model takes.

    Returns:
        None when no host tried can show the class so strongly: most are too faint for it.
    """
    if name == CONTROL:
        row = int(rng.integers(len(hosts)))
        return Injected(row, hosts.flux_BL[row], hosts.ivar_BL[row], float(hosts.z_B[row]), float("nan"))
    for row in _order(rng, hosts, name):
        if name in REMADE and not _within_reach(rng, name, hosts, row, wanted, yardstick):
            continue
        departure, arms = _departure(rng, name, hosts, row, CANDIDATES if name in REMADE else 1)
        if not 0 <= departure.z_seen <= z_max:
            continue
        full = yardstick.significance(departure, arms)
        most = 1.0 if name == RESHOT else departure.most
        if full * most < wanted or (departure.replaces and most > 1 and full < wanted / 3):
            continue
        flux_L, ivar_L = _observed(rng, name, hosts, row, departure, arms, wanted / full)
        return Injected(row, flux_L, ivar_L, departure.z_seen, float(departure.params.get("wavelength", np.nan)))
    return None


def _order(rng: np.random.Generator, hosts: Hosts, name: str) -> list[int]:
    """Rows to try: some of those that the class allows at random, then some of the brighter quarter of them."""
    rows = np.flatnonzero((hosts.light_B > 0) & allowed(name, hosts.z_B))
    rows = rng.permutation(rows)
    snr = np.nan_to_num(hosts.snr_B[rows], nan=-np.inf)
    bright = rows[snr >= np.sort(snr)[-((len(rows) + 3) // 4)]] if len(rows) else rows
    n_any, n_bright = TRIES_REMADE if name in REMADE else TRIES
    first = rows[:n_any]
    return [*first.tolist(), *bright[~np.isin(bright, first)][:n_bright].tolist()]


def _within_reach(
    rng: np.random.Generator, name: str, hosts: Hosts, row: int, wanted: float, yardstick: Yardstick
) -> bool:
    """Whether a host may show a departure so strongly, by any drawn quasar in place of the likest: much cheaper."""
    departure, arms = _departure(rng, name, hosts, row, 1)
    return yardstick.significance(departure, arms) * departure.most > wanted / MARGIN


def _departure(
    rng: np.random.Generator, name: str, hosts: Hosts, row: int, candidates: int
) -> tuple[Departure, list[Arm]]:
    base_L, ivar_L, z = hosts.base_BL[row], hosts.ivar_BL[row], float(hosts.z_B[row])
    arms = parts(base_L, ivar_L)
    quasar = likeness(rng, base_L, ivar_L, z, candidates)
    group = {
        "wavelength": float(rng.uniform(4500, 8800)),
        "sigma": float(rng.uniform(15, 80)),
        "sign": float(rng.choice([-1, 1])),
    }
    return depart(rng, name, arms, base_L, quasar, group if name == "fiber_group" else None), arms


def _observed(
    rng: np.random.Generator, name: str, hosts: Hosts, row: int, departure: Departure, arms: list[Arm], factor: float
) -> tuple[Flux, Flux]:
    """Return flux and ivar [L] of a host with ``factor`` times the departure, its own noise and its own mask."""
    flux_L, before_L = hosts.flux_BL[row], hosts.ivar_BL[row]
    delta_L, ivar_L = np.empty_like(flux_L), np.empty_like(before_L)
    for arm in arms:
        delta_L[pixels(arm)], ivar_L[pixels(arm)] = np.float32(factor) * departure.delta[arm.name], arm.ivar[0]
    known = before_L > 0
    sigma_L = np.zeros_like(flux_L)
    np.divide(1.0, np.sqrt(ivar_L), out=sigma_L, where=known)
    noise_L = sigma_L * rng.standard_normal(len(flux_L), dtype=np.float32)
    if name == RESHOT:  # the same light fainter, the noise made up to what it was
        new_L = factor * flux_L + np.sqrt(max(1.0 - factor * factor, 0.0)) * noise_L
    elif departure.replaces:
        new_L = delta_L + noise_L
    else:  # where the departure lowered the ivar, noise is added to match
        share_L = np.zeros_like(flux_L)
        np.divide(ivar_L, before_L, out=share_L, where=known)
        new_L = flux_L + delta_L + np.sqrt(np.maximum(1.0 - share_L, 0.0)) * noise_L
    return np.where(known, new_L, flux_L).astype(np.float32), ivar_L
