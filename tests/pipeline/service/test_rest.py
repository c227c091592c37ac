"""REST: pages, objects, spectra, look-alikes, uploads; each bad request with its status and a clear answer."""

from __future__ import annotations

import gzip
import io

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from starlette.testclient import TestClient

from pipeline import Survey
from pipeline.stores import postgres, registry
from pipeline.stores.postgres import transaction

pytestmark = [pytest.mark.servers, pytest.mark.slow]


def _first(client: TestClient) -> dict:
    return client.get("/v1/anomalies", params={"limit": 1}).json()["rows"][0]


def test_pages_follow_each_other_to_the_end(client: TestClient, served: Survey) -> None:
    found, url = [], "/v1/anomalies?limit=200&z_min=1"
    while url:
        page = client.get(url).json()
        found += page["rows"]
        url = page["next"]
    truth = served.query("SELECT targetid, rank FROM anomaly_catalog WHERE z >= 1 ORDER BY rank")
    assert [row["rank"] for row in found] == truth["rank"].tolist()
    assert [row["targetid"] for row in found] == [str(one) for one in truth["targetid"]]


def test_ids_are_strings_and_unknown_numbers_null(client: TestClient) -> None:
    row = _first(client)
    assert isinstance(row["targetid"], str)
    assert isinstance(row["spectrum_id"], str)
    assert "NaN" not in client.get("/v1/anomalies?limit=1000").text


def test_filters_and_cones(client: TestClient, served: Survey) -> None:
    given = {"verdict": ["physical", "spike"], "artefact_below": 0.5, "snr_min": 1, "limit": 1000}
    for row in client.get("/v1/anomalies", params=given).json()["rows"]:
        assert row["verdict"] in ("physical", "spike")
        assert row["artefact_probability"] < 0.5
        assert row["snr"] >= 1
    row = _first(client)
    near = client.get("/v1/anomalies", params={"ra": row["ra"], "dec": row["dec"], "radius": 0.5, "limit": 1000}).json()
    assert len(near["rows"]) == len(served.cone(row["ra"], row["dec"], 0.5))


def test_objects_have_everything_but_where_their_pixels_lie(client: TestClient) -> None:
    row = _first(client)
    found = client.get(f"/v1/objects/{row['targetid']}").json()
    assert found["targetid"] == row["targetid"]
    assert found["spectra"][0]["spectrum_id"] == row["spectrum_id"]
    assert found["spectra"][0]["why"]["version"] == 1
    assert "shard" not in found["spectra"][0]


def test_spectra_in_three_formats(client: TestClient, served: Survey) -> None:
    row = _first(client)
    truth = served.spectrum(int(row["targetid"]))
    url = f"/v1/spectra/{row['spectrum_id']}"
    as_json = client.get(url).json()
    np.testing.assert_array_equal(np.array(as_json["flux"], np.float32), truth.flux_L)
    assert as_json["units"]["wavelength"] == "Angstrom"
    assert len(as_json["reconstruction"]) == 7781
    arrow = pa.ipc.open_stream(client.get(url, params={"format": "arrow"}).content).read_all()
    np.testing.assert_array_equal(arrow["flux"].to_numpy(), truth.flux_L)
    assert arrow.schema.metadata[b"targetid"].decode() == row["targetid"]
    answer = client.get(url, params={"format": "fits"})
    assert answer.headers["content-type"] == "application/fits"
    with fits.open(io.BytesIO(answer.content)) as file:
        np.testing.assert_array_equal(file["CATALOG"].data["flux"], truth.flux_L)
    assert client.get(url, params={"reconstruct": False}).json()["reconstruction"] is None


