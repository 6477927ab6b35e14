"""The two forms of the setting ``endpoint``."""

from __future__ import annotations

import pytest

from stepstream.common.settings import SettingsError, load
from stepstream.schemas.endpoint import is_http, is_loopback_host, split_http_endpoint


@pytest.mark.parametrize(
    ("endpoint", "parts"),
    [
        ("https://gateway.example", ("https://gateway.example", "gateway.example", "")),
        ("http://127.0.0.1:4318/", ("http://127.0.0.1:4318", "127.0.0.1", "")),
        ("https://[::1]:8/in/v1/steps", ("https://[::1]:8", "[::1]", "/in")),
        ("https://host/v1/traces", ("https://host", "host", "")),
    ],
)
def test_a_gateway(endpoint: str, parts: tuple[str, str, str]) -> None:
    """A copied path of the gateway itself is left out; a prefix of a proxy stays."""
    assert is_http(endpoint)
    assert split_http_endpoint(endpoint) == parts


@pytest.mark.parametrize("endpoint", ["https://", "https://user:pw@host", "http://host?x=1"])
def test_what_is_no_gateway(endpoint: str) -> None:
    """A login is refused, because addresses are printed."""
    with pytest.raises(ValueError, match="write http"):
        split_http_endpoint(endpoint)
    with pytest.raises(SettingsError, match="endpoint_key"):
        load(environ={"STEPSTREAM_ENDPOINT": endpoint})


def test_loopback() -> None:
    """Requests to this machine are not compressed."""
    assert all(map(is_loopback_host, ("localhost", "127.0.0.1", "[::1]")))
    assert not is_loopback_host("gateway.example")


def test_a_gateway_and_brokers() -> None:
    """Brokers of an earlier source replace the gateway; of the same source both are kept."""
    given = {"STEPSTREAM_ENDPOINT": "https://host"}
    assert load(environ=given).endpoint == "https://host"
    assert load(environ=given, kafka_brokers="a:1").endpoint == ""
    both = load(environ={**given, "STEPSTREAM_KAFKA_BROKERS": "a:1"})
    assert (both.endpoint, both.kafka_brokers) == ("https://host", "a:1")
