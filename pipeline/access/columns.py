"""Units and UCDs of the catalog's columns, by name: what FITS, VOTable and astropy want beside a description.

UCDs are of the vocabulary UCD1+ 1.5 (IVOA, https://www.ivoa.net/documents/UCD1+/), units in the VOUnits standard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Column:
    """What a column holds; ``unit`` is empty for pure numbers and words."""

    unit: str = ""
    ucd: str = ""
    description: str = ""


_LAMBDA = "em.wl"
COLUMNS: Final[dict[str, Column]] = {
    "spectrum_id": Column("", "meta.id;meta.main"),
    "targetid": Column("", "meta.id"),
    "coadd": Column("", "meta.file"),
    "survey": Column("", "meta.dataset"),
    "program": Column("", "meta.dataset"),
    "healpix": Column("", "pos.healpix"),
    "ra": Column("deg", "pos.eq.ra;meta.main"),
    "dec": Column("deg", "pos.eq.dec;meta.main"),
    "separation": Column("deg", "pos.angDistance"),
    "z": Column("", "src.redshift"),
    "zerr": Column("", "stat.error;src.redshift"),
    "zwarn": Column("", "meta.code.qual;src.redshift"),
    "snr": Column("", "stat.snr"),
    "ebv": Column("mag", "phot.color.excess"),
    "quality": Column("", "meta.code.qual"),
    "anomaly_score": Column("", "stat.value"),
    "p_value": Column("", "stat.probability"),
    "q_value": Column("", "stat.probability"),
    "rank": Column("", "meta.number"),
    "extrapolated": Column("", "meta.code"),
    "in_training": Column("", "meta.code"),
    "verdict": Column("", "src.class"),
    "artefact_probability": Column("", "stat.probability"),
    "explanation": Column("", "meta.note"),
    "why": Column("", "meta.note"),
    "disagreement": Column("", "stat.value"),
    "chi2_reduced": Column("", "stat.fit.chi2"),
    "global_score": Column("", "stat.value"),
    "local_emission": Column("", "stat.snr;spect.line"),
    "local_absorption": Column("", "stat.snr;spect.line"),
    "emission_wavelength": Column("Angstrom", _LAMBDA),
    "absorption_wavelength": Column("Angstrom", _LAMBDA),
    "emission_width": Column("km/s", "spect.line.width"),
    "absorption_width": Column("km/s", "spect.line.width"),
    "n_pixels": Column("", "meta.number"),
    "density": Column("", "stat.likelihood"),
    "blend_kind": Column("", "src.class"),
    "instrument_kind": Column("", "meta.code"),
    "other_z": Column("", "src.redshift"),
    "other_z_gain": Column("", "stat.value"),
    "other_z_lines": Column("", "meta.note"),
    "model_id": Column("", "meta.id;meta.software"),
    "fiber": Column("", "meta.id;instr"),
    "night": Column("", "time.epoch"),
    "sky_distance": Column("arcsec", "pos.angDistance"),
    "distance": Column("", "stat.value"),
    "distance_percentile": Column("", "stat.rank.percentile"),
}  # fmt: skip
_VO_UNITS: Final = {"Angstrom": "0.1nm"}  # the VOUnits standard deprecates it, FITS does not
COMPUTED: Final[dict[str, str]] = {  # descriptions of columns that no table holds
    "separation": "Angle from the position that was asked for, deg",
    "distance": "Euclidean distance of the embeddings in the model's latent space",
    "distance_percentile": "Of random pairs of the survey's spectra, those nearer to each other than this, percent",
    "sky_distance": "Angle from the position in the file that was matched, arcsec",
}


def vo_unit(name: str) -> str:
    """Return a column's unit as VOTable and TAP want it."""
    unit = column(name).unit
    return _VO_UNITS.get(unit, unit)


def column(name: str) -> Column:
    """Return what is known of a column's unit and UCD."""
    return COLUMNS.get(name, Column())