def test_an_etag_saves_the_answer(client: TestClient) -> None:
    answer = client.get("/v1/anomalies?limit=3")
    again = client.get("/v1/anomalies?limit=3", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/v1/anomalies?limit=4", headers={"If-None-Match": answer.headers["etag"]}).status_code == 200


def test_lookalikes(client: TestClient) -> None:
    row = _first(client)
    found = client.get(f"/v1/similar/{row['targetid']}", params={"k": 4, "z_min": 0.5}).json()
    assert found["query"]["targetid"] == row["targetid"]
    assert len(found["rows"]) == 4
    assert all(one["z"] >= 0.5 and one["targetid"] != row["targetid"] for one in found["rows"])
    assert all(0 <= one["distance_percentile"] <= 100 for one in found["rows"])
    assert found["notice"] is None


def _upload(client: TestClient) -> tuple[dict, bytes]:
    row = _first(client)
    return row, client.get(f"/v1/spectra/{row['spectrum_id']}", params={"format": "fits"}).content


def test_uploads_are_scored_and_compared(client: TestClient, served: Survey) -> None:
    row, body = _upload(client)
    truth = served.facts(int(row["targetid"]))
    found = client.post("/v1/score", content=body).json()
    assert found["model"] == served.model_id
    assert found["rows"][0]["density"] == pytest.approx(truth["density"], rel=0.05)
    assert len(found["rows"][0]["embedding"]) == 8
    alike = client.post("/v1/similar-to-upload", params={"k": 3}, content=gzip.compress(body)).json()
    assert alike["query"] is None
    assert alike["rows"][0]["targetid"] == row["targetid"]


def test_runs_quality_model_columns(client: TestClient, served: Survey) -> None:
    assert client.get("/v1/model").json()["model_id"] == served.model_id
    assert [one["run_id"] for one in client.get("/v1/runs").json()["rows"]] == ["small"]
    assert {"stage", "name", "value", "unit"} <= set(client.get("/v1/quality").json()["rows"][0])
    columns = client.get("/v1/columns").json()["anomaly_catalog"]["columns"]
    assert all(one["description"] for one in columns)


BAD = {  # request → status and code
    "/v1/anomalies?limit=0": (422, "bad_parameter"),
    "/v1/anomalies?limit=100000": (422, "bad_parameter"),
    "/v1/anomalies?limit=abc": (422, "bad_parameter"),
    "/v1/anomalies?z_min=nan": (400, "out_of_range"),
    "/v1/anomalies?z_min=3&z_max=2": (400, "bad_query"),
    "/v1/anomalies?verdict=strange": (400, "bad_query"),
    "/v1/anomalies?ra=1": (400, "out_of_range"),
    "/v1/anomalies?ra=400&dec=0&radius=1": (400, "out_of_range"),
    "/v1/anomalies?ra=1&dec=-91&radius=1": (400, "out_of_range"),
    "/v1/anomalies?ra=1&dec=0&radius=11": (400, "out_of_range"),
    "/v1/anomalies?ra=1&dec=0&radius=-1": (400, "out_of_range"),
    "/v1/anomalies?model=another": (409, "changed"),
    "/v1/objects/1": (404, "not_found"),
    "/v1/objects/9999999999999999999": (404, "not_found"),
    "/v1/objects/abc": (422, "bad_parameter"),
    "/v1/spectra/1": (404, "not_found"),
    "/v1/spectra/1?format=png": (422, "bad_parameter"),
    "/v1/similar/1": (404, "not_found"),
    "/v1/nothing": (404, "no_such_path"),
}


@pytest.mark.parametrize("url", BAD)
def test_bad_requests(client: TestClient, url: str) -> None:
    answer = client.get(url)
    assert (answer.status_code, answer.json()["error"]["code"]) == BAD[url]
    assert answer.json()["error"]["message"]


def test_bad_lookalikes(client: TestClient) -> None:
    url = f"/v1/similar/{_first(client)['targetid']}"
    assert client.get(url, params={"k": 0}).status_code == 422
    answer = client.get(url, params={"q_max": 0.1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_query")
    assert client.delete(url).status_code == 405


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "not_a_spectrum"),
        (b"hello", 422, "not_a_spectrum"),
        (b"\x1f\x8b" + bytes(30), 422, "not_a_spectrum"),
        (gzip.compress(bytes(300 << 20), 1), 413, "too_large"),
    ],
)
def test_bad_uploads(client: TestClient, body: bytes, status: int, code: str) -> None:
    for url in ("/v1/score", "/v1/similar-to-upload"):
        answer = client.post(url, content=body, params={"z": 1})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_uploads_off_the_grid_or_without_redshift(client: TestClient) -> None:
    row, body = _upload(client)
    answer = client.post("/v1/score", content=body, params={"z": 15})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_redshift")
    with fits.open(io.BytesIO(body)) as file:
        del file["CATALOG"].header["Z"]
        file["CATALOG"].data["wavelength"] += 8000
        sink = io.BytesIO()
        file.writeto(sink)
    answer = client.post("/v1/score", content=sink.getvalue())
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_overlap")
    assert row


def test_bodies_have_a_limit_with_and_without_a_length(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.service import gate

    monkeypatch.setattr(gate, "MAX_BODY", 1000)
    answer = client.post("/v1/score", content=bytes(2000))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    answer = client.post("/v1/score", content=iter([bytes(600), bytes(600)]))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_model_promoted_in_the_middle_of_paging_is_a_conflict(client: TestClient, served: Survey) -> None:
    first = client.get("/v1/anomalies?limit=2").json()
    conn = postgres.connect(served.server_url)
    before = registry.promoted_model(conn)
    assert before is not None
    registry.register_model(conn, "other", run_id="small", uri="", data_hash="", config={}, metrics={})
    try:
        with transaction(conn) as cur:
            cur.execute("UPDATE promotion SET model_id = 'other'")
        answer = client.get(first["next"])
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "changed")
        assert "model other has been promoted since the first page" in answer.json()["error"]["message"]
    finally:
        with transaction(conn) as cur:
            cur.execute("UPDATE promotion SET model_id = %s", (before.model_id,))
            cur.execute("DROP TABLE scores_other; DELETE FROM models WHERE model_id = 'other'")
        conn.close()
    assert client.get(first["next"]).status_code == 200
