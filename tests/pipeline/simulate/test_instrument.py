"""Noise, errors, masks and resolution of the simulated spectrographs."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from pipeline.desi.grid import ARMS, N_PIXELS
from pipeline.simulate import instrument
from pipeline.simulate.exposures import draw_exposures

ROWS = 400


@pytest.fixture(scope="module")
def exposures():
    rng = np.random.default_rng(0)
    return draw_exposures(rng, "dark", 27136, rng.random(ROWS), rng.random(ROWS) < 0.3, np.zeros(ROWS, bool))


@pytest.fixture(scope="module")
def arms(exposures):
    rng = np.random.default_rng(1)
    truth = rng.lognormal(0, 1, (ROWS, 1)).astype(np.float32) * np.ones((1, N_PIXELS), np.float32)
    made = [instrument.observe_arm(rng, name, truth, exposures) for name in "BRZ"]
    clean = [arm.flux.copy() for arm in made]
    for arm in made:
        instrument.add_noise(rng, arm)
    return made, clean


def test_noise_is_exactly_what_ivar_says(arms):
    for arm, clean in zip(*arms, strict=True):
        known = arm.ivar > 0
        pull = ((arm.flux - clean) * np.sqrt(arm.ivar))[known].astype(np.float64)
        n = pull.size
        assert abs(pull.mean()) < 5 / np.sqrt(n)
        assert abs(np.mean(pull**2) - 1) < 5 * np.sqrt(2 / n)
        assert abs(np.mean(pull**4) - 3) < 5 * np.sqrt(96 / n)
        neighbours = np.mean(
            ((arm.flux - clean) * np.sqrt(arm.ivar))[:, 1:] * ((arm.flux - clean) * np.sqrt(arm.ivar))[:, :-1]
        )
        assert abs(neighbours) < 5 / np.sqrt(n)


def test_masked_pixels_carry_no_information(arms):
    for arm in arms[0]:
        np.testing.assert_array_equal(arm.mask != 0, arm.ivar == 0)
        assert 0 < np.mean(arm.mask != 0) < 0.01
        assert (arm.flux[arm.ivar == 0] == 0).all()


def test_more_exposures_lower_the_errors(arms, exposures):
    depth = np.median(arms[0][1].ivar, axis=1)
    once, often = exposures.count == 1, exposures.count >= 3
    assert np.median(depth[often]) > 2 * np.median(depth[once])


def test_bright_objects_have_shot_noise(exposures):
    dark = instrument.observe_arm(np.random.default_rng(5), "R", np.zeros((ROWS, N_PIXELS), np.float32), exposures)
    bright = instrument.observe_arm(np.random.default_rng(5), "R", np.full((ROWS, N_PIXELS), 30, np.float32), exposures)
    assert np.median(bright.ivar) < 0.4 * np.median(dark.ivar)


def test_shape_of_the_errors_is_that_of_real_spectra(shared_data, exposures):
    rng = np.random.default_rng(2)
    with fits.open(shared_data / "desi" / "coadd-1-80693-thru20210204.fits") as hdus:
        for name in "BRZ":
            real = np.median(hdus[f"{name}_IVAR"].data.astype(float) ** -0.5, axis=0)
            arm = instrument.observe_arm(rng, name, np.zeros((ROWS, N_PIXELS), np.float32), exposures)
            row = arm.ivar[exposures.count == 1].astype(float)
            ours = np.nanmedian(np.where(row > 0, row, np.nan), axis=0) ** -0.5
            ours, real = ours / np.median(ours), real / np.median(real)
            ratio = np.log(ours / real)[30:-30]
            assert np.median(np.abs(ratio)) < 0.12
            assert np.percentile(np.abs(ratio), 95) < 0.45
            assert np.corrcoef(np.log(ours[30:-30]), np.log(real[30:-30]))[0, 1] > 0.9


def test_resolution_rows_are_normalised_kernels(exposures):
    for name in "BRZ":
        kernel = instrument.resolution(name, exposures)
        assert kernel.shape == (ROWS, 11, ARMS[name].stop - ARMS[name].start)
        assert kernel.dtype == np.float32
        np.testing.assert_allclose(kernel[:3].sum(axis=1), 1, rtol=1e-5)
