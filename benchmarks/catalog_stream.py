"""How fast, and in how much memory, a DR1-like redshift catalog streams through the science gate.

Writes a FITS table of DR1's shape (136 columns, 732 bytes a row; the whole is 28,425,963 rows, 20.8 GB), reads it
as ``skysift plan`` does, and projects the time of the whole. Run: ``python -m benchmarks.catalog_stream``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.catalog.gate import ROW_SCHEMA
from pipeline.catalog.rows import ordered
from pipeline.catalog.source import find_source, gated_rows
from pipeline.config import GateConfig, SurveyConfig
from pipeline.manifest import build_manifest
from pipeline.stores.objects import ObjectStore

DR1_ROWS, DR1_COLUMNS, DR1_ROW_BYTES = 28_425_963, 136, 732
# As in zall-pix-iron.fits: where in a row the columns that planning needs lie matters for the cache.
_HEAD = [("TARGETID", ">i8"), ("SURVEY", "S7"), ("PROGRAM", "S6"), ("HEALPIX", ">i4"), ("SPGRPVAL", ">i4"),
         ("Z", ">f8"), ("ZERR", ">f8"), ("ZWARN", ">i8"), ("CHI2", ">f8"), ("COEFF", ">f8", (10,)),
         ("NPIXELS", ">i8"), ("SPECTYPE", "S6"), ("SUBTYPE", "S20"), ("NCOEFF", ">i8"), ("DELTACHI2", ">f8"),
         ("COADD_FIBERSTATUS", ">i4"), ("TARGET_RA", ">f8"), ("TARGET_DEC", ">f8")]  # fmt: skip
_TAIL = [("OBJTYPE", "S3"), ("ZCAT_NSPEC", ">i2"), ("ZCAT_PRIMARY", "S1")]
_FORMS = {">i8": "K", ">i4": "J", ">i2": "I", ">f8": "D", ">f4": "E"}


def columns() -> list[tuple[Any, ...]]:
    """Names and types of the table's columns, padded with floats to DR1's count and row length."""
    spare = DR1_COLUMNS - len(_HEAD) - len(_TAIL)
    left = DR1_ROW_BYTES - np.dtype(_HEAD + _TAIL).itemsize
    wide = (left - 4 * spare) // 4
    filler = [(f"FILL_{i}", ">f8" if i < wide else ">f4") for i in range(spare)]
    short = left - sum(np.dtype(kind).itemsize for _, kind in filler)
    filler[-1] = (filler[-1][0], f"S{4 + short}")
    return [*_HEAD, *filler, *_TAIL]


def rows(count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Random rows with DR1's fractions: 6% main-survey quasars, 12% of them with ZWARN set."""
    table = np.zeros(count, dtype=columns())
    table["TARGETID"] = 39_627_000_000_000_000 + rng.integers(0, 10**12, count)
    table["TARGETID"][rng.random(count) < 0.05] *= -1
    table["SURVEY"] = np.where(rng.random(count) < 0.9, b"main   ", b"sv3    ")
    table["PROGRAM"] = np.where(rng.random(count) < 0.5, b"dark  ", b"bright")
    table["HEALPIX"] = rng.integers(0, 49_152, count)
    table["Z"] = rng.uniform(0, 4, count)
    table["ZWARN"] = np.where(rng.random(count) < 0.12, 4, 0)
    table["SPECTYPE"] = np.where(rng.random(count) < 0.075, b"QSO   ", b"GALAXY")
    table["TARGET_RA"], table["TARGET_DEC"] = rng.uniform(0, 360, count), rng.uniform(-20, 80, count)
    table["OBJTYPE"], table["ZCAT_PRIMARY"] = b"TGT", b"T"
    return table


