"""The notifier's partitions of the alerts topic, each with its state restored from the deliveries.

Assignment, fencing, commits and unreadable batches are those of ``stepstream.common.consumer``.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from stepstream.common import kafka
from stepstream.common.commit_metadata import NOTIFIER
from stepstream.common.consumer import AssignedPartition, Assignment, GroupConsumer
from stepstream.common.retry import Cancelled, OutageLog, retry
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.misfits import delivery_misfit
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.notify.delivery import PartitionDelivery

FIRST_START_S: Final = 300
"""A notifier without any committed offset delivers alerts from so long ago on."""
COMMIT_INTERVAL_S: Final = 1.0
MAX_READ: Final = 500
ASK_S: Final = 30.0
_log = logging.getLogger("stepstream.admin.notify")
_decode = msgspec.json.Decoder(DeliveryStruct).decode


class AlertRecord(NamedTuple):
    """A record of the alerts topic."""

    offset: int
    value: bytes | None
    appended_us: int


class NotifierPartition(AssignedPartition):
    """An assigned partition. ``delivery`` is None until its state is restored."""

    def __init__(self, assignment: Assignment) -> None:
        super().__init__(assignment)
        self.delivery: PartitionDelivery | None = None
        self.since = time.monotonic()


class Partitions:
    """The assigned partitions. Used by one thread, in which rebalances happen during ``read``.

    Each partition is restored in a thread of its own: reading its deliveries can take longer than
    the main thread may stand still before the runtime no longer trusts its assignment.
    """

    def __init__(
        self,
        settings: Settings,
        subscriptions: Callable[[], Mapping[str, Subscription]],
        finish: Callable[[list[PartitionDelivery]], None],
        now_us: Callable[[], int],
    ) -> None:
        """``finish`` is called with what is revoked, to save results that are still expected."""
        self._settings = settings
        self._subscriptions = subscriptions
        self._finish = finish
        self._now_us = now_us
        self._restored: queue.SimpleQueue[
            tuple[NotifierPartition, PartitionDelivery] | Exception
        ] = queue.SimpleQueue()
        self._next_commit = 0.0
        self._may_commit = False
        self._group: GroupConsumer[NotifierPartition] = GroupConsumer(
            settings,
            NOTIFIER,
            self,
            ["alerts"],
            settings.notify_group,
            # Members of one group have to agree, and those of earlier releases are not cooperative.
            cooperative=False,
            logger=_log,
            waited_out=kafka.WAITED_OUT,
            config={"error_cb": self._failed, "log_level": 2},
        )
        self.ready = False
        """Whether a partition was assigned and restored."""

    @property
    def deliveries(self) -> dict[int, PartitionDelivery]:
        """The restored partitions by number."""
        return {
            one.partition: one.delivery
            for one in self._group.partitions.values()
            if one.delivery is not None
        }

    def start(self) -> None:
        """Join the group."""
        self._group.join()

    def close(self) -> None:
        """Leave the group. The partitions are revoked before."""
        self._group.close()

    # -- reading -----------------------------------------------------------------------------------

    def read(self, wait_s: float) -> list[tuple[PartitionDelivery, list[AlertRecord], bool]]:
        """New records by partition, and whether they reach its end. Waits for the first record.

        Raises ``KafkaException`` for errors that a retry does not solve.
        """
        self._may_commit = self._group.begin_round()
        self._adopt_restored()
        received = self._group.read(MAX_READ, wait_s, _record, at_once=True)
        for skipped in received.skipped:
            if skipped.partition.delivery is not None:
                skipped.partition.delivery.skip_to(skipped.batch.last + 1)
        found = []
        for partition in {**received.records, **received.ends}:
            # A rebalance during the read may have taken the partition away.
            if partition.delivery is not None and not partition.cancelled.is_set():
                records = received.records.get(partition, [])
                found.append((partition.delivery, records, partition in received.ends))
        return found

    def lag(self) -> dict[int, int]:
        """Records of each partition that are not read yet, as far as the client knows."""
        return {
            partition.partition: max(0, end - partition.delivery.position)
            for partition, end in self._group.ends().items()
            if partition.delivery is not None
        }

    # -- committing --------------------------------------------------------------------------------

    def commit(self) -> None:
        """Commit the offsets that moved, once a second, without waiting for the answer."""
        if not self._may_commit or time.monotonic() < self._next_commit:
            return
        self._next_commit = time.monotonic() + COMMIT_INTERVAL_S
        self._group.commit_later(self._moved(self._group.partitions.values()))

    def _moved(
        self, partitions: Iterable[NotifierPartition]
    ) -> list[tuple[NotifierPartition, int, int | None]]:
        moved: list[tuple[NotifierPartition, int, int | None]] = []
        for partition in partitions:
            delivery = partition.delivery
            if delivery is None:
                continue
            position = (delivery.safe_offset, delivery.restore_offset)
            if partition.acknowledged != position:
                moved.append((partition, *position))
        return moved

    # -- partitions come and go --------------------------------------------------------------------

    def assigned(self, assignment: Assignment) -> NotifierPartition:
        """Restore a new partition, in a thread."""
        partition = NotifierPartition(assignment)
        threading.Thread(
            target=self._restore,
            args=(partition,),
            name=f"restore-{assignment.partition}",
            daemon=True,
        ).start()
        return partition

    def revoked(self, partitions: Sequence[NotifierPartition]) -> None:
        """Save and commit what is left."""
        self._finish([one.delivery for one in partitions if one.delivery is not None])
        self._group.commit(self._moved(partitions), last=True)

    def dropped(self, partition: NotifierPartition) -> None:
        """Nothing is left to do: the state is on the deliveries topic."""

    def _adopt_restored(self) -> None:
        while True:
            try:
                restored = self._restored.get_nowait()
            except queue.Empty:
                return
            if isinstance(restored, Exception):
                raise restored
            partition, delivery = restored
            if partition.cancelled.is_set():
                continue
            # They may have changed since the thread began.
            delivery.update_subscriptions(self._subscriptions(), self._now_us())
            partition.delivery = delivery
            self._group.resume_at(partition, delivery.position)
            self.ready = True
            _log.info(
                "partition %d of alerts: restored in %.1f s, from offset %d",
                partition.partition,
                time.monotonic() - partition.since,
                delivery.position,
            )

    # The following run in the thread of a partition.

    def _restore(self, partition: NotifierPartition) -> None:
        try:
            delivery = retry(
                lambda: self._restored_delivery(partition.assignment),
                (KafkaException, kafka.KafkaUnreachable),
                OutageLog(f"{partition!r} cannot be restored", _log),
                stop=partition.cancelled,
            )
        except Cancelled:
            return
        except Exception as error:
            self._restored.put(error)
        else:
            self._restored.put((partition, delivery))

    def _restored_delivery(self, assignment: Assignment) -> PartitionDelivery:
        number = assignment.partition
        # A client of its own: requests of the group's wait behind its fetches, and it may be closed
        # while this thread uses it, which crashes librdkafka.
        client = kafka.consumer(self._settings, "stepstream-reader", **{"log_level": 2})
        try:
            at = TopicPartition(assignment.topic, number)
            # Before the deliveries are read: only of alerts before this end another notifier can
            # have delivered a newer state.
            _, end = kafka.ends_of(client, at, timeout=ASK_S)
            offset = assignment.committed
            if offset is None:
                offset = _first_offset(client, at, end)
        finally:
            client.close()
        delivery = PartitionDelivery(number, self._subscriptions())
        records = self._records(number, assignment.metadata or 0)
        delivery.restore(records, offset, self._now_us(), end=end)
        return delivery

    def _records(self, number: int, first: int) -> list[tuple[int, DeliveryStruct]]:
        """The delivery records of a partition from an offset on, with their offsets."""
        name = topic(self._settings.topic_prefix, "deliveries")
        records, invalid = [], []
        for message in kafka.read_to_end(self._settings, name, [number], offset=first):
            value = message.value()
            if not value:
                continue
            try:
                record = _decode(value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                invalid.append(str(error))
                continue
            if reason := delivery_misfit(record):
                invalid.append(reason)
            else:
                records.append((kafka.position_of(message)[1], record))
        if invalid:  # the store's sink writes them to the dead letter topic
            _log.warning(
                "%d records of %s are invalid and were skipped: %s", len(invalid), name, invalid[0]
            )
        return records

    def _failed(self, error: object) -> None:
        """Called by the client for errors of its connections."""
        self._group.outage.failed(error)


def _record(message: Message) -> AlertRecord:
    _, offset = kafka.position_of(message)
    return AlertRecord(offset, message.value(), message.timestamp()[1] * 1000)


def _first_offset(client: Consumer, at: TopicPartition, end: int) -> int:
    """Where a group without a committed offset begins: at the end, or a while before."""
    since_ms = round((time.time() - FIRST_START_S) * 1000)
    (found,) = client.offsets_for_times(
        [TopicPartition(at.topic, at.partition, since_ms)], timeout=ASK_S
    )
    # -1: no record is as late as that.
    return int(found.offset) if found.offset >= 0 else end
