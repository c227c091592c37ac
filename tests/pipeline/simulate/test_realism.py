"""Simulated quasars against the real ones: real spectra as templates find simulated redshifts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from pipeline.desi.grid import ARMS, N_PIXELS, WAVELENGTH
from pipeline.simulate import instrument
from pipeline.simulate.absorption import absorb_forest
from pipeline.simulate.exposures import draw_exposures
from pipeline.simulate.quasars import draw_quasars, emission

BIN = 8  # pixels
REAL = {  # file and redshift of the real quasars with S/N above 3
    ("coadd-1-80693-thru20210204.fits", 39633559467591522): 2.2250,
    ("coadd-1-80693-thru20210204.fits", 39633559463398815): 2.2286,
    ("coadd-2-80693-thru20210204.fits", 39633560331617316): 2.7130,
    ("coadd-2-80693-thru20210204.fits", 39633561183060922): 2.3344,
}


def joined(flux: dict[str, np.ndarray], ivar: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """One spectrum [L/BIN] of three arms, by inverse variance, and its ivar."""
    total, weight = np.zeros(N_PIXELS), np.zeros(N_PIXELS)
    for arm, place in ARMS.items():
        total[place] += flux[arm] * ivar[arm]
        weight[place] += ivar[arm]
    keep = N_PIXELS // BIN * BIN
    weight = weight[:keep].reshape(-1, BIN).sum(axis=1)
    return total[:keep].reshape(-1, BIN).sum(axis=1) / np.maximum(weight, 1e-9), weight


@pytest.fixture(scope="module")
def templates(shared_data: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rest wavelength and flux of the real quasars."""
    made = []
    for (name, targetid), z in REAL.items():
        with fits.open(shared_data / "desi" / name) as hdus:
            row = int(np.flatnonzero(hdus["FIBERMAP"].data["TARGETID"] == targetid)[0])
            arms = [{arm: hdus[f"{arm}_{kind}"].data[row].astype(float) for arm in "BRZ"} for kind in ("FLUX", "IVAR")]
        flux, _ = joined(*arms)
        made.append((binned_wavelength() / (1 + z), np.convolve(flux, np.ones(3) / 3, "same")))
    return made


def binned_wavelength() -> np.ndarray:
    return WAVELENGTH[: N_PIXELS // BIN * BIN].reshape(-1, BIN).mean(axis=1)


def best_redshift(flux: np.ndarray, ivar: np.ndarray, templates: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Redshift of least χ² of template × cubic in wavelength."""
    wave = binned_wavelength()
    smooth = ((wave - 6700) / 3100)[:, None] ** np.arange(4)
    best = (-np.inf, 0.0)
    for z in np.arange(1.9, 3.5, 0.008):
        for rest, light in templates:
            shape = np.interp(wave / (1 + z), rest, light)[:, None] * smooth
            right = shape.T @ (ivar * flux)
            gain = right @ np.linalg.solve(shape.T @ (ivar[:, None] * shape), right)  # χ² of zero less χ² of the fit
            best = max(best, (float(gain), float(z)))
    return best[1]


def test_real_quasars_find_simulated_redshifts(templates):
    rng = np.random.default_rng(21)
    n = 20
    quasars = draw_quasars(rng, n, np.zeros(n, bool))
    quasars = quasars.with_values(z=rng.uniform(2.1, 3.2, n), flux_r=rng.uniform(1, 3, n))
    truth = emission(quasars)
    absorb_forest(rng, truth, quasars.z)
    exposures = draw_exposures(rng, "dark", 27136, rng.random(n), np.ones(n, bool), np.zeros(n, bool))
    arms = [instrument.observe_arm(rng, name, truth, exposures) for name in "BRZ"]
    for arm in arms:
        instrument.add_noise(rng, arm)
    found = []
    for row in range(n):
        flux, ivar = joined({a.name: a.flux[row] for a in arms}, {a.name: a.ivar[row] for a in arms})
        found.append(best_redshift(flux, ivar, templates))
    slip = (np.array(found) - quasars.z) / (1 + quasars.z) * 299792.458
    assert np.mean(np.abs(slip) < 3000) > 0.85
    assert abs(np.median(slip)) < 1200


def test_colours_and_lines_lie_among_the_real_ones(shared_data, templates):
    rng = np.random.default_rng(22)
    quasars = draw_quasars(rng, 400, np.zeros(400, bool)).with_values(z=np.full(400, 2.3))
    flux = emission(quasars)
    rest = WAVELENGTH / 3.3

    def peak(wave: np.ndarray, light: np.ndarray, line: float, span: float) -> np.ndarray:
        near = np.abs(wave - line) < 0.4 * span
        side = (np.abs(wave - line) > span) & (np.abs(wave - line) < 1.4 * span)
        return np.median(light[..., near], axis=-1) / np.median(light[..., side], axis=-1)

    for line, span in ((1546.0, 40.0), (1907.0, 55.0), (2799.0, 70.0)):
        ours = peak(rest, flux, line, span)
        real = np.array([peak(*template, line, span) for template in templates if template[0][-1] > line + span])
        low, high = np.percentile(ours, [0.5, 99.5])
        assert low < np.median(real) < high
        assert np.median(ours) == pytest.approx(np.median(real), rel=0.45)
