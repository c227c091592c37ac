"""What others need for the same work, on the same machine in the same run."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np

PIXELS = 7781


def desispec_rate(files: list[Path], processes: int = 2) -> float:
    """Spectra a second of ``read_spectra`` and ``coadd_cameras`` over all rows of ``files``, imports excluded.

    RESOLUTION and what else skysift does not read are skipped, which the files lack anyway.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes)
    with context.Pool(processes, _take_barrier, (barrier,)) as pool:
        shares = [[str(file) for file in files[part::processes]] for part in range(processes)]
        return float(sum(pool.map(_desispec, shares, chunksize=1)))


_barrier: Any = None


def _take_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _desispec(files: list[str]) -> float:
    import logging

    from desispec.coaddition import coadd_cameras
    from desispec.io import read_spectra

    logging.disable(logging.INFO)
    skip = ["EXP_FIBERMAP", "SCORES", "EXTRA_CATALOG", "RESOLUTION"]
    coadd_cameras(read_spectra(files[0], skip_hdus=skip))
    _barrier.wait()
    start, count = time.perf_counter(), 0
    for file in files:
        count += coadd_cameras(read_spectra(file, skip_hdus=skip)).num_spectra()
    return count / (time.perf_counter() - start)


def spender_rate(batches: int = 6, batch: int = 32, threads: int = 2) -> float:
    """Spectra a second through spender's encoder (Melchior et al. 2023) at 7,781 pixels; weights don't matter."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_spender, (batches, batch, threads)))


def _spender(batches: int, batch: int, threads: int) -> float:
    import torch
    from spender.model import SpectrumEncoder

    torch.set_num_threads(threads)
    encoder = SpectrumEncoder(None, 10).eval()
    flux = torch.from_numpy(np.random.default_rng(1).normal(size=(batch, PIXELS)).astype(np.float32))
    with torch.no_grad():
        encoder(flux)
        start = time.perf_counter()
        for _ in range(batches):
            encoder(flux)
    return batches * batch / (time.perf_counter() - start)
