"""Simulated spectra for the anomaly benchmark: parts with known contents, as arrays on disk.

Parts: ``train``, ``validate`` and ``calibrate`` hold anomalies and artefacts as a survey does; ``normals`` none;
``injected`` every class at graded significance; ``traps`` normals that must not rank high. All spectra go through the
simulator's instrument, its exact noise and the product's own join of the arms.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks._anomaly_traps import AFTER
from pipeline.desi.grid import ARMS, N_OVERLAP, N_PIXELS
from pipeline.desi.join import ArmRows, join
from pipeline.injection.departures import ARTEFACT, CLASSES, PHYSICAL, allowed, depart
from pipeline.injection.grading import Yardstick, inject
from pipeline.simulate import anomalies, artefacts, instrument
from pipeline.simulate.exposures import Exposures, draw_exposures
from pipeline.simulate.instrument import Arm
from pipeline.simulate.quasars import LIGHT, Quasars, draw_quasars, flux_from_magnitude
from pipeline.simulate.spectra import render

Array = NDArray[np.float64]
BLOCK = 128  # quasars made together, one sky pixel
NATURAL = ("train", "validate", "calibrate")
PARTS = (*NATURAL, "normals", "injected", "traps")
TRAPS = ("spikes", "masked", "arm_missing", "low_snr", "high_snr")
MAGNITUDES = {"low_snr": (22.6, 23.4), "high_snr": (16.2, 18.5)}  # r, of the traps of very low and very high S/N
SIGNIFICANCE = (5.0, 50.0)  # σ, between which injections are log-uniform
FRACTIONS = (0.015, 0.012)  # of anomalies and artefacts in the natural parts
GROUP = 8  # fibers that a fiber group hurts
BRIGHT_SHARE = 0.06
PATIENCE, TRIES = 12, 60  # quasars tried for a departure of the wanted significance: as they come, and in all


@dataclass(frozen=True)
class Sizes:
    """Spectra of each part; ``injected`` a class, ``traps`` a kind."""

    train: int
    validate: int
    calibrate: int
    normals: int
    injected: int
    traps: int

    def rows(self, part: str) -> int:
        """Spectra of a part, all classes together, in whole blocks."""
        each = {"injected": len(CLASSES), "traps": len(TRAPS)}.get(part, 1)
        return -(-getattr(self, part) // BLOCK) * BLOCK * each


FULL = Sizes(50_000, 5_000, 25_000, 50_000, 300, 5_000)
QUICK = Sizes(6_000, 1_500, 6_000, 6_000, 64, 640)


@dataclass(frozen=True)
class Part:
    """One part on disk; pixels are memory maps."""

    folder: Path

    @cached_property
    def flux(self) -> NDArray[np.float32]:
        """Flux [N, L]."""
        return np.asarray(np.load(self.folder / "flux.npy", mmap_mode="r"))

    @cached_property
    def ivar(self) -> NDArray[np.float32]:
        """Inverse variance [N, L]."""
        return np.asarray(np.load(self.folder / "ivar.npy", mmap_mode="r"))

    @cached_property
    def arm_difference(self) -> NDArray[np.float32]:
        """Difference of the arms in their overlaps [N, 177], σ."""
        return np.asarray(np.load(self.folder / "arm_difference.npy", mmap_mode="r"))

    @cached_property
    def table(self) -> pa.Table:
        """class, z (as catalogued), z_true, snr, significance, pixel, wavelength, and lists fiber and night."""
        return pq.read_table(self.folder / "table.parquet")

    def column(self, name: str) -> NDArray[Any]:
        """A column of the table as an array."""
        return np.asarray(self.table[name].to_numpy(zero_copy_only=False))


def make(folder: Path, part: str, sizes: Sizes, seed: int, yardstick: Path | None = None, jobs: int = 2) -> Part:
    """Simulate one part into ``folder``, or take it as it is when it is complete already.

    ``yardstick`` is the .npz of ``Yardstick`` that grades the injections.
    """
    out = Part(folder / part)
    if (out.folder / "table.parquet").is_file():
        return out
    out.folder.mkdir(parents=True, exist_ok=True)
    n = sizes.rows(part)
    for name, width in (("flux", N_PIXELS), ("ivar", N_PIXELS), ("arm_difference", N_OVERLAP)):
        np.lib.format.open_memmap(out.folder / f"{name}.npy", "w+", np.float32, (n, width))
    work = [(out.folder, part, sizes, seed, block, yardstick) for block in range(n // BLOCK)]
    if jobs == 1:
        tables = [_block(*one) for one in work]
    else:
        with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
            tables = list(pool.map(_block, *zip(*work, strict=True), chunksize=4))
    pq.write_table(pa.concat_tables(tables), out.folder / "table.parquet")
    return out


def noiseless(n: int, seed: int) -> tuple[NDArray[np.float32], Array]:
    """Return noiseless normals [n, L] and their redshifts: what the yardstick's components are made of."""
    rng = np.random.default_rng([seed, 99])
    quasars = draw_quasars(rng, n, np.zeros(n, bool))
    flux = np.concatenate([render(rng, quasars.rows(np.arange(i, min(i + 64, n))))[0] for i in range(0, n, 64)])
    return flux, quasars.z


