"""What is injected where: classes and significances, spread over units of held-out spectra; all of it by the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.injection.departures import CLASSES
from pipeline.injection.hosts import CONTROL, SIGNIFICANCE

HOSTS_A_UNIT: Final = 256  # held-out spectra worked on together
HOSTS_A_CLASS: Final = 4  # hosts for each injection of a class, where there are as many: they are drawn among them


@dataclass(frozen=True)
class Want:
    """One injection: a class, its number among those of the class, and its significance, σ."""

    name: str
    number: int
    significance: float

    def rng(self, seed: int, purpose: int = 0) -> np.random.Generator:
        """Return the generator that decides all of this injection (another ``purpose``: where it goes)."""
        return np.random.default_rng([seed, (*CLASSES, CONTROL).index(self.name), self.number, purpose])


@dataclass(frozen=True)
class Unit:
    """Shards, each with the keys of its held-out spectra, and what is injected into them."""

    shards: tuple[tuple[str, tuple[int, ...]], ...]
    wants: tuple[Want, ...]

    def table(self) -> pa.Table:
        """The wants as a table."""
        return pa.Table.from_pylist([asdict(want) for want in self.wants])


def wants(classes: Sequence[str], per_class: int, seed: int) -> list[Want]:
    """Return ``per_class`` injections of each class, log-uniform in significance with one in each of as many strata."""
    low, high = np.log(SIGNIFICANCE)
    found = []
    for name in (*classes, CONTROL):
        rng = np.random.default_rng([seed, (*CLASSES, CONTROL).index(name)])
        place = (rng.permutation(per_class) + rng.random(per_class)) / per_class
        strength = np.zeros(per_class) if name == CONTROL else np.exp(low + (high - low) * place)
        found += [Want(name, number, value) for number, value in enumerate(strength.tolist())]
    return found


def units(held_out: pa.Table, todo: Sequence[Want], seed: int) -> list[Unit]:
    """Spread injections over units of shards drawn at random; larger units get more.

    Where an injection goes depends on the survey, the seed and the number of injections a class, on no other class.

    Args:
        held_out: columns spectrum_id and shard.
        todo: the injections.
        seed: decides which shards are read and what goes where.
    """
    shard = np.array(held_out["shard"].to_pylist())
    paths, owner = np.unique(shard, return_inverse=True)
    keys = held_out["spectrum_id"].to_numpy()
    order = np.random.default_rng([seed]).permutation(len(paths))
    size = np.bincount(owner)[order]
    needed = HOSTS_A_CLASS * max(want.number + 1 for want in todo)
    order = order[: int(np.searchsorted(np.cumsum(size), min(needed, size.sum()))) + 1]
    groups: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    for place in order.tolist():
        if sum(len(ids) for _, ids in groups[-1]) >= HOSTS_A_UNIT:
            groups.append([])
        groups[-1].append((str(paths[place]), tuple(np.sort(keys[owner == place]).tolist())))
    ends = np.cumsum([sum(len(ids) for _, ids in group) for group in groups])
    chosen = np.searchsorted(ends, [want.rng(seed, 1).random() * ends[-1] for want in todo], side="right")
    return [
        Unit(tuple(group), tuple(want for want, unit in zip(todo, chosen.tolist(), strict=True) if unit == number))
        for number, group in enumerate(groups)
        if (chosen == number).any()
    ]
