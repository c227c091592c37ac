"""The science gate: which rows of a catalog become spectra, and how many rows each cut removed.

Column names and their meaning follow the DESI data model (REDSHIFTS and FIBERMAP of redrock files, zcatalog).
Without these cuts a scan of all of DR1 finds sky and non-science fibers almost alone among its top scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.catalog.fitstable import Block
from pipeline.catalog.layouts import Layout
from pipeline.catalog.pixels import N_PIXELS
from pipeline.catalog.tree import Selection
from pipeline.config import GateConfig
from pipeline.errors import InputError

ROW_SCHEMA = pa.schema(
    [
        pa.field("survey", pa.dictionary(pa.int32(), pa.string())),
        pa.field("program", pa.dictionary(pa.int32(), pa.string())),
        pa.field("healpix", pa.int32()),
        pa.field("tile", pa.int32()),
        pa.field("night", pa.int32()),
        pa.field("petal", pa.int32()),
        pa.field("targetid", pa.int64(), nullable=False),
        pa.field("z", pa.float64(), nullable=False),
        pa.field("zerr", pa.float64()),
        pa.field("zwarn", pa.int64()),
        pa.field("ra", pa.float64()),
        pa.field("dec", pa.float64()),
    ]
)

_PIXELS, _TILES = "in the pixels asked for", "in the tiles asked for"  # never why nothing is left: see ``unseen``


@dataclass(frozen=True)
class Cut:
    """How many rows a cut removed of those the earlier cuts left; ``untested`` had no such column."""

    rule: str
    removed: int
    untested: int = 0


@dataclass(frozen=True)
class GateReport:
    """Rows in, rows kept, and the cuts between, in the order they were made."""

    rows: int
    kept: int
    cuts: tuple[Cut, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GateReport:
        """The inverse of ``as_dict``."""
        return cls(values["rows"], values["kept"], tuple(Cut(**cut) for cut in values["cuts"]))

    def lines(self) -> list[str]:
        """The report as a small table."""
        shown = [("rows in the catalog", f"{self.rows:,}", "")]
        for cut in self.cuts:
            absent = f"not applied to {cut.untested:,} rows (column absent)" if cut.untested else ""
            shown.append((cut.rule, f"−{cut.removed:,}" if cut.removed or not absent else "", absent))
        shown.append(("kept", f"{self.kept:,}", ""))
        left, right = max(len(s[0]) for s in shown), max(len(s[1]) for s in shown)
        return [f"{rule:<{left}}  {count:>{right}}  {note}".rstrip() for rule, count, note in shown]

    def require_rows(self, path: str) -> None:
        """Raise InputError when nothing is left, naming the cut that removed the most."""
        if self.kept:
            return
        if not self.rows:
            raise InputError(f"{path}: the catalog has no rows; name another catalog", "no_rows")
        worst = max((cut for cut in self.cuts if cut.rule not in (_PIXELS, _TILES)), key=lambda cut: cut.removed)
        raise InputError(
            f"{path}: none of its {self.rows:,} rows passes the gate; the cut [{worst.rule}] removed the most, "
            f"{worst.removed:,}; widen the gate section or the survey section of the config",
            "no_rows",
        )


Test = Callable[[dict[str, NDArray[Any]]], NDArray[np.bool_]]


@dataclass(frozen=True)
class _Rule:
    text: str
    needs: tuple[str, ...]
    test: Test


class Gate:
    """Applies the cuts to blocks of a catalog, one after another, and counts."""

    def __init__(self, config: GateConfig, selection: Selection) -> None:
        self._selection = selection
        self._seen: set[tuple[object, ...]] = set()
        self._rules = [*self._selected(), *_asked_for(config), *_science(config)]
        self._removed = dict.fromkeys((rule.text for rule in self._rules), 0)
        self._untested = dict(self._removed)
        self._coadd = 0
        self._rows = 0

    def keep(self, block: Block, layout: Layout) -> pa.RecordBatch:
        """Return the rows of a block that pass, with ``ROW_SCHEMA``; nothing of the block is referenced."""
        total = len(next(iter(block.values())))
        self._rows += total
        rows: slice | NDArray[np.intp] = slice(None)
        left = total
        for rule in self._rules:
            values = {name: layout.values(block, name, rows) for name in rule.needs}
            known = {name: native(v) for name, v in values.items() if v is not None}
            if len(known) < len(values):
                self._untested[rule.text] += left
                continue
            passed = np.flatnonzero(rule.test(known))
            if len(passed) < left:
                self._removed[rule.text] += left - len(passed)
                rows, left = passed if isinstance(rows, slice) else rows[passed], len(passed)
        return self._batch(block, layout, rows, left)

    def _batch(self, block: Block, layout: Layout, rows: slice | NDArray[np.intp], left: int) -> pa.RecordBatch:
        names = [n for n in ROW_SCHEMA.names if n not in ("survey", "program") or layout.tree == "healpix"]
        raw = {name: layout.values(block, name, rows) for name in names}
        columns = {name: native(values) for name, values in raw.items() if values is not None}
        good = _names_file(columns, layout)
        self._coadd += left - int(good.sum())
        arrays = [_arrow(columns.get(f.name), good, f.type) for f in ROW_SCHEMA]
        return pa.record_batch(arrays, schema=ROW_SCHEMA)

    def report(self, kept: int, duplicates: int) -> GateReport:
        """Return the counts; ``duplicates`` is how many rows repeated an earlier (target, coadd)."""
        cuts = [Cut(text, self._removed[text], self._untested[text]) for text in self._removed]
        cuts.append(Cut("row names a possible coadd", self._coadd))
        cuts.append(Cut("first row of its target in its coadd", duplicates))
        return GateReport(self._rows, kept, tuple(cuts))

    def unseen(self) -> list[str]:
        """The pixels and tiles asked for that no row of the catalog lies in."""
        asked: dict[tuple[object, ...], str] = {
            (p.survey, p.program, p.healpix): p.name for p in self._selection.pixels
        }
        asked |= {(t.tile, t.night, t.petal): t.name for t in self._selection.tiles}
        asked |= {pair: f"tile {pair[0]}/{pair[1]}" for pair in self._selection.whole_tiles}
        return [name for key, name in asked.items() if key not in self._seen]

    def _selected(self) -> Iterable[_Rule]:
        if self._selection.pixels:
            yield _Rule(_PIXELS, ("survey", "program", "healpix"), self._in_pixels)
        elif self._selection:
            yield _Rule(_TILES, ("tile", "night", "petal"), self._in_tiles)

    def _in_pixels(self, v: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        inside = np.zeros(len(v["healpix"]), dtype=bool)
        by_folder: dict[tuple[str, str], list[int]] = {}
        for pixel in self._selection.pixels:
            by_folder.setdefault((pixel.survey, pixel.program), []).append(pixel.healpix)
        for (survey, program), wanted in by_folder.items():
            hit = np.isin(v["healpix"], wanted) & among(v["survey"], [survey]) & among(v["program"], [program])
            self._seen |= {(survey, program, int(p)) for p in np.unique(v["healpix"][hit])}
            inside |= hit
        return inside

    def _in_tiles(self, v: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        inside = np.zeros(len(v["tile"]), dtype=bool)
        near = np.isin(v["tile"], [key[0] for key in self._tile_keys()])
        for key in self._tile_keys() if near.any() else ():
            hit = near & (v["tile"] == key[0]) & (v["night"] == key[1])
            if len(key) == 3:
                hit &= v["petal"] == key[2]
            if hit.any():
                self._seen.add(key)
            inside |= hit
        return inside

    def _tile_keys(self) -> list[tuple[int, ...]]:
        return [*self._selection.whole_tiles, *((t.tile, t.night, t.petal) for t in self._selection.tiles)]


def _asked_for(config: GateConfig) -> Iterable[_Rule]:
    if config.surveys:
        yield _Rule(f"SURVEY in {_listed(config.surveys)}", ("survey",), lambda v: among(v["survey"], config.surveys))
    if config.programs:
        yield _Rule(
            f"PROGRAM in {_listed(config.programs)}", ("program",), lambda v: among(v["program"], config.programs)
        )


def _science(config: GateConfig) -> Iterable[_Rule]:
    yield _Rule("TARGETID > 0", ("targetid",), lambda v: v["targetid"] > 0)
    yield _Rule("OBJTYPE = TGT", ("objtype",), lambda v: among(v["objtype"], ["TGT"]))
    yield _Rule("COADD_FIBERSTATUS = 0", ("fiberstatus",), lambda v: v["fiberstatus"] == 0)
    yield _Rule("SPECTYPE = QSO", ("spectype",), lambda v: among(v["spectype"], ["QSO"]))
    if config.primary_only:
        yield _Rule("ZCAT_PRIMARY", ("primary",), lambda v: v["primary"].astype(bool))
    yield _Rule(f"ZWARN in {_listed(config.zwarn)}", ("zwarn",), lambda v: np.isin(v["zwarn"], config.zwarn))
    yield _Rule("Z is finite", ("z",), lambda v: np.isfinite(v["z"]))
    yield _Rule(
        f"{config.z_min:g} ≤ Z ≤ {config.z_max:g}",
        ("z",),
        lambda v: (v["z"] >= config.z_min) & (v["z"] <= config.z_max),
    )


def _names_file(columns: dict[str, NDArray[Any]], layout: Layout) -> NDArray[np.bool_]:
    """Which rows' pixel, or tile, night and petal, can be those of a file; NaN cannot."""
    if layout.tree == "healpix":
        return (columns["healpix"] >= 0) & (columns["healpix"] < N_PIXELS)
    tile, night, petal = columns["tile"], columns["night"], columns["petal"]
    return (tile > 0) & (tile < 2**31) & (night > 19000000) & (night < 100000000) & (petal >= 0) & (petal < 10)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


def native(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values in this machine's byte order; strings are left as they are."""
    if values.dtype.kind == "S" or values.dtype.isnative:
        return values
    return values.astype(values.dtype.newbyteorder("="))


def among(values: NDArray[np.bytes_], words: Iterable[str]) -> NDArray[np.bool_]:
    """Which fixed-width strings equal one of ``words``; FITS pads with blanks or with NULs."""
    width = values.dtype.itemsize
    found = np.zeros(len(values), dtype=bool)
    for word in words:
        raw = word.encode()
        if len(raw) <= width:
            found |= values == raw
        if len(raw) < width:
            found |= values == raw.ljust(width)
    return found


def _arrow(values: NDArray[Any] | None, good: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    if values is None:
        return pa.nulls(int(good.sum()), kind)
    values = values[good]
    if pa.types.is_dictionary(kind):
        words, codes = np.unique(values, return_inverse=True)
        names = [word.decode("ascii", "replace").rstrip() for word in words]
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(names, pa.string()))
    if pa.types.is_floating(kind):  # an unknown position or error is null, not NaN
        return pa.array(values.astype(np.float64), kind, from_pandas=True)
    return pa.array(values.astype(kind.to_pandas_dtype()), kind)
