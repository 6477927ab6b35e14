"""The published description and the application agree, for every request of the description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from stepstream.common.web.server import WebServer
from stepstream.producers.gateway.service.openapi import document
from tests.support.gateway import post
from tests.support.gateway_app import HOST, App

# The paths of control need Kafka; the integration tests have them.
DATA_PATHS = "^/v1/(traces|logs|metrics|steps)$"
CHECKS: Any = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@schemathesis.serializer("application/x-protobuf", "application/x-ndjson")
def _bytes(_context: Any, value: Any) -> bytes:
    """Generated bodies of these types as they are."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


schema = schemathesis.openapi.from_dict(document()).include(path_regex=DATA_PATHS)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A real server around the application; what is taken goes nowhere."""
    server = WebServer(App().asgi, HOST, 0)
    server.start("openapi")
    yield server.url
    server.close()


@schema.parametrize()
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_the_description_allows_gets_a_described_answer(case: Any, url: str) -> None:
    """Valid and invalid requests get a described status, type and form, and never a 500."""
    case.call_and_validate(base_url=url, checks=CHECKS)


def test_the_description_is_published(url: str) -> None:
    """And is generated from the code."""
    answer = post(url, "/openapi.json", b"", method="GET")
    assert answer.status == 200
    assert answer.json == json.loads(json.dumps(document()))
