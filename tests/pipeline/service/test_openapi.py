"""Schemathesis over the OpenAPI description: whatever is asked, no answer is a server's fault."""

from __future__ import annotations

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from starlette.testclient import TestClient

pytestmark = [
    pytest.mark.servers,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of schemathesis and what it is made of
]
EXAMPLES = 25  # of each operation
PATHS = ("/v1/anomalies", "/v1/objects/{targetid}", "/v1/spectra/{spectrum_id}", "/v1/similar/{targetid}", "/v1/score",
         "/v1/similar-to-upload", "/v1/model", "/v1/runs", "/v1/quality", "/v1/columns", "/health", "/ready",
         "/metrics")  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_answer_is_a_servers_fault(client: TestClient, path: str) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {one.path for one in operations} == set(PATHS)
    for operation in (one for one in operations if one.path == path):
        _ask(operation)


def _ask(operation: schemathesis.APIOperation) -> None:
    @hypothesis.given(case=operation.as_strategy())
    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=[not_a_server_error])

    ask()