def write_catalog(path: Path, count: int, seed: int = 1) -> None:
    """Write ``count`` rows as a FITS table, in pieces."""
    kinds = np.dtype(columns())
    cards = ["XTENSION= 'BINTABLE'", "BITPIX  = 8", "NAXIS   = 2", f"NAXIS1  = {kinds.itemsize}",
             f"NAXIS2  = {count}", "PCOUNT  = 0", "GCOUNT  = 1", f"TFIELDS = {len(kinds.names or ())}",
             "EXTNAME = 'ZCATALOG'"]  # fmt: skip
    for i, name in enumerate(kinds.names or (), 1):
        base, shape = kinds[name].base, kinds[name].shape
        form = "L" if name == "ZCAT_PRIMARY" else _FORMS.get(base.str) or f"{base.itemsize}A"
        cards += [f"{f'TTYPE{i}':<8}= '{name}'", f"{f'TFORM{i}':<8}= '{shape[0] if shape else ''}{form}'"]
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(_header(["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0", "EXTEND  = T"]))
        file.write(_header(cards))
        for start in range(0, count, 100_000):
            file.write(rows(min(100_000, count - start), rng).tobytes())
        file.write(bytes(-count * kinds.itemsize % 2880))


def _header(cards: list[str]) -> bytes:
    text = "".join(card.ljust(80) for card in [*cards, "END"])
    return text.ljust(-(-len(text) // 2880) * 2880).encode("ascii")


def dr1_rows(rng: np.random.Generator) -> pa.Table:
    """DR1's main-survey quasars in number: 1,600,854 rows in 27,425 coadds, in no order."""
    count, pixels = 1_600_854, 27_425 // 2
    words = {"survey": ["main"], "program": ["dark", "bright"]}
    values = {
        "healpix": rng.choice(49_152, pixels, replace=False)[rng.integers(0, pixels, count)],
        "targetid": rng.integers(1, 2**62, count),
        "z": rng.uniform(0.1, 4, count),
        "ra": rng.uniform(0, 360, count),
        "dec": rng.uniform(-20, 80, count),
    }
    arrays = []
    for field in ROW_SCHEMA:
        if field.name in words:
            codes = pa.array(rng.integers(0, len(words[field.name]), count), pa.int32())
            arrays.append(pa.DictionaryArray.from_arrays(codes, pa.array(words[field.name])))
        else:
            arrays.append(
                pa.array(values[field.name], field.type) if field.name in values else pa.nulls(count, field.type)
            )
    return pa.table(arrays, schema=ROW_SCHEMA)


def peak_megabytes() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Write, read three times, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the table is written and deleted again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder, "zall-pix-synthetic.fits")
        writer = multiprocessing.get_context("spawn").Process(target=write_catalog, args=(path, args.rows))
        writer.start()  # apart, so that its memory is not counted here
        writer.join()
        stream(ObjectStore.open(folder), path)
        manifest(ObjectStore.open(folder))


def stream(store: ObjectStore, path: Path) -> None:
    """Read the catalog three times; the first may find it in the page cache already, having been written."""
    source = find_source(store, SurveyConfig(catalog=path.name))
    gigabytes = path.stat().st_size / 1e9
    print(f"{DR1_COLUMNS} columns, {gigabytes:.2f} GB; {peak_megabytes():.0f} MB resident before\n")
    print("| pass | s | GB/s | rows/s | 28,425,963 rows | kept | peak resident MB |\n|---|---|---|---|---|---|---|")
    for turn in range(1, 4):
        start = time.perf_counter()
        _, report = gated_rows(source, GateConfig())
        seconds = time.perf_counter() - start
        rate = report.rows / seconds
        print(f"| {turn} | {seconds:.2f} | {gigabytes / seconds:.2f} | {rate:,.0f} | {DR1_ROWS / rate:.0f} s "
              f"| {report.kept:,} | {peak_megabytes():.0f} |")  # fmt: skip


def manifest(store: ObjectStore) -> None:
    """Order and cut as many quasars as DR1 has."""
    table = dr1_rows(np.random.default_rng(2))
    start = time.perf_counter()
    rows, _ = ordered(table.to_batches())
    middle = time.perf_counter()
    made = build_manifest(store, rows, 512)
    end = time.perf_counter()
    print(f"\nmanifest: {rows.num_rows:,} rows ordered in {middle - start:.2f} s, "
          f"cut into {len(made.chunks):,} chunks in {end - middle:.2f} s; peak {peak_megabytes():.0f} MB")  # fmt: skip


if __name__ == "__main__":
    main()
