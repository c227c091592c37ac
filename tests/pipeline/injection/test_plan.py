"""What is injected where: everything once, evenly, and by the seed alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ConfigError
from pipeline.injection.departures import CLASSES, checked_classes
from pipeline.injection.hosts import CONTROL, SIGNIFICANCE
from pipeline.injection.plan import HOSTS_A_UNIT, units, wants


def held_out(n: int = 2000, a_shard: int = 16) -> pa.Table:
    return pa.table({"spectrum_id": np.arange(n) * 7, "shard": [f"shards/{i // a_shard:04d}" for i in range(n)]})


def test_significances_are_log_uniform() -> None:
    found = [want for want in wants(CLASSES, 50, 1) if want.name == "odd_line"]
    place = np.sort(np.log([want.significance for want in found]))
    low, high = np.log(SIGNIFICANCE)
    np.testing.assert_allclose((place - low) / (high - low), (np.arange(50) + 0.5) / 50, atol=0.0101)
    assert {want.significance for want in wants(CLASSES, 50, 1) if want.name == CONTROL} == {0.0}


def test_each_injection_is_in_one_unit_with_enough_spectra() -> None:
    todo = wants(CLASSES, 100, 3)
    found = units(held_out(), todo, 3)
    assert sorted(map(repr, todo)) == sorted(repr(want) for unit in found for want in unit.wants)
    keys = [key for unit in found for _, ids in unit.shards for key in ids]
    assert len(keys) == len(set(keys))
    assert len(keys) >= 400
    assert all(sum(len(ids) for _, ids in unit.shards) < HOSTS_A_UNIT + 16 for unit in found)
    assert all(unit.wants for unit in found)


def test_a_small_survey_is_used_whole() -> None:
    found = units(held_out(40), wants(("odd_line",), 100, 1), 1)
    assert sorted(key for unit in found for _, ids in unit.shards for key in ids) == list(range(0, 280, 7))


def test_a_class_goes_where_it_would_with_others() -> None:
    alone = units(held_out(), wants(("felobal",), 20, 3), 3)
    among = units(held_out(), wants(CLASSES, 20, 3), 3)
    places = [
        {want.number: unit.shards for unit in found for want in unit.wants if want.name == "felobal"}
        for found in (alone, among)
    ]
    assert places[0] == places[1]


def test_the_seed_decides() -> None:
    first, again, other = (units(held_out(), wants(CLASSES, 10, seed), seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    a, b = (want.rng(1).random() for want in wants(CLASSES, 10, 1)[:2])
    assert a != b


def test_an_unknown_class_is_named_with_its_neighbour() -> None:
    assert checked_classes(()) == CLASSES
    assert checked_classes(("reddened", "reddened")) == ("reddened",)
    with pytest.raises(ConfigError, match="there is no class redened to inject; did you mean reddened"):
        checked_classes(("redened",))
