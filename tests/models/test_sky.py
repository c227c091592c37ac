"""What the sky leaves behind, found in native pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.grid import N_NATIVE, N_OBSERVED, native_wavelength
from models.sky import SEGMENTS, Sky

LINES = (7300.0, 7720.0, 8400.0, 8830.0, 9380.0, 9440.0)  # Å
WIDTH = 0.9  # Å, σ of a line
RUNS = 2 * SEGMENTS - 1


def _line_profiles() -> torch.Tensor:
    """Profiles of the lines, [lines, L]."""
    wavelength = torch.as_tensor(native_wavelength())
    return torch.exp(-0.5 * ((wavelength - torch.tensor(LINES)[:, None]) / WIDTH) ** 2)


@pytest.fixture(scope="module")
def ivar() -> torch.Tensor:
    """Inverse variances of 200 spectra with bright lines, [B, L]."""
    variance_L = 1.0 + 30.0 * _line_profiles().sum(0)
    scatter_B = torch.rand(200, generator=torch.Generator().manual_seed(1)) + 0.5
    return (1.0 / (variance_L * scatter_B[:, None])).float()


@pytest.fixture(scope="module")
def sky(ivar: torch.Tensor) -> Sky:
    return Sky.of(ivar)


def _features(sky: Sky, ivar_BL: torch.Tensor, delta_BL: torch.Tensor) -> torch.Tensor:
    noise_BL = torch.randn(ivar_BL.shape, generator=torch.Generator().manual_seed(2)) * ivar_BL.rsqrt()
    flux_BL = 2.0 + noise_BL + delta_BL
    model_BO = torch.full((len(ivar_BL), N_OBSERVED), 2.0)
    return sky.features(sky.on_lines(flux_BL.float(), ivar_BL), model_BO)


def test_lines_are_where_the_errors_rise(sky: Sky) -> None:
    wavelength = native_wavelength()[sky.pixel_P[sky.bright_P > 0].numpy()]
    nearest = np.abs(wavelength[:, None] - np.array(LINES)).min(1)
    assert nearest.max() < 3.5 * WIDTH
    assert len(np.unique(np.round(wavelength / 20))) >= len(LINES)


@pytest.mark.parametrize("slipped", [False, True], ids=["strength", "slip"])
def test_a_subtraction_error_common_to_all_lines_adds_up(sky: Sky, ivar: torch.Tensor, slipped: bool) -> None:
    shape_L = _line_profiles().sum(0)
    if slipped:
        shape_L = torch.gradient(shape_L)[0] * 2.0
    quiet, loud = (_features(sky, ivar, size * shape_L * ivar.rsqrt()) for size in (0.0, 2.5))
    everywhere = RUNS - 1  # the last run is all segments together
    threshold = torch.quantile(quiet[:, everywhere], 0.99)
    assert (loud[:, everywhere] > threshold).float().mean() > 0.95
    single = torch.quantile(quiet[:, :SEGMENTS].amax(1), 0.99)
    assert (loud[:, everywhere] > threshold).float().mean() > (loud[:, :SEGMENTS].amax(1) > single).float().mean()


def test_noise_alone_is_a_chi_square_of_two_patterns(sky: Sky, ivar: torch.Tensor) -> None:
    energy_B = _features(sky, ivar, torch.zeros(200, 1))[:, RUNS - 1].expm1()
    assert 1.6 < float(energy_B.mean()) < 2.4


def test_what_is_unknown_weighs_nothing(sky: Sky, ivar: torch.Tensor) -> None:
    hidden = ivar.clone()
    hidden[:, 4500:] = 0.0
    flux_BL = torch.full((len(ivar), N_NATIVE), 2.0)
    flux_BL[:, 4500:] = torch.nan
    found = sky.features(sky.on_lines(flux_BL, hidden), torch.full((len(ivar), N_OBSERVED), 2.0))
    assert torch.isfinite(found).all()
    assert float(found[:, :RUNS].abs().max()) < 1e-4


def test_without_lines_there_is_nothing_to_say() -> None:
    nothing = Sky.none()
    seen = nothing.on_lines(torch.ones(3, N_NATIVE), torch.ones(3, N_NATIVE))
    assert not nothing.features(seen, torch.ones(3, N_OBSERVED)).any()
