"""True spectra of a pixel's targets: quasars with what absorbs them and their anomalies, and the other rows.

Shapes: N targets (quasars first), L=7781 native pixels. Flux in 1e-17 erg/s/cm²/Å.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import absorption, anomalies
from pipeline.simulate.galaxies import STAR_TYPES, galaxies, stars
from pipeline.simulate.quasars import N_PIXELS, Quasars, draw_quasars, emission
from pipeline.simulate.targets import PixelPlan, Targets, draw_targets

Array = NDArray[np.float64]
Flux = NDArray[np.float32]
BLOCK = 64  # rows rendered together, so that what is worked on stays in the cache


@dataclass(frozen=True)
class Spectra:
    """N targets and their true spectra; ``anomaly`` is empty where a target is normal."""

    targets: Targets
    flux: Flux  # [N, L]
    label: NDArray[np.str_]  # [N] class of a normal row: quasar, bal, elg, …
    anomaly: NDArray[np.str_]  # [N]
    strength: Array  # [N] the anomaly's, in its own unit
    params: list[dict[str, Any]]  # [N]
    z_seen: Array  # [N] redshift the fitter is led to; the true one but for line confusion
    difference: dict[int, Flux]  # target -> [L] flux with the anomaly less flux without

    def difference_of(self, rows: NDArray[np.int64]) -> dict[int, Flux]:
        """Anomalous less normal flux by position in ``rows``."""
        return {i: self.difference[row] for i, row in enumerate(rows.tolist()) if row in self.difference}


def draw_spectra(rng: np.random.Generator, plan: PixelPlan, anomaly_fraction: float) -> Spectra:
    """Draw a pixel's targets and render their true spectra."""
    n_quasars = plan.unique_quasars
    is_bright = np.arange(n_quasars) >= plan.dark_quasars
    quasars = draw_quasars(rng, n_quasars, is_bright)
    targets = draw_targets(rng, plan, quasars.z, quasars.flux_r)
    n = len(targets)
    flux = np.zeros((n, N_PIXELS), np.float32)
    label, params = targets.kind.astype("U24"), [dict[str, Any]() for _ in range(n)]
    for start in range(0, n_quasars, BLOCK):
        block = np.arange(start, min(start + BLOCK, n_quasars))
        flux[block], notes, is_bal = render(rng, quasars.rows(block))
        label[block[is_bal]] = "bal"
        for row, note in zip(block.tolist(), notes, strict=True):
            params[row] = note
    chosen = anomalies.choose(rng, quasars.z, anomaly_fraction)
    strength, z_seen = np.full(n, np.nan), targets.z.copy()
    difference = {}
    for row in np.flatnonzero(chosen != "").tolist():
        made = anomalies.make(rng, str(chosen[row]), flux[row : row + 1], quasars.rows(np.array([row])))
        difference[row] = made.flux[0] - flux[row]
        flux[row], strength[row], z_seen[row] = made.flux[0], made.strength, made.z_seen
        params[row] |= made.params
    for start in range(n_quasars, n, BLOCK):
        _render_others(rng, flux, targets, np.arange(start, min(start + BLOCK, n)))
    anomaly = np.concatenate([chosen, np.full(n - n_quasars, "")])
    return Spectra(targets, flux, label, anomaly, strength, params, z_seen, difference)


def render(rng: np.random.Generator, quasars: Quasars) -> tuple[Flux, list[dict[str, Any]], NDArray[np.bool_]]:
    """Spectra [B, L] of quasars with absorption, notes on each, and which have broad absorption lines."""
    flux = emission(quasars)
    systems = absorption.absorb_intervening(rng, flux, quasars.z)
    dlas, log_density = absorption.absorb_dlas(rng, flux, quasars.z)
    is_bal, trough = absorption.absorb_bals(rng, flux, quasars.z)
    absorption.absorb_forest(rng, flux, quasars.z)
    absorption.absorb_limit(rng, flux, quasars.z)
    is_seen = is_bal & (quasars.z > absorption.BAL_REDSHIFTS[0]) & (quasars.z < absorption.BAL_REDSHIFTS[1])
    is_seen &= trough > 2000
    notes = [
        {
            "magnitude": round(float(quasars.magnitude[i]), 2),
            "reddening": round(float(quasars.reddening[i]), 3),
            "blueshift": round(float(quasars.blueshift[i])),
            "systems": int(systems[i]),
            **({"dlas": int(dlas[i]), "dla_logn": round(float(log_density[i]), 2)} if dlas[i] else {}),
            **({"trough": round(float(trough[i]))} if is_bal[i] else {}),
        }
        for i in range(len(quasars))
    ]
    return flux, notes, is_seen


def _render_others(rng: np.random.Generator, flux: Flux, targets: Targets, block: NDArray[np.int64]) -> None:
    """Galaxies and stars of the rows ``block``, in place; sky stays dark."""
    kind = targets.kind[block]
    for name, old, width in (
        ("elg", 0.1, 70.0),
        ("lrg", 0.97, 200.0),
        ("bgs", 0.6, 110.0),
        ("badfiber", 0.5, 90.0),
    ):
        rows = block[kind == name]
        n = len(rows)
        if n == 0:
            continue
        share = np.clip(rng.normal(old, 0.12, n), 0, 1)
        equivalent = (1 - share) ** 1.5 * (75 if name == "elg" else 18) * rng.lognormal(0, 0.5, n)
        widths = width * rng.lognormal(0, 0.25, n)
        flux[rows] = galaxies(targets.z[rows], share, equivalent, widths, targets.flux_r[rows])
    rows = block[kind == "star"]
    index = np.searchsorted(np.sort(STAR_TYPES), targets.subtype[rows])
    types = np.argsort(STAR_TYPES)[np.minimum(index, len(STAR_TYPES) - 1)]
    if len(rows):
        flux[rows] = stars(rng, types, targets.flux_r[rows])
