"""Anomaly scores of spectra under a trained model: parts that are kept apart, and a plain combination.

Larger is stranger in every score. Scores are raw: turning them into p-values needs the whole survey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.features import compressed, conditions, context_features, count, residual_features
from models.filters import BOX_WIDTHS, STRIDES, WIDTHS, box_sums, centre_wavelengths, width_kms
from models.grid import N_OBSERVED
from models.rebin import to_half_bins
from models.redshift import kms
from models.trained import Fine, TrainedModel, fitted, loaded_groups
from models.vae import Prepared

N_WINDOWS = 5
FAMILIES = ("blend", "instrument", "redshift")  # of the detector's kinds, each a score of its own
MOST_SQUARE = 8.0  # the square of a box's σ counts to 64
FAINT = 0.1  # fraction of the mean flux below which the model's error shrinks no further
TINY = 1e-30

Float = NDArray[np.float32]


@dataclass
class ScoreBatch:
    """Scores of B spectra: numpy arrays in the order given. Without any information scores are 0 or NaN."""

    embedding: Float  # [B, D] posterior means less what redshift alone does to them
    mean_flux: Float  # of the reconstruction over the observed range, 1e-17 erg/s/cm²/Å
    n_bins: NDArray[np.int32]  # log bins with information
    n_trials: Float  # independent boxes looked at, all widths together
    chi2_reduced: Float  # Σ w r² / n_bins against the noise alone; NaN without information
    global_score: Float  # misfit with the model's error included, in σ
    local_emission: Float  # highest box, σ
    local_emission_wavelength: Float  # its centre, observed Å
    local_emission_width: Float  # km/s
    local_absorption: Float  # deepest box, a positive σ
    local_absorption_wavelength: Float  # its centre, observed Å
    local_absorption_width: Float  # km/s
    density: Float  # −log p of the embedding at its redshift and S/N
    detection: Float  # log odds of any known kind of departure against none, nat
    blend: Float  # the same of a second source of light, or another one altogether
    blend_kind: NDArray[np.int64]  # index of the likeliest such kind in the detector's; −1 without a detector
    instrument: Float  # the same of what sky, instrument and pipeline leave
    instrument_kind: NDArray[np.int64]
    redshift_gain: Float  # the same of a wrong redshift
    odds: Float  # [B, C] log odds of every kind
    slip: Float  # km/s by which the catalogued redshift is too high
    windows: Float  # [B, 5, 3] the strongest boxes that do not overlap: σ (signed), observed Å, km/s; σ 0 if none

    def __len__(self) -> int:
        return len(self.n_bins)


def score(model: TrainedModel, flux_BL: Any, ivar_BL: Any, z_B: Any) -> ScoreBatch:
    """Encode, reconstruct and score spectra, where the model's weights are.

    Args:
        model: a trained model.
        flux_BL: float32 [B, 7781] on the native grid, 1e-17 erg/s/cm²/Å; anything where ivar is 0.
        ivar_BL: float32 [B, 7781], 1/flux², finite and not negative.
        z_B: redshifts, [B].

    Raises:
        ValueError: wrong shapes, no spectrum, or a redshift outside the model's grid.
    """
    if not len(flux_BL):
        raise ValueError("expected spectra to score, found none")
    with torch.no_grad():
        arrays = _scores(model, _measure(model, flux_BL, ivar_BL, z_B))
    return ScoreBatch(**{name: values.cpu().numpy() for name, values in arrays.items()})


def features(model: TrainedModel, flux_BL: Any, ivar_BL: Any, z_B: Any) -> Tensor:
    """Return the inputs of the model's detector, [B, F]; arguments and errors as in ``score``."""
    with torch.no_grad():
        return _measure(model, flux_BL, ivar_BL, z_B).features_BF


def _measure(model: TrainedModel, flux_BL: Any, ivar_BL: Any, z_B: Any) -> _Measured:
    redshift_B = torch.as_tensor(np.asarray(z_B, np.float32), device=model.vae.mean_R.device)
    order: list[Tensor] = []
    parts: list[_Measured] = []
    for rows, group, fine in loaded_groups(model.vae, model.sky, flux_BL, ivar_BL, z_B):
        order.append(rows)
        parts.append(_measured(model, group, fine, redshift_B[rows], *fitted(model.vae, group)))
    back_B = torch.argsort(torch.cat(order))
    return _Measured(*(torch.cat(part)[back_B] for part in zip(*parts, strict=True)))


