"""The VO protocols as pyvo asks, and their answers looked at as taplint does."""

from __future__ import annotations

import io
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow.parquet as pq
import pytest
import pyvo
from astropy.io.votable import parse
from astropy.table import Table
from starlette.testclient import TestClient

from pipeline import Survey

pytestmark = [pytest.mark.servers, pytest.mark.slow]

HERE = "POINT('ICRS', ra, dec)"
QUERIES = [
    "SELECT TOP 5 * FROM anomaly_catalog",
    "SELECT TOP 20 targetid, ra, dec, z, p_value FROM anomalies ORDER BY rank",
    "SELECT COUNT(*) AS n FROM anomaly_catalog",
    "SELECT verdict, COUNT(*) AS n, AVG(z) AS mean_z FROM anomalies GROUP BY verdict ORDER BY n DESC",
    "SELECT targetid FROM anomaly_catalog WHERE z BETWEEN 2 AND 3 AND snr > 2 AND verdict IS NOT NULL",
    "SELECT a.targetid, b.shard FROM anomalies AS a JOIN spectrum_files AS b ON a.spectrum_id = b.spectrum_id",
    f"SELECT targetid, DISTANCE({HERE}, POINT('ICRS', 146, -8)) AS d FROM anomaly_catalog ORDER BY d",
    f"SELECT targetid FROM anomaly_catalog WHERE 1=CONTAINS({HERE}, CIRCLE('ICRS', 146.0, -8.0, 1.0))",
    f"SELECT targetid FROM anomaly_catalog WHERE 0=CONTAINS({HERE}, CIRCLE('ICRS', 146.0, -8.0, 1.0)) AND z > 3",
    "SELECT name, \"value\", unit FROM catalog_quality WHERE stage = 'calibrate'",
    "SELECT model_id, promoted_at FROM promoted_model",
    "SELECT targetid FROM anomaly_catalog WHERE explanation LIKE '%no such words%'",
]


@pytest.fixture
def tap(address: str) -> pyvo.dal.TAPService:
    return pyvo.dal.TAPService(f"{address}/tap")


@pytest.mark.parametrize("query", QUERIES)
def test_pyvo_runs_real_queries(tap: pyvo.dal.TAPService, query: str) -> None:
    found = tap.search(query)
    assert found.fieldnames
    if "no such words" in query:
        assert len(found) == 0
    elif "COUNT" not in query:
        assert len(found) >= 0


def test_answers_are_those_of_the_catalog(tap: pyvo.dal.TAPService, served: Survey) -> None:
    circle = f"1=CONTAINS({HERE}, CIRCLE('ICRS', 146.0, -8.0, 1.5))"
    found = tap.search(f"SELECT targetid, ra, z FROM anomaly_catalog WHERE {circle} ORDER BY targetid").to_table()
    truth = served.cone(146.0, -8.0, 1.5)
    assert sorted(found["targetid"].tolist()) == sorted(truth["targetid"].tolist())
    assert found["ra"].unit == "deg"
    by_distance = (
        f"SELECT TOP 3 targetid, DISTANCE({HERE}, POINT('ICRS', 146, -8)) AS d FROM anomaly_catalog ORDER BY d"
    )
    nearest = tap.search(by_distance).to_table()
    np.testing.assert_allclose(nearest["d"], served.cone(146, -8, 90)["separation"][:3])


def test_metadata(tap: pyvo.dal.TAPService, served: Survey) -> None:
    table = tap.tables["anomaly_catalog"]
    assert {column.name for column in table.columns} == set(
        served.query("SELECT * FROM anomaly_catalog LIMIT 1").colnames
    )
    ra = next(column for column in table.columns if column.name == "ra")
    assert (ra.unit, ra.ucd, ra.description) == ("deg", "pos.eq.ra;meta.main", "Right ascension, deg, ICRS")
    assert (tap.maxrec, tap.hardlimit) == (10_000, 1_000_000)
    language = tap.get_tap_capability().get_adql()
    assert {form.form for form in language.get_feature_list("ivo://ivoa.net/std/TAPRegExt#features-adqlgeo")} == {
        "POINT", "CIRCLE", "CONTAINS", "DISTANCE"
    }  # fmt: skip


