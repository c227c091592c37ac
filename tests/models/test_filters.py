from __future__ import annotations

import pytest
import torch

from models.filters import BOX_WIDTHS, STRIDES, WIDTHS, ModelError, box_sums, centre_wavelengths, middle_bins, width_kms
from models.grid import N_OBSERVED, observed_wavelength


def test_box_sums_equal_plain_sums() -> None:
    values = torch.randn((3, N_OBSERVED), generator=torch.Generator().manual_seed(0))
    for sums, width, stride in zip(box_sums(values), WIDTHS, STRIDES, strict=True):
        torch.testing.assert_close(sums, values.unfold(1, width, stride).sum(2), rtol=1e-4, atol=1e-4)


def test_a_wild_bin_spoils_only_its_own_boxes() -> None:
    values = torch.ones((1, N_OBSERVED))
    values[0, 1000] = 1e12
    widest = box_sums(values)[-1][0]
    assert (widest == WIDTHS[-1]).sum() == len(widest) - WIDTHS[-1] // STRIDES[-1]


def test_widths_reach_from_a_resolution_element_to_5000_kms() -> None:
    speeds = width_kms(torch.arange(len(BOX_WIDTHS)))
    assert speeds[0].item() == pytest.approx(69.03, abs=0.01)
    assert speeds[-1].item() == pytest.approx(5000.0, rel=0.01)


def test_centres_are_wavelengths_of_the_middle() -> None:
    assert [len(middle) for middle in middle_bins()] == [sums.shape[1] for sums in box_sums(torch.ones(1, N_OBSERVED))]
    wavelength = centre_wavelengths(torch.tensor([[500]]), torch.tensor([[BOX_WIDTHS.index(1)]]))
    assert wavelength.item() == pytest.approx(observed_wavelength()[500], abs=0.01)


def test_model_error_is_recovered_where_there_is_some() -> None:
    generator = torch.Generator().manual_seed(1)
    rows, n_rest, error = 300, N_OBSERVED + 640, 0.1
    weight = torch.rand((rows, 1), generator=generator) * 900 + torch.full((rows, N_OBSERVED), 100.0)
    offset = torch.randint(0, 640, (rows,), generator=generator)
    rest = offset[:, None] + torch.arange(N_OBSERVED)
    wrong = torch.where(rest < 1280, error, 0.0) * torch.randn((rows, N_OBSERVED), generator=generator)
    residual = wrong + weight.rsqrt() * torch.randn((rows, N_OBSERVED), generator=generator)
    found = ModelError.estimate(weight * residual, weight, torch.ones_like(weight), offset, n_rest).fraction_SWR
    for sign in (0, 1):
        assert found[sign, 0, 320:1280].mean().item() == pytest.approx(error, rel=0.1)
        assert found[sign, 0, 1280:].mean().item() < 0.03
        assert found[sign, 2, 320:1280].mean().item() == pytest.approx(error / 2.0, rel=0.2)  # 4 bins average out


def test_model_error_has_a_side() -> None:
    """Troughs in ordinary quasars make deep boxes ordinary, and high ones no less strange."""
    generator = torch.Generator().manual_seed(3)
    residual = 0.1 * torch.randn((600, N_OBSERVED), generator=generator)
    residual[:30, 500:900] -= 0.8
    weight = torch.full_like(residual, 100.0)
    offset = torch.zeros(600, dtype=torch.int64)
    found = ModelError.estimate(weight * residual, weight, torch.ones_like(weight), offset, N_OBSERVED).fraction_SWR
    assert found[1, 1, 576:832].mean() > 0.2
    assert found[0, 1, 576:832].mean() < 0.03


def test_model_error_of_pure_noise_is_nearly_zero() -> None:
    noise = torch.randn((300, N_OBSERVED), generator=torch.Generator().manual_seed(2))
    ones = torch.ones_like(noise)
    error = ModelError.estimate(noise, ones, ones, torch.zeros(300, dtype=torch.int64), N_OBSERVED)
    assert error.fraction_SWR.mean().item() < 0.15  # of a flux measured at 1σ a bin
