"""Clusters: anomalies of neighbouring fibers, of one petal, night or wavelength, that chance does not explain.

The sky knows nothing of fibers: features at one observed wavelength in spectra that share a spectrograph or a night
are the instrument's, however physical each looks by itself. For every candidate the test counts those of its group
(some fibers of a petal on a night, the petal on that night, the night, the petal) with a feature of the same sign at
the same observed wavelength. By chance the survey's candidates with such a feature would be spread over all groups as
all its candidates are: the hypergeometric distribution. For the whole survey the expectation is that of the
wavelengths on either side. So a bad night with many different anomalies is no cluster, and neither is a wavelength
where anomalies are common everywhere. False discoveries among the candidates are held at ``Q`` (Benjamini & Hochberg
1995); who is in a fine cluster makes no coarser one significant.

Legend: N candidates, W windows each, E entries: one for each window of each exposure of each candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import binom

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

Q = 0.01  # expected share of false ones among candidates said to be in a cluster
SMALLEST = 3  # candidates a cluster
COMMON = 30  # candidates at one wavelength for the whole survey's test
MOST_WINDOWS = 2  # the strongest, of each candidate
WEAKEST = 0.6  # of the strongest window's σ, below which a second one does not count
SPAN = 6224.0  # Å, 3600 to 9824
REACH = (0.3, 5.0, 45.0)  # two features agree within this share of their width, at least and at most so many Å
TERMS = 64  # of the hypergeometric tail
SIDE = 6.0  # how far beyond it the sidebands of the survey's own test reach, in units of it
C_KMS = 299792.458  # km/s
STELLAR = (
    3889.0,
    3934.8,
    3969.6,
    4102.9,
    4341.7,
    4862.7,
    5176.0,
    5891.6,
    5897.6,
    6564.6,
)  # Å, stars' and the Milky Way's
PETAL_FIBERS = 500
GROUPINGS: Final = ("fibers", "petal_night", "night", "petal", "survey")
_STAGES = (("fibers", "petal_night"), ("night", "petal"), ("survey",))
_CHUNKS = ((25, 0), (25, 12), (100, 0), (100, 50))  # fibers a chunk, and where the first begins


@dataclass(frozen=True)
class Clusters:
    """For each of N candidates its most significant cluster; ``size`` is 1 where there is none."""

    p_value: Array  # of its best grouping, corrected for all its exposures and windows that were tried
    member: NDArray[np.bool_]  # in a cluster at false discovery rate Q
    grouping: NDArray[np.str_]  # one of GROUPINGS
    size: Integers  # candidates in it
    expected: Array  # as many are expected by chance
    wavelength: Array  # observed Å
    sign: Integers  # 1 emission, −1 absorption


def find(windows_NWK: Any, fiber: Sequence[Sequence[int]], night: Sequence[Sequence[int]]) -> Clusters:
    """Look for clusters among all candidates of a survey, in O(E log E).

    Args:
        windows_NWK: [N, W, 3] or [N, 3 W]: σ (negative: absorption; 0: none), observed Å, width km/s.
        fiber: fibers (0 to 4999) of each candidate's exposures.
        night: their nights.
    """
    windows = np.asarray(windows_NWK, np.float64)
    n = len(windows)
    entries = _entries(windows.reshape(n, n_windows(windows, n), 3), fiber, night)
    best = Clusters(np.ones(n), np.zeros(n, bool), np.full(n, "", "U12"), np.ones(n, np.int64), np.ones(n),
                    np.full(n, np.nan), np.zeros(n, np.int64))  # fmt: skip
    for stage in _STAGES:  # the finer clusters first: who is in one makes no coarser one significant
        p, kept = np.ones(n), entries.rows(~best.member[entries.row])
        for name, key in _groupings(kept, stage):
            found = _test(kept, key, n) if name != "survey" else _survey_test(kept)
            _keep_best(best, p, kept, *found, name)
        looks = np.maximum(np.bincount(kept.row, minlength=n), 1)  # a stage's groups hold each other: they count once
        p = np.minimum(p * looks, 1.0)
        best.p_value[~best.member] = np.minimum(best.p_value, p)[~best.member]
        best.member[:] |= _discoveries(p)
    return best


def n_windows(windows: Any, n: int) -> int:
    """Return how many windows each of ``n`` candidates has in an array of three numbers each."""
    return int(np.size(windows)) // (3 * max(n, 1))


@dataclass(frozen=True)
class _Entries:
    row: Integers  # [E] candidate
    window: Integers  # which of its windows
    fiber: Integers
    night: Integers
    wavelength: Array
    reach: Array  # Å
    sign: Integers
    once: NDArray[np.bool_]  # the first exposure of its candidate's window: for tests that know no exposures

    def __len__(self) -> int:
        return len(self.row)

    def rows(self, keep: NDArray[np.bool_]) -> _Entries:
        """Return some of the entries."""
        return _Entries(*(getattr(self, one.name)[keep] for one in fields(self)))


def _entries(windows: Array, fiber: Sequence[Sequence[int]], night: Sequence[Sequence[int]]) -> _Entries:
    windows = windows[:, :MOST_WINDOWS]
    sigma = np.nan_to_num(windows[:, :, 0])
    row, which = np.nonzero(
        (np.abs(sigma) > 0) & (np.abs(sigma) >= WEAKEST * np.abs(sigma).max(1, keepdims=True, initial=0.0))
    )
    length = np.array([min(len(f), len(m)) for f, m in zip(fiber, night, strict=True)], np.int64)
    flat_fiber, flat_night = (
        np.array([x for one, k in zip(lists, length.tolist(), strict=True) for x in list(one)[:k]], np.int64)
        for lists in (fiber, night)
    )
    first = np.cumsum(length) - length
    times = np.maximum(length[row], 1)  # a candidate without known exposures still counts in the survey's test
    of = np.repeat(np.arange(len(row)), times)
    nth = np.arange(len(of)) - np.repeat(np.cumsum(times) - times, times)
    known = length[row][of] > 0
    at = np.where(known, first[row][of] + nth, 0)
    wavelength, width = windows[row, which, 1][of], windows[row, which, 2][of]
    reach = np.clip(REACH[0] * width / C_KMS * wavelength, REACH[1], REACH[2])
    sign = np.sign(sigma[row, which]).astype(np.int64)[of]
    fibers, nights = (
        np.where(known, flat[at], -1) if len(flat) else np.full(len(of), -1) for flat in (flat_fiber, flat_night)
    )
    return _Entries(row[of], which[of], fibers, nights, wavelength, reach, sign, nth == 0)


def _groupings(entries: _Entries, wanted: Sequence[str]) -> list[tuple[str, Integers]]:
    """Group number of every entry, by each way of grouping that is wanted; negative: in none."""
    known = entries.fiber >= 0
    petal, night = entries.fiber // PETAL_FIBERS, entries.night
    petal_night = night * 10 + petal
    made = [("fibers", (petal_night * 100 + (entries.fiber % PETAL_FIBERS + start) // size))
            for size, start in _CHUNKS]  # fmt: skip
    made += [("petal_night", petal_night), ("night", night), ("petal", petal), ("survey", np.zeros_like(petal))]
    return [(name, np.where(known | (name == "survey"), key, -1)) for name, key in made if name in wanted]


def _test(entries: _Entries, key: Integers, n_all: int) -> tuple[Array, Integers, Array]:
    """Return p-value, cluster's size and expectation of every entry within its group, [E] each."""
    _, group = np.unique(key, return_inverse=True)
    n_groups = int(group.max()) + 1 if len(group) else 0
    pairs = np.unique(group * n_all + entries.row)
    n_group = np.bincount(pairs // n_all, minlength=n_groups)[group]
    counted = np.zeros(len(group), bool)  # a candidate's window counts once a group, however often it was exposed
    counted[np.unique(group * (n_all * MOST_WINDOWS) + entries.row * MOST_WINDOWS + entries.window,
                      return_index=True)[1]] = True  # fmt: skip
    inside = _count(entries, group, counted)
    everywhere = _count(entries, np.zeros_like(group), entries.once)
    others, rivals = np.maximum(n_group - 1, 0), np.maximum(everywhere, inside) - 1
    expected = 1 + rivals * others / max(n_all - 1, 1)
    p = np.ones(len(key))
    worth = (key >= 0) & (inside >= SMALLEST) & (inside > expected)
    cases, which = np.unique(np.stack([inside, rivals, others])[:, worth], axis=1, return_inverse=True)
    p[worth] = _tail(cases[0] - 1, n_all - 1, cases[1], cases[2])[which.ravel()]  # inside − 1 others or more
    return p, inside, expected


def _tail(k: Integers, population: int, marked: Integers, drawn: Integers) -> Array:
    """Return P(X ≥ k) of the hypergeometric distribution, for k above its mean: a sum of ever smaller terms."""
    whole = np.full_like(k, population)
    ways = _log_choose(marked, k) + _log_choose(whole - marked, drawn - k) - _log_choose(whole, drawn)
    term = np.exp(ways)
    total = term.copy()
    for more in range(TERMS):
        at = k + more
        ratio = (marked - at) * (drawn - at) / ((at + 1.0) * np.maximum(population - marked - drawn + at + 1, 1))
        term = term * np.maximum(ratio, 0.0)
        total += term
    return np.asarray(np.minimum(total, 1.0))


def _log_choose(n: Integers, k: Integers) -> Array:
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0))


