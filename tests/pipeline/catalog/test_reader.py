from __future__ import annotations

import gzip
import resource
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from pipeline.catalog.fitstable import Column, next_hdu, read_rows
from pipeline.catalog.reader import Catalog, open_catalog
from pipeline.catalog.stream import ByteStream
from pipeline.errors import InputError, MissingObject
from pipeline.stores.objects import ObjectStore

from .conftest import Columns, WriteFits


def read(catalog: Catalog, names: list[str]) -> dict[str, np.ndarray]:
    blocks = [{k: v.copy() for k, v in block.items()} for block in catalog.blocks(names)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in names}


def as_parquet(columns: Columns, path: Path) -> None:
    flat = {name.lower(): values for name, values in columns.items() if np.ndim(values) == 1}
    pq.write_table(pa.table(flat), path, row_group_size=5)


def test_fits_values_equal_what_was_written(columns: Columns, write_fits: WriteFits, store: ObjectStore) -> None:
    catalog = open_catalog(store, write_fits(columns).name)
    assert catalog.n_rows == 12
    assert catalog.columns["COEFF"] == "-"
    names = [name for name in columns if name != "COEFF"]
    for name, values in read(catalog, names).items():
        want = columns[name]
        if want.dtype.kind == "U":
            values = np.char.rstrip(np.char.decode(values))
        np.testing.assert_array_equal(values, want, err_msg=name)


@pytest.mark.parametrize("members", [1, 3])
def test_gzipped_fits_reads_the_same(columns: Columns, write_fits: WriteFits, store: ObjectStore, members: int) -> None:
    path = write_fits(columns)
    raw = path.read_bytes()
    cuts = np.linspace(0, len(raw), members + 1).astype(int)
    packed = b"".join(gzip.compress(raw[a:b]) for a, b in pairwise(cuts))
    path.with_suffix(".fits.gz").write_bytes(packed)
    plain = read(open_catalog(store, "zcat.fits"), ["TARGETID", "Z"])
    inflated = read(open_catalog(store, "zcat.fits.gz"), ["TARGETID", "Z"])
    np.testing.assert_array_equal(inflated["TARGETID"], plain["TARGETID"])
    np.testing.assert_array_equal(inflated["Z"], plain["Z"])


def test_parquet_reads_the_same_whatever_the_case_of_names(
    columns: Columns, tmp_path: Path, store: ObjectStore
) -> None:
    as_parquet(columns, tmp_path / "zcat.parquet")
    catalog = open_catalog(store, "zcat.parquet")
    found = read(catalog, ["TARGETID", "Z", "SPECTYPE", "ZCAT_PRIMARY"])
    np.testing.assert_array_equal(found["TARGETID"], columns["TARGETID"])
    np.testing.assert_array_equal(found["Z"], columns["Z"])
    np.testing.assert_array_equal(np.char.decode(found["SPECTYPE"]), columns["SPECTYPE"])
    assert found["ZCAT_PRIMARY"].dtype == bool


def test_parquet_nulls_become_values_that_no_cut_passes(tmp_path: Path, store: ObjectStore) -> None:
    table = pa.table(
        {
            "TARGETID": pa.array([1, None], pa.int64()),
            "Z": pa.array([None, 2.0]),
            "SPECTYPE": pa.array([None, "QSO"]).dictionary_encode(),
            "ZWARN": pa.array([None, 0], pa.uint16()),
            "ZCAT_PRIMARY": pa.array([None, True]),
        }
    )
    pq.write_table(table, tmp_path / "n.parquet")
    found = read(open_catalog(store, "n.parquet"), list(table.column_names))
    assert found["TARGETID"].tolist() == [1, -1]
    assert np.isnan(found["Z"][0])
    assert found["SPECTYPE"].tolist() == [b"", b"QSO"]
    assert found["ZWARN"].tolist() == [-1, 0]
    assert found["ZCAT_PRIMARY"].tolist() == [False, True]


