"""ADQL to SQL: geometry goes to the functions of the database, everything else stays as it is."""

from __future__ import annotations

import pytest

from pipeline.errors import QueryError
from pipeline.service.adql import translate

HERE = "POINT('ICRS', ra, dec)"


@pytest.mark.parametrize(
    ("adql", "sql"),
    [
        ("SELECT TOP 5 * FROM anomalies ORDER BY rank", "SELECT * FROM anomalies ORDER BY rank LIMIT 5"),
        (
            f"SELECT z FROM t WHERE 1=CONTAINS({HERE}, CIRCLE('ICRS', 150.5, -2, 0.5))",
            "SELECT z FROM t WHERE spectrum_id IN (SELECT c.spectrum_id FROM cone_search(150.5, -2.0, 0.5) AS c)",
        ),
        (
            "SELECT a.z FROM t a WHERE CONTAINS(POINT('ICRS', a.ra, a.dec), CIRCLE('ICRS', 150, 2, 0.5)) = 1 "
            "AND a.z > -2.5E-1",
            "SELECT a . z FROM t a WHERE a.spectrum_id IN "
            "(SELECT c.spectrum_id FROM cone_search(150.0, 2.0, 0.5) AS c) AND a . z > - 2.5E-1",
        ),
        (
            f"SELECT z FROM t WHERE 0=CONTAINS({HERE}, CIRCLE('ICRS', 1, 2, 3))",
            "SELECT z FROM t WHERE sphere_distance(ra, dec, 1.0, 2.0) > 3.0",
        ),
        (
            "SELECT a.z FROM t a JOIN u b ON 1=CONTAINS(POINT('ICRS', a.ra, a.dec), CIRCLE('ICRS', b.ra, b.dec, 0.1))",
            "SELECT a . z FROM t a JOIN u b ON sphere_distance(a.ra, a.dec, b.ra, b.dec) <= 0.1",
        ),
        (
            f"SELECT DISTANCE({HERE}, POINT('ICRS', 150, 2)) AS d FROM t ORDER BY d",
            "SELECT sphere_distance(ra, dec, 150.0, 2.0) AS d FROM t ORDER BY d",
        ),
        (
            f"SELECT z FROM t WHERE DISTANCE({HERE}, POINT('ICRS', 150, 2)) < 0.25",
            "SELECT z FROM t WHERE spectrum_id IN (SELECT c.spectrum_id FROM cone_search(150.0, 2.0, 0.25) AS c)",
        ),
        (
            "SELECT z FROM t WHERE verdict = 'spoint(1) @ it''s' AND z <> 2",
            "SELECT z FROM t WHERE verdict = 'spoint(1) @ it''s' AND z <> 2",
        ),
    ],
)
def test_translation(adql: str, sql: str) -> None:
    assert translate(adql) == sql


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("", "QUERY is empty"),
        ("DELETE FROM anomalies", "not ADQL: line 1, column 1, near 'DELETE'"),
        ("SELECT * FROM a; DROP TABLE b", "not ADQL"),
        ("SELEC 1", "not ADQL"),
        (f"SELECT AREA(CIRCLE('ICRS', 1, 2, 3)) AS a FROM t WHERE {HERE} IS NULL", "POINT|ADQL"),
        ("SELECT AREA(CIRCLE('ICRS', 1, 2, 3)) AS a FROM t", "POINT, CIRCLE, CONTAINS and DISTANCE are supported"),
        ("SELECT 1 AS a FROM t WHERE 1=INTERSECTS(CIRCLE('ICRS',1,2,3), CIRCLE('ICRS',1,2,3))", "are supported"),
        ("SELECT 1 AS a FROM t WHERE 1=CONTAINS(POINT('ICRS',1,2), POLYGON('ICRS',1,2,3,4,5,6))", "POINT"),
        ("SELECT " + "x" * 30_000 + " FROM t", "at most 20,000"),
    ],
)
def test_what_is_not_supported_is_said(wrong: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        translate(wrong)
