"""Which columns of a catalog mean what, and which tree its rows point into.

Known layouts: DR1's zcatalog by healpix (``zall-pix``) and by tile (``zall-tilecumulative``), the DESI QSO
catalogs (no SPECTYPE, ZWARN or OBJTYPE; by tile, or by position alone), and redrock files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.catalog.fitstable import Block
from pipeline.catalog.pixels import pixel_of
from pipeline.catalog.tree import Tree
from pipeline.errors import InputError

# our name -> (names in catalogs, best first; kinds of value that will do)
_COLUMNS: dict[str, tuple[tuple[str, ...], str]] = {
    "targetid": (("TARGETID",), "i"),
    "z": (("Z",), "f"),
    "zerr": (("ZERR",), "fi"),
    "zwarn": (("ZWARN",), "if"),
    "spectype": (("SPECTYPE",), "S"),
    "objtype": (("OBJTYPE",), "S"),
    "fiberstatus": (("COADD_FIBERSTATUS",), "if"),
    "primary": (("ZCAT_PRIMARY",), "bi"),
    "survey": (("SURVEY",), "S"),
    "program": (("PROGRAM",), "S"),
    "healpix": (("HEALPIX", "HPXPIXEL"), "if"),
    "tile": (("TILEID",), "if"),
    "petal": (("PETAL_LOC",), "if"),
    "night": (("LASTNIGHT",), "if"),
    "ra": (("TARGET_RA", "RA"), "fi"),
    "dec": (("TARGET_DEC", "DEC"), "fi"),
}
_TILE = ("tile", "petal", "night")
_WORDS = {"i": "an integer", "f": "a number", "S": "a string", "b": "true or false"}


@dataclass(frozen=True)
class Layout:
    """``columns`` maps our names to the catalog's; ``constants`` are values the catalog does not hold."""

    tree: Tree
    columns: Mapping[str, str]
    constants: Mapping[str, bytes | int] = field(default_factory=dict)

    def values(self, block: Block, name: str, rows: slice | NDArray[np.intp]) -> NDArray[Any] | None:
        """Return the values of our column ``name`` at ``rows``, or None when the catalog has no such column.

        ``healpix`` of a catalog without pixels is computed from the position.
        """
        if name in self.columns:
            return block[self.columns[name]][rows]
        if name in self.constants:
            return np.broadcast_to(np.asarray(self.constants[name]), len(next(iter(block.values()))))[rows]
        if name == "healpix" and self.tree == "healpix":
            return pixel_of(block[self.columns["ra"]][rows], block[self.columns["dec"]][rows])
        return None


def recognise(kinds: Mapping[str, str], path: str, *, survey: str, program: str, tree: Tree | None = None) -> Layout:
    """Recognise a catalog by its columns.

    Args:
        kinds: upper-case column name -> kind, see ``fitstable.Column.kind``.
        path: the catalog's name, for messages.
        survey, program: what rows of a healpix catalog belong to when it has no such column.
        tree: the tree wanted; None takes the one the catalog is made for.

    Raises:
        InputError: a column has the wrong type, or none says which coadd of the tree a row is in.
    """
    columns = _known(kinds, path)
    by_tile = all(name in columns for name in _TILE)
    by_pixel = "healpix" in columns or {"ra", "dec"} <= columns.keys()
    if by_tile and tree != "healpix" and (tree == "tile" or columns.get("healpix") != "HEALPIX"):
        return Layout("tile", {k: v for k, v in columns.items() if k != "healpix"})
    if not by_pixel or tree == "tile":
        tiles, pixels = "TILEID, PETAL_LOC and LASTNIGHT", "HEALPIX, or TARGET_RA and TARGET_DEC"
        needed = {"tile": tiles, "healpix": pixels}.get(tree or "", f"{pixels}, or {tiles}")
        raise InputError(
            f"{path}: nothing says which coadd a row is in; needed are {needed}; found {', '.join(list(kinds)[:12])}",
            "missing_column",
        )
    constants = {"survey": survey, "program": program}
    missing = {key: value.encode() for key, value in constants.items() if key not in columns}
    return Layout("healpix", {k: v for k, v in columns.items() if k not in _TILE}, missing)


def _known(kinds: Mapping[str, str], path: str) -> dict[str, str]:
    columns = {}
    for ours, (names, wanted) in _COLUMNS.items():
        name = next((n for n in names if n in kinds), None)
        if name is None:
            continue
        if kinds[name] not in wanted:
            raise InputError(f"{path}: column {name} should hold {_WORDS[wanted[0]]} a row and does not", "bad_column")
        columns[ours] = name
    return columns
