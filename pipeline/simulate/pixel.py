"""One sky pixel, start to end: its targets, their spectra, its coadd and redrock files, its truth.

Everything here depends only on (seed, pixel), so that the survey is the same however many processes made it.
Shapes: N unique targets of the pixel, B rows of a file, L=7781 native pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import anomalies, artefacts, files, instrument, tables
from pipeline.simulate.exposures import draw_exposures
from pipeline.simulate.redshifts import draw_fits
from pipeline.simulate.spectra import Spectra, draw_spectra
from pipeline.simulate.targets import PixelPlan
from pipeline.simulate.truth import truth_columns
from pipeline.stores.objects import ObjectStore

UNLISTED = 0.002  # share of rows, not quasars, that the catalog lacks: some real coadds hold such rows


@dataclass(frozen=True)
class Options:
    """What is the same for the whole survey."""

    seed: int
    resolution: bool
    anomaly_fraction: float
    artefact_fraction: float


@dataclass(frozen=True)
class PixelResult:
    """What a pixel leaves for the survey's catalog and truth, and the bytes it wrote."""

    catalog: NDArray[np.void]
    truth: dict[str, Any]
    files: int
    size: int


def simulate_pixel(plan: PixelPlan, options: Options, url: str) -> PixelResult:
    """Simulate a pixel and write its files under ``url``."""
    rng = np.random.default_rng(np.random.SeedSequence([options.seed, plan.healpix]))
    store = ObjectStore.open(url)
    spectra = draw_spectra(rng, plan, options.anomaly_fraction)
    catalogs, truths, size, n_files = [], [], 0, 0
    for program, rows in _programs(plan, spectra):
        if len(rows) == 0:
            continue
        made = _simulate_file(rng, spectra, rng.permutation(rows), program, plan.healpix, options)
        folder = f"healpix/main/{program}/{plan.healpix // 100}/{plan.healpix}"
        for kind, content in made.files.items():
            store.write(f"{folder}/{kind}-main-{program}-{plan.healpix}.fits", content)
            size += len(content)
            n_files += 1
        catalogs.append(made.catalog)
        truths.append(made.truth)
    truth = {name: np.concatenate([part[name] for part in truths]) for name in truths[0]}
    return PixelResult(np.concatenate(catalogs, dtype=catalogs[0].dtype), truth, n_files, size)


def _programs(plan: PixelPlan, spectra: Spectra) -> list[tuple[str, NDArray[np.int64]]]:
    """Rows of the dark file and of the bright one; the brightest dark quasars are in both."""
    bright = spectra.targets.is_bright
    brightness = spectra.targets.flux_r[: plan.dark_quasars]
    shared = np.sort(np.argsort(-brightness, kind="stable")[: plan.shared])
    return [("dark", np.flatnonzero(~bright)), ("bright", np.concatenate([shared, np.flatnonzero(bright)]))]


@dataclass(frozen=True)
class _File:
    files: dict[str, bytearray]
    catalog: NDArray[np.void]
    truth: dict[str, Any]


def _simulate_file(
    rng: np.random.Generator,
    spectra: Spectra,
    rows: NDArray[np.int64],
    program: str,
    healpix: int,
    options: Options,
) -> _File:
    """Observe the targets ``rows`` [B] in one program, fit them, and lay out the two files."""
    targets = spectra.targets
    kind, targetid = targets.kind[rows], targets.targetid[rows]
    forest = (kind == "quasar") & (targets.z[rows] > 2.1)
    exposures = draw_exposures(rng, program, healpix, targets.ra[rows], forest, kind == "badfiber")
    usual = (kind == "quasar") & (spectra.anomaly[rows] == "")
    fraction = options.artefact_fraction
    with_group = fraction > 0 and program == "dark" and healpix % artefacts.GROUP_EVERY == 0
    hurt = artefacts.choose(rng, usual, exposures, fraction, with_group)
    arms = [instrument.observe_arm(rng, name, spectra.flux[rows], exposures) for name in "BRZ"]
    artefacts.hurt_broken_fibers(rng, arms, kind == "badfiber")
    significance = anomalies.significance(arms, spectra.difference_of(rows))
    significance = np.maximum(significance, artefacts.apply(rng, arms, hurt))
    for arm in arms:
        instrument.add_noise(rng, arm)
    artefacts.apply_after_noise(rng, arms, hurt)

    score = tables.scores(targetid, arms, exposures)
    snr = np.median([score[f"MEDIAN_COADD_SNR_{arm}"] for arm in "BRZ"], axis=0)
    fits = draw_fits(rng, kind, targets.subtype[rows], spectra.z_seen[rows], snr)
    artefacts.mislead_fits(rng, fits, hurt)
    anomalies.mislead_fits(fits, spectra.anomaly[rows])
    main = tables.fibermap(targets, rows, exposures, galactic_dust(targets.ra[rows], targets.dec[rows]))
    fitted = tables.redshifts(targetid, fits)
    maps = files.fibermaps(main, tables.exp_fibermap(main, exposures), healpix, program)
    listed = (kind == "quasar") | (rng.random(len(rows)) >= UNLISTED)
    return _File(
        files={
            "coadd": files.coadd(maps, arms, score, exposures, healpix, program, options.resolution),
            "redrock": files.redrock(maps, fitted, score, healpix, program),
        },
        catalog=tables.catalog(main, score, fitted, healpix, program)[listed],
        truth=truth_columns(spectra, rows, program, healpix, fits, snr, hurt, significance),
    )


def galactic_dust(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth E(B−V) map, mag: 0.01 to 0.09 over the sky."""
    return np.asarray(0.01 + 0.02 * (2 + np.sin(np.radians(7 * ra)) + np.cos(np.radians(11 * dec + 3 * ra))))
