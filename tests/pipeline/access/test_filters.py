"""Filters as SQL and as Milvus expressions."""

from __future__ import annotations

import pytest

from pipeline.access.filters import Cone, Filters, separation
from pipeline.access.survey import make_cone, make_filters
from pipeline.errors import QueryError


def test_parameters_are_never_in_the_text() -> None:
    found = make_filters(z=(2, None), snr=(None, 9), verdict="physical", artefact_below=0.5)
    conditions, given = found.where()
    assert conditions == ["z >= %s", "snr <= %s", "verdict = ANY(%s)", "artefact_probability < %s"]
    assert given == [2.0, 9.0, ["physical"], 0.5]


def test_milvus() -> None:
    found = make_filters(z=(2, 3), p_value=(None, 0.01), verdict=["physical", "spike"], cone=(0.1, 0, 0.5)).milvus()
    start = 'z >= 2.0 and z <= 3.0 and p_value <= 0.01 and verdict in ["physical", "spike"] and dec >= -0.50000001 and '
    assert found.startswith(start)
    first, second = found.split("(ra >= ")[1:]  # across right ascension 0: two ranges
    assert first.startswith("-0.4")
    assert second.startswith("359.59")
    assert "ra" not in make_filters(cone=(10, 89.9, 1)).milvus()  # around a pole every right ascension is near
    assert Filters().milvus() == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"zz": 1}, "'zz' is no filter"),
        ({"z": 3}, "a range is"),
        ({"z": (3, 2)}, "leaves nothing"),
        ({"z": (float("nan"), None)}, "expected a number"),
        ({"verdict": "strange"}, "'strange' is no verdict; there are"),
        ({"cone": (400, 0, 1)}, "ra is 400, expected 0 to 360"),
        ({"cone": (0, 0, 200)}, "radius is 200"),
        ({"cone": (0, float("nan"), 1)}, "dec is nan"),
    ],
)
def test_what_is_out_of_range_is_said(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(QueryError, match=said):
        make_filters(**wrong)


def test_angles_with_units() -> None:
    from astropy import units
    from astropy.coordinates import SkyCoord

    assert make_cone(SkyCoord(150 * units.deg, 2 * units.deg), radius=60 * units.arcsec) == Cone(150.0, 2.0, 1 / 60)
    assert make_cone(150 * units.deg, 2, 1 * units.arcmin) == Cone(150.0, 2.0, 1 / 60)
    with pytest.raises(QueryError, match="no angle in degrees"):
        make_cone("ten", 2)
    assert separation(Cone(0, 90, 1), 123, 89) == pytest.approx(1)


def test_what_milvus_does_not_know() -> None:
    with pytest.raises(QueryError, match="cannot be filtered by q_value"):
        make_filters(q_value=(None, 0.1)).milvus()
