"""The newest record of each key of a topic, kept up to date as it is asked for: the second question costs what is new."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

import msgspec
from confluent_kafka import Consumer, TopicPartition

from stepstream.common import kafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

TAIL_RECORDS: Final = 100_000
"""Of each partition so many records, the newest, are looked at."""
MOST_RECORDS: Final = 50_000
MOST_BYTES: Final = 128 << 20
"""Keys that changed last are kept, so many and of so many bytes."""
_TIMEOUT_S: Final = 10.0
R = TypeVar("R")


class Latest(Generic[R]):
    """Used by many threads, one at a time."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        decode: Callable[[bytes], R],
        key: Callable[[R], Hashable],
        order: Callable[[R], int],
        age: Callable[[R], int],
    ) -> None:
        """``decode`` raises ``ValueError`` or msgspec's errors for what is no record.

        ``order`` grows with the records of a key, ``age`` is a time.
        """
        self._settings = settings
        self._topic = topic(settings.topic_prefix, name)
        self._decode = decode
        self._key = key
        self._order = order
        self._age = age
        self._guard = threading.Lock()
        self._consumer: Consumer | None = None
        self._places: dict[int, int] = {}
        self._held: dict[Hashable, tuple[R, int]] = {}
        self._bytes = 0

    def records(self) -> list[R]:
        """The newest record of each key as of now, in no order. Raises ``KafkaUnreachable``."""
        with self._guard:
            try:
                self._catch_up()
            except BaseException:
                self._forget()
                raise
            return [record for record, _ in self._held.values()]

    def close(self) -> None:
        """Let Kafka and what is held go."""
        with self._guard:
            self._forget()

    def _forget(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None
        self._places, self._held, self._bytes = {}, {}, 0

    def _catch_up(self) -> None:
        if self._consumer is None:
            self._consumer = kafka.consumer(self._settings, "stepstream-reader", **{"log_level": 2})
        for number in range(kafka.partition_count(self._consumer, self._topic)):
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, number), timeout=_TIMEOUT_S
            )
            place = max(self._places.get(number, high - TAIL_RECORDS), low)
            if place > high:
                raise kafka.KafkaUnreachable(f"{self._topic} is another one than before: ask again")
            if place < high:
                for message in kafka.read_to_end(
                    self._settings, self._topic, [number], offset=place
                ):
                    self._take(message.value())
            self._places[number] = high
        if len(self._held) > MOST_RECORDS or self._bytes > MOST_BYTES:
            self._drop()

    def _take(self, value: bytes | None) -> None:
        if not value:
            return
        try:
            record = self._decode(value)
        except (ValueError, msgspec.MsgspecError):
            return
        key = self._key(record)
        known = self._held.get(key)
        if known is not None and self._order(known[0]) > self._order(record):
            return
        self._bytes += len(value) - (known[1] if known is not None else 0)
        self._held[key] = record, len(value)

    def _drop(self) -> None:
        """Forget what changed longest ago, a tenth more than needed, so that this is seldom."""
        oldest = sorted(self._held, key=lambda key: self._age(self._held[key][0]))
        for key in oldest:
            if len(self._held) <= MOST_RECORDS * 9 // 10 and self._bytes <= MOST_BYTES * 9 // 10:
                return
            self._bytes -= self._held.pop(key)[1]
