"""Columns of DR1's tables, in DESI's order, with formats and units (copied from real files' headers)."""

from __future__ import annotations

from pipeline.simulate.fits_format import Column, parse_columns

_TARGET = """
TARGET_RA:D:deg TARGET_DEC:D:deg {name} PMRA:E:mas_yr-1 PMDEC:E:mas_yr-1 REF_EPOCH:E:yr FA_TARGET:K FA_TYPE:B
OBJTYPE:3A SUBPRIORITY:D OBSCONDITIONS:J RELEASE:I BRICKNAME:8A BRICKID:J BRICK_OBJID:J MORPHTYPE:4A EBV:E:mag
FLUX_G:E:nanomaggy FLUX_R:E:nanomaggy FLUX_Z:E:nanomaggy FLUX_W1:E:nanomaggy FLUX_W2:E:nanomaggy
FLUX_IVAR_G:E:nanomaggy^-2 FLUX_IVAR_R:E:nanomaggy^-2 FLUX_IVAR_Z:E:nanomaggy^-2 FLUX_IVAR_W1:E:nanomaggy^-2
FLUX_IVAR_W2:E:nanomaggy^-2 FIBERFLUX_G:E:nanomaggy FIBERFLUX_R:E:nanomaggy FIBERFLUX_Z:E:nanomaggy
FIBERTOTFLUX_G:E:nanomaggy FIBERTOTFLUX_R:E:nanomaggy FIBERTOTFLUX_Z:E:nanomaggy MASKBITS:I SERSIC:E
SHAPE_R:E:arcsec SHAPE_E1:E SHAPE_E2:E REF_ID:K REF_CAT:2A GAIA_PHOT_G_MEAN_MAG:E:mag
GAIA_PHOT_BP_MEAN_MAG:E:mag GAIA_PHOT_RP_MEAN_MAG:E:mag PARALLAX:E:mas PHOTSYS:1A PRIORITY_INIT:K NUMOBS_INIT:K
"""
_COADD = """
PLATE_RA:D:deg PLATE_DEC:D:deg COADD_NUMEXP:I COADD_EXPTIME:E:s COADD_NUMNIGHT:I COADD_NUMTILE:I
MEAN_DELTA_X:E:mm RMS_DELTA_X:E:mm MEAN_DELTA_Y:E:mm RMS_DELTA_Y:E:mm {psf} MEAN_FIBER_RA:D:deg
STD_FIBER_RA:E:deg MEAN_FIBER_DEC:D:deg STD_FIBER_DEC:E:deg {mjd}
"""
_PSF = "MEAN_PSF_TO_FIBER_SPECFLUX:E"
_MJD = "MIN_MJD:D:d MAX_MJD:D:d MEAN_MJD:D:d"
_FIT = """
Z:D ZERR:D ZWARN:K CHI2:D COEFF:10D {method} NPIXELS:K SPECTYPE:6A SUBTYPE:20A NCOEFF:K DELTACHI2:D
"""
_OTHER_TARGETING = " ".join(
    f"{survey}_{kind}_TARGET:K" for survey in ("SV1", "SV2", "SV3") for kind in ("DESI", "BGS", "MWS", "SCND")
)

TRACERS = ("BGS", "ELG", "GPBBACKUP", "GPBBRIGHT", "GPBDARK", "LRG", "LYA", "QSO")
TSNR2_NAMES = tuple(f"TSNR2_{tracer}{arm}" for arm in ("_B", "_R", "_Z", "") for tracer in TRACERS)
_TSNR2 = " ".join(f"{name}:E" for name in TSNR2_NAMES)

FIBERMAP: tuple[Column, ...] = parse_columns(
    "TARGETID:K COADD_FIBERSTATUS:J "
    + _TARGET.format(name="DESINAME:22A")
    + "DESI_TARGET:K BGS_TARGET:K MWS_TARGET:K SCND_TARGET:K "
    + _COADD.format(psf=_PSF, mjd=_MJD)
)
EXP_FIBERMAP: tuple[Column, ...] = parse_columns("""
TARGETID:K PRIORITY:J SUBPRIORITY:D NIGHT:J EXPID:J MJD:D:d TILEID:J EXPTIME:D:s PETAL_LOC:I DEVICE_LOC:J
LOCATION:K FIBER:J FIBERSTATUS:J FIBERASSIGN_X:E:mm FIBERASSIGN_Y:E:mm LAMBDA_REF:E:Angstrom PLATE_RA:D:deg
PLATE_DEC:D:deg NUM_ITER:K FIBER_X:D:mm FIBER_Y:D:mm DELTA_X:D:mm DELTA_Y:D:mm FIBER_RA:D:deg FIBER_DEC:D:deg
PSF_TO_FIBER_SPECFLUX:D IN_COADD_B:L IN_COADD_R:L IN_COADD_Z:L
""")
SCORES: tuple[Column, ...] = parse_columns(
    "TARGETID:K "
    + " ".join(
        f"{kind}_COADD_{of}_{arm}:E"
        for arm in "BRZ"
        for kind, of in (("INTEG", "FLUX"), ("MEDIAN", "FLUX"), ("MEDIAN", "SNR"))
    )
    + " "
    + _TSNR2
)
REDSHIFTS: tuple[Column, ...] = parse_columns("TARGETID:K " + _FIT.format(method="FITMETHOD:4A"))
TSNR2: tuple[Column, ...] = parse_columns("TARGETID:K " + _TSNR2)
CATALOG: tuple[Column, ...] = parse_columns(
    "TARGETID:K SURVEY:7A PROGRAM:6A HEALPIX:J SPGRPVAL:J "
    + _FIT.format(method="")
    + "COADD_FIBERSTATUS:J "
    + _TARGET.format(name="DESINAME:22A")
    + "CMX_TARGET:K DESI_TARGET:K BGS_TARGET:K MWS_TARGET:K SCND_TARGET:K "
    + _OTHER_TARGETING
    + _COADD.format(psf=_PSF, mjd=_MJD)
    + _TSNR2
    + " SV_NSPEC:J SV_PRIMARY:L MAIN_NSPEC:J MAIN_PRIMARY:L ZCAT_NSPEC:I ZCAT_PRIMARY:L"
)
