"""The redrock file beside a coadd, read as a small catalog: its redshifts and what its FIBERMAP adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.catalog.fitstable import Block, Hdu, next_hdu, read_rows
from pipeline.catalog.layouts import Layout
from pipeline.catalog.stream import ByteStream, open_stream
from pipeline.catalog.tree import HealpixFile, TileFile
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.stores.objects import ObjectStore

_COLUMNS = {
    "REDSHIFTS": {"targetid": "TARGETID", "z": "Z", "zerr": "ZERR", "zwarn": "ZWARN", "spectype": "SPECTYPE"},
    "FIBERMAP": {"objtype": "OBJTYPE", "fiberstatus": "COADD_FIBERSTATUS", "ra": "TARGET_RA", "dec": "TARGET_DEC"},
}


def read_redrock(store: ObjectStore, path: str, of: HealpixFile | TileFile) -> tuple[Block, Layout]:
    """Read one redrock file.

    Args:
        path: the file, ``.fits`` or ``.fits.gz``.
        of: which coadd it belongs to; its rows get that survey, program and pixel (or tile, night, petal).

    Raises:
        InputError: not FITS, truncated, without REDSHIFTS, or its HDUs list different targets.
    """
    tables: dict[str, Block] = {}
    stream = open_stream(store, path, gzipped=path.endswith(".gz"))
    while len(tables) < len(_COLUMNS) and (hdu := next_hdu(stream, path)) is not None:
        if hdu.name in _COLUMNS:
            tables[hdu.name] = _read(stream, hdu, path)
        else:
            stream.skip(hdu.padded_bytes)
    redshifts = tables.get("REDSHIFTS", {})
    for needed in ("TARGETID", "Z"):
        if needed not in redshifts:
            raise InputError(f"{path}: no HDU REDSHIFTS with column {needed}; is it a redrock file?", "missing_column")
    block = redshifts | _aligned(tables.get("FIBERMAP", {}), redshifts["TARGETID"], path)
    names = {ours: name for group in _COLUMNS.values() for ours, name in group.items() if name in block}
    if isinstance(of, HealpixFile):
        constants: dict[str, bytes | int] = {"survey": of.survey.encode(), "program": of.program.encode()}
        return block, Layout("healpix", names, constants | {"healpix": of.healpix})
    return block, Layout("tile", names, {"tile": of.tile, "night": of.night, "petal": of.petal})


def _read(stream: ByteStream, hdu: Hdu, path: str) -> Block:
    wanted = {"TARGETID", *_COLUMNS[hdu.name].values()}
    names = [name for name, column in hdu.columns.items() if name in wanted and column.kind != "-"]
    blocks = [{k: v.copy() for k, v in block.items()} for block in read_rows(stream, hdu, names, path)]
    if not blocks:
        return {name: np.empty(0, hdu.columns[name].dtype) for name in names}
    return {name: np.concatenate([block[name] for block in blocks]) for name in names}


def _aligned(fibermap: Block, targetid: NDArray[Any], path: str) -> Block:
    """The FIBERMAP's columns in the order of REDSHIFTS."""
    if "TARGETID" not in fibermap:
        return {}
    own = fibermap["TARGETID"]
    if len(own) == len(targetid) and (own == targetid).all():
        return fibermap
    order = np.argsort(own, kind="stable")
    at = np.minimum(np.searchsorted(own, targetid, sorter=order), max(len(own) - 1, 0))
    if not len(own) or (own[order[at]] != targetid).any():
        raise InputError(f"{path}: FIBERMAP lacks targets that REDSHIFTS holds; fetch the file again", "bad_fibermap")
    return {name: values[order[at]] for name, values in fibermap.items()}
