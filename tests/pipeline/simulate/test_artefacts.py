"""Every class of artefact hurts the wavelengths it is known for."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.desi.grid import N_PIXELS
from pipeline.simulate import artefacts, instrument
from pipeline.simulate.exposures import draw_exposures
from pipeline.simulate.redshifts import draw_fits

SPANS = {  # Å between which the effect lies
    "sky_residual_9400": (9290, 9610),
    "sky_residual_red": (7190, 9825),
    "spike_5600": (5560, 5610),
    "arm_step_5800": (4990, 5801),
    "arm_step_7570": (7519, 9825),
    "step_within_r": (6650, 7621),
    "dip_4400": (4100, 4680),
    "absorption_8600": (8580, 8680),
    "sky_fiber": (3599, 9825),
    "cosmic_ray": (3599, 9825),
}


def observe(seed: int = 0):
    rng = np.random.default_rng(seed)
    exposures = draw_exposures(rng, "dark", 27136, np.zeros(2), np.ones(2, bool), np.zeros(2, bool))
    flux = np.full((2, N_PIXELS), 2.0, np.float32)
    return rng, exposures, [instrument.observe_arm(rng, name, flux, exposures) for name in "BRZ"]


def hurt_first(name: str, strength: float = 10.0) -> artefacts.Hurt:
    return artefacts.Hurt(np.array([name, ""], "U24"), np.array([strength, np.nan]), [{}, {}])


@pytest.mark.parametrize("name", SPANS)
def test_effect_lies_where_it_should(name):
    rng, _, arms = observe()
    before = [arm.flux.copy() for arm in arms]
    significance = artefacts.apply(rng, arms, hurt_first(name))
    assert significance[0] > 3
    assert significance[1] == 0
    low, high = SPANS[name]
    changed = 0
    for arm, old in zip(arms, before, strict=True):
        np.testing.assert_array_equal(arm.flux[1], old[1])
        delta = np.abs(arm.flux[0] - old[0])
        outside = (arm.wavelength < low) | (arm.wavelength > high)
        assert delta[outside].max(initial=0) < 0.01
        changed += int(np.sum(delta > 0.02))
    assert changed > 1


def test_spike_near_5600_has_errors_as_big():
    rng, _, arms = observe()
    artefacts.apply(rng, arms, hurt_first("spike_5600", 20.0))
    pull = np.abs(arms[0].flux[0] - 2) * np.sqrt(arms[0].ivar[0])
    spike = np.abs(arms[0].wavelength - 5578) < 4
    assert 2 < pull[spike].max() < 6.5
    assert arms[0].flux[0, spike].max() > 10


@pytest.mark.parametrize("name", ["masked_run", "nan_masked"])
def test_masked_runs_have_no_information(name):
    rng, _, arms = observe()
    before = sum(int((arm.ivar[0] == 0).sum()) for arm in arms)
    artefacts.apply_after_noise(rng, arms, hurt_first(name))
    lost = sum(int((arm.ivar[0] == 0).sum()) for arm in arms)
    assert lost - before > (300 if name == "masked_run" else 2)
    for arm in arms:
        np.testing.assert_array_equal(arm.mask[0] != 0, arm.ivar[0] == 0)
        assert np.isfinite(arm.flux[0][arm.ivar[0] > 0]).all()
    assert any(np.isnan(arm.flux[0]).any() for arm in arms) == (name == "nan_masked")


def test_a_group_shares_night_and_wavelength_on_neighbouring_fibers():
    rng = np.random.default_rng(1)
    exposures = draw_exposures(rng, "dark", 27136, rng.random(150), np.zeros(150, bool), np.zeros(150, bool))
    hurt = artefacts.choose(rng, np.ones(150, bool), exposures, 0.0, with_group=True)
    rows = np.flatnonzero(hurt.label == artefacts.GROUP)
    assert 6 <= len(rows) <= 10
    assert len({hurt.params[row]["wavelength"] for row in rows}) == 1
    assert len({hurt.params[row]["night"] for row in rows}) == 1
    fibers = sorted(hurt.params[row]["fiber"] for row in rows)
    assert fibers[-1] - fibers[0] == len(rows) - 1


def test_sky_taken_for_a_quasar_is_near_redshift_3_8():
    rng = np.random.default_rng(2)
    fits = draw_fits(rng, np.full(2, "quasar"), np.full(2, ""), np.array([1.0, 1.0]), np.array([0.02, 3.0]))
    artefacts.mislead_fits(rng, fits, hurt_first("sky_fiber"))
    assert fits.z[0] == pytest.approx(3.8, abs=0.3)
    assert fits.spectype[0] == "QSO"
    assert fits.zwarn[0] == 0
