"""Sends refused records to the dead letter, with the reason; a limited number of those that the
store refused.
"""

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
from stepstream.schemas.topics import LETTER_BYTES, topic
from stepstream.sinks.batching.records import STORE_REFUSED, Refused

MAX_REFUSED: Final = 100
REFUSED_WITHIN_S: Final = 600.0
SEND_S: Final = 30.0


class TooManyRefused(Exception):
    """The store refused so many records in a short time that the rows are unlikely to be the
    reason.
    """


class RefusalLimit:
    """Allows ``records`` refused records within ``seconds``.

    A store with a defect that refuses everything must not empty a topic into the dead letter.
    """

    def __init__(self, records: int = MAX_REFUSED, seconds: float = REFUSED_WITHIN_S) -> None:
        self._records = records
        self._seconds = seconds
        self._times: deque[float] = deque()

    def allows(self, count: int, now: float) -> bool:
        """Whether ``count`` more are within the limit; if so they are counted."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        if len(self._times) + count > self._records:
            return False
        self._times.extend([now] * count)
        return True


class DeadLetters:
    """Sends refused records and waits for the acknowledgement. For several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = topic(settings.topic_prefix, "deadletter")
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._limit = RefusalLimit()

    def close(self) -> None:
        """Drop the connection."""
        self._producer = None

    def send(
        self, refused: Sequence[Refused], source: str, partition: int, *, again: bool = False
    ) -> None:
        """Send them. ``again``: they may have been sent before, so those in the dead letter already
        are left out.

        Raises ``KafkaUnreachable`` when they are not acknowledged, ``TooManyRefused`` when they are
        too many.
        """
        with self._lock:
            if again:
                since_ms = min(item.record.timestamp_ms for item in refused)
                known = letters_since(self._settings, since_ms)
                refused = [
                    item for item in refused if (source, partition, item.record.offset) not in known
                ]
            # A record that our own checks refuse is no sign of a defect of the store.
            by_store = sum(item.reason == STORE_REFUSED for item in refused)
            if not self._limit.allows(by_store, time.monotonic()):
                raise TooManyRefused(
                    f"the store refused more than {MAX_REFUSED} records within "
                    f"{REFUSED_WITHIN_S / 60:.0f} minutes, "
                    f"the last one of {source} because of: {refused[-1].detail}"
                )
            if self._producer is None:
                self._producer = producer(self._settings, **{"message.max.bytes": LETTER_BYTES})
            letters = [
                Outgoing(
                    self._name,
                    item.record.key,
                    item.record.value,
                    letter_headers(
                        item.record.headers,
                        (source, partition, item.record.offset),
                        item.reason,
                        item.detail,
                        "sink",
                    ),
                )
                for item in refused
            ]
            try:
                send_and_wait(self._producer, letters, SEND_S)
            except KafkaUnreachable:
                # It would send the rest later, after this batch was reported as not sent.
                self._producer = None
                raise
