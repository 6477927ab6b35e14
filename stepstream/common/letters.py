"""Writes records and batches that cannot be read to the dead letter, each once.

Imports only schemas and ``common.kafka``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from confluent_kafka import Message, TopicPartition

from stepstream.common.kafka import (
    BadBatch,
    Outgoing,
    consumer,
    partition_count,
    position_of,
    producer,
    read_to_end,
    send_and_wait,
)
from stepstream.schemas.batches import UNREADABLE, batch_finding, describe
from stepstream.schemas.deadletter import OURS, Source, letter_headers, source_of
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_MS
from stepstream.schemas.topics import LETTER_BYTES, topic

SEND_S: Final = 30.0
EARLIER_MS: Final = 60_000
"""How much the clocks of producers and brokers may differ."""


REFUSED_BEFORE_MS: Final = DAY_MS
"""A batch that was noted within the last day is not noted again."""


class Unreadable(NamedTuple):
    """A record of a topic (its name without prefix) that cannot be decoded."""

    topic: str
    message: Message
    detail: str

    @property
    def source(self) -> Source:
        """Its topic, partition and offset."""
        return (self.topic, *position_of(self.message))


def letter_source(message: Message) -> Source | None:
    """The topic, partition and offset that a letter came from; None where it has no such
    headers.
    """
    headers: Any = message.headers() or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return source_of({name: _text(value) for name, value in pairs if name in OURS})


def letters_since(settings: Settings, since_ms: int) -> set[Source]:
    """The sources of the letters written since. Raises ``KafkaUnreachable``, ``KafkaException``."""
    name = topic(settings.topic_prefix, "deadletter")
    client = consumer(settings, "stepstream-reader")
    try:
        since = max(0, since_ms - EARLIER_MS)
        asked = [
            TopicPartition(name, partition, since)
            for partition in range(partition_count(client, name))
        ]
        starts = client.offsets_for_times(asked, timeout=10) if asked else []
    finally:
        client.close()
    found: set[Source] = set()
    for start in starts:
        if start.offset >= 0:  # otherwise nothing was written since
            for message in read_to_end(settings, name, [start.partition], offset=start.offset):
                source = letter_source(message)
                if source is not None:
                    found.add(source)
    return found


def time_of(settings: Settings, full_name: str, partition: int, offset: int) -> int:
    """The append time (ms) of the first record at or after an offset; 0 without one.

    Raises ``KafkaUnreachable``.
    """
    for message in read_to_end(settings, full_name, [partition], offset=offset):
        return max(0, message.timestamp()[1])
    return 0


def write_letters(settings: Settings, unreadable: Sequence[Unreadable], by: str) -> None:
    """Send the records that are not in the dead letter yet. Raises ``KafkaUnreachable``."""
    if not unreadable:
        return
    known = letters_since(settings, min(item.message.timestamp()[1] for item in unreadable))
    name = topic(settings.topic_prefix, "deadletter")
    records = [
        Outgoing(
            name,
            item.message.key(),
            item.message.value(),
            letter_headers(_pairs(item.message), item.source, "unreadable", item.detail, by),
        )
        for item in unreadable
        if item.source not in known
    ]
    send_and_wait(producer(settings, **{"message.max.bytes": LETTER_BYTES}), records, SEND_S)


def refuse_batch(settings: Settings, batch: BadBatch, name: str, by: str) -> None:
    """Record in the dead letter and in a finding that a batch of a topic (without prefix) is
    skipped.

    Does nothing if that was recorded within the last day. Raises ``KafkaUnreachable``.
    """
    source = (name, batch.partition, batch.last)
    if source in letters_since(settings, batch.met_ms - REFUSED_BEFORE_MS):
        return
    headers = letter_headers(
        (), source, UNREADABLE, describe(batch.first, batch.last, batch.why), by
    )
    finding = batch_finding(
        name, batch.partition, batch.first, batch.last, batch.why, batch.met_ms * 1000
    )
    key = finding.project.encode()
    prefix = settings.topic_prefix
    records = [
        Outgoing(topic(prefix, "deadletter"), key, None, headers),
        Outgoing(topic(prefix, "findings"), key, msgspec.json.encode(finding)),
    ]
    send_and_wait(producer(settings), records, SEND_S)


def _pairs(message: Message) -> Iterable[tuple[str, bytes]]:
    headers: Any = message.headers() or ()
    return list(headers.items()) if isinstance(headers, dict) else list(headers)


def _text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else (value or b"").decode("utf-8", "replace")
