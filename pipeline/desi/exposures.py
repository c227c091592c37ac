"""Which fibers, petals, nights and tiles each spectrum was co-added from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.desi.layout import CoaddFile

COLUMNS = {"fiber": "FIBER", "petal": "PETAL_LOC", "night": "NIGHT", "tile": "TILEID"}
LIST = pa.list_(pa.field("element", pa.int32(), nullable=False))


@dataclass(frozen=True)
class Exposures:
    """Lists of int32, one a spectrum, an entry an exposure; empty where the file does not say."""

    fiber: pa.ListArray
    petal: pa.ListArray
    night: pa.ListArray  # YYYYMMDD
    tile: pa.ListArray


def read_exposures(file: CoaddFile, targetid: NDArray[np.int64], row: NDArray[np.int64]) -> Exposures:
    """Exposures of the targets ``targetid`` [B], which are rows ``row`` [B] of FIBERMAP.

    EXP_FIBERMAP says most; what it lacks is taken from FIBERMAP, as one entry.
    """
    lists = _from_exposures(file, targetid)
    fibermap = file.hdus["FIBERMAP"]
    for name, column in COLUMNS.items():
        if name not in lists:
            values = file.column(fibermap, column)
            usable = values is not None and values.dtype.kind in "iu"
            counts = np.full(len(row), int(usable))
            taken = values[row] if values is not None and usable else np.empty(0, np.int32)
            lists[name] = _lists(counts, taken)
    return Exposures(**lists)


def _from_exposures(file: CoaddFile, targetid: NDArray[np.int64]) -> dict[str, pa.ListArray]:
    hdu = file.hdus.get("EXP_FIBERMAP")
    if hdu is None or not hdu.is_table:
        return {}
    owner = file.column(hdu, "TARGETID")
    if owner is None or owner.dtype.kind not in "iu":
        return {}
    order = np.argsort(owner, kind="stable")
    owned = owner[order]
    first = np.searchsorted(owned, targetid, "left")
    counts = np.searchsorted(owned, targetid, "right") - first
    ends = np.cumsum(counts)
    taken = order[np.repeat(first - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)]
    found = {}
    for name, column in COLUMNS.items():
        values = file.column(hdu, column)
        if values is not None and values.dtype.kind in "iu":
            found[name] = _lists(counts, values[taken])
    return found


def _lists(counts: NDArray[np.int64], values: NDArray[np.generic]) -> pa.ListArray:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.astype(np.int32)), type=LIST)
