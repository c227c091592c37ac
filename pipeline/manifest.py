"""The manifest: gated rows cut into chunks, each of one coadd file whose size and tag are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.catalog.rows import coadd_key
from pipeline.catalog.source import probe
from pipeline.catalog.tree import HealpixFile, TileFile
from pipeline.chunks import TARGET_SCHEMA, Chunk, Coadd

if TYPE_CHECKING:
    from pipeline.stores.objects import ObjectMeta, ObjectStore


@dataclass(frozen=True)
class Manifest:
    """All work of a plan, in order of coadd and target; ``missing`` names coadds whose file is not there."""

    chunks: tuple[Chunk, ...]
    n_coadds: int
    missing: tuple[str, ...]

    @property
    def n_targets(self) -> int:
        """Targets in all chunks."""
        return sum(chunk.targets.num_rows for chunk in self.chunks)


def build_manifest(survey: ObjectStore, rows: pa.Table, chunk_size: int) -> Manifest:
    """Cut gated rows into chunks of at most ``chunk_size`` targets that never span coadd files.

    Args:
        survey: the survey's root, asked for each coadd's size and tag (``.fits``, else ``.fits.gz``).
        rows: ``gate.ROW_SCHEMA``, ordered as ``rows.ordered`` does.

    A coadd without a file still gets its chunks, with neither size nor tag: ingesting records the failure.
    """
    if not rows.num_rows:
        return Manifest((), 0, ())
    key = coadd_key(rows)
    starts = np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1])
    files = _files(rows.take(pa.array(starts)))
    metas = probe(survey, [file.path() for file in files])
    coadds = [_coadd(file, meta) for file, meta in zip(files, metas, strict=True)]
    targets = rows.select(TARGET_SCHEMA.names).cast(TARGET_SCHEMA).combine_chunks()
    chunks = tuple(_cut(coadds, starts.tolist(), targets, chunk_size))
    return Manifest(chunks, len(coadds), tuple(coadd.name for coadd in coadds if coadd.size is None))


def _cut(coadds: Sequence[Coadd], starts: Sequence[int], targets: pa.Table, chunk_size: int) -> Iterator[Chunk]:
    ends = [*starts[1:], targets.num_rows]
    for coadd, start, end in zip(coadds, starts, ends, strict=True):
        pieces = -(-(end - start) // chunk_size)
        size = -(-(end - start) // pieces)  # pieces of one coadd are of equal size, give or take one
        for at in range(start, end, size):
            yield Chunk.of(coadd, targets.slice(at, min(size, end - at)))


def _files(first: pa.Table) -> list[HealpixFile | TileFile]:
    columns = {name: first.column(name).to_pylist() for name in first.column_names[:6]}
    if columns["tile"][0] is None:
        return [HealpixFile(*of) for of in zip(columns["survey"], columns["program"], columns["healpix"], strict=True)]
    return [TileFile(*of) for of in zip(columns["tile"], columns["night"], columns["petal"], strict=True)]


def _coadd(file: HealpixFile | TileFile, meta: ObjectMeta | None) -> Coadd:
    path = meta.path if meta else file.path()
    size, etag = (meta.size, meta.etag) if meta else (None, None)
    if isinstance(file, HealpixFile):
        return Coadd(file.name, path, size, etag, file.survey, file.program, file.healpix)
    return Coadd(file.name, path, size, etag)
