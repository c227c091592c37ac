"""How strong a departure is: its noiseless significance beside what ordinary quasars do anyway.

The yardstick is √Σ ivar·Δ⊥², Δ⊥ being what is left of a departure Δ after an ivar-weighted fit with the leading
components of ordinary quasars at the redshift that the fitter is led to. Narrow features count in full: the sum is
over native pixels, only the (smooth) components live on log bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.grid import N_OBSERVED, STEP, bin_of_pixel
from pipeline.injection.departures import Departure, pixels
from pipeline.simulate.instrument import Arm

Array = NDArray[np.float64]
RIDGE = 1e-9  # of the largest diagonal element: keeps unseen components at 0
N_COMPONENTS = 20


@dataclass(frozen=True)
class Yardstick:
    """Ordinary quasars' leading components on the rest-frame grid."""

    basis_RK: Array
    max_shift: int  # of the grid, see ``models.grid.RestGrid``

    def significance(self, departure: Departure, arms: list[Arm]) -> float:
        """Return √Σ ivar·Δ⊥² of a departure at full strength, given the arms' ivar [1, W]."""
        shift = round(float(np.log10(1.0 + max(departure.z_seen, 0.0))) / STEP)
        start = min(max(self.max_shift - shift, 0), len(self.basis_RK) - N_OBSERVED)
        basis_OK = self.basis_RK[start : start + N_OBSERVED]
        bins, weight_O, pull_O, total = bin_of_pixel(), np.zeros(N_OBSERVED), np.zeros(N_OBSERVED), 0.0
        for arm in arms:
            ivar, delta = arm.ivar[0].astype(np.float64), departure.delta[arm.name].astype(np.float64)
            where = bins[pixels(arm)]
            weight_O += np.bincount(where, ivar, N_OBSERVED)
            pull_O += np.bincount(where, ivar * delta, N_OBSERVED)
            total += float(np.sum(ivar * delta * delta))
        normal_KK = (basis_OK * weight_O[:, None]).T @ basis_OK
        normal_KK += RIDGE * max(normal_KK.diagonal().max(), 1e-30) * np.eye(len(normal_KK))
        right_K = basis_OK.T @ pull_O
        return float(np.sqrt(max(total - float(right_K @ np.linalg.solve(normal_KK, right_K)), 0.0)))


def inject(arms: list[Arm], departure: Departure, factor: float) -> None:
    """Add ``factor`` times a departure to the arms of one spectrum in place (or put it in their place)."""
    for arm in arms:
        delta = np.float32(factor) * departure.delta[arm.name]
        arm.flux[0] = delta if departure.replaces else arm.flux[0] + delta
