"""Quasars: their distributions and the spectra drawn from them."""

from __future__ import annotations

import numpy as np

from pipeline.desi.grid import WAVELENGTH
from pipeline.simulate import lines
from pipeline.simulate.quasars import (
    R_BAND,
    continuum,
    distance_modulus,
    draw_quasars,
    draw_redshifts,
    emission,
    flux_from_magnitude,
)


def draw(n: int, seed: int = 0):
    return draw_quasars(np.random.default_rng(seed), n, np.zeros(n, bool))


def test_redshifts_follow_dr1():
    z = draw_redshifts(np.random.default_rng(1), 40_000)
    expected = [0.21, 0.51, 1.18, 1.67, 2.17, 2.95, 3.54]
    np.testing.assert_allclose(np.percentile(z, [1, 5, 25, 50, 75, 95, 99]), expected, rtol=0.03)


def test_distance_and_flux_against_known_values():
    from astropy.cosmology import FlatLambdaCDM

    z = np.array([0.1, 1.0, 2.5, 5.0])
    expected = FlatLambdaCDM(67.7, 0.31, Tcmb0=0).distmod(z).value
    np.testing.assert_allclose(distance_modulus(z), expected, atol=0.003)
    np.testing.assert_allclose(flux_from_magnitude(np.array([22.5])), 0.266, rtol=0.01)


def test_emission_has_the_asked_r_flux_and_lines_where_they_belong():
    quasars = draw(60)
    flux = emission(quasars)
    assert flux.dtype == np.float32
    assert np.isfinite(flux).all()
    assert (flux > 0).all()
    np.testing.assert_allclose(flux[:, R_BAND].mean(axis=1), quasars.flux_r, rtol=1e-4)
    mgii = 2800.26 * (1 + quasars.z)
    for row in np.flatnonzero((mgii > 4200) & (mgii < 9000)):
        centre, side = np.searchsorted(WAVELENGTH, [mgii[row], mgii[row] * 1.045])
        assert flux[row, centre] > 1.05 * flux[row, side]


def test_continuum_is_the_power_law_that_was_drawn():
    quasars = draw(5).with_values(reddening=np.zeros(5))
    value = continuum(quasars, np.full((5, 2), [2000.0, 4000.0]))
    np.testing.assert_allclose(np.log(value[:, 1] / value[:, 0]) / np.log(2), -(quasars.slope[:, 1] + 2), rtol=1e-9)


def test_baldwin_trend_and_its_scatter():
    quasars = draw(20_000)
    sample = np.abs(quasars.magnitude + 25) < 3
    width = np.log10(quasars.ew_broad[sample, lines.CIV])
    slope, _ = np.polyfit(quasars.magnitude[sample], width, 1)
    assert abs(slope - 0.092) < 0.01
    residual = width - np.polyval(np.polyfit(quasars.magnitude[sample], width, 1), quasars.magnitude[sample])
    assert 0.15 < residual.std() < 0.3


def test_no_two_quasars_are_alike():
    quasars = draw(40).with_values(z=np.full(40, 1.5), flux_r=np.ones(40))
    flux = emission(quasars)
    flux /= flux.mean(axis=1, keepdims=True)
    singular = np.linalg.svd(flux - flux.mean(axis=0), compute_uv=False)
    power = np.cumsum(singular**2) / np.sum(singular**2)
    assert power[0] < 0.95
    assert np.searchsorted(power, 0.999) >= 5
