"""The tables of coadd, redrock and catalog files, filled from targets, exposures and fits.

Shapes: B rows of a file, E rows of EXP_FIBERMAP. Columns that no reader of ours uses hold plausible values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import columns
from pipeline.simulate.exposures import Exposures
from pipeline.simulate.fits_format import Column, empty_table
from pipeline.simulate.instrument import Arm
from pipeline.simulate.redshifts import RedshiftFits
from pipeline.simulate.targets import Targets

Table = NDArray[np.void]
Array = NDArray[np.float64]

DESI_TARGET_BITS = {
    "lrg": 1 << 0,
    "elg": 1 << 1,
    "quasar": 1 << 2,
    "sky": 1 << 32,
    "bgs": 1 << 60,
    "star": 1 << 61,
}
TOPHATS = {"B": (4000.0, 5800.0), "R": (5800.0, 7600.0), "Z": (7600.0, 9800.0)}  # Å, desispec.specscore
_TSNR2_SCALE = {"BGS": 2500.0, "ELG": 45.0, "GPBBACKUP": 4300.0, "GPBBRIGHT": 640.0, "GPBDARK": 3600.0, "LRG": 30.0,
                "LYA": 35.0, "QSO": 11.0}  # fmt: skip
_TSNR2_ARM = {"B": 0.2, "R": 0.35, "Z": 0.45}


def fibermap(targets: Targets, row: NDArray[np.int64], exposures: Exposures, ebv: Array) -> Table:
    """FIBERMAP [B] of the targets ``row`` [B]."""
    table = empty_table(columns.FIBERMAP, len(row))
    kind = targets.kind[row]
    sky = kind == "sky"
    _fill(table, TARGETID=targets.targetid[row], COADD_FIBERSTATUS=exposures.status)
    for prefix in ("TARGET", "PLATE", "MEAN_FIBER"):
        _fill(table, **{f"{prefix}_RA": targets.ra[row], f"{prefix}_DEC": targets.dec[row]})
    table["DESINAME"] = desi_names(targets.ra[row], targets.dec[row])
    _fill(table, REF_EPOCH=2015.5, OBJTYPE=np.where(sky, "SKY", "TGT"), FA_TYPE=np.where(sky, 4, 1))
    bits = np.select([kind == key for key in DESI_TARGET_BITS], list(DESI_TARGET_BITS.values()), 1 << 1)
    _fill(table, DESI_TARGET=bits, FA_TARGET=bits, SUBPRIORITY=_fraction(targets.targetid[row]))
    _fill(table, OBSCONDITIONS=1 if exposures.program == "dark" else 4, RELEASE=np.where(sky, 0, 9010))
    identifier = np.abs(targets.targetid[row])
    _fill(table, BRICKID=(identifier >> 22) & 0xFFFFF, BRICK_OBJID=identifier & 0x3FFFFF, EBV=ebv)
    table["BRICKNAME"] = [f"{ra * 10:04.0f}{'p' if dec >= 0 else 'm'}{abs(dec) * 10:03.0f}"
                          for ra, dec in zip(targets.ra[row], targets.dec[row], strict=True)]  # fmt: skip
    _fill(table, MORPHTYPE=np.where(np.isin(kind, ("elg", "lrg", "bgs")), "REX", "PSF"), PHOTSYS="S")
    _photometry(table, targets.flux_r[row])
    _fill(
        table,
        PRIORITY_INIT=np.where(kind == "quasar", 3400, 3000),
        NUMOBS_INIT=np.where(kind == "quasar", 4, 2),
    )
    _observing(table, exposures)
    return table


def _fill(table: Table, **values: Any) -> None:
    """Set whole columns."""
    for name, value in values.items():
        table[name] = value


def desi_names(ra: Array, dec: Array) -> list[str]:
    """Names such as ``DESI J149.4654+01.7936``."""
    return [f"DESI J{a:08.4f}{d:+08.4f}" for a, d in zip(ra, dec, strict=True)]


def _fraction(targetid: NDArray[np.int64]) -> Array:
    """A repeatable number in 0–1 of each target."""
    return np.asarray((np.abs(targetid) * 2654435761 % 1000003) / 1000003)


def _photometry(table: Table, flux_r: Array) -> None:
    """Broad-band fluxes in nanomaggies from the r flux (1e-17 erg/s/cm²/Å at 6400 Å)."""
    nanomaggy = flux_r / 2.66 * 10
    for band, colour in (("G", 0.8), ("R", 1.0), ("Z", 1.25), ("W1", 1.8), ("W2", 2.4)):
        table[f"FLUX_{band}"] = nanomaggy * colour
        table[f"FLUX_IVAR_{band}"] = 400.0 / colour**2
        if band in "GRZ":
            table[f"FIBERFLUX_{band}"] = 0.78 * nanomaggy * colour
            table[f"FIBERTOTFLUX_{band}"] = 0.78 * nanomaggy * colour


def _observing(table: Table, exposures: Exposures) -> None:
    """How often and when each row was seen."""
    seen = exposures.seen
    mjd = np.where(seen, exposures.mjd, np.nan)
    _fill(table, COADD_NUMEXP=exposures.count, COADD_NUMTILE=exposures.count, COADD_NUMNIGHT=exposures.count)
    _fill(table, COADD_EXPTIME=seen @ exposures.exptime, MEAN_PSF_TO_FIBER_SPECFLUX=0.789)
    _fill(table, RMS_DELTA_X=0.004, RMS_DELTA_Y=0.004, STD_FIBER_RA=0.05, STD_FIBER_DEC=0.05)
    _fill(
        table,
        MIN_MJD=np.nanmin(mjd, axis=1),
        MAX_MJD=np.nanmax(mjd, axis=1),
        MEAN_MJD=np.nanmean(mjd, axis=1),
    )


def exp_fibermap(main: Table, exposures: Exposures) -> Table:
    """EXP_FIBERMAP [E]: one row for each exposure of each row of FIBERMAP ``main`` [B]."""
    row, tile = np.nonzero(exposures.seen)
    table = empty_table(columns.EXP_FIBERMAP, len(row))
    fiber = exposures.fiber[row, tile]
    for name in ("TARGETID", "SUBPRIORITY", "PLATE_RA", "PLATE_DEC"):
        table[name] = main[name][row]
    _fill(table, NIGHT=exposures.night[tile], EXPID=exposures.expid[tile], MJD=exposures.mjd[tile])
    _fill(
        table,
        TILEID=exposures.tileid[tile],
        EXPTIME=exposures.exptime[tile],
        FIBER=fiber,
        PETAL_LOC=fiber // 500,
    )
    _fill(table, DEVICE_LOC=fiber % 500 + 10, LOCATION=fiber // 500 * 1000 + fiber % 500 + 10, PRIORITY=3400)
    angle = 2 * np.pi * fiber / 5000
    for axis, value in (("X", np.cos(angle)), ("Y", np.sin(angle))):
        table[f"FIBERASSIGN_{axis}"] = table[f"FIBER_{axis}"] = 200.0 * value
    _fill(table, FIBERSTATUS=exposures.status[row], LAMBDA_REF=5400.0, NUM_ITER=2, PSF_TO_FIBER_SPECFLUX=0.789)
    _fill(table, FIBER_RA=main["TARGET_RA"][row], FIBER_DEC=main["TARGET_DEC"][row])
    _fill(table, IN_COADD_B=b"T", IN_COADD_R=b"T", IN_COADD_Z=b"T")
    return table


def scores(targetid: NDArray[np.int64], arms: list[Arm], exposures: Exposures) -> Table:
    """SCORES [B]: medians over desispec's top-hat bands, template S/N from exposure depth."""
    table = empty_table(columns.SCORES, len(targetid))
    table["TARGETID"] = targetid
    for arm in arms:
        low, high = np.searchsorted(arm.wavelength, TOPHATS[arm.name])
        flux, ivar = arm.flux[:, low:high], arm.ivar[:, low:high]
        table[f"INTEG_COADD_FLUX_{arm.name}"] = np.nansum(flux, axis=1) * 0.8
        table[f"MEDIAN_COADD_FLUX_{arm.name}"] = row_median(flux)
        table[f"MEDIAN_COADD_SNR_{arm.name}"] = row_median(flux * np.sqrt(ivar))
    fill_tsnr2(table, exposures)
    return table