def _block(folder: Path, part: str, sizes: Sizes, seed: int, block: int, yardstick: Path | None) -> pa.Table:
    """One block of a part: its pixels into the files, its rows of the table returned."""
    rng = np.random.default_rng([seed, PARTS.index(part), block])
    maker = {"injected": _injected, "traps": _traps}.get(part, _natural)
    made = maker(rng, part, sizes, block, yardstick)
    rows = slice(block * BLOCK, (block + 1) * BLOCK)
    flux, ivar, difference, snr = joined(made.arms)
    if made.after is not None:
        snr = made.after(rng, flux, ivar)
    for name, values in (("flux", flux), ("ivar", ivar), ("arm_difference", difference)):
        np.lib.format.open_memmap(folder / f"{name}.npy", "r+")[rows] = values
    seen = made.exposures.seen
    lists = {
        "fiber": [made.exposures.fiber[i, seen[i]].tolist() for i in range(BLOCK)],
        "night": [made.exposures.night[seen[i]].tolist() for i in range(BLOCK)],
    }
    return pa.table({"class": made.label, "z": made.z, "z_true": made.z_true, "snr": snr.astype(np.float32),
                     "significance": made.significance, "wavelength": made.wavelength, "width": made.width,
                     "pixel": np.full(BLOCK, PARTS.index(part) * 100_000 + block), **lists})  # fmt: skip


@dataclass
class _Made:
    arms: list[Arm]
    exposures: Exposures
    label: NDArray[np.str_]
    z: Array  # as catalogued
    z_true: Array
    significance: Array
    wavelength: Array  # of a local feature, observed Å; NaN where there is none
    width: Array  # its σ, Å
    after: Any = None  # changes flux and ivar in place after the noise; returns S/N


def _exposed(rng: np.random.Generator, quasars: Quasars, block: int) -> Exposures:
    position = rng.uniform(0.0, 0.9, len(quasars))
    return draw_exposures(rng, "dark", block, position, quasars.z > 2.1, np.zeros(len(quasars), bool))


def _seen(rng: np.random.Generator, z: Array) -> Array:
    """Catalogued redshifts: redrock's own scatter about the true ones."""
    slip = rng.normal(0, 150, len(z)) + np.clip(200 * rng.standard_cauchy(len(z)), -3000, 3000)
    return np.asarray(np.maximum(z + slip / LIGHT * (1 + z), 0.05))


