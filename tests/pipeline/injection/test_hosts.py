"""Injection into observed spectra: the significance asked for, their own noise, and nothing where they are masked."""

from __future__ import annotations

import numpy as np
import pytest

from models.grid import N_OBSERVED, RestGrid
from pipeline.desi.grid import ARMS, N_PIXELS
from pipeline.desi.join import ArmRows, join
from pipeline.injection.departures import ARTEFACT, CLASSES, allowed, depart, pixels
from pipeline.injection.grading import Yardstick
from pipeline.injection.hosts import CONTROL, PARTS, RESHOT, Hosts, inject, parts
from pipeline.simulate import instrument
from pipeline.simulate.exposures import Exposures, draw_exposures
from pipeline.simulate.instrument import Arm
from pipeline.simulate.quasars import draw_quasars, flux_from_magnitude
from pipeline.simulate.spectra import render

N = 48
GRID = RestGrid(6.0)


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    """Six smooth shapes on the rest-frame grid stand in for a model's components."""
    x = np.linspace(-1.0, 1.0, GRID.n_rest)
    return Yardstick(np.polynomial.legendre.legvander(x, 5), GRID.max_shift)


@pytest.fixture(scope="module")
def observed() -> tuple[list[Arm], np.ndarray, np.ndarray]:
    """Noiseless arms of simulated quasars, their true light [N, L] and redshifts."""
    rng = np.random.default_rng(5)
    quasars = draw_quasars(rng, N, np.zeros(N, bool)).with_values(flux_r=flux_from_magnitude(rng.uniform(18, 21, N)))
    flux, _, _ = render(rng, quasars)
    nothing = np.zeros(N, bool)
    exposures: Exposures = draw_exposures(rng, "dark", 1, rng.uniform(0, 1, N), nothing, nothing)
    arms = [instrument.observe_arm(rng, name, flux, exposures) for name in "BRZ"]
    for arm in arms:
        arm.gain[:] = 1
        arm.flux[:] = flux[:, ARMS[arm.name]]
    return arms, flux, quasars.z


@pytest.fixture(scope="module")
def hosts(observed: tuple[list[Arm], np.ndarray, np.ndarray]) -> Hosts:
    """The same quasars with noise, joined; masked pixels hold NaN."""
    arms, truth, z = observed
    rng = np.random.default_rng(6)
    rows = {}
    for arm in arms:
        noisy = Arm(arm.name, arm.wavelength, arm.flux.copy(), arm.ivar.copy(), arm.mask, arm.gain)
        instrument.add_noise(rng, noisy)
        words = (noisy.flux.astype(">f4"), noisy.ivar.astype(">f4"), noisy.mask.astype(">i4"))
        rows[arm.name] = ArmRows(ARMS[arm.name].start, *(values.view(np.uint32) for values in words))
    done = join(rows, np.arange(N))
    flux, ivar = done.flux.copy(), done.ivar.copy()
    ivar[:, 3000:3200] = 0
    flux[:, 3000:3200] = np.nan
    return Hosts(flux, ivar, truth, z, np.asarray(done.snr))


def test_parts_of_arms_cover_each_pixel_once() -> None:
    ends = [(span.start, span.stop) for span in PARTS.values()]
    assert ends[0][0] == 0
    assert ends[-1][1] == N_PIXELS
    assert [stop for _, stop in ends[:-1]] == [start for start, _ in ends[1:]]
    for name, span in PARTS.items():
        assert ARMS[name].start <= span.start
        assert span.stop <= ARMS[name].stop


@pytest.mark.parametrize(
    "name", ["extra_bump", "odd_line", "star_blend", "reddened", "white_dwarf", "wrong_redshift", "dip_4400",
             "absorption_8600", "arm_step_5800", "continuum_kink"],
)  # fmt: skip
def test_significance_of_a_joined_spectrum_is_that_of_its_arms(
    name: str, observed: tuple[list[Arm], np.ndarray, np.ndarray], yardstick: Yardstick
) -> None:
    arms, truth, z = observed
    by_arms, joined = [], []
    for row in [row for row in range(N) if allowed(name, float(z[row]))][:8]:
        own = [Arm(a.name, a.wavelength, *(getattr(a, key)[row : row + 1].copy() for key in ("flux", "ivar", "mask",
                   "gain"))) for a in arms]  # fmt: skip
        ivar_L = np.zeros(N_PIXELS, np.float32)
        for arm in own:
            ivar_L[ARMS[arm.name]] += arm.ivar[0]
        quasar = draw_quasars(np.random.default_rng(row), 1, np.zeros(1, bool))
        quasar = quasar.with_values(z=z[row : row + 1], flux_r=truth[row : row + 1, 2800:4400].mean(1))
        for some, found in ((own, by_arms), (parts(truth[row], ivar_L), joined)):
            departure = depart(np.random.default_rng(row), name, some, truth[row], quasar)
            found.append(yardstick.significance(departure, some))
    np.testing.assert_allclose(joined, by_arms, rtol=0.05)


