"""Small catalogs with known contents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from pipeline.stores.objects import ObjectStore

Columns = dict[str, Any]
WriteFits = Callable[..., Path]


@pytest.fixture
def columns() -> Columns:
    """Twelve rows of a healpix zcatalog; rows 0, 1, 10 and 11 are good quasars, the rest fail a cut each."""
    n = 12
    good: Columns = {
        "TARGETID": np.arange(1, n + 1, dtype=np.int64) + 39_000_000_000_000_000,
        "SURVEY": np.array(["main"] * n),
        "PROGRAM": np.array(["dark"] * n),
        "HEALPIX": np.array([9144] * 6 + [9145] * 6, dtype=np.int32),
        "Z": np.linspace(1.0, 2.1, n),
        "ZERR": np.full(n, 1e-4),
        "ZWARN": np.zeros(n, dtype=np.int64),
        "COEFF": np.zeros((n, 10)),
        "SPECTYPE": np.array(["QSO"] * n),
        "COADD_FIBERSTATUS": np.zeros(n, dtype=np.int32),
        "TARGET_RA": np.linspace(100, 101, n),
        "TARGET_DEC": np.linspace(10, 11, n),
        "OBJTYPE": np.array(["TGT"] * n),
        "ZCAT_PRIMARY": np.array([True] * n),
    }
    good["TARGETID"][2] = -5
    good["OBJTYPE"][3] = "SKY"
    good["COADD_FIBERSTATUS"][4] = 8
    good["SPECTYPE"] = np.where(np.arange(n) == 5, "GALAXY", good["SPECTYPE"])
    good["ZWARN"][6] = 4
    good["Z"][7] = np.nan
    good["Z"][8] = 9.9
    for name in ("TARGETID", "HEALPIX"):
        good[name][9] = good[name][11]  # row 11 repeats the target of row 9
    return good


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """A survey root."""
    return ObjectStore.open(str(tmp_path))


@pytest.fixture
def write_fits(tmp_path: Path) -> WriteFits:
    """Write columns as a table after an image HDU and a table of something else."""

    def write(columns: Columns, name: str = "zcat.fits", extname: str = "ZCATALOG") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = fits.BinTableHDU.from_columns(_fits_columns(columns), name=extname)
        image = fits.ImageHDU(np.zeros((7, 11), dtype=np.float32), name="MAP")
        other = fits.BinTableHDU.from_columns([fits.Column("TILEID", "J", array=np.arange(5))], name="TILES")
        fits.HDUList([fits.PrimaryHDU(), image, other, table]).writeto(path, overwrite=True)
        return path

    return write


def _fits_columns(columns: Columns) -> list[fits.Column]:
    forms = {"i8": "K", "i4": "J", "i2": "I", "f8": "D", "f4": "E", "b1": "L"}
    made = []
    for name, values in columns.items():
        array = np.asarray(values)
        if array.dtype.kind in "US":
            form = f"{max(6, array.dtype.itemsize // (4 if array.dtype.kind == 'U' else 1))}A"
        else:
            form = f"{array.shape[1] if array.ndim > 1 else ''}{forms[array.dtype.str[1:]]}"
        made.append(fits.Column(name, form, array=array))
    return made