def test_scaled_unsigned_and_heap_columns(tmp_path: Path, store: ObjectStore) -> None:
    made = [
        fits.Column("EXTRA", "PJ()", array=np.array([[1, 2], [3]], dtype=object)),
        fits.Column("targetid", "K", array=np.array([5, 6])),
        fits.Column("FLAGS", "11X", array=np.zeros((2, 11), dtype=bool)),
        fits.Column("HEALPIX", "J", array=np.array([7, 4_000_000_000], dtype=np.uint32), bzero=2**31),
        fits.Column("BIG", "K", array=np.array([1, 2**63 + 5], dtype=np.uint64), bzero=2**63),
        fits.Column("Z", "E", array=np.array([1.5, 2.5], dtype=np.float32)),
        fits.Column("ZERR", "I", array=np.array([1, 2]), unit="mm"),
    ]
    hdu = fits.BinTableHDU.from_columns(made)
    after = fits.BinTableHDU.from_columns([fits.Column("A", "J", array=np.arange(3))], name="AFTER")
    fits.HDUList([fits.PrimaryHDU(), hdu, after]).writeto(tmp_path / "s.fits")
    raw = (tmp_path / "s.fits").read_bytes()  # astropy cannot write a scaled integer column
    (tmp_path / "s.fits").write_bytes(raw.replace(b"TUNIT7  = 'mm      '", b"TSCAL7  = 0.25      "))
    stream = ByteStream(store.stream("s.fits", block=1000))
    next_hdu(stream, "s.fits")
    table = next_hdu(stream, "s.fits")
    assert table is not None
    (block,) = read_rows(stream, table, ["TARGETID", "HEALPIX", "BIG", "Z", "ZERR"], "s.fits")
    assert block["TARGETID"].tolist() == [5, 6]
    assert block["HEALPIX"].tolist() == [7, 4_000_000_000]
    assert block["BIG"].tolist() == [1, 2**63 + 5]
    assert block["Z"].tolist() == [1.5, 2.5]
    assert block["ZERR"].tolist() == [0.25, 0.5]
    assert table.columns["EXTRA"].kind == table.columns["FLAGS"].kind == "-"
    following = next_hdu(stream, "s.fits")  # the heap was passed over
    assert following is not None
    assert following.name == "AFTER"
    stream.skip(following.padded_bytes)
    assert next_hdu(stream, "s.fits") is None


def test_kinds() -> None:
    assert Column("A", 0, np.dtype(">i2"), "1I").kind == "i"
    assert Column("A", 0, np.dtype(">i2"), "1I", scale=0.5).kind == "f"
    assert Column("A", 0, np.dtype("S1"), "1L").kind == "b"


@pytest.mark.parametrize("block", [64, 700, 1 << 20])
def test_rows_that_straddle_blocks(columns: Columns, write_fits: WriteFits, store: ObjectStore, block: int) -> None:
    write_fits(columns)
    stream = ByteStream(store.stream("zcat.fits", block=block))
    for _ in range(3):
        skipped = next_hdu(stream, "zcat.fits")
        assert skipped is not None
        stream.skip(skipped.padded_bytes)
    table = next_hdu(stream, "zcat.fits")
    assert table is not None
    found = [b["Z"].copy() for b in read_rows(stream, table, ["Z"], "zcat.fits", block_bytes=3 * table.row_bytes)]
    assert [len(z) for z in found] == [3, 3, 3, 3]
    np.testing.assert_array_equal(np.concatenate(found), columns["Z"])