@pytest.mark.parametrize("name", CLASSES)
def test_every_class_is_injected_as_strongly_as_asked(name: str, hosts: Hosts, yardstick: Yardstick) -> None:
    wanted = 9.0
    one = inject(np.random.default_rng(3), name, wanted, hosts, yardstick, 6.0)
    assert one is not None
    before, known = hosts.flux_BL[one.host], hosts.ivar_BL[one.host] > 0
    assert np.isfinite(one.flux_L[known]).all()
    assert ((one.ivar_L > 0) == known).all()
    assert (one.ivar_L <= hosts.ivar_BL[one.host]).all()
    np.testing.assert_array_equal(one.flux_L[~known], before[~known])
    if name not in ("white_dwarf", "sky_fiber", RESHOT, "spike_5600"):  # elsewhere the noise is new
        arms = parts(one.flux_L - before, one.ivar_L)
        change = {arm.name: np.nan_to_num(arm.flux[0]) for arm in arms}
        seen = depart(np.random.default_rng(0), "odd_line", arms, np.ones(N_PIXELS, np.float32),
                      draw_quasars(np.random.default_rng(0), 1, np.zeros(1, bool)))  # fmt: skip
        again = type(seen)(change, 1.0, False, one.z)
        assert yardstick.significance(again, arms) == pytest.approx(wanted, rel=0.02)
    if name not in (RESHOT, "sky_fiber"):
        assert one.z == hosts.z_B[one.host]


def test_the_noise_stays_what_the_ivar_says(hosts: Hosts, yardstick: Yardstick) -> None:
    for name in ("white_dwarf", "sky_fiber", RESHOT, "spike_5600"):
        chi2 = []
        for number in range(12):
            one = inject(np.random.default_rng([7, number]), name, 6.0, hosts, yardstick, 6.0)
            assert one is not None
            known = one.ivar_L > 0
            step = np.diff(one.flux_L[known].astype(float))  # light varies less from pixel to pixel than noise
            spread = 1 / one.ivar_L[known].astype(float)
            chi2.append(np.median(step**2 / (spread[1:] + spread[:-1])))
        assert np.mean(chi2) == pytest.approx(0.455, rel=0.1)  # the median of χ² with one degree of freedom


def test_a_wrong_redshift_keeps_the_spectrum_and_loses_signal(hosts: Hosts, yardstick: Yardstick) -> None:
    one = inject(np.random.default_rng(2), RESHOT, 6.0, hosts, yardstick, 6.0)
    assert one is not None
    known = one.ivar_L > 0
    assert abs(one.z - hosts.z_B[one.host]) > 0.1
    np.testing.assert_array_equal(one.ivar_L, hosts.ivar_BL[one.host])
    light = hosts.base_BL[one.host][known].astype(float)
    weight = one.ivar_L[known].astype(float)
    factor = (weight * light * one.flux_L[known]).sum() / (weight * light * light).sum()
    assert 0.0 < factor < 1.0


def test_what_is_asked_decides_and_the_seed_alone(hosts: Hosts, yardstick: Yardstick) -> None:
    first, again, other = (
        inject(np.random.default_rng(seed), "extra_bump", 12.0, hosts, yardstick, 6.0) for seed in (1, 1, 2)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    np.testing.assert_array_equal(first.flux_L, again.flux_L)
    assert first.host == again.host
    assert not np.array_equal(first.flux_L, other.flux_L)


def test_what_no_host_can_show_is_not_made(hosts: Hosts, yardstick: Yardstick) -> None:
    assert inject(np.random.default_rng(1), "absorption_8600", 1e6, hosts, yardstick, 6.0) is None
    assert inject(np.random.default_rng(1), "sky_fiber", 9.0, hosts, yardstick, 3.0) is None  # beyond the model's z


def test_the_control_is_a_host_as_it_is(hosts: Hosts, yardstick: Yardstick) -> None:
    one = inject(np.random.default_rng(1), CONTROL, 0.0, hosts, yardstick, 6.0)
    assert one is not None
    np.testing.assert_array_equal(one.flux_L, hosts.flux_BL[one.host])
    assert one.z == hosts.z_B[one.host]


def test_parts_of_arms_lie_where_they_say() -> None:
    for arm in parts(np.arange(N_PIXELS, dtype=np.float32), np.ones(N_PIXELS, np.float32)):
        assert arm.flux[0, 0] == pixels(arm).start
    assert set(ARTEFACT) < set(CLASSES)
    assert GRID.n_rest >= N_OBSERVED