def test_overflow_is_said(tap: pyvo.dal.TAPService, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.service import vo

    assert len(tap.search("SELECT targetid FROM anomaly_catalog", maxrec=7)) == 7
    monkeypatch.setattr(vo, "USUAL_ROWS", 5)
    with pytest.warns(pyvo.dal.exceptions.DALOverflowWarning):
        assert len(tap.search("SELECT targetid FROM anomaly_catalog")) == 5


def test_cone_search(address: str, served: Survey) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyvo calls version 1 UCDs, which the standard wants, outdated
        found = pyvo.dal.SCSService(f"{address}/scs").search(pos=(146.0, -8.0), radius=0.8)
    truth = served.cone(146.0, -8.0, 0.8)
    assert [str(row["spectrum_id"]) for row in found] == [str(one) for one in truth["spectrum_id"]]
    assert found[0].pos.ra.deg == pytest.approx(truth["ra"][0])


def _status(body: bytes) -> tuple[str, str]:
    found = [one for one in parse(io.BytesIO(body)).resources[0].infos if one.name == "QUERY_STATUS"]
    return found[-1].value, found[-1].content or ""


BAD = {
    "DELETE FROM anomalies": (400, "not ADQL"),
    "SELEC *": (400, "not ADQL"),
    "SELECT nothing FROM anomalies": (400, "does not exist"),
    "SELECT * FROM nowhere": (400, "does not exist"),
    "SELECT * FROM runs": (403, "permission denied"),
    "SELECT pg_read_file('/etc/passwd') AS a FROM anomalies": (403, "permission denied"),
    "SELECT AREA(CIRCLE('ICRS', 1, 2, 3)) AS a FROM anomalies": (400, "are supported"),
    f"SELECT z FROM anomaly_catalog WHERE 1=CONTAINS({HERE}, CIRCLE('ICRS', 500.0, 0.0, 1.0))": (400, "ra is 500"),
    "": (400, "empty"),
}


@pytest.mark.parametrize("query", BAD)
def test_bad_queries_are_votables_with_an_error(client: TestClient, query: str) -> None:
    answer = client.post("/tap/sync", data={"REQUEST": "doQuery", "LANG": "ADQL", "QUERY": query})
    assert answer.headers["content-type"].startswith("application/x-votable+xml")
    status, said = _status(answer.content)
    assert status == "ERROR"
    assert answer.status_code == BAD[query][0]
    assert BAD[query][1] in said


def test_a_query_that_takes_too_long(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.service import vo

    monkeypatch.setattr(vo, "SECONDS", 0.2)
    query = (
        "SELECT TOP 1 a.z FROM anomaly_catalog AS a, anomaly_catalog AS b, anomaly_catalog AS c WHERE a.z+b.z+c.z < -9"
    )
    answer = client.get("/tap/sync", params={"QUERY": query})
    assert answer.status_code == 504
    assert "longer than 0.2 s" in _status(answer.content)[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [({"LANG": "PQL"}, "LANG is PQL"), ({"REQUEST": "x"}, "doQuery alone"), ({"MAXREC": "-1"}, "MAXREC is"),
     ({"RESPONSEFORMAT": "pdf"}, "RESPONSEFORMAT is pdf"), ({"UPLOAD": "t,param:x"}, "UPLOAD is not supported")],
)  # fmt: skip
def test_bad_parameters(client: TestClient, given: dict[str, str], said: str) -> None:
    answer = client.get("/tap/sync", params={"QUERY": "SELECT TOP 1 z FROM anomalies", **given})
    assert answer.status_code == 400
    assert said in _status(answer.content)[1]


def test_formats(client: TestClient) -> None:
    given = {"query": "SELECT TOP 3 targetid, verdict, snr FROM anomalies ORDER BY rank", "lang": "adql"}
    table = Table.read(io.BytesIO(client.get("/tap/sync", params=given).content), format="votable")
    for form in ("csv", "fits", "parquet"):
        body = client.get("/tap/sync", params={**given, "responseformat": form}).content
        if form == "parquet":
            other = Table(pq.read_table(io.BytesIO(body)).to_pydict())
        else:
            other = Table.read(io.BytesIO(body), format={"csv": "ascii.csv", "fits": "fits"}[form])
        assert np.asarray(other["targetid"]).tolist() == np.asarray(table["targetid"]).tolist()
    nothing = parse(io.BytesIO(client.get("/tap/sync", params={**given, "MAXREC": "0"}).content)).get_first_table()
    assert (len(nothing.array), len(nothing.fields)) == (0, 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"RA": "1", "DEC": "1"}, "SR is missing"), ({"RA": "x", "DEC": "1", "SR": "1"}, "RA is 'x'"),
     ({"RA": "400", "DEC": "1", "SR": "1"}, "ra is 400"), ({"RA": "1", "DEC": "95", "SR": "1"}, "dec is 95"),
     ({"RA": "1", "DEC": "1", "SR": "50"}, "at most 10"), ({"RA": "nan", "DEC": "1", "SR": "1"}, "ra is nan")],
)  # fmt: skip
def test_bad_cones(client: TestClient, given: dict[str, str], said: str) -> None:
    answer = client.get("/scs", params=given)
    assert answer.status_code == 200  # as the standard has it
    status, message = _status(answer.content)
    assert status == "ERROR"
    assert said in message


