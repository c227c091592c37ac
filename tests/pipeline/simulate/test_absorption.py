"""Absorption: forest opacity, Voigt profiles, troughs and metals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import wofz

from pipeline.desi.grid import WAVELENGTH
from pipeline.simulate import absorption
from pipeline.simulate.kernels import add_dlas

N = len(WAVELENGTH)


@pytest.mark.parametrize(("z", "at"), [(2.7, 2.3), (3.4, 3.0), (4.2, 3.8)])
def test_forest_has_the_observed_mean_transmission(z, at):
    flux = np.ones((300, N), np.float32)
    absorption.absorb_forest(np.random.default_rng(2), flux, np.full(300, z))
    middle = np.searchsorted(WAVELENGTH, 1215.67 * (1 + at))
    window = flux[:, middle - 40 : middle + 40]
    assert abs(window.mean() - np.exp(-0.00554 * (1 + at) ** 3.18)) < 0.015
    assert 0.15 < window.std() < 0.4
    assert (flux[:, 1216 * (1 + z) < WAVELENGTH] == 1).all()


def test_dla_profile_equals_the_voigt_function():
    density, rest, oscillator, damping, doppler, z = 10**20.6, 1215.67, 0.4164, 6.265e8, 30.0, 2.3
    tau = np.zeros((1, N), np.float32)
    add_dlas(tau, np.array([0]), np.array([rest * (1 + z)]), np.array([density]), rest, oscillator, damping, doppler)
    width = rest * doppler / 299792.458
    a = damping * rest * 1e-8 / (4 * np.pi * doppler * 1e5)
    u = (WAVELENGTH / (1 + z) - rest) / width
    # τ = (πe²/m_e c)/√π · N f λ/b · H(a, u), with πe²/m_e c = 0.02654 cm²/s
    expected = 0.02654 / np.sqrt(np.pi) * density * oscillator * rest * 1e-8 / (doppler * 1e5) * wofz(u + 1j * a).real
    np.testing.assert_allclose(np.exp(-tau[0]), np.exp(-expected), atol=0.01)
    saturated = WAVELENGTH[tau[0] > 3]
    assert 10 < saturated[-1] - saturated[0] < 80  # Å: a damped trough


def test_dla_incidence():
    z = np.full(3000, 3.0)
    count, largest = absorption.absorb_dlas(np.random.default_rng(3), np.ones((3000, N), np.float32), z)
    start = max(3600 / 1215.67 - 1, 4 * 930 / 1215.67 - 1)
    expected = 0.6 * np.exp(-7 / 9) * (3.0 - 0.02 - start)
    assert abs(count.mean() - expected) < 0.12 * expected
    assert (largest[count > 0] >= 20.3).all()
    assert (largest[count == 0] == 0).all()
    assert largest.max() <= 22.5


def test_bal_fraction_and_trough_place():
    rng = np.random.default_rng(4)
    flux = np.ones((1500, N), np.float32)
    is_bal, trough = absorption.absorb_bals(rng, flux, np.full(1500, 2.2))
    assert abs(is_bal.mean() - absorption.BAL_FRACTION) < 0.03
    assert (trough[is_bal] > 1700).all()
    assert (flux[~is_bal] == 1).all()
    civ = 1549.1 * 3.2
    red, blue = civ * 1.001 < WAVELENGTH, (civ * (1 - 25500 / 299792.458) < WAVELENGTH) & (civ > WAVELENGTH)
    assert (flux[is_bal][:, blue].min(axis=1) < 0.9).all()
    assert np.median(flux[is_bal][:, red & (WAVELENGTH < 1700 * 3.2)]) > 0.99


def test_metal_doublet_has_the_asked_equivalent_width():
    flux = np.ones((1, N), np.float32)
    absorption.absorb_metals(flux, np.array([0]), np.array([1.0]), np.array([0.8]), (0.0, 1.0, 0.0))
    window = (WAVELENGTH > 5575) & (WAVELENGTH < 5599.5)
    assert abs(np.sum(1 - flux[0, window]) * 0.8 - 0.8 * 2) < 0.05  # rest 0.8 Å of Mg II 2796 at z = 1
