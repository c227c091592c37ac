"""A trained model: the network, the density of its latents, its own error, and where all that comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.density import Flow
from models.detector import Detector
from models.filters import ModelError
from models.grid import N_FINE, N_OBSERVED
from models.rebin import averaged, half_bins, take, to_native
from models.sky import OnLines, Sky
from models.vae import VAE, Prepared, amplitude, prepare

GROUP = 128  # spectra of similar redshift worked on together: a tenth faster than 64, as fast as 256


@dataclass
class TrainedModel:
    """Everything scoring needs, and where it comes from."""

    vae: VAE
    density: Flow
    model_error: ModelError
    sky: Sky
    detector: Detector
    drift_D: Tensor  # of embeddings per unit of ln(1 + z), see ``models.drift``
    provenance: dict[str, Any]  # settings, data hash, splits: plain JSON values
    history: list[dict[str, float]]  # training curves, one entry a segment
    model_id: str = ""  # given by models.files

    def to(self, device: str | torch.device) -> TrainedModel:
        """Return the model on another device (the network itself moves there)."""
        where = torch.device(device)
        parts = (self.vae.to(where), self.density.to(where), self.model_error.to(where))
        learned = (self.sky.to(where), self.detector.to(where), self.drift_D.to(where))
        return TrainedModel(*parts, *learned, self.provenance, self.history, self.model_id)


def load_spectra(vae: VAE, flux_BL: Any, ivar_BL: Any, z_B: Any) -> Prepared:
    """Rebin and normalise native spectra on the network's device, at the redshifts near ``z_B`` that fit best.

    Args:
        vae: the network, for its grid and device.
        flux_BL: float32 [B, 7781] on the native grid, 1e-17 erg/s/cm²/Å; anything where ivar is 0.
        ivar_BL: float32 [B, 7781], 1/flux², finite and not negative.
        z_B: redshifts, [B].

    Raises:
        ValueError: wrong shapes, or a redshift outside the model's grid.
    """
    halves = _Halves.of(vae, flux_BL, ivar_BL, z_B)
    rows = torch.arange(len(halves.offset_B), device=halves.offset_B.device)
    return refined(vae, Prepared.cat([halves.prepared(part) for part in torch.split(rows, GROUP)]))


@dataclass
class Fine:
    """What wider bins lose, of the spectra beside it and in their units; for scoring."""

    pull_BH: Tensor  # Σ weight·flux in halves of the bins
    weight_BH: Tensor  # Σ weight there
    on_lines: OnLines  # of the sky


def loaded_groups(vae: VAE, sky: Sky, flux_BL: Any, ivar_BL: Any, z_B: Any) -> Iterator[tuple[Tensor, Prepared, Fine]]:
    """Yield groups of similar redshift: row numbers [G], the spectra as ``load_spectra`` has them, and what is finer.

    Arguments and errors as there. A group's arrays fit a core's cache all the way from its native pixels.
    """
    halves = _Halves.of(vae, flux_BL, ivar_BL, z_B, sky)
    for rows in torch.split(torch.argsort(halves.offset_B, stable=True), GROUP):
        group, fine = halves.both(rows)
        yield rows, group.moved(vae.shifts(group)), fine


@dataclass
class _Halves:
    """Spectra summed in half bins on the network's device, and the offsets of their redshifts."""

    pull_BH: Tensor
    ivar_BH: Tensor
    on_lines: OnLines
    offset_B: Tensor

    @classmethod
    def of(cls, vae: VAE, flux_BL: Any, ivar_BL: Any, z_B: Any, sky: Sky | None = None) -> _Halves:
        device = vae.mean_R.device
        flux, ivar, z = _tensor(flux_BL), _tensor(ivar_BL), _tensor(z_B)
        if len(flux) != len(z):
            raise ValueError(f"expected one redshift a spectrum, found {len(flux)} spectra and {len(z)} redshifts")
        sky = sky or Sky.none().to(device)
        pull_BH, ivar_BH = torch.zeros((2, len(flux), N_FINE), device=device)
        pull_BP, ivar_BP = torch.empty((2, len(flux), len(sky.pixel_P)), device=device)
        with torch.no_grad():
            for start in range(0, max(len(flux), 1), GROUP):
                rows = slice(start, start + GROUP)
                here = (flux[rows].to(device, torch.float32), ivar[rows].to(device, torch.float32))
                half_bins(here[0], here[1], (pull_BH[rows], ivar_BH[rows]))
                pull_BP[rows], ivar_BP[rows] = sky.on_lines(*here)
        return cls(pull_BH, ivar_BH, OnLines(pull_BP, ivar_BP), vae.grid.offset(z).to(device))

    def prepared(self, rows: Tensor) -> Prepared:
        """Return some spectra in whole bins, normalised."""
        return prepare(*averaged(self.pull_BH[rows], self.ivar_BH[rows]), self.offset_B[rows])

    def both(self, rows: Tensor) -> tuple[Prepared, Fine]:
        """Return the same, and what is finer of them."""
        pull_BH, ivar_BH = self.pull_BH.index_select(0, rows), self.ivar_BH.index_select(0, rows)
        made = prepare(*averaged(pull_BH, ivar_BH), self.offset_B[rows])
        scale_B1 = made.scale_B[:, None]
        square_B1 = scale_B1 * scale_B1
        pull_BP, ivar_BP = (part.index_select(0, rows) for part in self.on_lines)
        on_lines = OnLines(pull_BP.mul_(scale_B1), ivar_BP.mul_(square_B1))
        return made, Fine(pull_BH.mul_(scale_B1), ivar_BH.mul_(square_B1), on_lines)


