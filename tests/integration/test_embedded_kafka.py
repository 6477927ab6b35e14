"""The embedded broker: what is acknowledged stays, one instance owns a folder, nothing outlives its owner."""

from __future__ import annotations

from confluent_kafka import Producer


def test_a_record_is_acknowledged(kafka_bootstrap: str) -> None:
    """The shared broker takes records as soon as the fixture hands it out."""
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    errors: list[object] = []
    producer.produce("__stepstream_ready", b"x", callback=lambda error, _message: errors.append(error))
    assert producer.flush(10) == 0
    assert errors == [None]
