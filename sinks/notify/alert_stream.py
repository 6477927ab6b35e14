"""The alert stream over HTTP: server-sent events, each with a position, so that who comes back goes on where it left off."""

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

BEAT_S: Final = 15.0
SLICE_S: Final = 0.5
_PLACES: Final = re.compile(r"[0-9]{1,9}-[0-9]{1,18}(\.[0-9]{1,9}-[0-9]{1,18})*")


class BadQuery(ValueError):
    """A question that cannot be answered; says why."""


def match_of(query: str, besides: Iterable[str] = ()) -> AlertMatch:
    """The filter that a query asks for: ``severity=critical&severity=error&agent=support*``. Raises ``BadQuery``.

    ``besides`` are further parameters that the query may have.
    """
    given = parse_qs(query)
    for other in ("since", "content", *besides):
        given.pop(other, None)
    fields: dict[str, Any] = {name: values[-1] for name, values in given.items()}
    if "severity" in given:
        fields["severity"] = tuple(part for value in given["severity"] for part in value.split(","))
    try:
        return documents.match_of(fields)
    except ValueError as error:
        raise BadQuery(str(error)) from None


def content_of(query: str) -> Content:
    """What of the contents of steps is wanted: ``content=none``, ``redacted`` or ``full``, which it is by default."""
    given = parse_qs(query).get("content", ["full"])[-1]
    if given not in get_args(Content):
        raise BadQuery(f"content={given}: one of {', '.join(get_args(Content))}")
    return given  # type: ignore[return-value]  # it is one of them


def places_of(event_id: str) -> dict[int, int]:
    """Where the event of that id left off: the next offset of each partition. Raises ``BadQuery``."""
    if event_id and not _PLACES.fullmatch(event_id):
        raise BadQuery("Last-Event-ID is none of ours")
    pairs = [part.split("-") for part in event_id.split(".")] if event_id else []
    return {int(number): int(offset) for number, offset in pairs}


def alert_record(alert: Alert, content: Content) -> str:
    """The alert's record as JSON on one line, without what is not wanted."""
    return alert.model_copy(update=texts_of(alert, content)).model_dump_json()


class AlertStream:
    """One subscriber's stream: a consumer of its own, outside any group, from now on or from where it left off."""

    def __init__(
        self,
        settings: Settings,
        match: AlertMatch,
        after: dict[int, int],
        *,
        earliest: bool = False,
        content: Content = "full",
    ) -> None:
        self._match = match
        self._content = content
        self._topic = topic(settings.topic_prefix, "alerts")
        self._consumer: Consumer = kafka.consumer(settings, "stepstream-reader", **{"log_level": 2})
        count = kafka.partition_count(self._consumer, self._topic)
        self.places: dict[int, int] = {}
        for number in range(count):
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, number), timeout=10
            )
            start = low if earliest else high
            self.places[number] = min(high, max(low, after.get(number, low if after else start)))
        self._consumer.assign(
            [TopicPartition(self._topic, number, place) for number, place in self.places.items()]
        )

    def events(self, stop: Callable[[], bool]) -> Iterator[bytes]:
        """Events as they go over the wire, and a comment now and then so that both sides know the other is there."""
        yield b"retry: 1000\n\n"
        beat_at = time.monotonic() + BEAT_S
        while not stop():
            message = self._consumer.poll(SLICE_S)
            if message is None:
                if time.monotonic() > beat_at:
                    beat_at = time.monotonic() + BEAT_S
                    yield f": {self._id()}\n\n".encode()
                continue
            error = message.error()
            if error is not None:
                if error.fatal():
                    raise KafkaException(error)
                continue
            number, offset = kafka.position_of(message)
            self.places[number] = offset + 1
            value = message.value()
            alert = self._alert(value)
            if alert is not None and value is not None and matches(self._match, alert):
                beat_at = time.monotonic() + BEAT_S
                data = (
                    value
                    if self._content == "full"
                    else alert_record(alert, self._content).encode()
                )
                yield b"event: alert\nid: %s\ndata: %s\n\n" % (self._id().encode(), data)

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _id(self) -> str:
        return ".".join(f"{number}-{place}" for number, place in sorted(self.places.items()))

    def _alert(self, value: bytes | None) -> Alert | None:
        if not value or b"\n" in value or b"\r" in value:  # either would end a line of an event
            return None
        try:
            return Alert.model_validate_json(value)
        except ValueError:
            return None


class StreamLimit:
    """How many streams are open; there is a bound. Used by many threads."""

    def __init__(self, most: int = 100) -> None:
        self._most = most
        self._guard = threading.Lock()
        self.open = 0

    def enter(self) -> bool:
        """Whether one more may open."""
        with self._guard:
            if self.open >= self._most:
                return False
            self.open += 1
            return True

    def leave(self) -> None:
        """One has closed."""
        with self._guard:
            self.open -= 1