def _survey_test(entries: _Entries) -> tuple[Array, Integers, Array]:
    """The same for the whole survey, against the wavelengths on either side; stars' own lines are left out."""
    zero = np.zeros(len(entries), np.int64)
    inside = _count(entries, zero, entries.once)
    around = _count(entries, zero, entries.once, SIDE) - inside
    low = np.clip(entries.wavelength - SIDE * entries.reach, 3600.0, 9824.0)
    high = np.clip(entries.wavelength + SIDE * entries.reach, 3600.0, 9824.0)
    room = np.maximum(high - low - 2 * entries.reach, 1.0)
    # the sidebands' own scatter counts: the share is that of both together under no excess (conditional binomial)
    share = 2 * entries.reach / (2 * entries.reach + room)
    p = binom.sf(inside - 1, inside + around, share)
    to_end = np.minimum(entries.wavelength - 3600.0, 9824.0 - entries.wavelength)  # wide windows pile up there
    stellar = np.abs(entries.wavelength[:, None] - np.array(STELLAR)).min(1, initial=np.inf) < 12.0
    expected = np.maximum(around * 2 * entries.reach / room, 1.0)
    return np.where(stellar | (to_end < 5 * entries.reach) | (inside < COMMON), 1.0, p), inside, expected


def _count(entries: _Entries, group: Integers, counted: NDArray[np.bool_], widen: float = 1.0) -> Integers:
    """Count the entries of the same group and sign within reach of each one, itself included, [E].

    Entries stand on one line, groups and signs far apart, so that two binary searches count them.
    """
    far = 4 * SPAN + 4 * SIDE * REACH[2]
    place = (2 * group + (entries.sign > 0)) * far + entries.wavelength
    line = np.sort(place[counted])
    reach = widen * entries.reach
    return np.searchsorted(line, place + reach, "right") - np.searchsorted(line, place - reach, "left")


def _keep_best(
    best: Clusters, lowest: Array, entries: _Entries, p: Array, size: Integers, expected: Array, name: str
) -> None:
    """Take for each candidate the entry with the lowest p, where that is below what it has in this stage."""
    order = np.lexsort((p, entries.row))
    row, first = np.unique(entries.row[order], return_index=True)
    entry = order[first]
    better = p[entry] < lowest[row]
    row, entry = row[better], entry[better]
    lowest[row], best.grouping[row] = p[entry], name
    best.size[row], best.expected[row] = size[entry], expected[entry]
    best.wavelength[row], best.sign[row] = entries.wavelength[entry], entries.sign[entry]


def _discoveries(p: Array) -> NDArray[np.bool_]:
    """Benjamini & Hochberg's step-up at Q."""
    if not len(p):
        return np.zeros(0, bool)
    ordered = np.sort(p)
    passing = np.flatnonzero(ordered <= Q * np.arange(1, len(p) + 1) / len(p))
    return np.asarray(p <= ordered[passing[-1]]) if len(passing) else np.zeros(len(p), bool)
