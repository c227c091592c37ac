"""From native pixels to log-wavelength bins and to the rest frame, with noise that stays independent.

Every native pixel goes into exactly one bin, so bins share no noise: inverse variances add and χ² of pure
noise stays 1 a bin. (Interpolating to a log grid instead left it at 0.70–0.88.)
"""

from __future__ import annotations

from functools import lru_cache

import torch

from models.grid import N_FINE, N_NATIVE, N_OBSERVED, half_bin_of_pixel


@lru_cache(maxsize=4)
def _bins(device: torch.device) -> torch.Tensor:
    return torch.as_tensor(half_bin_of_pixel(), device=device)


def run_sums(values_BN: torch.Tensor, size: int) -> torch.Tensor:
    """Return sums over runs of ``size`` values, [B, N / size]: a product with ones, several times as fast as a sum."""
    return values_BN.view(len(values_BN), -1, size) @ values_BN.new_ones(size)


def half_bins(
    flux_BL: torch.Tensor, ivar_BL: torch.Tensor, out: tuple[torch.Tensor, torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum native pixels into halves of the observed log bins.

    Args:
        flux_BL: float32 [B, L]; where ``ivar_BL`` is 0 it may be anything, NaN included.
        ivar_BL: float32 [B, L], finite and not negative.
        out: zeros that take the sums; default: new ones.

    Returns:
        Σ ivar·flux and Σ ivar, float32 [B, 2 O].

    Raises:
        ValueError: the arrays do not have the native grid's length.
    """
    if flux_BL.shape != ivar_BL.shape or flux_BL.ndim != 2 or flux_BL.shape[1] != N_NATIVE:
        raise ValueError(
            f"expected flux and ivar of shape [B, {N_NATIVE}], found {list(flux_BL.shape)} and {list(ivar_BL.shape)}"
        )
    bins = _bins(flux_BL.device)
    weighted = torch.nan_to_num_(ivar_BL * flux_BL, nan=0.0, posinf=0.0, neginf=0.0)
    pull_BH, ivar_BH = out or tuple(torch.zeros((2, flux_BL.shape[0], N_FINE), device=flux_BL.device))
    return pull_BH.index_add_(1, bins, weighted), ivar_BH.index_add_(1, bins, ivar_BL)


def rebin(flux_BL: torch.Tensor, ivar_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Average native pixels into observed log bins, weighted by ivar; arguments and errors as in ``half_bins``.

    Returns:
        flux [B, O] (0 where there is no information) and ivar [B, O], float32.
    """
    return averaged(*half_bins(flux_BL, ivar_BL))


def averaged(pull_BH: torch.Tensor, ivar_BH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return flux and ivar of whole bins, [B, O], from the sums in their halves."""
    pull_BO, ivar_BO = (half[:, :N_OBSERVED] + half[:, N_OBSERVED:] for half in (pull_BH, ivar_BH))
    return pull_BO.div_(ivar_BO.clamp(min=torch.finfo(torch.float32).tiny)), ivar_BO


def to_half_bins(values_BO: torch.Tensor) -> torch.Tensor:
    """Interpolate values at bins' centres to their halves' centres, [B, O] → [B, 2 O]."""
    quarter = 0.25 * (values_BO[:, 1:] - values_BO[:, :-1])
    out_BH = torch.cat([values_BO, values_BO], 1)
    out_BH[:, 1:N_OBSERVED] -= quarter
    out_BH[:, N_OBSERVED:-1] += quarter
    return out_BH


def to_native(values_BO: torch.Tensor, pixel_P: torch.Tensor | None = None) -> torch.Tensor:
    """Interpolate values at the observed log bins' centres to native pixels, all or some, [B, O] → [B, L] or [B, P]."""
    low, fraction = _interpolation(values_BO.device)
    if pixel_P is not None:
        low, fraction = low[pixel_P], fraction[pixel_P]
    return torch.lerp(values_BO.index_select(1, low), values_BO.index_select(1, low + 1), fraction)


@lru_cache(maxsize=4)
def _interpolation(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    from models.grid import native_wavelength, observed_wavelength

    centre = torch.as_tensor(observed_wavelength(), device=device)
    wavelength = torch.as_tensor(native_wavelength(), device=device)
    low = (torch.searchsorted(centre, wavelength) - 1).clamp(0, N_OBSERVED - 2)
    fraction = (wavelength - centre[low]) / (centre[low + 1] - centre[low])
    return low, fraction.clamp(0.0, 1.0).float()


def place(values_BO: torch.Tensor, start_B: torch.Tensor, width: int) -> torch.Tensor:
    """Put each row at its own place in a wider row of zeros: [B, O] → [B, width].

    ``start_B`` (int64 [B]) is the column of each row's first value; it must leave room for all of them.
    """
    room = width - values_BO.shape[1]
    padded = torch.nn.functional.pad(values_BO, (room, room))
    return take(padded, room - start_B, width)


def take(values_BR: torch.Tensor, start_B: torch.Tensor, n_values: int) -> torch.Tensor:
    """Cut each row's own run of columns out: [B, R] → [B, n_values].

    All runs are rows of one overlapping view, so choosing them is a copy of whole rows and not a gather.
    """
    n_rows, n_columns = values_BR.shape
    first_B = torch.arange(n_rows, device=values_BR.device) * n_columns + start_B
    return values_BR.reshape(-1).unfold(0, n_values, 1).index_select(0, first_B)
