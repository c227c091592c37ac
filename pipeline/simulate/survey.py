"""A whole simulated survey: which pixels, how many rows in each, all processes, then catalog and truth."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, StoreError
from pipeline.simulate import columns
from pipeline.simulate.fits_format import primary, table_header
from pipeline.simulate.pixel import Options, PixelResult, simulate_pixel
from pipeline.simulate.targets import PixelPlan
from pipeline.simulate.truth import write_truth
from pipeline.stores.objects import ObjectStore

CATALOG_PATH = "zcatalog/v1/zall-pix-iron.fits"
FIRST_PIXEL = 27136  # RA 148°, Dec +2°: a corner of DESI's footprint; nested numbers run on to neighbours
QUASARS_A_FILE = 118  # DR1's mean in main/dark
MIN_PIXELS = 8  # for surveys of some size, so that training, stopping and calibration find disjoint pixels
BRIGHT_SHARE = 0.06  # of the quasars are rows of main/bright files, half of those seen in main/dark too
ROW_BYTES = 7958 * 12 + 1400  # flux, ivar and mask of a row, and its share of the tables
RESOLUTION_BYTES = 7958 * 44

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SimulationSummary:
    """What was written."""

    url: str
    truth: str
    quasars: int
    rows: int
    pixels: int
    files: int
    size: int  # bytes, catalog included
    counts: dict[str, int]  # rows by kind
    classes: dict[str, int]  # anomalies and artefacts by class


def simulate(
    out: str, quasars: int, seed: int, *, quasar_fraction: float = 0.12, resolution: bool = True,
    anomaly_fraction: float = 0.015, artefact_fraction: float = 0.012, jobs: int | None = None,
    progress: Progress | None = None,
) -> SimulationSummary:  # fmt: skip
    """Write a survey of ``quasars`` quasar spectra in DR1's layout under ``out`` (a folder or a store's URL).

    ``quasar_fraction`` of all rows are quasars. The truth table goes beside, to ``out`` + "-truth.parquet".
    The result depends on ``seed`` and the counts, not on ``jobs`` (processes; default: one a core).
    ``progress(done, all)`` is called after every pixel.

    Raises:
        ConfigError: a number is out of range.
        StoreError: ``out`` is not empty, not writable, or too small.
    """
    _check(quasars, quasar_fraction, anomaly_fraction, artefact_fraction)
    out = out.rstrip("/")
    plans = plan_survey(quasars, quasar_fraction)
    store = ObjectStore.open(out)
    check_place(out, store, expected_size(plans, resolution))
    options = Options(seed, resolution, anomaly_fraction, artefact_fraction)
    results = _simulate_pixels(plans, options, out, jobs or os.cpu_count() or 1, progress)
    catalog = np.concatenate([r.catalog for r in results], dtype=results[0].catalog.dtype)
    size = write_catalog(store, catalog)
    truth = {name: np.concatenate([r.truth[name] for r in results]) for name in results[0].truth}
    write_truth(truth_path(out), truth)
    strange = np.isin(truth["kind"], ("anomaly", "artefact"))
    return SimulationSummary(
        url=out,
        truth=truth_path(out),
        quasars=quasars,
        rows=len(truth["kind"]),
        pixels=len(plans),
        files=sum(result.files for result in results) + 1,
        size=size + sum(result.size for result in results),
        counts=_counts(truth["kind"]),
        classes=_counts(truth["class"][strange]),
    )


def truth_path(out: str) -> str:
    """Where a survey's truth table lies: beside it, never inside."""
    return out.rstrip("/") + "-truth.parquet"