def _natural(rng: np.random.Generator, part: str, sizes: Sizes, block: int, yardstick: Path | None) -> _Made:
    quasars = draw_quasars(rng, BLOCK, rng.random(BLOCK) < BRIGHT_SHARE)
    flux, _, is_bal = render(rng, quasars)
    z_seen, label = quasars.z.copy(), np.where(is_bal, "bal", "quasar").astype("U24")
    fractions = FRACTIONS if part in NATURAL else (0.0, 0.0)
    chosen = anomalies.choose(rng, quasars.z, fractions[0])
    for row in np.flatnonzero(chosen != "").tolist():
        one = anomalies.make(rng, str(chosen[row]), flux[row : row + 1], quasars.rows(np.array([row])))
        flux[row], z_seen[row], label[row] = one.flux[0], one.z_seen, chosen[row]
    exposures = _exposed(rng, quasars, block)
    hurt = artefacts.choose(rng, chosen == "", exposures, fractions[1], fractions[1] > 0 and block % 8 == 0)
    arms = [instrument.observe_arm(rng, name, flux, exposures) for name in "BRZ"]
    artefacts.apply(rng, arms, hurt)
    for arm in arms:
        instrument.add_noise(rng, arm)
    artefacts.apply_after_noise(rng, arms, hurt)
    label = np.where(hurt.label != "", hurt.label, label)
    z = np.where(hurt.label == "sky_fiber", rng.normal(3.8, 0.05, BLOCK), _seen(rng, z_seen))
    nothing = np.full(BLOCK, np.nan)
    return _Made(arms, exposures, label, z, quasars.z, nothing, nothing, nothing)


def _injected(rng: np.random.Generator, part: str, sizes: Sizes, block: int, yardstick: Path | None) -> _Made:
    """A block of one class; quasars that a departure of the wanted significance does not fit are drawn again."""
    stick = np.load(yardstick)
    measure = Yardstick(stick["basis"], int(stick["max_shift"]))
    name = CLASSES[block % len(CLASSES)]
    group = name == artefacts.GROUP
    first = draw_quasars(rng, BLOCK, rng.random(BLOCK) < BRIGHT_SHARE)
    exposures = _exposed(rng, first, block)
    if group:
        exposures = _one_night(exposures)
    label = np.full(BLOCK, name, "U24")
    z, z_true, strength, place, width = (np.full(BLOCK, np.nan) for _ in range(5))
    rows: list[list[Arm]] = []
    for row in range(BLOCK):
        if row % GROUP == 0:
            shared = {"wavelength": float(rng.uniform(4500, 8800)), "sigma": float(rng.uniform(15, 80)),
                      "sign": float(rng.choice([-1, 1]))}  # fmt: skip
            common = anomalies.log_uniform(rng, *SIGNIFICANCE)
        wanted = float(np.clip(common * rng.lognormal(0, 0.2), *SIGNIFICANCE)) if group else \
            anomalies.log_uniform(rng, *SIGNIFICANCE)  # fmt: skip
        arms, departure, factor, quasar = _fitting(rng, name, exposures, row, wanted, measure,
                                                   shared if group else None)  # fmt: skip
        inject(arms, departure, factor)
        rows.append(arms)
        strength[row], z_true[row] = wanted, quasar.z[0]
        replaced = name in ("wrong_redshift", "sky_fiber")
        z[row] = departure.z_seen if replaced else float(_seen(rng, quasar.z)[0])
        place[row] = departure.params.get("wavelength", np.nan)
        sigma = departure.params.get("sigma_kms")
        width[row] = sigma / LIGHT * place[row] if sigma else departure.params.get("sigma", np.nan)
    together = [_stack([one[i] for one in rows]) for i in range(3)]
    for arm in together:
        instrument.add_noise(rng, arm)
    return _Made(together, exposures, label, z, z_true, strength, place, width)


def _fitting(
    rng: np.random.Generator, name: str, exposures: Exposures, row: int, wanted: float, measure: Yardstick,
    shared: dict[str, float] | None,
) -> tuple[list[Arm], Any, float, Quasars]:  # fmt: skip
    """Draw quasars, brighter ones in the end, until one can show class ``name`` as significant as ``wanted``."""
    for attempt in range(TRIES):
        quasar = draw_quasars(rng, 1, rng.random(1) < BRIGHT_SHARE)
        if not allowed(name, float(quasar.z[0])):
            continue
        if attempt >= PATIENCE:  # faint features need light
            quasar = quasar.with_values(flux_r=quasar.flux_r * 1.25 ** (attempt - PATIENCE))
        flux, _, _ = render(rng, quasar)
        arms = [instrument.observe_arm(rng, arm, flux, _row(exposures, row)) for arm in "BRZ"]
        departure = depart(rng, name, arms, flux[0], quasar, dict(shared) if shared else None)
        full = measure.significance(departure, arms)
        if full * departure.most >= wanted and not (departure.replaces and full < wanted / 3):
            return arms, departure, wanted / full, quasar
    raise RuntimeError(f"no quasar shows {name} at {wanted:.1f} σ")


