"""Records that were refused, sent to the dead-letter topic with the reason; of those that the store refused only so many."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from confluent_kafka import Producer

from stepstream.common.kafka import KafkaUnreachable, Outgoing, producer, send_and_wait
from stepstream.common.letters import letters_since
from stepstream.schemas.deadletter import letter_headers
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse.records import STORE_REFUSED, Record, Refused

FUSE_RECORDS: Final = 100
FUSE_S: Final = 600.0
SEND_S: Final = 30.0


class Fuse:
    """Blows when the store refuses more than ``records`` within ``seconds``: then the rows are not what is wrong."""

    def __init__(self, records: int = FUSE_RECORDS, seconds: float = FUSE_S) -> None:
        self._records = records
        self._seconds = seconds
        self._times: deque[float] = deque()

    def allows(self, count: int, now: float) -> bool:
        """Whether ``count`` more may go; they are counted if so."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        if len(self._times) + count > self._records:
            return False
        self._times.extend([now] * count)
        return True


class DeadLetters:
    """Sends refused records, acknowledged before it returns. For several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = topic(settings.topic_prefix, "deadletter")
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._fuse = Fuse()

    def close(self) -> None:
        """Let go of the connection."""
        self._producer = None

    def send(
        self, refused: Sequence[Refused], source: str, partition: int, *, again: bool = False
    ) -> None:
        """Send them. ``again``: they may have been sent before, so it is looked first which lie there already.

        Raises ``KafkaUnreachable`` when they are not acknowledged, ``FuseBlown`` when they are too many.
        """
        with self._lock:
            if again:
                since_ms = min(item.record.timestamp_ms for item in refused)
                known = letters_since(self._settings, since_ms)
                refused = [
                    item for item in refused if (source, partition, item.record.offset) not in known
                ]
            wrong = sum(
                item.reason == STORE_REFUSED for item in refused
            )  # what we refuse says nothing about the store
            if not self._fuse.allows(wrong, time.monotonic()):
                raise FuseBlown(
                    f"the store refused more than {FUSE_RECORDS} records within {FUSE_S / 60:.0f} minutes, "
                    f"the last one of {source} because of: {refused[-1].detail}"
                )
            if self._producer is None:
                self._producer = producer(self._settings, **{"message.max.bytes": 4 * 1_048_576})
            letters = [
                Outgoing(
                    self._name,
                    item.record.key,
                    item.record.value,
                    dead_letter_headers(item, source, partition),
                )
                for item in refused
            ]
            try:
                send_and_wait(self._producer, letters, SEND_S)
            except KafkaUnreachable:
                self._producer = None  # it would send the rest later, when nobody counts it
                raise


class FuseBlown(Exception):
    """The store refused too many records in a short time."""


def dead_letter_headers(refused: Refused, source: str, partition: int) -> list[tuple[str, bytes]]:
    """The record's own headers, and where it came from and why; ``source`` is the topic's name without prefix."""
    record: Record = refused.record
    return letter_headers(
        record.headers, (source, partition, record.offset), refused.reason, refused.detail, "sink"
    )
