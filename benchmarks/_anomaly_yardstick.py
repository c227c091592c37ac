"""What ordinary quasars do anyway: the components of ``pipeline.injection.grading``, from noiseless quasars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks import _anomaly_linear as linear
from benchmarks._anomaly_sky import noiseless
from models.rebin import rebin
from pipeline.injection.grading import N_COMPONENTS

QUASARS = 4_000
IVAR = 400.0  # of flux normalised to 1: every bin of every quasar counts alike


def yardstick(folder: Path, seed: int) -> Path:
    """Return the folder's file of components ``basis`` [R, K] and the grid's ``max_shift``; it is made if missing."""
    path = folder / "yardstick.npz"
    if path.is_file():
        return path
    flux, z = noiseless(QUASARS, seed)
    flux_BL = torch.from_numpy(flux)
    scale_B1 = flux_BL.median(1, keepdim=True).values.clamp(min=1e-3)
    flux_BO, ivar_BO = rebin(flux_BL / scale_B1, torch.full_like(flux_BL, IVAR))
    spectra = linear.Spectra(flux_BO, ivar_BO, linear.GRID.offset(torch.from_numpy(z)), np.arange(QUASARS))
    components = linear.fit(spectra, N_COMPONENTS - 1)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, basis=components.basis_RK.double().numpy(), max_shift=linear.GRID.max_shift)
    return path
