"""Every class of anomaly changes what it says it changes."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.desi.grid import N_PIXELS, WAVELENGTH
from pipeline.simulate import anomalies, instrument
from pipeline.simulate.exposures import draw_exposures
from pipeline.simulate.quasars import draw_quasars, emission


def one(rng, name):
    """A normal quasar at a redshift where the class shows, and its emission."""
    _, low, high = anomalies.CLASSES[name]
    quasar = draw_quasars(rng, 1, np.zeros(1, bool))
    quasar = quasar.with_values(z=np.array([rng.uniform(max(low, 0.6) + 0.05, min(high, 2.5) - 0.05)]))
    return quasar, emission(quasar)


@pytest.mark.parametrize("name", [name for name in anomalies.CLASSES if name != "wrong_redshift"])
def test_the_flux_changes_and_stays_a_spectrum(name):
    rng = np.random.default_rng(11)
    strengths = []
    for _ in range(4):
        quasar, flux = one(rng, name)
        before = flux.copy()
        made = anomalies.make(rng, name, flux, quasar)
        np.testing.assert_array_equal(flux, before)
        assert made.flux.shape == (1, N_PIXELS)
        assert made.flux.dtype == np.float32
        assert np.isfinite(made.flux).all()
        assert np.abs(made.flux - before).max() > 0.02 * np.median(before)
        assert made.z_seen == quasar.z[0]
        strengths.append(made.strength)
    assert name == "white_dwarf" or len(set(strengths)) == 4


def test_wrong_redshift_confuses_two_lines_and_leaves_the_flux():
    rng = np.random.default_rng(3)
    quasar, flux = one(rng, "wrong_redshift")
    made = anomalies.make(rng, "wrong_redshift", flux, quasar)
    np.testing.assert_array_equal(made.flux, flux)
    lines = anomalies.CONFUSED
    expected = (1 + quasar.z[0]) * lines[made.params["line"]] / lines[made.params["taken_for"]] - 1
    assert made.z_seen == pytest.approx(expected)
    assert abs(made.z_seen - quasar.z[0]) > 0.05


def test_odd_line_has_the_equivalent_width_it_claims():
    rng = np.random.default_rng(8)
    quasar, flux = one(rng, "odd_line")
    made = anomalies.make(rng, "odd_line", flux, quasar)
    added = (made.flux - flux)[0]
    centre = np.searchsorted(WAVELENGTH, made.params["wavelength"])
    assert added.sum() * 0.8 / np.median(flux[0, centre - 150 : centre + 150]) == pytest.approx(made.strength, rel=0.02)


def test_weak_lines_keep_the_continuum():
    rng = np.random.default_rng(9)
    quasar = draw_quasars(rng, 1, np.zeros(1, bool)).with_values(z=np.array([1.9]))
    flux = emission(quasar)
    made = anomalies.make(rng, "weak_lines", flux, quasar)
    civ, free = np.searchsorted(WAVELENGTH, [1546 * 2.9, 2500 * 2.9])
    assert made.flux[0, civ] < 0.85 * flux[0, civ]
    assert made.flux[0, free] == pytest.approx(flux[0, free], rel=0.2)


def test_choice_keeps_to_fraction_and_redshift():
    rng = np.random.default_rng(4)
    z = rng.uniform(0.1, 4, 20_000)
    chosen = anomalies.choose(rng, z, 0.02)
    assert np.mean(chosen != "") == pytest.approx(0.02, abs=0.004)
    for name, (_, low, high) in anomalies.CLASSES.items():
        where = z[chosen == name]
        assert len(where) > 3
        assert ((where > low) & (where < high)).all()
    assert (anomalies.choose(rng, z, 0.0) == "").all()


def test_significance_is_the_chi_of_a_perfect_model():
    rng = np.random.default_rng(5)
    exposures = draw_exposures(rng, "dark", 27136, np.zeros(3), np.zeros(3, bool), np.zeros(3, bool))
    flux = np.ones((3, N_PIXELS), np.float32)
    arms = [instrument.observe_arm(rng, name, flux, exposures) for name in "BRZ"]
    delta = np.zeros(N_PIXELS, np.float32)
    delta[1000:1010] = 0.5
    found = anomalies.significance(arms, {1: delta})
    expected = np.sqrt(np.sum(arms[0].ivar[1, 1000:1010] * (0.5 * arms[0].gain[1, 1000:1010]) ** 2))
    np.testing.assert_allclose(found, [0, expected, 0], rtol=1e-5)
