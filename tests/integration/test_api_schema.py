"""The API against its own OpenAPI document: schemathesis sends what the document allows, and what it does not."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.up_process import KEY, Up, line, running_up, send, wait_for_gpus

STREAMS = {"/api/v1/live", "/api/v1/fleet/live"}
"""They do not end; test_api_live.py has them."""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up"), environment={"API_RATE_LIMIT": "100000/second"}) as up:
        send(up.grpc, [line(gpu, gpu) for gpu in range(8)])
        wait_for_gpus(up, 8)
        yield up


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
def test_every_answer_is_one_that_the_document_promises(up: Up, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{up.url}/swagger/openapi.json").exclude(path=sorted(STREAMS))
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    asked = 0
    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        def ask(case: Any) -> None:
            case.validate_response(case.call(headers={"X-API-Key": KEY}), checks=CHECKS)

        try:
            ask()
            asked += 1
        except Unsatisfiable:  # nothing can be wrong about a request without parameters
            assert mode is GenerationMode.NEGATIVE
    assert asked > 10


def test_the_document_is_openapi_3_1_and_its_examples_work(up: Up) -> None:
    with up.client() as client:
        document = client.get("/swagger/openapi.json").json()
        assert document["openapi"].startswith("3.1")
        assert {scheme["type"] for scheme in document["components"]["securitySchemes"].values()} == {"apiKey", "http"}
        example = document["components"]["schemas"]["TelemetryPoint"]["example"]
        assert client.post("/telemetry", json=example).json() == {"accepted": 1, "status": "accepted"}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert operation["summary"], (method, path)