def wilson_hilferty(chi2: Tensor, freedom: Tensor) -> Tensor:
    """Return the unit-normal equivalent of χ² with ``freedom`` degrees (Wilson & Hilferty 1931); 0 without any."""
    spread = 2.0 / (9.0 * freedom.clamp(min=1.0))
    return torch.where(freedom > 0, ((chi2 / freedom.clamp(min=1.0)).pow(1 / 3) - 1.0 + spread) * spread.rsqrt(), 0.0)


def residuals(spectra: Prepared, model_BO: Tensor) -> tuple[Tensor, Tensor]:
    """Return w r, and the flux of which the model's error is a fraction, [B, O] each, in units of the scale."""
    level_BO = torch.maximum(model_BO, FAINT * model_BO.mean(1, keepdim=True).abs())
    return (spectra.flux_BO - model_BO).mul_(spectra.weight_BO), level_BO


@dataclass
class _Boxes:
    """The highest and the deepest box of every width, [B, 2 W] each: σ, first bin, index in BOX_WIDTHS."""

    sigma: Tensor
    first: Tensor
    width: Tensor

    def wavelength(self) -> Tensor:
        """Centres, observed Å."""
        return centre_wavelengths(self.first, self.width)

    def pick(self, column_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return σ, centre in Å and width in km/s of one box a spectrum."""
        one = _Boxes(*(part.gather(1, column_B[:, None]) for part in (self.sigma, self.first, self.width)))
        return one.sigma[:, 0], one.wavelength()[:, 0], width_kms(one.width)[:, 0]


class _Measured(NamedTuple):
    """What needs all bins of B spectra; few numbers each, from which all of them are scored at once."""

    latent_BD: Tensor
    conditions_BQ: Tensor  # that its density depends on
    mean_flux: Tensor
    n_bins: Tensor  # a float
    chi2: Tensor
    soft_chi2: Tensor  # with ordinary quasars' scatter included
    slip: Tensor  # km/s
    box_sigma: Tensor  # [B, 2 W], as in _Boxes
    box_first: Tensor
    features_BF: Tensor  # of the detector


def _measured(
    model: TrainedModel, spectra: Prepared, fine: Fine, z_B: Tensor, latent_BD: Tensor, model_BO: Tensor
) -> _Measured:
    weight_BO = spectra.weight_BO
    weighted_BO, level_BO = residuals(spectra, model_BO)
    pull_BO = torch.square(weighted_BO) / weight_BO.clamp(min=TINY)
    chi2_B, n_bins_B = pull_BO.sum(1), count(weight_BO)
    soft_B = (pull_BO / (1.0 + weight_BO * model.vae.scatter_of(spectra))).sum(1)
    sigma, first = _all_boxes(model, spectra, fine, model_BO, weighted_BO, level_BO)
    conditions_BQ = conditions(spectra, z_B)
    parts = [
        residual_features(spectra, weighted_BO, pull_BO, model.vae.grid.n_rest),
        compressed(sigma),
        (sigma * sigma.abs() / MOST_SQUARE).clamp(-MOST_SQUARE, MOST_SQUARE),  # as log likelihood ratios go
        model.sky.features(fine.on_lines, model_BO),
        latent_BD,
        context_features(spectra, z_B, chi2_B, n_bins_B, wilson_hilferty(soft_B, n_bins_B)),
        conditions_BQ,
    ]
    mean_flux = model_BO.mean(1) * spectra.scale_B
    slip_B = kms(spectra.slip_B)
    features_BF = torch.cat(parts, 1)
    return _Measured(latent_BD, conditions_BQ, mean_flux, n_bins_B, chi2_B, soft_B, slip_B, sigma, first, features_BF)


def _scores(model: TrainedModel, measured: _Measured) -> dict[str, Tensor]:
    n_bins = measured.n_bins
    global_score = wilson_hilferty(measured.soft_chi2, n_bins)
    width_2W = torch.arange(len(BOX_WIDTHS), device=n_bins.device).repeat_interleave(2)
    boxes = _Boxes(measured.box_sigma, measured.box_first, width_2W.expand(len(n_bins), -1))
    up = boxes.pick(boxes.sigma.argmax(1))
    down = boxes.pick(boxes.sigma.argmin(1))
    n_trials = n_bins * sum(1.0 / width for width in BOX_WIDTHS)
    density = model.density.neg_log_density(measured.latent_BD, measured.conditions_BQ)
    odds_BC = model.detector.log_odds(measured.features_BF)
    blend, instrument, redshift = (model.detector.family(odds_BC, name) for name in FAMILIES)
    return {
        "embedding": measured.latent_BD - measured.conditions_BQ[:, :1] * model.drift_D,
        "mean_flux": measured.mean_flux,
        "n_bins": n_bins.int(),
        "n_trials": n_trials,
        "chi2_reduced": measured.chi2 / n_bins,
        "global_score": global_score,
        "local_emission": up[0].clamp(min=0.0),
        "local_emission_wavelength": up[1],
        "local_emission_width": up[2],
        "local_absorption": (-down[0]).clamp(min=0.0),
        "local_absorption_wavelength": down[1],
        "local_absorption_width": down[2],
        "density": density,
        "detection": model.detector.family(odds_BC, "")[0],
        "blend": blend[0],
        "blend_kind": blend[1],
        "instrument": instrument[0],
        "instrument_kind": instrument[1],
        "redshift_gain": redshift[0],
        "odds": odds_BC,
        "slip": measured.slip,
        "windows": _windows(boxes),
    }


def _all_boxes(
    model: TrainedModel, spectra: Prepared, fine: Fine, model_BO: Tensor, weighted_BO: Tensor, level_BO: Tensor
) -> tuple[Tensor, Tensor]:
    """Return σ and first bin of every width's highest and deepest box, [B, 2 W] each."""
    errors = model.model_error.observed(spectra.offset_B)
    found = _half_boxes(fine, model_BO, errors[0][0] * level_BO)
    some_BO = spectra.weight_BO + TINY  # where nothing is known, σ is 0
    sums = zip(box_sums(weighted_BO), box_sums(some_BO), errors, WIDTHS, STRIDES, strict=True)
    for top, total, (mean, half), width, stride in sums:
        middle = level_BO[:, width // 2 : N_OBSERVED - (width - 1) // 2 : stride][:, : top.shape[1]]
        found += _best(top, total, mean.addcmul_(half, torch.sign(top)).mul_(middle), stride)
    sigma, first = (torch.stack(part, 1) for part in zip(*found, strict=True))
    return sigma, first


def _half_boxes(fine: Fine, model_BO: Tensor, error_BO: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return σ and first bin of the highest and the deepest half bin."""
    weight_BH = fine.weight_BH
    weighted_BH = torch.addcmul(fine.pull_BH, weight_BH, to_half_bins(model_BO), value=-1.0)
    spread_B2O = weight_BH.view(len(weight_BH), 2, -1) * torch.square(error_BO)[:, None]
    spread_BH = spread_B2O.add_(1.0).view_as(weight_BH).mul_(weight_BH).clamp_(min=TINY)
    ratio_BH = spread_BH.rsqrt_().mul_(weighted_BH)
    return [
        (ratio_BH.gather(1, best[:, None])[:, 0], best % N_OBSERVED + 0.5 * (best >= N_OBSERVED))
        for best in _extremes(ratio_BH)
    ]


def _best(top: Tensor, total: Tensor, error: Tensor, stride: float) -> list[tuple[Tensor, Tensor]]:
    """Return σ = A / √(W + e² W²) and first bin of the highest and of the deepest box; ``error`` is overwritten."""
    error.mul_(total)
    ratio = torch.addcmul(total, error, error, out=error).rsqrt_().mul_(top)
    return [(ratio.gather(1, best[:, None])[:, 0], best * stride) for best in _extremes(ratio)]


def _extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return row-wise argmax and argmin; on the CPU numpy's, ten times faster than torch's."""
    if values.device.type == "cpu":
        array = values.numpy()
        return torch.from_numpy(array.argmax(1)), torch.from_numpy(array.argmin(1))
    return values.argmax(1), values.argmin(1)


def _windows(boxes: _Boxes) -> Tensor:
    """Choose the strongest boxes that do not overlap, [B, 5, 3]."""
    strength = boxes.sigma.abs()
    size = torch.tensor(BOX_WIDTHS, device=strength.device)[boxes.width]
    low, high = boxes.first, boxes.first + size
    chosen = []
    for _ in range(N_WINDOWS):
        best = strength.argmax(1)
        found = strength.gather(1, best[:, None]) > 0
        row = torch.stack(boxes.pick(best), 1)
        chosen.append(torch.where(found, row, 0.0))
        apart = (low >= high.gather(1, best[:, None])) | (high <= low.gather(1, best[:, None]))
        strength = torch.where(apart, strength, 0.0)
    return torch.stack(chosen, 1)
