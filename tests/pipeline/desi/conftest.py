"""Small coadd files built by the tests, HDU by HDU."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from numpy.typing import NDArray

from pipeline.chunks import Chunk, Coadd
from pipeline.desi.grid import ARMS, WAVELENGTH
from pipeline.stores.objects import ObjectStore


@dataclass
class CoaddFits:
    """A coadd as arrays by HDU name, to be changed and written."""

    tables: dict[str, dict[str, NDArray[Any]]] = field(default_factory=dict)
    images: dict[str, NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def make(cls, n: int = 4, seed: int = 0, resolution: bool = False) -> CoaddFits:
        """``n`` targets 101, 102, … of all arms with some masked pixels, two exposures each."""
        rng = np.random.default_rng(seed)
        targetid = 101 + np.arange(n)
        made = cls()
        made.tables["FIBERMAP"] = {
            "TARGETID": targetid,
            "TARGET_RA": rng.uniform(0, 360, n),
            "TARGET_DEC": rng.uniform(-20, 80, n),
            "EBV": rng.uniform(0, 0.1, n).astype("f4"),
        }
        exposures = np.repeat(targetid, 2)
        made.tables["EXP_FIBERMAP"] = {
            "TARGETID": exposures,
            "NIGHT": (20210101 + np.arange(2 * n)).astype("i4"),
            "TILEID": np.full(2 * n, 80693, "i4"),
            "PETAL_LOC": np.tile([3, 4], n).astype("i2"),
            "FIBER": (10 * exposures + np.tile([0, 1], n)).astype("i4"),
        }
        for arm, pixels in ARMS.items():
            shape = n, pixels.stop - pixels.start
            mask = np.where(rng.random(shape) < 0.01, rng.integers(1, 200, shape), 0).astype("i4")
            made.images[f"{arm}_WAVELENGTH"] = WAVELENGTH[pixels].copy()
            made.images[f"{arm}_FLUX"] = rng.normal(1, 1, shape).astype("f4")
            made.images[f"{arm}_IVAR"] = np.where(mask, 0, rng.uniform(0.5, 2, shape)).astype("f4")
            made.images[f"{arm}_MASK"] = mask
            if resolution:
                made.images[f"{arm}_RESOLUTION"] = np.zeros((n, 11, shape[1]), "f4")
        return made

    def bytes(self) -> bytes:
        """The file's bytes: tables first, then images, in order."""
        hdus = [fits.PrimaryHDU()]
        for name, columns in self.tables.items():
            hdus.append(fits.BinTableHDU(_records(columns), name=name))
        hdus += [fits.ImageHDU(image, name=name) for name, image in self.images.items()]
        out = io.BytesIO()
        fits.HDUList(hdus).writeto(out)
        return out.getvalue()

    def write(self, file: Path) -> Path:
        """Writes it as a file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.bytes())
        return file


def _records(columns: dict[str, NDArray[Any]]) -> NDArray[Any]:
    records = np.empty(len(next(iter(columns.values()))), [(name, v.dtype) for name, v in columns.items()])
    for name, values in columns.items():
        records[name] = values
    return records


@pytest.fixture
def coadd() -> CoaddFits:
    """A good coadd of four targets."""
    return CoaddFits.make()


@pytest.fixture
def survey(tmp_path: Path) -> ObjectStore:
    """An empty survey folder."""
    return ObjectStore.open(str(tmp_path / "survey"))


@pytest.fixture
def chunk_of() -> Callable[..., Chunk]:
    """Makes a chunk of targets of one file of a store."""

    def make(store: ObjectStore, path: str, targetid: list[int], **columns: list[float | None]) -> Chunk:
        meta = store.head(path)
        n = len(targetid)
        values: dict[str, list[Any]] = {
            "z": np.linspace(1, 2, n).tolist(),
            "zerr": [1e-4] * n,
            "zwarn": [0] * n,
            "ra": [10.0] * n,
            "dec": [-5.0] * n,
        }
        targets = pa.table({"targetid": pa.array(targetid, pa.int64())} | values | columns)
        place = Coadd("healpix/main/dark/9144", path, meta.size, meta.etag, "main", "dark", 9144)
        return Chunk.of(place, targets)

    return make
