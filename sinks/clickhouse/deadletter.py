"""Records that were refused, sent to the dead-letter topic with the reason; of those that the store refused only so many."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaException, Producer

from stepstream.kafka import producer
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import (
    DEADLETTER_BY,
    DEADLETTER_DETAIL,
    DEADLETTER_OFFSET,
    DEADLETTER_PARTITION,
    DEADLETTER_REASON,
    DEADLETTER_TOPIC,
    topic,
)
from stepstream.sinks.clickhouse.records import STORE_REFUSED, Record, Refused

FUSE_RECORDS: Final = 100
FUSE_S: Final = 600.0


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

    def send(self, refused: Sequence[Refused], source: str, partition: int) -> None:
        """Send them. Raises ``KafkaException`` when they are not acknowledged, ``FuseBlown`` when they are too many."""
        with self._lock:
            wrong = sum(item.reason == STORE_REFUSED for item in refused)  # what we refuse says nothing about the store
            if not self._fuse.allows(wrong, time.monotonic()):
                raise FuseBlown(
                    f"the store refused more than {FUSE_RECORDS} records within {FUSE_S / 60:.0f} minutes, "
                    f"the last one of {source} because of: {refused[-1].detail}"
                )
            if self._producer is None:
                self._producer = producer(self._settings, **{"message.max.bytes": 4 * 1_048_576})
            failures: list[object] = []
            for item in refused:
                self._producer.produce(
                    self._name,
                    item.record.value,
                    item.record.key,
                    headers=dead_letter_headers(item, source, partition),
                    on_delivery=lambda error, _message: failures.append(error) if error is not None else None,
                )
            left = self._producer.flush(30)
            if failures or left:
                raise KafkaException(failures[0] if failures else f"{left} dead letters are not acknowledged")


class FuseBlown(Exception):
    """The store refused too many records in a short time."""


def dead_letter_headers(refused: Refused, source: str, partition: int) -> list[tuple[str, str | bytes | None]]:
    """The record's own headers, and where it came from and why; ``source`` is the topic's name without prefix."""
    record: Record = refused.record
    ours = {
        DEADLETTER_TOPIC: source,
        DEADLETTER_PARTITION: str(partition),
        DEADLETTER_OFFSET: str(record.offset),
        DEADLETTER_REASON: refused.reason,
        DEADLETTER_DETAIL: refused.detail[:2_000],
        DEADLETTER_BY: "sink",
    }
    headers: list[tuple[str, str | bytes | None]] = [(n, value) for n, value in record.headers or () if n not in ours]
    headers.extend((name, value.encode()) for name, value in ours.items())
    return headers
