"""The newest record of each key of a topic, kept in memory and updated when it is asked for.

The first call reads the end of the topic. Later calls read only what was appended since.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

import msgspec
from confluent_kafka import Consumer, TopicPartition
from pydantic import ValidationError

from stepstream.common import kafka
from stepstream.schemas.alert import Alert, AlertStruct
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.documents import AlertMatch
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.alert_tail import matches

TAIL_RECORDS: Final = 100_000
"""Number of records read from the end of each partition at the first call."""
MAX_RECORDS: Final = 50_000
"""Number of keys kept in memory."""
MAX_BYTES: Final = 128 << 20
"""Size of the records kept in memory, as they are on the topic."""
_TIMEOUT_S: Final = 10.0
_decode_delivery: Final = msgspec.json.Decoder(DeliveryStruct).decode
_decode_alert: Final = msgspec.json.Decoder(AlertStruct).decode
R = TypeVar("R")


class LatestRecords(Generic[R]):
    """The newest record of each key of one topic. Thread-safe; one thread reads at a time."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        decode: Callable[[bytes], R],
        key: Callable[[R], Hashable],
        order: Callable[[R], int],
        age: Callable[[R], int],
    ) -> None:
        """``name`` is a topic without its prefix.

        ``decode`` raises ``ValueError`` or an error of msgspec for an invalid record, which is
        skipped. Of two records of a key the one with the higher ``order`` is kept, the later one
        when they are equal. ``age`` is a time; the records with the smallest are dropped first.
        """
        self._settings = settings
        self._topic = topic(settings.topic_prefix, name)
        self._decode = decode
        self._key = key
        self._order = order
        self._age = age
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._next_offsets: dict[int, int] = {}
        self._records: dict[Hashable, tuple[R, int]] = {}
        self._bytes = 0

    def records(self) -> list[R]:
        """The newest record of each key, unsorted. Raises ``KafkaUnreachable``."""
        with self._lock:
            try:
                self._catch_up()
            except BaseException:
                self._reset()
                raise
            return [record for record, _ in self._records.values()]

    def close(self) -> None:
        """Close the consumer and drop the records."""
        with self._lock:
            self._reset()

    def _reset(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None
        self._next_offsets, self._records, self._bytes = {}, {}, 0

    def _catch_up(self) -> None:
        if self._consumer is None:
            self._consumer = kafka.consumer(self._settings, "stepstream-reader", **{"log_level": 2})
        for number in range(kafka.partition_count(self._consumer, self._topic)):
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, number), timeout=_TIMEOUT_S
            )
            offset = max(self._next_offsets.get(number, high - TAIL_RECORDS), low)
            if offset > high:
                # The offsets went back: the topic was deleted and created again.
                raise kafka.KafkaUnreachable(f"{self._topic} was created anew: ask again")
            if offset < high:
                for message in kafka.read_to_end(
                    self._settings, self._topic, [number], offset=offset
                ):
                    self._add(message.value())
            self._next_offsets[number] = high
        if len(self._records) > MAX_RECORDS or self._bytes > MAX_BYTES:
            self._drop_oldest()

    def _add(self, value: bytes | None) -> None:
        if not value:
            return
        try:
            record = self._decode(value)
        except (ValueError, msgspec.MsgspecError):
            return
        key = self._key(record)
        known = self._records.get(key)
        if known is not None and self._order(known[0]) > self._order(record):
            return
        self._bytes += len(value) - (known[1] if known is not None else 0)
        self._records[key] = record, len(value)

    def _drop_oldest(self) -> None:
        # Down to nine tenths of the limits: sorting at every new record would cost too much.
        oldest = sorted(self._records, key=lambda key: self._age(self._records[key][0]))
        for key in oldest:
            if len(self._records) <= MAX_RECORDS * 9 // 10 and self._bytes <= MAX_BYTES * 9 // 10:
                return
            self._bytes -= self._records.pop(key)[1]


class RecordLists:
    """The current deliveries and alerts, for the lists of the API and the CLI. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._deliveries: LatestRecords[DeliveryStruct] = LatestRecords(
            settings,
            "deliveries",
            _decode_delivery,
            key=lambda one: (one.subscription, one.alert_id),
            order=lambda _one: 0,
            age=lambda one: one.time,
        )
        self._alerts: LatestRecords[AlertStruct] = LatestRecords(
            settings,
            "alerts",
            _decode_alert,
            key=lambda one: one.alert_id,
            order=lambda one: one.seq,
            age=lambda one: one.updated_at,
        )

    def deliveries(
        self, *, subscription: str = "", state: str = "", limit: int = 100
    ) -> list[DeliveryStruct]:
        """Matching deliveries, the newest first. Raises ``KafkaUnreachable``."""
        found = [
            one
            for one in self._deliveries.records()
            if (not subscription or one.subscription == subscription)
            and (not state or one.state == state)
        ]
        return sorted(found, key=lambda one: -one.time)[:limit]

    def alerts(self, match: AlertMatch, *, state: str = "", limit: int = 100) -> list[Alert]:
        """Matching alerts, the last changed first. Raises ``KafkaUnreachable``."""
        known = [one for one in self._alerts.records() if not state or one.state == state]
        known.sort(key=lambda one: -one.updated_at)
        found: list[Alert] = []
        for one in known:
            if len(found) >= limit:
                break
            if matches(match, one):
                try:
                    found.append(Alert.model_validate(msgspec.to_builtins(one)))
                except ValidationError:
                    continue
        return found

    def close(self) -> None:
        """Close the consumers and drop the records."""
        self._deliveries.close()
        self._alerts.close()


def list_deliveries(
    settings: Settings, *, subscription: str = "", state: str = "", limit: int = 100
) -> list[DeliveryStruct]:
    """Matching deliveries, read once, the newest first. Raises ``KafkaUnreachable``."""
    lists = RecordLists(settings)
    try:
        return lists.deliveries(subscription=subscription, state=state, limit=limit)
    finally:
        lists.close()


def list_alerts(
    settings: Settings, match: AlertMatch, *, state: str = "", limit: int = 100
) -> list[Alert]:
    """Matching alerts, read once, the last changed first. Raises ``KafkaUnreachable``."""
    lists = RecordLists(settings)
    try:
        return lists.alerts(match, state=state, limit=limit)
    finally:
        lists.close()