def _counts(labels: NDArray[np.str_]) -> dict[str, int]:
    names, numbers = np.unique(labels, return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def _check(quasars: int, quasar_fraction: float, anomaly_fraction: float, artefact_fraction: float) -> None:
    """Raise on numbers that make no survey."""
    if quasars < 1:
        raise ConfigError(f"--quasars is {quasars}: ask for at least 1")
    if not 0.005 <= quasar_fraction <= 1:
        raise ConfigError(f"--quasar-fraction is {quasar_fraction}: it must lie between 0.005 and 1")
    for name, value in (("anomaly", anomaly_fraction), ("artefact", artefact_fraction)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name}_fraction is {value}: it must lie between 0 and 1")


def plan_survey(quasars: int, quasar_fraction: float) -> list[PixelPlan]:
    """Share the rows among neighbouring pixels: about 118 quasars a file, several pixels even in small surveys."""
    bright = round(BRIGHT_SHARE * quasars)
    dark = quasars - bright
    n_pixels = max(-(-dark // QUASARS_A_FILE), min(MIN_PIXELS, max(1, dark // 4)))
    n_bright = max(1, n_pixels // 4)  # pixels with a main/bright file, every fourth
    others = round(quasars / quasar_fraction) - quasars
    bright_others = round(others * BRIGHT_SHARE)
    shares = zip(range(n_pixels), _spread(dark, n_pixels), _spread(others - bright_others, n_pixels), strict=True)
    bright_of = dict(zip(
        [i * n_pixels // n_bright for i in range(n_bright)],
        zip(_spread(bright, n_bright), _spread(bright_others, n_bright), strict=True), strict=True,
    ))  # fmt: skip
    plans = []
    for i, dark_quasars, dark_others in shares:
        bright_quasars, others_too = bright_of.get(i, (0, 0))
        shared = min(bright_quasars // 2, dark_quasars)
        plans.append(PixelPlan(FIRST_PIXEL + i, dark_quasars, bright_quasars, shared, dark_others, others_too))
    return plans


def _spread(total: int, parts: int) -> list[int]:
    """``total`` in ``parts`` nearly equal numbers."""
    return [total * (i + 1) // parts - total * i // parts for i in range(parts)]


def expected_size(plans: list[PixelPlan], resolution: bool) -> int:
    """Bytes the survey will take, roughly."""
    rows = sum(p.dark_quasars + p.bright_quasars + p.dark_others + p.bright_others for p in plans)
    return int(rows * (ROW_BYTES + 900 + (RESOLUTION_BYTES if resolution else 0)) * 1.01)


def check_place(out: str, store: ObjectStore, need: int) -> None:
    """Raise if ``out`` already holds a survey, or is a folder on a disk too small for one."""
    if store.exists(CATALOG_PATH):
        raise StoreError(f"{out} already holds a survey ({CATALOG_PATH}): choose another place or remove it first")
    if "://" in out and not out.startswith("file://"):
        return
    folder = Path(out.removeprefix("file://")).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < need * 1.02 + 200e6:
        raise StoreError(
            f"{out}: the survey needs {need / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free:"
            " ask for fewer quasars, use --no-resolution, or choose another disk"
        )


def _simulate_pixels(
    plans: list[PixelPlan], options: Options, out: str, jobs: int, progress: Progress | None
) -> list[PixelResult]:
    """All pixels, in this process or several; results in the order of the plans."""
    results: dict[int, PixelResult] = {}
    for done, (index, result) in enumerate(_run(plans, options, out, jobs), start=1):
        results[index] = result
        if progress:
            progress(done, len(plans))
    return [results[i] for i in range(len(plans))]


def _run(plans: list[PixelPlan], options: Options, out: str, jobs: int) -> Iterator[tuple[int, PixelResult]]:
    """Results as they come, each with its plan's place."""
    if jobs == 1 or len(plans) == 1:
        for i, plan in enumerate(plans):
            yield i, simulate_pixel(plan, options, out)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe under threads that callers may have
    with ProcessPoolExecutor(min(jobs, len(plans)), mp_context=context) as pool:
        futures = {pool.submit(simulate_pixel, plan, options, out): i for i, plan in enumerate(plans)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_catalog(store: ObjectStore, catalog: NDArray[Any]) -> int:
    """Write zall-pix-iron.fits with the best row of each target marked. Returns its size in bytes."""
    mark_best(catalog)
    head = primary([]).header + table_header("ZCATALOG", columns.CATALOG, len(catalog))
    body = catalog.tobytes()
    content = head + body + b"\0" * (-len(body) % 2880)
    store.write(CATALOG_PATH, content)
    return len(content)


def mark_best(catalog: NDArray[Any]) -> None:
    """Set the NSPEC and PRIMARY columns in place: of a target's rows the surest is primary."""
    order = np.lexsort((-catalog["TSNR2_LRG"], catalog["ZWARN"] != 0, catalog["TARGETID"]))
    _, first, place, number = np.unique(
        catalog["TARGETID"][order], return_index=True, return_inverse=True, return_counts=True
    )
    primary_row = np.full(len(catalog), b"F")
    primary_row[order[first]] = b"T"
    count = np.empty(len(catalog), np.int64)
    count[order] = number[place]
    for survey in ("MAIN", "ZCAT"):
        catalog[f"{survey}_PRIMARY"] = primary_row
        catalog[f"{survey}_NSPEC"] = count