def _row(exposures: Exposures, row: int) -> Exposures:
    pick = slice(row, row + 1)
    per_row = {"seen": exposures.seen[pick], "fiber": exposures.fiber[pick], "status": exposures.status[pick]}
    return Exposures(**(vars(exposures) | per_row))


def _one_night(exposures: Exposures) -> Exposures:
    """The same with every row seen on the first night, in neighbouring fibers."""
    seen, fiber = exposures.seen.copy(), exposures.fiber.copy()
    seen[:, 0] = True
    fiber[:, 0] = fiber[0, 0] // 500 * 500 + np.arange(len(seen)) * 3
    return Exposures(**(vars(exposures) | {"seen": seen, "fiber": fiber}))


def _stack(arms: list[Arm]) -> Arm:
    fields = {name: np.concatenate([getattr(arm, name) for arm in arms]) for name in ("flux", "ivar", "mask", "gain")}
    return Arm(arms[0].name, arms[0].wavelength, **fields)


def _drawn(rng: np.random.Generator, n: int) -> Quasars:
    return draw_quasars(rng, n, rng.random(n) < BRIGHT_SHARE)


def _of_magnitude(rng: np.random.Generator, brightest: float, faintest: float) -> Quasars:
    """A block of the survey's own quasars between two r magnitudes, with the lines that such quasars have."""
    limits = flux_from_magnitude(np.array([faintest, brightest]))
    found: list[Quasars] = []
    while sum(len(one) for one in found) < BLOCK:
        pool = _drawn(rng, 8 * BLOCK)
        found.append(pool.rows(np.flatnonzero((pool.flux_r > limits[0]) & (pool.flux_r < limits[1]))))
    joined = {name: np.concatenate([getattr(one, name) for one in found])[:BLOCK] for name in vars(found[0])}
    return Quasars(**joined)


def _traps(rng: np.random.Generator, part: str, sizes: Sizes, block: int, yardstick: Path | None) -> _Made:
    name = TRAPS[block % len(TRAPS)]
    quasars = _of_magnitude(rng, *MAGNITUDES[name]) if name in MAGNITUDES else _drawn(rng, BLOCK)
    flux, _, _ = render(rng, quasars)
    exposures = _exposed(rng, quasars, block)
    arms = [instrument.observe_arm(rng, arm, flux, exposures) for arm in "BRZ"]
    for arm in arms:
        instrument.add_noise(rng, arm)
    nothing = np.full(BLOCK, np.nan)
    after = AFTER.get(name)
    label = np.full(BLOCK, name, "U24")
    return _Made(arms, exposures, label, _seen(rng, quasars.z), quasars.z, nothing, nothing, nothing, after)


def joined(arms: list[Arm]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], Array]:
    """The product's own join: flux, ivar [B, L], arms' difference [B, 177] and median S/N [B]."""
    rows = {}
    for arm in arms:
        words = (arm.flux.astype(">f4"), arm.ivar.astype(">f4"), arm.mask.astype(">i4"))
        rows[arm.name] = ArmRows(ARMS[arm.name].start, *(values.view(np.uint32) for values in words))
    done = join(rows, np.arange(len(arms[0].flux)))
    return done.flux, done.ivar, done.arm_difference, np.asarray(done.snr, np.float64)


def kinds() -> dict[str, tuple[str, ...]]:
    """Classes by kind."""
    return {"physical": PHYSICAL, "artefact": ARTEFACT}
