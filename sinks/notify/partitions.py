"""The notifier's share of the alerts topic: partitions come with their state restored, and go with it committed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stepstream.common import kafka
from stepstream.common.commit_metadata import NOTIFIER
from stepstream.common.letters import refuse_batch
from stepstream.schemas.batches import describe
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.misfits import delivery_misfit
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.notify.delivery import PartitionDelivery

BEGIN_BACK_S: Final = 300
"""A notifier that starts for the first time ever tells alerts from so long ago on."""
COMMIT_S: Final = 1.0
_log = logging.getLogger("stepstream.admin.notify")
_decode = msgspec.json.Decoder(DeliveryStruct).decode


class Partitions:
    """Assigned partitions and the delivery of each. Used by one thread; rebalances happen inside ``read``."""

    def __init__(
        self,
        settings: Settings,
        subscriptions: Callable[[], Mapping[str, Subscription]],
        going: Callable[[list[PartitionDelivery]], None],
        now_us: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._subscriptions = subscriptions
        self._going = going
        self._now_us = now_us
        self._topic = topic(settings.topic_prefix, "alerts")
        self._records_topic = topic(settings.topic_prefix, "deliveries")
        self.group = f"{settings.topic_prefix}.{settings.notify_group}"
        self.deliveries: dict[int, PartitionDelivery] = {}
        self._committed: dict[int, tuple[int, int]] = {}
        self._commit_at = 0.0
        self._bad = kafka.BadBatches()
        self.trouble = ""
        self.ready = False
        self._consumer: Consumer = kafka.consumer(
            settings,
            self.group,
            **{
                "session.timeout.ms": settings.session_timeout // 1000,
                "enable.partition.eof": True,
                "error_cb": self._failed,
                "log_level": 2,
            },
        )

    def start(self) -> None:
        """Join the group."""
        self._consumer.subscribe(
            [self._topic], on_assign=self._came, on_revoke=self._revoked, on_lost=self._lost
        )

    def close(self) -> None:
        """Leave the group; what is held is revoked on the way."""
        self._consumer.close()

    def read(self, wait_s: float) -> list[Message]:
        """Records and ends of partitions, as soon as there is one or after that time.

        Raises ``KafkaException`` for what waiting does not mend.
        """
        first = self._consumer.poll(wait_s)
        if first is None:
            return []
        found = []
        for message in (first, *self._consumer.consume(500, timeout=0)):
            error = message.error()
            if error is None or error.code() == KafkaError._PARTITION_EOF:
                found.append(message)
            elif error.code() in kafka.UNREADABLE:
                if self._bad.is_hopeless(message):
                    self._pass_over(message)
            elif error.fatal() or error.code() not in kafka.WAITED_OUT:
                raise KafkaException(error)
            else:
                self._failed(error)
        if found:
            self.trouble = ""
        return found

    def _pass_over(self, message: Message) -> None:
        try:
            batch = kafka.pass_over(self._settings, self._consumer, message, self._bad, self._note)
        except kafka.KafkaUnreachable as error:
            self.trouble = str(error)
            return
        _log.error(
            "alerts partition %d: %s", batch.partition, describe(batch.first, batch.last, batch.why)
        )

    def _note(self, batch: kafka.BadBatch) -> None:
        refuse_batch(self._settings, batch, "alerts", "notify")

    def commit(self, *, surely: bool = False) -> None:
        """Commit the floors that moved, once a second."""
        if not surely and time.monotonic() < self._commit_at:
            return
        self._commit_at = time.monotonic() + COMMIT_S
        places = {
            number: (delivery.safe_offset, delivery.restore_offset)
            for number, delivery in self.deliveries.items()
        }
        moved = {
            number: place
            for number, place in places.items()
            if self._committed.get(number) != place
        }
        if not moved:
            return
        offsets = [
            TopicPartition(self._topic, n, floor, NOTIFIER.encode(low))
            for n, (floor, low) in moved.items()
        ]
        try:
            if surely:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            self._committed |= moved
        except KafkaException as error:
            self._failed(error.args[0])

    def lag(self) -> dict[int, int]:
        """Records of the alerts topic not read yet, as far as the client knows."""
        found = {}
        for number, delivery in self.deliveries.items():
            try:
                _, high = self._consumer.get_watermark_offsets(
                    TopicPartition(self._topic, number), cached=True
                )
            except KafkaException:
                continue
            found[number] = max(0, high - delivery.position) if high >= 0 else 0
        return found

    # -- coming and going ----------------------------------------------------------------------------------------------

    def _came(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        began = time.monotonic()
        for at in consumer.committed(partitions, timeout=30):
            low = NOTIFIER.decode(kafka.committed_metadata(consumer, at)) or 0
            floor = at.offset if at.offset >= 0 else self._beginning(consumer, at.partition)
            _, end = consumer.get_watermark_offsets(
                TopicPartition(self._topic, at.partition), timeout=30
            )
            self.deliveries[at.partition] = self._restored(at.partition, floor, low, end)
            self._committed[at.partition] = (-1, -1)
        consumer.assign(
            [
                TopicPartition(self._topic, n, delivery.position)
                for n, delivery in self.deliveries.items()
            ]
        )
        self.ready = True
        numbers = sorted(at.partition for at in partitions)
        _log.info(
            "partitions %s of %s, restored in %.1f s",
            numbers,
            self._topic,
            time.monotonic() - began,
        )

    def _restored(self, number: int, floor: int, low: int, end: int) -> PartitionDelivery:
        delivery = PartitionDelivery(number, self._subscriptions())
        records, unreadable = [], []
        for message in kafka.read_to_end(self._settings, self._records_topic, [number], offset=low):
            value = message.value()
            if value:
                try:
                    record = _decode(value)
                    why = delivery_misfit(record)
                    if why:
                        unreadable.append(why)
                    else:
                        records.append((kafka.position_of(message)[1], record))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                    unreadable.append(str(error))
        if unreadable:  # the sink dead-letters them
            _log.warning(
                "%d records of %s are no deliveries and were skipped: %s",
                len(unreadable),
                self._records_topic,
                unreadable[0],
            )
        delivery.restore(records, floor, self._now_us(), end=end)
        return delivery

    def _beginning(self, consumer: Consumer, number: int) -> int:
        """Where the very first notifier begins: shortly before now."""
        at = TopicPartition(self._topic, number, round((time.time() - BEGIN_BACK_S) * 1000))
        (found,) = consumer.offsets_for_times([at], timeout=30)
        if found.offset >= 0:
            return int(found.offset)
        return int(
            consumer.get_watermark_offsets(TopicPartition(self._topic, number), timeout=30)[1]
        )

    def _revoked(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        leaving = [
            self.deliveries[at.partition] for at in partitions if at.partition in self.deliveries
        ]
        self._going(leaving)
        self.commit(surely=True)
        self._drop(partitions)

    def _lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._drop(partitions)

    def _drop(self, partitions: list[TopicPartition]) -> None:
        for at in partitions:
            self.deliveries.pop(at.partition, None)
            self._committed.pop(at.partition, None)

    def _failed(self, error: KafkaError) -> None:
        if not self.trouble:
            _log.warning("Kafka: %s", error.str())
        self.trouble = error.str()
