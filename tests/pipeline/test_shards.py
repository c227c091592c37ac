"""Shards: lossless, readable by everyone, deterministic, damage named."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.chunks import Chunk, Coadd
from pipeline.desi.coadd import CoaddRows
from pipeline.desi.exposures import LIST, Exposures
from pipeline.desi.grid import N_OVERLAP, N_PIXELS, WAVELENGTH
from pipeline.errors import InputError, MissingObject
from pipeline.shards import (
    GRID_PATH,
    ROW_GROUP,
    SCHEMA,
    build_table,
    read_shard,
    read_spectrum,
    write_grid,
    write_shard,
)
from pipeline.stores.objects import ObjectStore

PATH = "shards/ab/abc.parquet"
N = 2 * ROW_GROUP + 22


@pytest.fixture(scope="module")
def rows() -> CoaddRows:
    """150 spectra of noise with every kind of unknown."""
    rng = np.random.default_rng(4)
    counts = rng.integers(0, 9, N)
    counts[:5] = 0
    pixels = [np.sort(rng.permutation(N_PIXELS)[:k]) for k in counts]
    snr, ra = rng.normal(2, 1, N).astype("f4"), rng.uniform(0, 360, N)
    snr[3], ra[4] = np.nan, np.nan
    lists = pa.array([[int(k)] * (i % 4) for i, k in enumerate(rng.integers(0, 5000, N))], LIST)
    return CoaddRows(
        targetid=np.arange(1000, 1000 + N)[::-1].copy(),
        flux=rng.normal(size=(N, N_PIXELS)).astype("f4"),
        ivar=rng.uniform(0, 2, (N, N_PIXELS)).astype("f4"),
        mask_offset=np.concatenate([[0], np.cumsum(counts)]).astype("i4"),
        mask_pixel=np.concatenate(pixels).astype("i2"),
        mask_bits=rng.integers(-(2**31), 2**31, counts.sum()).astype("i4"),
        arm_difference=rng.normal(size=(N, N_OVERLAP)).astype("f4"),
        quality=rng.integers(0, 9, N).astype("i4"),
        snr=snr,
        ra=ra,
        dec=np.zeros(N),
        ebv=np.full(N, np.nan, "f4"),
        exposures=Exposures(lists, lists, lists, lists),
        missing=np.empty(0, "i8"),
        bytes_read=0,
        requests=0,
        read_seconds=0.0,
        join_seconds=0.0,
    )


@pytest.fixture(scope="module")
def table(rows: CoaddRows) -> pa.Table:
    """Their shard table; the catalog knows no positions."""
    z = np.linspace(0.5, 3, N)
    nothing = pa.nulls(N, pa.float64())
    targets = pa.table(
        {
            "targetid": np.arange(1000, 1000 + N),
            "z": z,
            "zerr": nothing,
            "zwarn": pa.nulls(N, pa.int64()),
            "ra": nothing,
            "dec": nothing,
        }
    )
    return build_table(rows, Chunk.of(Coadd("tile/80693/1/20210204", "c.fits", 1, "x"), targets))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore.open(str(tmp_path))


def test_round_trip_loses_nothing(store: ObjectStore, table: pa.Table, rows: CoaddRows) -> None:
    assert write_shard(store, PATH, table) == store.head(PATH).size
    shard = read_shard(store, PATH)
    assert len(shard) == N
    assert np.array_equal(shard.flux_BL, rows.flux)
    assert np.array_equal(shard.ivar_BL, rows.ivar)
    assert np.array_equal(shard.arm_difference_BK, rows.arm_difference)
    assert np.array_equal(shard.dense_mask(), rows.mask)
    assert np.array_equal(shard.snr_B, rows.snr, equal_nan=True)
    assert shard.z_B.tolist() == np.linspace(0.5, 3, N)[::-1].tolist()
    assert shard.numbers("zwarn").tolist() == [-1] * N
    assert np.isnan(shard.numbers("ebv")).all()
    assert shard.lists("fiber") == rows.exposures.fiber.to_pylist()


def test_pyarrow_reads_the_very_table(store: ObjectStore, table: pa.Table) -> None:
    write_shard(store, PATH, table)
    read = pq.read_table(store.locate(PATH))
    read.validate(full=True)
    assert read.schema.equals(SCHEMA, check_metadata=True)
    assert read.equals(table)


def test_row_groups_uncompressed_without_statistics(store: ObjectStore, table: pa.Table) -> None:
    write_shard(store, PATH, table)
    metadata = pq.read_metadata(store.locate(PATH))
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [64, 64, 22]
    for i in range(metadata.num_columns):
        column = metadata.row_group(0).column(i)
        assert column.compression == "UNCOMPRESSED"
        assert not column.has_dictionary_page
        assert column.statistics is None


def test_vectors_start_aligned(store: ObjectStore, table: pa.Table) -> None:
    write_shard(store, PATH, table)
    for group in read_shard(store, PATH).groups["flux"]:
        assert group.ctypes.data % 64 == 0


def test_pandas_reads_it(store: ObjectStore, table: pa.Table, rows: CoaddRows) -> None:
    import pandas as pd

    write_shard(store, PATH, table)
    frame = pd.read_parquet(store.locate(PATH))
    assert np.array_equal(np.stack(frame["flux"].to_numpy()), rows.flux)
    assert frame["night"].map(list).tolist() == rows.exposures.night.to_pylist()
    assert frame["survey"].isna().all()


def test_polars_reads_it(store: ObjectStore, table: pa.Table, rows: CoaddRows) -> None:
    import polars as pl

    write_shard(store, PATH, table)
    frame = pl.read_parquet(store.locate(PATH))
    assert np.array_equal(frame["ivar"].to_numpy(), rows.ivar)
    assert frame["mask_bits"].to_list() == table["mask_bits"].to_pylist()
    assert frame["ra"].to_list() == table["ra"].to_pylist()


def test_duckdb_reads_it(store: ObjectStore, table: pa.Table, rows: CoaddRows) -> None:
    import duckdb

    write_shard(store, PATH, table)
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT targetid, z, flux[5], len(ivar), tile, ra FROM '{store.locate(PATH)}'"
        ).fetchall()
    assert [row[0] for row in found] == rows.targetid.tolist()
    assert [row[2] for row in found] == rows.flux[:, 4].tolist()
    assert {row[3] for row in found} == {N_PIXELS}
    assert [row[4] for row in found] == rows.exposures.tile.to_pylist()
    assert [row[5] for row in found] == table["ra"].to_pylist()


def test_chosen_columns_only(store: ObjectStore, table: pa.Table) -> None:
    write_shard(store, PATH, table)
    shard = read_shard(store, PATH, ["spectrum_id", "flux"])
    assert shard.flux_BL.shape == (N, N_PIXELS)
    assert len(shard.spectrum_id_B) == N
    with pytest.raises(KeyError):
        _ = shard.ivar_BL
    with pytest.raises(KeyError):
        _ = shard.z_B


def test_arrays_can_become_tensors(store: ObjectStore, table: pa.Table) -> None:
    import torch

    write_shard(store, PATH, table.slice(0, 10))
    shard = read_shard(store, PATH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of arrays that cannot be written
        assert torch.from_numpy(shard.flux_BL).shape == (10, N_PIXELS)
    shard.flux_BL[0, 0] = 7
    assert read_shard(store, PATH).flux_BL[0, 0] != 7


@pytest.mark.parametrize(("row_group", "row"), [(0, 0), (1, 63), (2, 21)])
def test_one_spectrum(store: ObjectStore, table: pa.Table, row_group: int, row: int) -> None:
    write_shard(store, PATH, table)
    whole, one = read_shard(store, PATH), read_spectrum(store, PATH, row_group, row)
    i = row_group * ROW_GROUP + row
    assert len(one) == 1
    assert np.array_equal(one.flux_BL[0], whole.flux_BL[i])
    assert np.array_equal(one.arm_difference_BK[0], whole.arm_difference_BK[i])
    assert np.array_equal(one.dense_mask()[0], whole.dense_mask()[i])
    assert one.table.equals(whole.table.slice(i, 1))


@pytest.mark.parametrize(("row_group", "row"), [(3, 0), (0, 64), (2, 22), (-1, 0), (0, -1)])
def test_no_such_row(store: ObjectStore, table: pa.Table, row_group: int, row: int) -> None:
    write_shard(store, PATH, table)
    with pytest.raises(InputError, match="no row") as caught:
        read_spectrum(store, PATH, row_group, row)
    assert caught.value.reason == "no_such_row"


def test_equal_tables_equal_bytes(store: ObjectStore, table: pa.Table) -> None:
    write_shard(store, PATH, table)
    first = store.read(PATH)
    write_shard(store, PATH, pa.concat_tables([table.slice(0, 7), table.slice(7)]))
    assert store.read(PATH) == first


def test_missing_shard(store: ObjectStore) -> None:
    with pytest.raises(MissingObject, match=r"abc\.parquet"):
        read_shard(store, PATH)
    with pytest.raises(MissingObject, match=r"abc\.parquet"):
        read_spectrum(store, PATH, 0, 0)


@pytest.mark.parametrize("kept", [0, 3, 1000, -1, -500])
def test_damaged_shard(store: ObjectStore, table: pa.Table, kept: int) -> None:
    write_shard(store, PATH, table)
    store.write(PATH, store.read(PATH)[:kept])
    for act in (lambda: read_shard(store, PATH), lambda: read_spectrum(store, PATH, 0, 0)):
        with pytest.raises(InputError, match=r"abc\.parquet.*ingest its chunk again") as caught:
            act()
        assert caught.value.reason == "damaged_shard"
        assert "\n" not in str(caught.value)


def test_footer_pointing_beyond_the_file(store: ObjectStore, table: pa.Table) -> None:
    write_shard(store, PATH, table)
    whole = store.read(PATH)
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    store.write(PATH, whole[:1000] + whole[-footer:])
    for act in (lambda: read_shard(store, PATH), lambda: read_spectrum(store, PATH, 1, 5)):
        with pytest.raises(InputError) as caught:
            act()
        assert caught.value.reason == "damaged_shard"


def test_foreign_parquet_is_no_shard(store: ObjectStore) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1, 2]}), sink)
    store.write(PATH, memoryview(sink.getvalue()))
    with pytest.raises(InputError, match="not a skysift shard"):
        read_shard(store, PATH)


def test_grid_is_written_once(store: ObjectStore) -> None:
    write_grid(store)
    first = store.head(GRID_PATH)
    write_grid(store)
    assert store.head(GRID_PATH) == first
    grid = pq.read_table(store.locate(GRID_PATH))
    assert np.array_equal(grid["wavelength"].to_numpy(), WAVELENGTH)
    assert grid["pixel"].to_pylist() == list(range(N_PIXELS))
