"""One spectrum of the catalog with its reconstruction, in astropy's units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.desi.grid import WAVELENGTH

if TYPE_CHECKING:
    from astropy.table import QTable
    from astropy.units import Quantity
    from matplotlib.figure import Figure

    from models.trained import TrainedModel
    from pipeline.stores.objects import ObjectStore

FLUX_UNIT = "1e-17 erg / (Angstrom s cm2)"


@dataclass(frozen=True)
class Spectrum:
    """A spectrum on DESI's grid, L = 7,781 pixels of 0.8 Å, vacuum, observed frame.

    Attributes:
        facts: its row of ``anomaly_catalog``, name → value.
        flux_L: float32, 1e-17 erg/s/cm²/Å, not corrected for Galactic dust.
        ivar_L: float32, 1/flux²; 0 where there is no information.
        mask_L: int32, DESI's mask bits; 0: nothing is wrong.
        model_L: float32, the reconstruction; None before ``Survey.spectrum`` was asked for one.
    """

    facts: Mapping[str, Any]
    flux_L: NDArray[np.float32] = field(repr=False)
    ivar_L: NDArray[np.float32] = field(repr=False)
    mask_L: NDArray[np.int32] = field(repr=False)
    model_L: NDArray[np.float32] | None = field(repr=False)

    @property
    def targetid(self) -> int:
        """DESI's TARGETID."""
        return int(self.facts["targetid"])

    @property
    def z(self) -> float:
        """The catalogued redshift."""
        return float(self.facts["z"])

    @cached_property
    def wavelength(self) -> Quantity:
        """Vacuum, observed frame, Å."""
        return _quantity(WAVELENGTH, "Angstrom")

    @cached_property
    def rest_wavelength(self) -> Quantity:
        """Vacuum, at the catalogued redshift, Å."""
        return self.wavelength / (1.0 + self.z)

    @cached_property
    def flux(self) -> Quantity:
        """1e-17 erg/s/cm²/Å."""
        return _quantity(self.flux_L, FLUX_UNIT)

    @cached_property
    def ivar(self) -> Quantity:
        """Inverse variance of the flux; 0 where there is no information."""
        return _quantity(self.ivar_L, FLUX_UNIT, power=-2)

    @property
    def mask(self) -> NDArray[np.int32]:
        """DESI's mask bits."""
        return self.mask_L

    @cached_property
    def reconstruction(self) -> Quantity:
        """What the promoted model makes of it, 1e-17 erg/s/cm²/Å; NaN without a model."""
        return _quantity(np.full_like(self.flux_L, np.nan) if self.model_L is None else self.model_L, FLUX_UNIT)

    @cached_property
    def residual(self) -> NDArray[np.float32]:
        """(flux − reconstruction) in σ of the noise; NaN where there is no information."""
        known = self.good
        with np.errstate(invalid="ignore"):
            pull = (self.flux_L - self.reconstruction.value) * np.sqrt(self.ivar_L)
        return np.where(known, pull, np.nan).astype(np.float32)

    @property
    def good(self) -> NDArray[np.bool_]:
        """Pixels that carry information: ivar above 0 and no mask bit."""
        return np.asarray((self.ivar_L > 0) & (self.mask_L == 0))

    def table(self) -> QTable:
        """The spectrum as an astropy table, a row a pixel."""
        from astropy.table import QTable

        columns = {
            "wavelength": self.wavelength, "flux": self.flux, "ivar": self.ivar, "mask": self.mask,
            "reconstruction": self.reconstruction, "residual": self.residual,
        }  # fmt: skip
        told = {name: self.facts[name] for name in ("targetid", "coadd", "z", "ra", "dec", "snr") if name in self.facts}
        return QTable(columns, meta={key.upper()[:8]: value for key, value in told.items()})

    def plot(self) -> Figure:
        """Flux with reconstruction, the residual in σ, and a close-up of what is strange."""
        from pipeline.access.picture import picture

        return picture(self)


def _quantity(values: NDArray[Any], unit: str, power: int = 1) -> Quantity:
    from astropy import units

    return units.Quantity(values, units.Unit(unit) ** power, copy=False)


def read(objects: ObjectStore, facts: Mapping[str, Any], model: TrainedModel | None) -> Spectrum:
    """Read a spectrum's pixels, and reconstruct it where there is a model.

    Args:
        objects: the store of shards.
        facts: its row, with ``shard``, ``row_group`` and ``row``.
        model: the promoted model, or None.

    Raises:
        InputError: the shard is missing or damaged.
        StoreError: the object store does not answer.
    """
    from pipeline.shards import read_spectrum

    shard = read_spectrum(objects, facts["shard"], facts["row_group"], facts["row"])
    flux, ivar, mask = shard.flux_BL, shard.ivar_BL, shard.dense_mask()
    fit = None
    if model is not None:
        from models.trained import reconstruct

        fit = reconstruct(model, flux, np.where(mask == 0, ivar, np.float32(0)), np.array([facts["z"]]))[0]
    return Spectrum(facts, flux[0], ivar[0], mask[0], fit)
