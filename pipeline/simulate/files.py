"""Coadd and redrock files: their HDUs in DESI's order, as bytes.

Shapes: B rows, W pixels of an arm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.simulate import columns
from pipeline.simulate.exposures import Exposures
from pipeline.simulate.fits_format import Keyword, Unit, assemble, empty_table, image, primary, table
from pipeline.simulate.instrument import Arm, resolution
from pipeline.simulate.targets import NSIDE

Table = NDArray[np.void]
FLUX_UNIT = "10**-17 erg/(s cm2 Angstrom)"
IVAR_UNIT = "10**+34 (s2 cm4 Angstrom2) / erg2"
SITE: tuple[Keyword, ...] = (
    ("ENCODING", "ascii", ""),
    ("INSTRUME", "DESI", ""),
    ("OBSERVAT", "KPNO", ""),
    ("TELESCOP", "KPNO 4.0-m telescope", ""),
)


def _pixel(healpix: int, program: str) -> list[Keyword]:
    """Keywords that say which pixel, survey and program a file is of."""
    return [
        ("SPGRP", "healpix", ""),
        ("SPGRPVAL", healpix, ""),
        ("HPXPIXEL", healpix, ""),
        ("HPXNSIDE", NSIDE, ""),
        ("HPXNEST", True, ""),
        ("SURVEY", "main", ""),
        ("PROGRAM", program, ""),
    ]


def fibermaps(main: Table, exposed: Table, healpix: int, program: str) -> list[Unit]:
    """FIBERMAP and EXP_FIBERMAP, which both files hold."""
    keywords = [*SITE, *_pixel(healpix, program)]
    return [
        table("FIBERMAP", columns.FIBERMAP, main, keywords),
        table("EXP_FIBERMAP", columns.EXP_FIBERMAP, exposed, keywords),
    ]


def coadd(
    maps: list[Unit],
    arms: list[Arm],
    score: Table,
    exposures: Exposures,
    healpix: int,
    program: str,
    with_resolution: bool,
) -> bytearray:
    """A coadd file."""
    units = [primary([("LONGSTRN", "OGIP 1.0", ""), *_pixel(healpix, program)]), *maps]
    for arm in arms:
        units += [
            image(f"{arm.name}_WAVELENGTH", arm.wavelength, "Angstrom"),
            image(f"{arm.name}_FLUX", arm.flux, FLUX_UNIT),
            image(f"{arm.name}_IVAR", arm.ivar, IVAR_UNIT),
            image(f"{arm.name}_MASK", arm.mask),
        ]
        if with_resolution:
            units.append(image(f"{arm.name}_RESOLUTION", resolution(arm.name, exposures)))
    return assemble([*units, table("SCORES", columns.SCORES, score)])


def redrock(maps: list[Unit], fitted: Table, score: Table, healpix: int, program: str) -> bytearray:
    """A redrock file; its TSNR2 table repeats what the coadd's SCORES say."""
    tsnr2 = empty_table(columns.TSNR2, len(score))
    for column in columns.TSNR2:
        tsnr2[column.name] = score[column.name]
    head = primary([("LONGSTRN", "OGIP 1.0", ""), ("RRVER", "0.15.4", ""), *_pixel(healpix, program)])
    fit = table("REDSHIFTS", columns.REDSHIFTS, fitted)
    return assemble([head, fit, *maps, table("TSNR2", columns.TSNR2, tsnr2)])
