"""Opens a redshift catalog of any format: FITS, gzipped FITS or Parquet, local or remote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from pipeline.catalog.fitstable import Block, Hdu, next_hdu, read_rows
from pipeline.catalog.parquet import MAGIC, kinds, open_parquet, read_batches
from pipeline.catalog.stream import GZIP_MAGIC, ByteStream, open_stream
from pipeline.errors import InputError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

    from pipeline.stores.objects import ObjectStore

COMPULSORY = ("TARGETID", "Z")


class Catalog(Protocol):
    """A table that is read once, from first row to last, in bounded memory."""

    path: str
    n_rows: int
    columns: dict[str, str]  # upper-case name -> kind: i, f, S, b, or - for arrays and the like

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        """Yield the named columns (upper case) in blocks; an array is valid until the next block."""


class FitsCatalog:
    """The first table of a FITS stream that has TARGETID and Z."""

    def __init__(self, stream: ByteStream, hdu: Hdu, path: str) -> None:
        self._stream, self._hdu, self.path = stream, hdu, path
        self.n_rows = hdu.n_rows
        self.columns = {name: column.kind for name, column in hdu.columns.items()}

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        """See ``Catalog.blocks``."""
        return read_rows(self._stream, self._hdu, names, self.path)


class ParquetCatalog:
    """A Parquet file."""

    def __init__(self, file: pq.ParquetFile, path: str) -> None:
        self._file, self.path = file, path
        self.n_rows = file.metadata.num_rows
        found = kinds(file)
        self._own = {name.upper(): name for name in found}
        self.columns = {name.upper(): kind for name, kind in found.items()}

    def blocks(self, names: Sequence[str]) -> Iterator[Block]:
        """See ``Catalog.blocks``."""
        own = [self._own[name] for name in names]
        for block in read_batches(self._file, own, self.path):
            yield {name: block[mine] for name, mine in zip(names, own, strict=True)}


def open_catalog(store: ObjectStore, path: str) -> Catalog:
    """Open a catalog by what its first bytes say it is; ``path`` is relative to the store.

    Raises:
        MissingObject: there is no such file.
        InputError: neither FITS nor Parquet, truncated, or no table with TARGETID and Z.
    """
    size = store.head(path).size
    start = bytes(store.read_ranges(path, [0], [min(size, 16)])[0]) if size else b""
    if start.startswith(MAGIC):
        file = ParquetCatalog(open_parquet(store, path), path)
        _check_compulsory(file.columns, path, f"its columns are {_names(file.columns)}")
        return file
    gzipped = start.startswith(GZIP_MAGIC)
    if not gzipped and not start.startswith(b"SIMPLE  ="):
        begins = f"it begins with {start!r}" if start else "it is empty"
        raise InputError(
            f"{path}: neither FITS, gzipped FITS nor Parquet ({begins}); name a redshift catalog", "not_fits"
        )
    stream = open_stream(store, path, gzipped=gzipped)
    hdu = _table(stream, path)
    ends = stream.position + hdu.n_rows * hdu.row_bytes
    if not gzipped and ends > size:  # known before any row passes
        raise InputError(
            f"{path}: truncated, its {hdu.n_rows} rows end at byte {ends} and the file has {size}; "
            "fetch the file again",
            "truncated",
        )
    return FitsCatalog(stream, hdu, path)


def _table(stream: ByteStream, path: str) -> Hdu:
    seen: list[Hdu] = []
    while (hdu := next_hdu(stream, path)) is not None:
        if set(COMPULSORY) <= hdu.columns.keys():
            _check_compulsory({name: c.kind for name, c in hdu.columns.items()}, path, "")
            return hdu
        seen.append(hdu)
        if stream.skip(hdu.padded_bytes) < hdu.data_bytes:
            raise InputError(f"{path}: truncated in HDU {hdu.name or len(seen) - 1}; fetch the file again", "truncated")
    tables = [f"{hdu.name or 'unnamed'} ({_names(hdu.columns)})" for hdu in seen if hdu.columns]
    found = f"its tables are {'; '.join(tables)}" if tables else "it has no binary table"
    raise InputError(f"{path}: no table has columns TARGETID and Z; {found}", "missing_column")


def _check_compulsory(columns: dict[str, str], path: str, found: str) -> None:
    for name, kind, what in (("TARGETID", "i", "an integer"), ("Z", "f", "a floating-point number")):
        if name not in columns:
            raise InputError(f"{path}: no column {name}, which every row needs; {found}", "missing_column")
        if columns[name] != kind:
            raise InputError(f"{path}: column {name} should hold {what} a row and does not", "bad_column")


def _names(columns: Iterable[str]) -> str:
    names = list(columns)
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
