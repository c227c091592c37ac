"""A large survey out of a small one: the same coadds under many pixel names."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits

from pipeline.catalog.tree import HealpixFile
from pipeline.simulate.survey import CATALOG_PATH, simulate

COLUMNS = ("TARGETID", "SURVEY", "PROGRAM", "HEALPIX", "Z", "ZERR", "ZWARN", "SPECTYPE", "OBJTYPE", "COADD_FIBERSTATUS",
           "TARGET_RA", "TARGET_DEC")  # fmt: skip
STRIDE = 200  # pixels between one copy's names and the next one's
SHARD_BYTES = 66_000  # a spectrum's share of a shard, rounded up
ROOM = 4 << 30  # left free for the databases


class NoRoomError(RuntimeError):
    """The disk is too full for the benchmark."""


@dataclass(frozen=True)
class Sky:
    """A folder with a survey's distinct files, and surveys made of links to them."""

    folder: Path
    quasars: int

    @classmethod
    def simulated(cls, folder: Path, quasars: int) -> Sky:
        """Simulate ``quasars`` distinct quasars and nothing else, without RESOLUTION, or take those of an earlier run.

        Raises:
            NoRoomError: there is no room for them.
        """
        origin = folder / "distinct"
        if not (origin / CATALOG_PATH).is_file():
            require_room(folder, quasars * 110_000)
            simulate(str(origin), quasars, seed=1, quasar_fraction=1.0, resolution=False, jobs=2)
        return cls(folder, quasars)

    @property
    def coadds(self) -> list[Path]:
        """The distinct coadd files."""
        return sorted((self.folder / "distinct").glob("healpix/*/*/*/*/coadd-*.fits"))

    def copied(self, name: str, copies: range) -> Path:
        """Make a survey of the files under other pixels' names, hard links all; returns its root.

        Numbers of ``copies`` that two surveys share stand for the same pixels.
        """
        root = self.folder / name
        distinct = self._catalog()
        pixels = np.unique(np.stack([distinct["HEALPIX"].to_numpy()]))
        if np.ptp(pixels) >= STRIDE:
            raise ValueError(f"the survey's pixels span {np.ptp(pixels)}, more than {STRIDE}")
        parts = []
        for copy in copies:
            moved = pa.array(distinct["HEALPIX"].to_numpy() + copy * STRIDE)
            at = distinct.column_names.index("HEALPIX")
            parts.append(distinct.set_column(at, "HEALPIX", moved))
            for file in self.coadds:
                self._link(root, file, copy)
        (root / "zcatalog").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(parts), root / "zcatalog" / "copies.parquet")
        return root

    def _catalog(self) -> pa.Table:
        table = fits.getdata(self.folder / "distinct" / CATALOG_PATH, 1)
        columns = {}
        for name in COLUMNS:
            values = np.asarray(table[name])
            native = str if values.dtype.kind in "SU" else values.dtype.newbyteorder("=")
            columns[name] = values.astype(native)
        return pa.table({name: pa.array(values) for name, values in columns.items()})

    def _link(self, root: Path, file: Path, copy: int) -> None:
        _, survey, program, pixel = file.stem.split("-")
        target = root / HealpixFile(survey, program, int(pixel) + copy * STRIDE).path()
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(file, target)


def require_room(folder: Path, size: int) -> None:
    """See that ``size`` bytes and some more fit on the folder's disk.

    Raises:
        NoRoomError: they don't.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size + ROOM:
        raise NoRoomError(f"{folder}: {free / 1e9:.1f} GB free, the benchmark wants {(size + ROOM) / 1e9:.1f} GB")
