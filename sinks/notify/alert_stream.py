"""The alert stream over HTTP: server-sent events.

The id of each event is a position on the alerts topic, so a client that reconnects with the header
``Last-Event-ID`` continues after the last event it received, on any notifier.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, get_args
from urllib.parse import parse_qs

from confluent_kafka import Consumer, KafkaException, TopicPartition

from stepstream.common import kafka
from stepstream.schemas import documents
from stepstream.schemas.alert import Alert
from stepstream.schemas.documents import AlertMatch, Content
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.alert_tail import matches
from stepstream.sinks.notify.quoting import texts_of

HEARTBEAT_S: Final = 15.0
POLL_S: Final = 0.5
MAX_STREAMS: Final = 100
_OFFSETS: Final = re.compile(r"[0-9]{1,9}-[0-9]{1,18}(\.[0-9]{1,9}-[0-9]{1,18})*")


class BadQuery(ValueError):
    """A parameter or a header of a request is invalid."""


def match_of(query: str, other: Iterable[str] = ()) -> AlertMatch:
    """The filter of a query string: ``severity=critical&severity=error&agent=support*``.

    ``other`` are names of further parameters that the query may have. Raises ``BadQuery``.
    """
    given = parse_qs(query)
    for name in ("since", "content", *other):
        given.pop(name, None)
    fields: dict[str, Any] = {name: values[-1] for name, values in given.items()}
    if "severity" in given:
        fields["severity"] = tuple(part for value in given["severity"] for part in value.split(","))
    try:
        return documents.match_of(fields)
    except ValueError as error:
        raise BadQuery(str(error)) from None


def content_of(query: str) -> Content:
    """The parameter ``content``: ``none``, ``redacted`` or, by default, ``full``."""
    given = parse_qs(query).get("content", ["full"])[-1]
    if given not in get_args(Content):
        raise BadQuery(f"content={given}: use {', '.join(get_args(Content))}")
    return given  # type: ignore[return-value]  # checked above


def offsets_of(event_id: str) -> dict[int, int]:
    """The next offset of each partition after the event of that id. Raises ``BadQuery``."""
    if event_id and not _OFFSETS.fullmatch(event_id):
        raise BadQuery("Last-Event-ID is not an id of this stream")
    pairs = [part.split("-") for part in event_id.split(".")] if event_id else []
    return {int(number): int(offset) for number, offset in pairs}


def alert_record(alert: Alert, content: Content) -> str:
    """The alert's record as JSON on one line, with texts as ``content`` allows."""
    return alert.model_copy(update=texts_of(alert, content)).model_dump_json()


class AlertStream:
    """The stream of one client, with a consumer of its own that is in no group."""

    def __init__(
        self,
        settings: Settings,
        match: AlertMatch,
        after: dict[int, int],
        *,
        earliest: bool = False,
        content: Content = "full",
    ) -> None:
        """Starts at the offsets ``after``; without any, at the end or the ``earliest`` record."""
        self._match = match
        self._content = content
        self._topic = topic(settings.topic_prefix, "alerts")
        self._consumer: Consumer = kafka.consumer(settings, "stepstream-reader", **{"log_level": 2})
        self.offsets: dict[int, int] = {}
        for number in range(kafka.partition_count(self._consumer, self._topic)):
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, number), timeout=10
            )
            # A partition that the id does not name was added later: all of it is new.
            start = low if earliest or after else high
            self.offsets[number] = min(high, max(low, after.get(number, start)))
        self._consumer.assign(
            [TopicPartition(self._topic, number, offset) for number, offset in self.offsets.items()]
        )

    def events(self, stop: Callable[[], bool]) -> Iterator[bytes]:
        """The encoded events, and a comment every ``HEARTBEAT_S`` to detect lost connections."""
        yield b"retry: 1000\n\n"
        heartbeat_at = time.monotonic() + HEARTBEAT_S
        while not stop():
            event = self._next_event()
            now = time.monotonic()
            if event is not None:
                heartbeat_at = now + HEARTBEAT_S
                yield event
            elif now > heartbeat_at:
                heartbeat_at = now + HEARTBEAT_S
                yield f": {self._id()}\n\n".encode()

    def _next_event(self) -> bytes | None:
        """The event of the next record; None if there is none, or it does not match."""
        message = self._consumer.poll(POLL_S)
        if message is None:
            return None
        error = message.error()
        if error is not None:
            if error.fatal():
                raise KafkaException(error)
            return None
        number, offset = kafka.position_of(message)
        self.offsets[number] = offset + 1
        value = message.value()
        alert = _decode(value)
        if alert is None or value is None or not matches(self._match, alert):
            return None
        if self._content != "full":
            value = alert_record(alert, self._content).encode()
        return b"event: alert\nid: %s\ndata: %s\n\n" % (self._id().encode(), value)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def _id(self) -> str:
        return ".".join(f"{number}-{offset}" for number, offset in sorted(self.offsets.items()))


def _decode(value: bytes | None) -> Alert | None:
    # A line break would end the line of an event.
    if not value or b"\n" in value or b"\r" in value:
        return None
    try:
        return Alert.model_validate_json(value)
    except ValueError:
        return None


class StreamLimit:
    """Counts open streams, up to a limit. Thread-safe."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.open = 0

    def enter(self) -> bool:
        """Count one more stream. False if the limit is reached."""
        with self._lock:
            if self.open >= self._limit:
                return False
            self.open += 1
            return True

    def leave(self) -> None:
        """Count one stream less."""
        with self._lock:
            self.open -= 1
