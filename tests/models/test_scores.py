from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.config import VAEConfig
from models.density import Flow
from models.detector import Detector
from models.filters import ModelError
from models.grid import BIN_KMS, N_NATIVE, native_wavelength, observed_wavelength
from models.scores import score, wilson_hilferty
from models.sky import Sky
from models.trained import TrainedModel, reconstruct
from models.vae import VAE
from tests.models.synthetic import Quasars, make_quasars


@pytest.fixture(scope="module")
def scored(trained: TrainedModel, quasars: Quasars):  # type: ignore[no-untyped-def]
    return score(trained, quasars.flux, quasars.ivar, quasars.z)


def test_normal_quasars_are_fitted_to_the_noise(scored) -> None:  # type: ignore[no-untyped-def]
    assert np.median(scored.chi2_reduced) == pytest.approx(1.0, abs=0.2)
    assert np.abs(np.median(scored.global_score)) < 1.5
    assert scored.embedding.shape == (300, 8)
    assert scored.embedding.dtype == np.float32
    assert np.isfinite(scored.detection).all()


def test_reconstruction_follows_the_lines_not_a_mean_spectrum(trained: TrainedModel, quasars: Quasars) -> None:
    model = reconstruct(trained, quasars.flux, quasars.ivar, quasars.z)
    assert model.shape == (300, N_NATIVE)
    error = np.abs(model - quasars.truth) / quasars.truth
    assert np.median(error) < 0.05
    in_range = (quasars.z > 1.5) & (quasars.z < 3.4)
    centre = np.searchsorted(native_wavelength(), 1546.2 * (1 + quasars.z[in_range]))
    side = np.searchsorted(native_wavelength(), 1700.0 * (1 + quasars.z[in_range]))
    rows = np.nonzero(in_range)[0]
    contrast_model = model[rows, centre] / model[rows, side]
    contrast_truth = quasars.truth[rows, centre] / quasars.truth[rows, side]
    assert np.corrcoef(contrast_model, contrast_truth)[0, 1] > 0.7


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -1e30])
def test_what_lies_under_zero_ivar_changes_nothing(trained: TrainedModel, quasars: Quasars, garbage: float) -> None:
    ivar = quasars.ivar[:40].copy()
    ivar[:, 3000:3300] = 0.0
    clean, dirty = (np.where(ivar > 0, quasars.flux[:40], fill).astype(np.float32) for fill in (0.0, garbage))
    first, second = (score(trained, flux, ivar, quasars.z[:40]) for flux in (clean, dirty))
    for name, values in vars(first).items():
        np.testing.assert_array_equal(values, getattr(second, name), err_msg=name)


def test_no_information_at_all_is_not_strange(trained: TrainedModel) -> None:
    nothing = score(
        trained, np.full((2, N_NATIVE), np.nan, np.float32), np.zeros((2, N_NATIVE), np.float32), [0.5, 3.0]
    )
    assert nothing.n_bins.tolist() == [0, 0]
    assert np.isnan(nothing.chi2_reduced).all()
    assert (nothing.global_score == 0).all()
    assert (nothing.local_emission == 0).all()
    assert (nothing.windows == 0).all()
    assert np.isfinite(nothing.embedding).all()


def inject(data: Quasars, sigma: float, width_kms: float, where: float, sign: int) -> NDArray[np.float32]:
    """Add a box of a given noiseless significance at an observed wavelength."""
    inside = np.abs(native_wavelength() / where - 1.0) < 0.5 * width_kms / 299792.458
    height = sigma / np.sqrt((data.ivar * inside).sum(1, keepdims=True))
    return (data.flux + sign * height * inside).astype(np.float32)


@pytest.mark.parametrize(("width", "sign"), [(300.0, 1), (1500.0, -1), (300.0, -1), (4500.0, 1)])
def test_injected_features_are_found_where_they_are(
    trained: TrainedModel, quasars: Quasars, width: float, sign: int
) -> None:
    found = score(trained, inject(quasars, 30.0, width, 6500.0, sign), quasars.ivar, quasars.z)
    kind = "emission" if sign > 0 else "absorption"
    near = np.abs(getattr(found, f"local_{kind}_wavelength") / 6500.0 - 1.0) < 0.5 * width / 299792.458 + 2e-3
    assert near.mean() > 0.9
    assert np.median(getattr(found, f"local_{kind}")) > 15.0
    window = found.windows[:, 0]
    assert (np.sign(window[near, 0]) == sign).mean() > 0.9
    assert np.median(np.abs(np.log2(window[near, 2] / width))) <= 1.0


