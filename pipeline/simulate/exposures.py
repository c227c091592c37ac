"""How a pixel was observed: tiles, nights, fibers, and which target was in which exposure.

Shapes: B rows of one coadd file, T tiles (one exposure each).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

_NIGHTS = np.array([int(f"{year}{month:02d}{day:02d}") for year in (2021, 2022) for month in range(1, 13)
                    for day in range(1, 28, 2)])  # fmt: skip


@dataclass(frozen=True)
class Exposures:
    """T exposures of a pixel and the fibers of its B rows in them."""

    program: str
    tileid: Integers  # [T]
    night: Integers  # [T] YYYYMMDD
    expid: Integers  # [T]
    mjd: Array  # [T]
    exptime: Array  # [T] s
    noise: Array  # [T] σ of the exposure over the nominal one
    airglow: Array  # [T, 3] strength of the sky's lines over nominal in three bands
    seen: NDArray[np.bool_]  # [B, T]
    fiber: Integers  # [B, T] 0–4999, meaningful where seen
    status: NDArray[np.int32]  # [B] fiber status bits

    @property
    def count(self) -> Integers:
        """Exposures of each row [B]."""
        return np.asarray(self.seen.sum(axis=1))

    @property
    def first_fiber(self) -> Integers:
        """Fiber of each row's first exposure [B]."""
        return np.asarray(self.fiber[np.arange(len(self.seen)), np.argmax(self.seen, axis=1)])

    @property
    def petal(self) -> Integers:
        """Petal, 0–9, and so spectrograph, of each row's first exposure [B]."""
        return self.first_fiber // 500


def draw_exposures(
    rng: np.random.Generator, program: str, healpix: int, ra: Array, is_forest: NDArray[np.bool_],
    is_bad: NDArray[np.bool_],
) -> Exposures:  # fmt: skip
    """Exposures of rows at ``ra``; quasars with a Lyα forest come back more often, as in DESI."""
    n_rows = len(ra)
    n_tiles = int(rng.integers(4, 7)) if program == "dark" else int(rng.integers(2, 4))
    night = np.sort(rng.choice(_NIGHTS, n_tiles, replace=False))
    chance = np.where(is_forest, 0.42, 0.12) if program == "dark" else np.full(n_rows, 0.15)
    seen = rng.random((n_rows, n_tiles)) < chance[:, None]
    seen[np.arange(n_rows), rng.integers(0, n_tiles, n_rows)] = True
    order = np.argsort(np.argsort(ra + rng.normal(0, 0.02, n_rows)))
    rank = np.zeros_like(seen, dtype=np.int64)
    by_place = np.argsort(order)
    rank[by_place] = np.cumsum(seen[by_place], axis=0) - 1
    fiber = ((healpix % 10) * 500 + int(rng.integers(0, 200)) + rank) % 5000
    base = 1000 if program == "dark" else 20000
    return Exposures(
        program=program,
        tileid=base + (healpix * 7 + rng.choice(60, n_tiles, replace=False)) % 9000,
        night=night,
        expid=80000 + (night - 20210000) * 3 + rng.integers(0, 60, n_tiles),
        mjd=59215.2 + (night // 10000 - 2021) * 365 + (night // 100 % 100 - 1) * 30.4 + night % 100 + 0.1,
        exptime=rng.normal(1000.0 if program == "dark" else 260.0, 120.0 if program == "dark" else 40.0, n_tiles),
        noise=(1.0 if program == "dark" else 3.0) * 10 ** rng.normal(0, 0.05, n_tiles),
        airglow=10 ** rng.normal(0, 0.12, (n_tiles, 3)),
        seen=seen,
        fiber=fiber,
        status=np.where(is_bad, 1 << rng.choice([1, 3, 9, 16, 20], n_rows), 0).astype(np.int32),
    )
