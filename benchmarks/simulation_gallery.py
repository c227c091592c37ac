"""Draws one example of everything the simulator makes: ``python -m benchmarks.simulation_gallery [PICTURE]``.

Coloured: the observed flux in arms B, R, Z, smoothed over 7 pixels by inverse variance; black: what was
observed without noise; grey dashed: the same quasar had nothing happened to it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.grid import ARMS
from pipeline.simulate import absorption, anomalies, artefacts, instrument
from pipeline.simulate.exposures import Exposures, draw_exposures
from pipeline.simulate.galaxies import STAR_TYPES, galaxies, stars
from pipeline.simulate.quasars import Quasars, draw_quasars, emission

Flux = NDArray[np.float32]
COLOURS = {"B": "tab:blue", "R": "tab:green", "Z": "tab:red"}
NORMAL_REDSHIFTS = (0.25, 0.7, 1.2, 1.7, 2.2, 2.8, 3.5, 4.4)
NAMED = {"Lyα": 1215.7, "C IV": 1549.1, "C III]": 1908.7, "Mg II": 2798.8, "[O II]": 3728.5, "Hβ": 4862.7,
         "[O III]": 5008.2, "Hα": 6564.6}  # fmt: skip


@dataclass
class Panel:
    """What one panel shows."""

    title: str
    arms: list[instrument.Arm]
    clean: list[Flux]
    before: Flux | None
    z: float | None


def one_quasar(rng: np.random.Generator, z: float, flux_r: float = 2.0) -> Quasars:
    """A normal quasar at a redshift."""
    drawn = draw_quasars(rng, 1, np.zeros(1, bool)).with_values(z=np.array([z]), flux_r=np.array([flux_r]))
    return drawn.with_values(reddening=np.minimum(drawn.reddening, 0.05))


def absorbed(rng: np.random.Generator, quasar: Quasars) -> Flux:
    """Its spectrum [1, L] behind the forest and a few metals."""
    flux = emission(quasar)
    absorption.absorb_forest(rng, flux, quasar.z)
    absorption.absorb_limit(rng, flux, quasar.z)
    return flux


def one_exposure(rng: np.random.Generator) -> Exposures:
    """A single dark exposure of a single row."""
    return draw_exposures(rng, "dark", 27136, np.zeros(1), np.ones(1, bool), np.zeros(1, bool))


def observe(
    rng: np.random.Generator, title: str, flux: Flux, z: float | None = None, before: Flux | None = None,
    artefact: str = "", strength: float = 8.0,
) -> Panel:  # fmt: skip
    """Observe a spectrum [1, L], with an artefact if one is named."""
    exposures = one_exposure(rng)
    arms = [instrument.observe_arm(rng, name, flux, exposures) for name in "BRZ"]
    hurt = artefacts.Hurt(np.array([artefact], "U24"), np.array([strength]), [{}])
    if artefact == artefacts.GROUP:
        hurt.params[0] |= {"wavelength": 6600.0, "sigma": 60.0, "sign": 1.0}
    artefacts.apply(rng, arms, hurt)
    clean = [arm.flux[0].copy() for arm in arms]
    for arm in arms:
        instrument.add_noise(rng, arm)
    artefacts.apply_after_noise(rng, arms, hurt)
    return Panel(title, arms, clean, before, z)


def normal_panels(rng: np.random.Generator) -> list[Panel]:
    """Quasars over redshift, broad absorption, a damped system, galaxies, stars, sky."""
    panels = [observe(rng, f"quasar z={z}", absorbed(rng, one_quasar(rng, z)), z) for z in NORMAL_REDSHIFTS]
    quasar = one_quasar(rng, 2.3)
    flux = absorbed(rng, quasar)
    row = np.zeros(2, np.int64)
    absorption.absorb_troughs(flux, row, np.full(2, 2.3), np.array([6000.0, 9500]), np.array([1800.0, 1200]),
                              np.array([0.85, 0.6]), np.zeros(2, bool))  # fmt: skip
    panels.append(observe(rng, "bal z=2.3", flux, 2.3))
    quasar = one_quasar(rng, 3.0)
    flux = absorbed(rng, quasar)
    tau = np.zeros_like(flux)
    absorption.add_dlas(tau, row[:1], np.array([1215.67 * 3.6]), np.array([10**20.9]), 1215.67, 0.4164, 6.265e8, 30.0)
    flux *= np.exp(-tau)
    absorption.absorb_metals(flux, row[:1], np.array([2.6]), np.array([0.8]), (0.6, 1.0, 1.0))
    panels.append(observe(rng, "damped Lyα system, log N = 20.9, z=2.6", flux, 3.0))
    for name, z, old, ew in (("elg", 1.0, 0.1, 70.0), ("lrg", 0.6, 0.97, 1.0), ("bgs", 0.2, 0.6, 10.0)):
        made = galaxies(np.array([z]), np.array([old]), np.array([ew]), np.array([90.0]), np.array([1.5]))
        panels.append(observe(rng, f"{name} z={z}", made))
    types = {kind: stars(rng, np.array([kind]), np.array([3.0])) for kind in (0, 2, 3, 4, 6)}
    return panels + [observe(rng, f"star {STAR_TYPES[kind]}", flux) for kind, flux in types.items()]


def anomaly_panels(rng: np.random.Generator) -> list[Panel]:
    """One of each class of anomaly."""
    panels = []
    for name, (_, low, high) in anomalies.CLASSES.items():
        quasar = one_quasar(rng, float(np.clip(rng.uniform(0.8, 2.4), low + 0.05, high - 0.05)))
        before = absorbed(rng, quasar)
        made = anomalies.make(rng, name, before, quasar)
        title = f"{name}: strength {made.strength:.3g} " + ", ".join(
            f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in made.params.items())  # fmt: skip
        panels.append(observe(rng, title, made.flux, made.z_seen, before))
    return panels


def artefact_panels(rng: np.random.Generator) -> list[Panel]:
    """One of each class of artefact."""
    panels = []
    for name in (*artefacts.CLASSES, artefacts.GROUP):
        z = float(rng.uniform(0.9, 2.4))
        before = absorbed(rng, one_quasar(rng, z))
        panels.append(observe(rng, f"artefact {name}: strength 8", before, z, before, name))
    return panels


def smoothed(arm: instrument.Arm) -> NDArray[np.float64]:
    """Flux averaged over 7 pixels with its inverse variance; NaN where there is none."""
    weight = np.where(np.isfinite(arm.flux[0]), arm.ivar[0], 0).astype(float)
    total = np.convolve(weight * np.nan_to_num(arm.flux[0]), np.ones(7), "same")
    norm = np.convolve(weight, np.ones(7), "same")
    return np.where(norm > 0, total / np.where(norm > 0, norm, 1), np.nan)


def draw(panels: list[Panel], path: Path, columns: int = 3) -> None:
    """Draw all panels into one picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(7.5 * columns, 2.3 * rows), squeeze=False)
    for axis in axes.ravel()[len(panels) :]:
        axis.axis("off")
    for axis, panel in zip(axes.ravel(), panels, strict=False):
        top, bottom = 0.1, 0.0
        for arm, clean in zip(panel.arms, panel.clean, strict=True):
            axis.plot(arm.wavelength, smoothed(arm), color=COLOURS[arm.name], lw=0.7)
            axis.plot(arm.wavelength, clean, color="black", lw=0.5)
            inner = clean[60:-60]
            top, bottom = max(top, float(np.percentile(inner, 99.7))), min(bottom, float(np.percentile(inner, 0.3)))
            if panel.before is not None:
                axis.plot(arm.wavelength, panel.before[0, ARMS[arm.name]], color="grey", lw=0.6, ls="--")
        axis.set(title=panel.title, xlim=(3550, 9880), ylim=(1.1 * bottom - 0.05 * top, 1.25 * top))
        for name, rest in NAMED.items() if panel.z is not None else ():
            if 3650 < rest * (1 + panel.z) < 9800:
                axis.axvline(rest * (1 + panel.z), color="grey", lw=0.4, ls=":")
                axis.text(rest * (1 + panel.z), 1.13 * top, name, fontsize=7)
        axis.title.set_fontsize(9)
    figure.supxlabel("wavelength (vacuum Å, observed)")
    figure.supylabel("flux (1e-17 erg/s/cm²/Å)")
    figure.tight_layout()
    figure.savefig(path, dpi=60)
    pyplot.close(figure)


def main() -> None:
    """Draw the gallery."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/pictures/simulation.png")
    rng = np.random.default_rng(7)
    draw(normal_panels(rng) + anomaly_panels(rng) + artefact_panels(rng), path)
    sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