def broken(kind: str, raw: bytes) -> bytes:
    return {
        "html": b"<!DOCTYPE html><html>not here</html>",
        "empty": b"",
        "cut table": raw[:-1500],
        "cut header": raw[:3000],
        "cut gzip": gzip.compress(raw)[:-200],
        "bad gzip": (lambda g: g[:60] + b"\xff" * 200 + g[260:])(gzip.compress(raw)),
        "cut gzipped table": gzip.compress(raw[:-1500]),
        "no end": b"SIMPLE  =                    T".ljust(80) * 36,
        "bad naxis": raw.replace(b"NAXIS1  =                   11", b"NAXIS1  =                 ELEV"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "reason", "says"),
    [
        ("html", "not_fits", "neither FITS, gzipped FITS nor Parquet"),
        ("empty", "not_fits", "it is empty"),
        ("cut table", "truncated", "truncated, its 12 rows end at byte"),
        ("cut header", "truncated", "truncated"),
        ("cut gzip", "truncated", "the gzip stream ends"),
        ("bad gzip", "bad_gzip", "gzip data are damaged"),
        ("cut gzipped table", "truncated", "should hold 12 rows and ends in row"),
        ("no end", "truncated", "truncated within a FITS header"),
        ("bad naxis", "bad_header", "NAXIS1 in a FITS header should be an integer, found ELEV"),
    ],
)
def test_damaged_catalogs_are_named(
    columns: Columns, write_fits: WriteFits, tmp_path: Path, store: ObjectStore, kind: str, reason: str, says: str
) -> None:
    columns["COEFF"] = np.random.default_rng(3).normal(size=(12, 10))  # enough to damage after packing
    (tmp_path / "bad.fits").write_bytes(broken(kind, write_fits(columns).read_bytes()))
    with pytest.raises(InputError, match=says) as caught:
        read(open_catalog(store, "bad.fits"), ["TARGETID", "Z"])
    assert caught.value.reason == reason
    assert "bad.fits" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_parquet_is_named(columns: Columns, tmp_path: Path, store: ObjectStore) -> None:
    as_parquet(columns, tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged or truncated Parquet"):
        open_catalog(store, "cut.parquet")


def test_missing_catalog(store: ObjectStore) -> None:
    with pytest.raises(MissingObject):
        open_catalog(store, "none.fits")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"TARGETID": None}, r"no table has columns TARGETID and Z; its tables are TILES \(TILEID\); ZCATALOG"),
        ({"Z": None}, "no table has columns TARGETID and Z"),
        ({"TARGETID": np.ones(12)}, "column TARGETID should hold an integer"),
        ({"Z": np.ones((12, 2))}, "column Z should hold a floating-point number"),
    ],
)
def test_catalog_without_what_every_row_needs(
    columns: Columns, write_fits: WriteFits, store: ObjectStore, change: dict[str, Any], says: str
) -> None:
    changed = {k: v for k, v in (columns | change).items() if v is not None}
    with pytest.raises(InputError, match=says):
        open_catalog(store, write_fits(changed).name)


def test_parquet_without_z(tmp_path: Path, store: ObjectStore) -> None:
    pq.write_table(pa.table({"TARGETID": [1]}), tmp_path / "z.parquet")
    with pytest.raises(InputError, match="no column Z, which every row needs; its columns are TARGETID"):
        open_catalog(store, "z.parquet")


@pytest.mark.parametrize("packed", [False, True], ids=["fits", "gzip"])
def test_memory_stays_bounded(tmp_path: Path, store: ObjectStore, packed: bool) -> None:
    """A table of 300 MB (30 MB packed zeros, inflating to 300) passes in under 64 MB."""
    rows = 300_000
    kinds = np.dtype([("TARGETID", ">i8"), ("Z", ">f8"), ("FILL", "S984")])
    cards = ["XTENSION= 'BINTABLE'", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 1000", f"NAXIS2  = {rows}"]
    cards += ["PCOUNT  = 0", "GCOUNT  = 1", "TFIELDS = 3", "TTYPE1  = 'TARGETID'", "TFORM1  = 'K'"]
    cards += ["TTYPE2  = 'Z'", "TFORM2  = 'D'", "TTYPE3  = 'FILL'", "TFORM3  = '984A'"]
    path = tmp_path / "big.fits"
    with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as file:
        for header in (["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0"], cards):
            text = "".join(card.ljust(80) for card in [*header, "END"])
            file.write(text.ljust(-(-len(text) // 2880) * 2880).encode())
        for start in range(0, rows, 50_000):
            piece = np.zeros(50_000, kinds)
            piece["TARGETID"] = np.arange(start, start + 50_000)
            file.write(piece.tobytes())
        file.write(bytes(-rows * 1000 % 2880))
    del piece
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    total = sum(int(block["TARGETID"].sum()) for block in open_catalog(store, "big.fits").blocks(["TARGETID", "Z"]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    path.unlink()
    assert total == rows * (rows - 1) // 2
    assert peak < 64 << 20
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 96 << 20


def test_parquet_memory_stays_bounded(tmp_path: Path, store: ObjectStore) -> None:
    """One row group of 96 MB passes in a third of that."""
    n = 2_000_000
    rng = np.random.default_rng(5)
    table = pa.table(
        {"TARGETID": rng.integers(0, 2**60, n), "Z": rng.random(n)} | {f"F{i}": rng.random(n) for i in range(4)}
    )
    pq.write_table(table, tmp_path / "big.parquet", row_group_size=n, use_dictionary=False, compression="none")
    total = table.column("Z").to_numpy().sum()
    del table
    before, peak, found = pa.total_allocated_bytes(), 0, 0.0
    for block in open_catalog(store, "big.parquet").blocks(["TARGETID", "Z"]):
        found += block["Z"].sum()
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert found == pytest.approx(total)
    assert peak < 32 << 20
