"""Delivery records on their way to Kafka: each acknowledged before what it covers is committed."""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from stepstream.common import kafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.notify.delivery import PartitionDelivery, UnsentDelivery

TIMEOUT_MS: Final = 120_000
"""Brokers away for longer end the process: it starts again from what is committed."""
_HEADERS: Final = [("content-type", b"application/json")]


class Outbox:
    """An idempotent producer for the deliveries topic, and for findings of our own. Used by one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = topic(settings.topic_prefix, "deliveries")
        self._producer = kafka.producer(
            settings, **{"linger.ms": 2, "message.timeout.ms": TIMEOUT_MS}
        )
        self._error: KafkaError | None = None
        self.under_way = 0

    def send(self, core: PartitionDelivery, saved: UnsentDelivery) -> None:
        """Send a record; the core is told when Kafka has it."""

        def delivered(error: KafkaError | None, message: Any) -> None:
            self.under_way -= 1
            if error is None:
                core.acknowledged(saved, message.offset())
            else:
                self._error = error

        self._produce(self._topic, saved.key.encode(), saved.value, core.partition, delivered)

    def publish(self, name: str, key: str, value: bytes, partition: int = -1) -> None:
        """Send a record to another topic."""

        def delivered(error: KafkaError | None, _message: Any) -> None:
            self.under_way -= 1
            self._error = self._error or error

        self._produce(
            topic(self._settings.topic_prefix, name), key.encode(), value, partition, delivered
        )

    def _produce(self, name: str, key: bytes, value: bytes, partition: int, delivered: Any) -> None:
        place: dict[str, Any] = {"partition": partition} if partition >= 0 else {}
        while True:
            try:
                self._producer.produce(
                    name,
                    key=key,
                    value=value,
                    headers=list(_HEADERS),
                    on_delivery=delivered,
                    **place,
                )
            except BufferError:
                self._producer.poll(0.05)
                continue
            self.under_way += 1
            return

    def poll(self) -> None:
        """Run the callbacks of what was acknowledged. Raises ``KafkaException`` when something never will be."""
        self._producer.poll(0)
        if self._error is not None:
            raise KafkaException(self._error)

    def flush(self, timeout_s: float) -> None:
        """Wait until everything is acknowledged, or for so long."""
        self._producer.flush(timeout_s)
        self.poll()
