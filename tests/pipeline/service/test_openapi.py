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


@pytest.fixture
def api(client: TestClient) -> schemathesis.schemas.BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", client.app)


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@hypothesis.settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)
def test_no_answer_is_a_servers_fault(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=[not_a_server_error])