def test_windows_do_not_overlap_and_are_ordered(scored) -> None:  # type: ignore[no-untyped-def]
    sigma, centre, width = (np.abs(scored.windows[:, :, index]) for index in range(3))
    assert (np.diff(sigma, axis=1) <= 0).all()
    bins = np.log10(np.where(centre > 0, centre, 1.0) / observed_wavelength()[0]) / 2e-4
    half = width / BIN_KMS / 2
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = sigma[:, second] > 0
        gap = np.abs(bins[:, first] - bins[:, second]) - half[:, first] - half[:, second]
        assert (gap[both] > -0.01).all()


def test_order_and_company_do_not_matter(trained: TrainedModel, quasars: Quasars, scored) -> None:  # type: ignore[no-untyped-def]
    rows = np.random.default_rng(0).permutation(300)[:77]
    part = score(trained, quasars.flux[rows], quasars.ivar[rows], quasars.z[rows])
    np.testing.assert_allclose(part.embedding, scored.embedding[rows], atol=5e-4)
    np.testing.assert_allclose(part.chi2_reduced, scored.chi2_reduced[rows], rtol=1e-3)


def test_same_input_gives_the_same_bits(trained: TrainedModel, quasars: Quasars, scored) -> None:  # type: ignore[no-untyped-def]
    again = score(trained, quasars.flux, quasars.ivar, quasars.z)
    for name, values in vars(scored).items():
        np.testing.assert_array_equal(values, getattr(again, name), err_msg=name)


def test_read_only_arrays_are_taken_as_they_are(trained: TrainedModel, quasars: Quasars, scored) -> None:  # type: ignore[no-untyped-def]
    flux, ivar = quasars.flux[:64].copy(), quasars.ivar[:64].copy()
    flux.flags.writeable = ivar.flags.writeable = False
    np.testing.assert_allclose(score(trained, flux, ivar, quasars.z[:64]).density, scored.density[:64], atol=0.02)


def test_bad_shapes_are_refused(trained: TrainedModel, quasars: Quasars) -> None:
    with pytest.raises(ValueError, match="found 3 spectra and 2 redshifts"):
        score(trained, quasars.flux[:3], quasars.ivar[:3], quasars.z[:2])
    with pytest.raises(ValueError, match="found none"):
        score(trained, quasars.flux[:0], quasars.ivar[:0], quasars.z[:0])


def test_pure_noise_around_a_perfect_model_scores_as_noise() -> None:
    """A fresh network reconstructs a constant: noise about it must give unit-normal scores."""
    vae = VAE(VAEConfig(latent=4, hidden=32, z_max=1.0))
    vae.scatter_R.zero_()
    generator = torch.Generator().manual_seed(0)
    density = Flow.fit(torch.randn(500, 4, generator=generator), torch.randn(500, 4, generator=generator), seed=0)
    parts = (ModelError.none(vae.grid.n_rest), Sky.none(), Detector.none(), torch.zeros(4))
    model = TrainedModel(vae, density, *parts, {}, [])
    rng = np.random.default_rng(5)
    ivar = np.full((400, N_NATIVE), 4.0, np.float32)
    flux = (3.0 + 0.5 * rng.standard_normal(ivar.shape)).astype(np.float32)
    with torch.inference_mode():
        found = score(model, flux, ivar, np.full(400, 0.5))
    assert found.chi2_reduced.mean() == pytest.approx(1.0, abs=0.01)
    assert found.global_score.mean() == pytest.approx(0.0, abs=0.15)
    assert found.global_score.std() == pytest.approx(1.0, abs=0.15)
    assert 3.2 < np.median(found.local_emission) < 4.2  # about 4,200 boxes were looked at
    assert np.median(found.local_absorption) == pytest.approx(np.median(found.local_emission), abs=0.15)


def test_wilson_hilferty_matches_the_exact_tail() -> None:
    exact = {3850.0: -0.92, 4000.0: 0.001, 4300.0: 3.27}  # χ², unit-normal equivalent at 4,000 degrees: scipy's chi2.sf
    for chi2, sigma in exact.items():
        assert wilson_hilferty(torch.tensor(chi2), torch.tensor(4000.0)).item() == pytest.approx(sigma, abs=0.8)


def test_noisy_copies_land_near_each_other(trained: TrainedModel) -> None:
    """The embedding is of the quasar: copies with other noise are nearer than other quasars."""
    data = make_quasars(60, seed=9, signal_to_noise=8.0)
    noise = np.where(data.ivar > 0, 1.0, 0.0) / np.sqrt(np.where(data.ivar > 0, data.ivar, 1.0))
    rng = np.random.default_rng(1)
    first, second = (
        score(trained, (data.truth + noise * rng.standard_normal(noise.shape)).astype(np.float32), data.ivar, data.z)
        for _ in range(2)
    )
    distance = np.linalg.norm(first.embedding[:, None] - second.embedding[None], axis=2)
    assert (distance.argmin(1) == np.arange(60)).mean() > 0.8
