"""Writes delivery records, and records of the monitor, to Kafka."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from stepstream.common import kafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.notify.delivery import PartitionDelivery, UnsentDelivery

TIMEOUT_MS: Final = 120_000
"""A longer outage of the brokers ends the process; the next one starts at the committed offset."""
_HEADERS: Final = [("content-type", b"application/json")]


class Outbox:
    """An idempotent producer. Used by one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = topic(settings.topic_prefix, "deliveries")
        self._producer = kafka.producer(
            settings, **{"linger.ms": 2, "message.timeout.ms": TIMEOUT_MS}
        )
        self._error: KafkaError | None = None
        self.in_flight = 0
        """Records that are not acknowledged yet."""

    def send(self, delivery: PartitionDelivery) -> None:
        """Send the unsent records of a partition. It is notified when each is acknowledged."""
        for record in delivery.take_unsent():
            self._send(delivery, record)

    def _send(self, delivery: PartitionDelivery, record: UnsentDelivery) -> None:
        self._produce(
            self._topic,
            record.key.encode(),
            record.value,
            delivery.partition,
            lambda offset: delivery.acknowledged(record, offset),
        )

    def publish(self, name: str, key: str, value: bytes, partition: int = -1) -> None:
        """Send a record to another topic, given without the prefix."""
        full_name = topic(self._settings.topic_prefix, name)
        self._produce(full_name, key.encode(), value, partition, lambda _offset: None)

    def _produce(
        self,
        name: str,
        key: bytes,
        value: bytes,
        partition: int,
        acknowledged: Callable[[int], None],
    ) -> None:
        def on_delivery(error: KafkaError | None, message: Any) -> None:
            self.in_flight -= 1
            if error is None:
                acknowledged(message.offset())
            else:
                self._error = self._error or error

        options: dict[str, Any] = {"partition": partition} if partition >= 0 else {}
        while True:
            try:
                self._producer.produce(
                    name,
                    key=key,
                    value=value,
                    headers=list(_HEADERS),
                    on_delivery=on_delivery,
                    **options,
                )
            except BufferError:
                self._producer.poll(0.05)  # makes room
                continue
            self.in_flight += 1
            return

    def poll(self) -> None:
        """Run the callbacks of acknowledged records. Raises ``KafkaException`` if one is lost."""
        self._producer.poll(0)
        if self._error is not None:
            raise KafkaException(self._error)

    def flush(self, timeout_s: float) -> None:
        """Wait until every record is acknowledged, at most so long. Raises as ``poll`` does."""
        self._producer.flush(timeout_s)
        self.poll()
