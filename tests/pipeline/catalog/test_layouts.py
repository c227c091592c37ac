from __future__ import annotations

import pytest

from pipeline.catalog.layouts import recognise
from pipeline.errors import InputError

BASE = {"TARGETID": "i", "Z": "f"}
TILE = {"TILEID": "i", "PETAL_LOC": "i", "LASTNIGHT": "i"}
SKY = {"TARGET_RA": "f", "TARGET_DEC": "f"}


@pytest.mark.parametrize(
    ("extra", "tree", "expected"),
    [
        ({"HEALPIX": "i"}, None, "healpix"),
        (SKY, None, "healpix"),
        (TILE, None, "tile"),
        (TILE | SKY, None, "tile"),
        (TILE | SKY, "healpix", "healpix"),
        (TILE | {"HPXPIXEL": "i"}, None, "tile"),
        (TILE | {"HEALPIX": "i"}, None, "healpix"),
        (TILE | {"HEALPIX": "i"}, "tile", "tile"),
    ],
)
def test_tree_of_a_catalog(extra: dict[str, str], tree: str | None, expected: str) -> None:
    found = recognise(BASE | extra, "zcat", survey="main", program="dark", tree=tree)  # type: ignore[arg-type]
    assert found.tree == expected
    assert ("tile" in found.columns) == (expected == "tile")


def test_survey_and_program_come_from_the_config_only_where_the_catalog_has_none() -> None:
    found = recognise(BASE | SKY | {"SURVEY": "S"}, "zcat", survey="sv1", program="bright")
    assert found.constants == {"program": b"bright"}


@pytest.mark.parametrize(
    ("extra", "tree", "says"),
    [
        ({}, None, "HEALPIX, or TARGET_RA and TARGET_DEC, or TILEID, PETAL_LOC and LASTNIGHT; found TARGETID, Z"),
        ({"TARGET_RA": "f", "TILEID": "i"}, None, "nothing says which coadd a row is in"),
        ({"HEALPIX": "i"}, "tile", "needed are TILEID, PETAL_LOC and LASTNIGHT;"),
        (TILE, "healpix", "needed are HEALPIX, or TARGET_RA and TARGET_DEC;"),
        ({"HEALPIX": "i", "SPECTYPE": "i"}, None, "column SPECTYPE should hold a string"),
        ({"HEALPIX": "-"}, None, "column HEALPIX should hold an integer"),
    ],
)
def test_refused(extra: dict[str, str], tree: str | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        recognise(BASE | extra, "zcat", survey="main", program="dark", tree=tree)  # type: ignore[arg-type]
