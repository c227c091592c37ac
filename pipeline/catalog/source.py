"""Where a run's redshifts come from: a catalog, or the redrock files beside the coadds that a config names."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.catalog.fitstable import Block
from pipeline.catalog.gate import Gate, GateReport
from pipeline.catalog.layouts import Layout, recognise
from pipeline.catalog.reader import open_catalog
from pipeline.catalog.redrock import read_redrock
from pipeline.catalog.rows import ordered
from pipeline.catalog.tree import HealpixFile, Selection, TileFile
from pipeline.config import GateConfig, SurveyConfig
from pipeline.errors import InputError, MissingObject, StoreError
from pipeline.progress import progress
from pipeline.stores.objects import ObjectMeta, ObjectStore

_ZCATALOG = "zcatalog/v1"
_PETALS = range(10)


@dataclass(frozen=True)
class CatalogSource:
    """One catalog, cut to the pixels or tiles of the selection when there is one."""

    store: ObjectStore
    meta: ObjectMeta
    selection: Selection

    @property
    def identity(self) -> str:
        """Changes when the input does."""
        return f"{self.store.url}/{self.meta.path} {self.meta.size} {self.meta.etag} {self.selection}"

    @property
    def label(self) -> str:
        """For messages."""
        return self.meta.path


@dataclass(frozen=True)
class RedrockSource:
    """The redrock files of named pixels or tiles."""

    store: ObjectStore
    files: tuple[tuple[HealpixFile | TileFile, ObjectMeta], ...]

    @property
    def identity(self) -> str:
        """Changes when the input does."""
        return "\n".join([self.store.url, *(f"{m.path} {m.size} {m.etag}" for _, m in self.files)])

    @property
    def label(self) -> str:
        """For messages."""
        first = self.files[0][1].path
        return first if len(self.files) == 1 else f"{first} and {len(self.files) - 1} more redrock files"


Source = CatalogSource | RedrockSource


def find_source(survey: ObjectStore, config: SurveyConfig) -> Source:
    """Find the catalog that the config names, or the redrock files of its pixels or tiles.

    Raises:
        ConfigError: a pixel or tile is not named as it should be.
        MissingObject: the catalog, or a redrock file, does not exist; the message says what lies beside it.
    """
    selection = Selection.parse(config.pixels, config.tiles)
    if selection and not config.catalog:
        return RedrockSource(survey, _redrock_files(survey, selection))
    store, path = _locate(survey, config)
    try:
        return CatalogSource(store, store.head(path), selection)
    except MissingObject:
        raise _no_catalog(store, path) from None


def gated_rows(source: Source, config: GateConfig) -> tuple[pa.Table, GateReport]:
    """Read all rows of a source, apply the gate, and order what is left by coadd and target.

    Raises:
        InputError: the input is damaged, lacks a column, lacks a pixel or tile asked for, or no row is left.
    """
    gate = Gate(config, source.selection if isinstance(source, CatalogSource) else Selection())
    batches = [gate.keep(block, layout) for block, layout in _blocks(source, config)]
    rows, duplicates = ordered(batches)
    if unseen := gate.unseen():
        more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        raise InputError(
            f"{source.label}: no row lies in {unseen[0]}{more}, which the config asks for; "
            "correct survey.pixels or survey.tiles",
            "unknown_pixel",
        )
    report = gate.report(rows.num_rows, duplicates)
    report.require_rows(source.label)
    return rows, report


def _blocks(source: Source, config: GateConfig) -> Iterator[tuple[Block, Layout]]:
    if isinstance(source, RedrockSource):
        with progress("plan", len(source.files), "redrock files") as bar:
            for of, meta in source.files:
                yield read_redrock(source.store, meta.path, of)
                bar.advance(1)
        return
    catalog = open_catalog(source.store, source.meta.path)
    layout = recognise(
        catalog.columns, catalog.path,
        survey=config.default_survey, program=config.default_program, tree=source.selection.tree,
    )  # fmt: skip
    with progress("plan", catalog.n_rows, "catalog rows") as bar:
        for block in catalog.blocks(list(layout.columns.values())):
            yield block, layout
            bar.advance(len(next(iter(block.values()))))


def _redrock_files(survey: ObjectStore, selection: Selection) -> tuple[tuple[HealpixFile | TileFile, ObjectMeta], ...]:
    named: list[HealpixFile | TileFile] = [*selection.pixels, *selection.tiles]
    whole = [TileFile(tile, night, petal) for tile, night in selection.whole_tiles for petal in _PETALS]
    files = [*named, *(file for file in whole if file not in selection.tiles)]
    found = list(zip(files, probe(survey, [file.path("redrock") for file in files]), strict=True))
    for file, meta in found[: len(named)]:
        if meta is None:
            raise _no_redrock(survey, file.name, file.path("redrock"))
    there = [(file, meta) for file, meta in found if meta is not None]
    present = {(f.tile, f.night) for f, _ in there if isinstance(f, TileFile)}
    for tile, night in selection.whole_tiles:
        if (tile, night) not in present:
            raise _no_redrock(survey, f"tile {tile}/{night}", TileFile(tile, night, 0).path("redrock"))
    return tuple(there)


def probe(store: ObjectStore, paths: Sequence[str]) -> list[ObjectMeta | None]:
    """Size and tag of each ``.fits`` file, or of its ``.fits.gz`` where only that exists, or None."""
    found = store.heads(paths)
    absent = [i for i, meta in enumerate(found) if meta is None]
    for i, meta in zip(absent, store.heads([paths[i] + ".gz" for i in absent]), strict=True):
        found[i] = meta
    return found


def _locate(survey: ObjectStore, config: SurveyConfig) -> tuple[ObjectStore, str]:
    catalog = config.catalog
    if not catalog:
        return survey, _default_catalog(survey)
    if "://" in catalog or catalog.startswith(("/", "~", "../", "./")):
        folder, name = posixpath.split(catalog)
        store = ObjectStore.open(
            folder, endpoint=config.endpoint or None, region=config.region or None, anonymous=config.anonymous
        )
        return store, name
    return survey, catalog


def _default_catalog(survey: ObjectStore) -> str:
    release = posixpath.basename(survey.url)
    usual = f"{_ZCATALOG}/zall-pix-{release}.fits"  # found without listing, which https:// cannot
    if (meta := probe(survey, [usual])[0]) is not None:
        return meta.path
    beside = _beside(survey, _ZCATALOG)
    found = [path for path in beside or () if posixpath.basename(path).startswith("zall-pix-")]
    if not found:
        raise MissingObject(
            f"{survey.url}: no redshift catalog {_ZCATALOG}/zall-pix-*.fits; {_listed(beside, _ZCATALOG)}; "
            "check survey.root, or set survey.catalog, survey.pixels or survey.tiles"
        )
    return found[0]


def _no_catalog(store: ObjectStore, path: str) -> MissingObject:
    beside = _beside(store, posixpath.dirname(path))
    listed = _listed(beside, posixpath.dirname(path) or "that folder")
    return MissingObject(f"{store.url}: catalog {path} does not exist; {listed}; correct survey.catalog")


def _no_redrock(store: ObjectStore, name: str, path: str) -> MissingObject:
    return MissingObject(
        f"{store.url}: {name} has no {path} (nor .gz); correct survey.pixels or survey.tiles, or set survey.catalog",
        "unknown_pixel",
    )


def _listed(catalogs: list[str] | None, folder: str) -> str:
    if catalogs is None:
        return "this server does not list its files"
    return f"there are {', '.join(catalogs[:8])}" if catalogs else f"{folder} holds no FITS or Parquet file"


def _beside(store: ObjectStore, folder: str) -> list[str] | None:
    """The catalogs right in a folder, None where the store cannot list."""
    try:
        paths = [meta.path for meta, _ in zip(store.list(folder), range(10_000), strict=False)]
    except MissingObject:
        return []
    except StoreError:
        return None
    wanted = (".fits", ".fits.gz", ".parquet")
    return sorted(p for p in paths if posixpath.dirname(p) == folder.rstrip("/") and p.endswith(wanted))