def test_a_cone_of_no_radius_has_the_columns_alone(client: TestClient) -> None:
    table = parse(io.BytesIO(client.get("/scs?RA=1&DEC=1&SR=0").content)).get_first_table()
    assert len(table.array) == 0
    ucds = [field.ucd for field in table.fields]
    assert [ucds.count(one) for one in ("ID_MAIN", "POS_EQ_RA_MAIN", "POS_EQ_DEC_MAIN")] == [1, 1, 1]


def test_vosi_as_taplint_looks_at_it(client: TestClient) -> None:
    """Well-formed, every capability's address answers, every listed table and column can be queried."""
    root = ET.fromstring(client.get("/tap/capabilities").content)
    assert root.tag == "{http://www.ivoa.net/xml/VOSICapabilities/v1.0}capabilities"
    ids = [one.get("standardID") for one in root.findall("capability")]
    assert ids == ["ivo://ivoa.net/std/VOSI#capabilities", "ivo://ivoa.net/std/VOSI#availability",
                   "ivo://ivoa.net/std/VOSI#tables-1.1", "ivo://ivoa.net/std/TAP"]  # fmt: skip
    for one in root.findall("capability")[:3]:
        address = one.find("interface/accessURL")
        assert address is not None
        assert client.get(address.text or "").status_code == 200
    tables = ET.fromstring(client.get("/tap/tables").content)
    assert tables.tag == "{http://www.ivoa.net/xml/VOSITables/v1.0}tableset"
    for table in tables.findall("schema/table"):
        names = [(one.findtext("name") or "").strip('"') for one in table.findall("column")]
        assert all(one.findtext("description") for one in table.findall("column"))
        columns = ", ".join(f'"{name}"' for name in names)
        query = f"SELECT TOP 1 {columns} FROM {table.findtext('name')}"
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a VOTable that astropy complains of is wrong
            found = parse(io.BytesIO(client.get("/tap/sync", params={"QUERY": query}).content)).get_first_table()
        declared = dict(zip(names, (one.findtext("dataType") for one in table.findall("column")), strict=True))
        assert {field.name: field.datatype for field in found.fields} == declared
