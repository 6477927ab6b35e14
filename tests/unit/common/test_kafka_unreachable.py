"""The error for a broker that does not answer names what to check."""

from __future__ import annotations

import socket

from stepstream.common.kafka import unreachable


def test_a_port_that_takes_connections_may_require_a_login() -> None:
    """librdkafka reports a broker that refuses clients without a login as a time-out."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = str(unreachable(f"127.0.0.1:{server.getsockname()[1]}", 5, RuntimeError("timeout")))
    assert "may require authentication or TLS: set kafka_sasl_mechanism" in text


def test_a_port_without_a_listener_is_a_wrong_address() -> None:
    """Then the address is the first thing to check."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = str(unreachable(f"127.0.0.1:{port}", 5, RuntimeError("refused")))
    assert text.endswith("is it running, and is kafka_brokers right?")
