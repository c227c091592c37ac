from __future__ import annotations

import numpy as np
import pytest
import torch

from models.grid import N_NATIVE, N_OBSERVED, RestGrid, bin_of_pixel, native_wavelength, observed_wavelength
from models.rebin import half_bins, place, rebin, take, to_half_bins, to_native


def test_every_native_pixel_is_in_the_nearest_bin() -> None:
    bins = bin_of_pixel()
    assert bins.shape == (N_NATIVE,)
    assert N_OBSERVED == 2180
    offset = np.log10(native_wavelength() / observed_wavelength()[bins]) / 2e-4
    assert np.abs(offset).max() <= 0.5 + 1e-6
    assert np.bincount(bins).min() >= 2


def test_pure_noise_keeps_chi2_at_one_and_bins_independent() -> None:
    generator = torch.Generator().manual_seed(3)
    ivar = torch.rand((400, N_NATIVE), generator=generator) * 3.0 + 0.1
    noise = torch.randn((400, N_NATIVE), generator=generator) * ivar.rsqrt()
    flux_BO, ivar_BO = rebin(noise, ivar)
    pull = flux_BO * ivar_BO.sqrt()
    assert pull.square().mean().item() == pytest.approx(1.0, abs=0.01)
    neighbours = (pull[:, 1:] * pull[:, :-1]).mean().item()
    assert abs(neighbours) < 5.0 / (400 * N_OBSERVED) ** 0.5


def test_rebin_equals_a_plain_weighted_mean() -> None:
    rng = np.random.default_rng(4)
    flux, ivar = rng.normal(size=(2, N_NATIVE)), rng.uniform(0, 2, (2, N_NATIVE))
    ivar[:, 100:200] = 0.0
    flux_BO, ivar_BO = rebin(torch.as_tensor(flux, dtype=torch.float32), torch.as_tensor(ivar, dtype=torch.float32))
    for row in range(2):
        total = np.bincount(bin_of_pixel(), ivar[row])
        mean = np.bincount(bin_of_pixel(), ivar[row] * flux[row]) / np.where(total > 0, total, 1.0)
        np.testing.assert_allclose(ivar_BO[row], total, rtol=1e-5)
        np.testing.assert_allclose(flux_BO[row], mean, atol=1e-5)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
def test_flux_without_information_is_never_read(garbage: float) -> None:
    flux, ivar = torch.ones((1, N_NATIVE)), torch.ones((1, N_NATIVE))
    ivar[0, 50:90] = 0.0
    dirty = flux.clone()
    dirty[0, 50:90] = garbage
    for clean_part, dirty_part in zip(rebin(flux, ivar), rebin(dirty, ivar), strict=True):
        assert torch.equal(clean_part, dirty_part)


def test_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected flux and ivar of shape \[B, 7781\], found \[2, 100\]"):
        rebin(torch.ones(2, 100), torch.ones(2, 100))


@pytest.mark.parametrize("z", [0.0, 0.37, 2.2, 6.0])
def test_shifted_bins_are_at_their_rest_wavelength(z: float) -> None:
    grid = RestGrid(6.0)
    offset = int(grid.offset(torch.tensor([z]))[0])
    rest = grid.wavelength[offset : offset + N_OBSERVED]
    assert len(rest) == N_OBSERVED
    error = np.log10(rest * (1 + z) / observed_wavelength()) / 2e-4
    assert np.abs(error).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("z", [np.nan, -0.1, 6.5])
def test_redshift_outside_the_grid_is_refused(z: float) -> None:
    with pytest.raises(ValueError, match="outside the model's range 0 to 6"):
        RestGrid(6.0).offset(torch.tensor([1.0, z]))


def test_place_and_take_are_inverse() -> None:
    values = torch.arange(12.0).reshape(3, 4)
    start = torch.tensor([0, 5, 2])
    placed = place(values, start, 9)
    assert torch.equal(take(placed, start, 4), values)
    assert placed.sum() == values.sum()
    assert placed[1].tolist() == [0, 0, 0, 0, 0, 4, 5, 6, 7]


def test_interpolation_back_to_native_pixels_follows_a_line() -> None:
    straight = torch.as_tensor(observed_wavelength(), dtype=torch.float32)[None]
    native = to_native(straight)[0].numpy()
    np.testing.assert_allclose(native[3:-3], native_wavelength()[3:-3], atol=0.01)


def test_half_bins_add_up_to_bins_and_lose_nothing() -> None:
    rng = np.random.default_rng(8)
    flux, ivar = (torch.tensor(rng.random((3, N_NATIVE)), dtype=torch.float32) for _ in range(2))
    pull, weight = half_bins(flux, ivar)
    torch.testing.assert_close(pull.sum(1), (flux * ivar).sum(1), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(weight.sum(1), ivar.sum(1), rtol=1e-5, atol=1e-3)
    whole_flux, whole_ivar = rebin(flux, ivar)
    weights, pulls = (part.view(3, 2, N_OBSERVED).sum(1) for part in (weight, pull))
    torch.testing.assert_close(weights, whole_ivar)
    assert torch.allclose(pulls / whole_ivar, whole_flux, rtol=1e-5)


def test_half_bins_follow_a_slope() -> None:
    slope = torch.arange(float(N_OBSERVED))[None]
    halves = to_half_bins(slope)[0].view(2, N_OBSERVED).T.reshape(-1)  # in the order of wavelength
    expected = torch.arange(2 * N_OBSERVED) / 2 - 0.25
    torch.testing.assert_close(halves[1:-1], expected[1:-1])