def refined(vae: VAE, spectra: Prepared) -> Prepared:
    """Return spectra at the redshifts, near the catalogued ones, that fit best; see ``VAE.shifts``."""
    shift_B = torch.zeros_like(spectra.offset_B)
    with torch.no_grad():
        for rows in torch.split(torch.argsort(spectra.offset_B, stable=True), GROUP):
            shift_B[rows] = vae.shifts(spectra.rows(rows))
    return spectra.moved(shift_B)


def fitted_groups(vae: VAE, spectra: Prepared) -> Iterator[tuple[Tensor, Prepared, Tensor, Tensor]]:
    """Yield groups of similar redshift: row numbers [G], the spectra, embeddings [G, D] and models [G, O].

    Models are at their best amplitude, in units of each spectrum's scale. Call it without gradients.
    """
    for rows in torch.split(torch.argsort(spectra.offset_B, stable=True), GROUP):
        group = spectra.rows(rows)
        yield rows, group, *fitted(vae, group)


def fitted(vae: VAE, group: Prepared) -> tuple[Tensor, Tensor]:
    """Return embeddings [G, D] and models [G, O] of spectra of similar redshift, see ``fitted_groups``."""
    window = vae.window(group)
    latent_GD, _ = vae.encode(window)
    model_GR = vae.decode(latent_GD, window.low, window.low + window.flux_BR.shape[1])
    best_G = amplitude(window.flux_BR, vae.soft_window(window), model_GR)
    model_GO = take(model_GR, group.offset_B - window.low, N_OBSERVED)
    return latent_GD, model_GO.mul_(best_G[:, None])


def reconstruct(model: TrainedModel, flux_BL: Any, ivar_BL: Any, z_B: Any) -> NDArray[np.float32]:
    """Return reconstructions on the native grid, float32 [B, 7781], 1e-17 erg/s/cm²/Å.

    Arguments and errors as in ``load_spectra``.
    """
    spectra = load_spectra(model.vae, flux_BL, ivar_BL, z_B)
    out_BL = np.empty((len(spectra), np.shape(flux_BL)[1]), np.float32)
    with torch.no_grad():
        for rows, group, _, model_GO in fitted_groups(model.vae, spectra):
            out_BL[rows.cpu().numpy()] = to_native(model_GO * group.scale_B[:, None]).cpu().numpy()
    return out_BL


def _tensor(values: Any) -> Tensor:
    """Return an array as a tensor, without a copy where possible: read-only arrays (Parquet, Ray) are only read."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        try:
            return torch.utils.dlpack.from_dlpack(values)
        except (BufferError, RuntimeError):  # older numpy or torch share no read-only memory
            return torch.as_tensor(values.copy())
    return torch.as_tensor(values)