def row_median(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Median of each row [B, W]; NaN counts as 0."""
    middle = values.shape[1] // 2
    clean = np.nan_to_num(values) if np.isnan(values.sum()) else values
    return np.asarray(np.partition(clean, middle, axis=1)[:, middle])


def fill_tsnr2(table: Table, exposures: Exposures) -> None:
    """TSNR2 columns, in step with the exposures' depth."""
    depth = exposures.seen @ (1 / exposures.noise**2)
    for tracer, scale in _TSNR2_SCALE.items():
        table[f"TSNR2_{tracer}"] = depth * scale
        for arm, share in _TSNR2_ARM.items():
            table[f"TSNR2_{tracer}_{arm}"] = depth * scale * share


def redshifts(targetid: NDArray[np.int64], fits: RedshiftFits) -> Table:
    """REDSHIFTS [B] of a redrock file."""
    table = empty_table(columns.REDSHIFTS, len(targetid))
    quasar = fits.spectype == "QSO"
    _fill(table, TARGETID=targetid, FITMETHOD=np.where(quasar, "PCA", "NMF"), NCOEFF=np.where(quasar, 4, 10))
    fill_fits(table, fits)
    return table


def fill_fits(table: Table, fits: RedshiftFits) -> None:
    """The fitter's columns, shared by redrock files and the catalog."""
    _fill(table, Z=fits.z, ZERR=fits.zerr, ZWARN=fits.zwarn, CHI2=fits.chi2, DELTACHI2=fits.deltachi2)
    _fill(table, SPECTYPE=fits.spectype, SUBTYPE=fits.subtype, NPIXELS=7928)
    table["COEFF"][:, :4] = np.stack([fits.chi2 / 100, fits.deltachi2 / 50, fits.z, fits.zerr], axis=1)


def catalog(main: Table, score: Table, fitted: Table, healpix: int, program: str) -> Table:
    """The rows [B] of this file in the redshift catalog; which is a target's best row is filled in at the end."""
    table = empty_table(columns.CATALOG, len(main))
    for source in (main, score, fitted):
        for name in _shared(columns.CATALOG, source):
            table[name] = source[name]
    _fill(table, SURVEY="main", PROGRAM=program, HEALPIX=healpix, SPGRPVAL=healpix)
    _fill(table, SV_PRIMARY=b"F", MAIN_PRIMARY=b"T", ZCAT_PRIMARY=b"T", MAIN_NSPEC=1, ZCAT_NSPEC=1)
    return table


def _shared(wanted: tuple[Column, ...], source: Table) -> list[str]:
    """Column names of ``wanted`` that ``source`` has."""
    present = set(source.dtype.names or ())
    return [column.name for column in wanted if column.name in present]
