"""Tokens, rates, the access log and the metrics; stores that are down."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from pipeline import Survey
from pipeline.cli import skysift
from pipeline.errors import ConfigError
from pipeline.service import tokens
from pipeline.service.app import create_app

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "tokens.json"
    made = {"reader": ("read",), "scorer": ("read", "score"), "watcher": ("metrics",)}
    found = {name: tokens.add(path, name, scopes, 1) for name, scopes in made.items()}
    found["late"] = tokens.add(path, "late", ("read",), -1)
    return found


@pytest.fixture
def guarded(served: Survey, secrets: dict[str, str], tmp_path: Path) -> Iterator[TestClient]:
    assert secrets
    known = tokens.read(tmp_path / "tokens.json")
    with TestClient(create_app(served, known=known, rate=1e6), raise_server_exceptions=False) as client:
        yield client


def _with(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_who_may_do_what(guarded: TestClient, secrets: dict[str, str]) -> None:
    def ask(path: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, str]:
        answer = guarded.request(method, path, headers=headers)
        told = answer.json().get("error", {}) if "json" in answer.headers.get("content-type", "") else {}
        return answer.status_code, told.get("code", "")

    page = "/v1/anomalies?limit=1"
    assert ask("/health") == (200, "")
    assert ask(page) == (401, "no_token")
    assert ask(page, {"Authorization": "Basic eDp5"}) == (401, "no_token")
    assert ask(page, _with("skysift_wrong")) == (401, "wrong_token")
    assert ask(page, _with(secrets["late"])) == (401, "expired_token")
    assert ask(page, _with(secrets["watcher"])) == (403, "out_of_scope")
    assert ask(page, _with(secrets["reader"])) == (200, "")
    assert ask("/v1/score?z=1", _with(secrets["reader"]), "POST") == (403, "out_of_scope")
    assert ask("/v1/score?z=1", _with(secrets["scorer"]), "POST") == (422, "not_a_spectrum")
    assert ask("/metrics", _with(secrets["reader"])) == (403, "out_of_scope")
    assert ask("/metrics", _with(secrets["watcher"])) == (200, "")
    answer = guarded.get("/tap/sync?QUERY=x")
    assert answer.status_code == 401
    assert b'value="ERROR"' in answer.content
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_file_has_hashes_alone_and_is_its_owners(secrets: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    text = path.read_text()
    assert not any(secret in text or secret[8:] in text for secret in secrets.values())
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="has a token named reader already"):
        tokens.add(path, "reader", ("read",), 1)
    with pytest.raises(ConfigError, match="'write' is no scope"):
        tokens.add(path, "x", ("write",), 1)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        tokens.read(path)
    path.chmod(0o600)
    path.write_text("[1]")
    with pytest.raises(ConfigError, match="is no file of tokens"):
        tokens.read(path)
    with pytest.raises(ConfigError, match="there is no"):
        tokens.read(tmp_path / "none")


def test_beyond_this_machine_a_token_is_needed(tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(skysift, ["serve", "--host", "0.0.0.0", "-w", str(tmp_path)], standalone_mode=False)
    assert isinstance(result.exception, ConfigError)
    assert "give --tokens FILE" in str(result.exception)
    file = str(tmp_path / "t.json")
    result = runner.invoke(skysift, ["serve", "--tokens", file, "--new-token", "ann", "--scope", "read"])
    assert result.output.startswith("skysift_")
    assert tokens.find(tokens.read(file), result.output.strip()) is not None


def test_a_client_that_asks_too_fast_is_told_to_wait(served: Survey) -> None:
    with TestClient(create_app(served, rate=1.0)) as client:
        answers = [client.get("/v1/nothing") for _ in range(6)]
        assert [one.status_code for one in answers] == [404, 404, 404, 404, 429, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert client.get("/health").status_code == 200


def test_the_access_log_tells_what_happened_without_secrets(
    guarded: TestClient, secrets: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("skysift.access")
    log.propagate = True
    with caplog.at_level(logging.INFO, "skysift.access"):
        guarded.get("/v1/objects/1?key=topsecret", headers=_with(secrets["reader"]))
        guarded.get("/v1/anomalies", headers=_with("skysift_wrong"))
    first, second = (json.loads(record.message) for record in caplog.records if record.name == "skysift.access")
    assert (first["route"], first["status"], first["token"]) == ("/v1/objects/{targetid}", 404, "reader")
    assert first["ms"] > 0
    assert (second["status"], second["token"]) == (401, None)
    text = caplog.text
    assert not any(secret in text for secret in secrets.values())
    assert "topsecret" not in text
    assert "skysift_wrong" not in text


def test_metrics_count_by_route(client: TestClient) -> None:
    client.get("/v1/objects/1")
    text = client.get("/metrics").text
    assert 'skysift_requests_total{route="/v1/objects/{targetid}",status="404"}' in text
    assert "skysift_request_seconds_bucket" in text
