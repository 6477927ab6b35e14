"""A gateway in this process, and a plain client for it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from stepstream.admin.gateway import sender
from stepstream.admin.topics import TIMEOUT_S, create_topics
from stepstream.common.kafka import read_to_end
from stepstream.producers.gateway.service.process import Gateway
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import AnyStep
from stepstream.schemas.topics import topic
from tests.support.processes import PATIENCE, wait_until

JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@contextmanager
def running(settings: Settings, *, with_topics: bool = True) -> Iterator[Gateway]:
    """A gateway that answers, until the block ends."""
    if with_topics:
        create_topics(settings, timeout=TIMEOUT_S * PATIENCE)
    gateway = Gateway(settings, sender(settings))
    gateway.server.start("gateway")
    try:
        if with_topics:
            # Before, it answers 503: a test would measure the start of the client.
            wait_until(lambda: gateway.writer.connected, 30, "the gateway has found Kafka")
        yield gateway
    finally:
        gateway.close()


def post(
    gateway: Gateway | str,
    path: str,
    body: bytes | Any,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    timeout_s: float = 30,
) -> Answer:
    """Send a body (bytes, or anything as JSON) and read the answer."""
    url = gateway if isinstance(gateway, str) else gateway.server.url
    host = url.partition("//")[2]
    connection = http.client.HTTPConnection(host, timeout=timeout_s)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, headers or JSON)
        answer = connection.getresponse()
        return Answer(
            answer.status,
            answer.read(),
            {name.lower(): value for name, value in answer.getheaders()},
        )
    finally:
        connection.close()


def stored_steps(settings: Settings) -> list[AnyStep]:
    """Every step in Kafka."""
    name = topic(settings.topic_prefix, "steps")
    found = []
    for message in read_to_end(settings, name):
        step = msgspec.json.decode(message.value() or b"", type=AnyStep)
        # Holds for every step of every test: another key would be another partition.
        assert message.key() == step.trace_id.encode()
        found.append(step)
    return found


class Stored(NamedTuple):
    """A record of the steps topic."""

    key: bytes | None
    value: bytes | None
    partition: int
    timestamp_ms: int
    headers: list[tuple[str, bytes]]


def stored_records(settings: Settings) -> list[Stored]:
    """Every record of the steps topic, as it is."""
    found = []
    for message in read_to_end(settings, topic(settings.topic_prefix, "steps")):
        headers: Any = message.headers() or []
        key: Any = message.key()
        place = message.partition()
        assert place is not None
        found.append(Stored(key, message.value(), place, message.timestamp()[1], headers))
    return found


def stored_letters(settings: Settings) -> list[dict[str, str]]:
    """The headers of every record in the dead letter."""
    found = []
    for message in read_to_end(settings, topic(settings.topic_prefix, "deadletter")):
        headers: Any = message.headers() or []
        found.append({name: value.decode() for name, value in headers})
    return found
