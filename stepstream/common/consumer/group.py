"""A member of a consumer group that works through its partitions and commits each position itself,
with metadata.

What it guarantees:

- *Restore.* A new partition brings its committed offset and the number committed next to it;
  the owner decides where to read on.
- *Fencing.* A process that stood still for longer than half a session (frozen, swapped out, machine
  asleep) commits nothing until it has asked Kafka where each of its partitions stands. Kafka
  refuses commits of a member that lost a partition to another one; but while a group has no members
  it accepts any commit.
- *Unreadable batches* are noted in the dead letter and skipped, other partitions go on meanwhile.
- *Outages* of the brokers are logged once and waited out; only errors that waiting cannot resolve
  are raised.

Everything here runs on one thread; the callbacks of a rebalance are called while it reads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from stepstream.common import kafka
from stepstream.common.commit_metadata import MetadataForm
from stepstream.common.consumer.partition import Assignment, P, PartitionOwner, Place
from stepstream.common.consumer.unreadable import SkippedBatch, UnreadableBatches
from stepstream.common.retry import OutageLog
from stepstream.schemas.batches import describe
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

R = TypeVar("R")

COMMITTED_S: Final = 30.0
END_S: Final = 0.5
"""How long Kafka is asked for the end of a paused partition."""
COMMIT_PAUSE_S: Final = 0.1
FENCE_SHARE: Final = 0.5
"""The share of the session after which a process that stood still trusts nothing."""


@dataclass(slots=True)
class Received(Generic[P, R]):
    """What one read brought. Handle the records of a partition before its end."""

    records: dict[P, list[R]] = field(default_factory=dict)
    ends: dict[P, int] = field(default_factory=dict)
    """The offset at which the end of a partition was reached."""
    skipped: list[SkippedBatch[P]] = field(default_factory=list)


class GroupConsumer(Generic[P]):
    """The partitions of some topics that the group assigned to this process."""

    # Worker, sink and notifier differ in each of them, and each makes one consumer.
    def __init__(  # noqa: PLR0913
        self,
        settings: Settings,
        form: MetadataForm,
        owner: PartitionOwner[P],
        names: Iterable[str],
        group: str,
        *,
        cooperative: bool,
        logger: logging.Logger,
        outage: OutageLog | None = None,
        waited_out: Container[int] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """``names`` are topics and ``group`` is a group, all without prefix; ``config`` is for
        librdkafka.

        ``cooperative``: a rebalance moves single partitions, the others go on. All members of a
        group have to agree. ``waited_out`` are the codes of errors that pass by themselves; without
        it all but fatal ones do.
        """
        prefix = settings.topic_prefix
        self.partitions: dict[Place, P] = {}
        self.group = f"{prefix}.{group}"
        self.outage = outage or OutageLog("Kafka", logger)
        self.fence_s = settings.session_timeout / 1_000_000 * FENCE_SHARE
        self.known_at = time.monotonic()
        """When it was last certain that the partitions are ours: at the begin of the last round."""
        self._form = form
        self._owner = owner
        self._cooperative = cooperative
        self._logger = logger
        self._waited_out = waited_out
        self._names = {topic(prefix, name): name for name in names}
        self._unreadable: UnreadableBatches[P] = UnreadableBatches(
            settings, form.process, self.outage
        )
        self._commit_outage = OutageLog("offsets cannot be committed", logger)
        self._commit_after = 0.0
        self._requested: dict[Place, tuple[int, int | None]] = {}
        strategy = {"partition.assignment.strategy": "cooperative-sticky"} if cooperative else {}
        self.client: Consumer = kafka.consumer(
            settings,
            self.group,
            **{
                "session.timeout.ms": settings.session_timeout // 1000,
                "enable.partition.eof": True,
                "on_commit": self._committed,
                **strategy,
                **(config or {}),
            },
        )

    def join(self) -> None:
        """Subscribe: from now on ``read`` brings partitions."""
        self.known_at = time.monotonic()
        self.client.subscribe(
            list(self._names), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose
        )

    def close(self) -> None:
        """Leave the group; the partitions are revoked on the way."""
        self.client.close()

    # -- reading -------------------------------------------------------------------------------

    def begin_round(self) -> bool:
        """Call before each round of reading and committing.

        False: this process stood still for too long and Kafka could not be asked where its
        partitions stand now. Skip the round then, but for reading, which keeps the membership
        alive: what is read will come again.
        """
        now = time.monotonic()
        if now - self.known_at > self.fence_s:
            try:
                self._take_over_anew()
            except KafkaException as error:
                self.outage.failed(error)
                return False
        self.known_at = now
        return True

    def read(
        self,
        most: int,
        wait_s: float,
        convert: Callable[[Message], R],
        *,
        at_once: bool = False,
    ) -> Received[P, R]:
        """Up to ``most`` records after ``wait_s``; with ``at_once`` as soon as there is one.

        Raises ``KafkaException`` for what waiting cannot resolve.
        """
        messages = (
            self._first(most, wait_s) if at_once else self.client.consume(most, timeout=wait_s)
        )
        received: Received[P, R] = Received()
        if messages and messages[-1].error() is None:
            self.outage.over()
        partitions, records = self.partitions, received.records
        for message in messages:
            # The topic and partition of a consumed message are never None.
            partition = partitions.get((message.topic(), message.partition()))  # type: ignore[arg-type]
            if message.error() is not None:
                self._report(message, partition, received)
            elif partition is not None:
                rows = records.get(partition)
                if rows is None:
                    rows = records[partition] = []
                rows.append(convert(message))
        for skipped in self._unreadable.noted():
            self._skip(skipped, received)
        return received

    def _first(self, most: int, wait_s: float) -> list[Message]:
        # consume() waits for the whole time or the whole number; poll() returns with the first
        # record.
        first = self.client.poll(wait_s)
        return [] if first is None else [first, *self.client.consume(most, timeout=0)]

    def _report(self, message: Message, partition: P | None, received: Received[P, R]) -> None:
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            if partition is not None:
                received.ends[partition] = message.offset() or 0
        elif error.fatal():
            raise KafkaException(error)
        elif error.code() in kafka.UNREADABLE:
            if partition is not None:
                self._unreadable.met(partition, message)
        elif self._waited_out is not None and error.code() not in self._waited_out:
            raise KafkaException(error)
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            self.outage.failed(
                f"topic {message.topic()} does not exist: run `stepstream topics create`"
            )
        else:
            self.outage.failed(error)

    def _skip(self, skipped: SkippedBatch[P], received: Received[P, R]) -> None:
        partition, batch = skipped.partition, skipped.batch
        if self.partitions.get(partition.place) is not partition:
            return
        self._logger.error("%r: %s", partition, describe(batch.first, batch.last, batch.why))
        self.client.seek(partition.at(batch.last + 1))
        received.skipped.append(skipped)

    def resume_at(self, partition: P, offset: int, *, is_beginning: bool = False) -> None:
        """Read a partition from an offset on that was assigned without a ``start``.

        ``is_beginning``: the offset is the first of the log, where a partition without committed
        offset stands anyway.
        """
        partition.start = offset
        at, committed = partition.at(offset), partition.assignment.committed
        stands = OFFSET_BEGINNING if committed is None else committed
        if partition.must_seek or stands != (OFFSET_BEGINNING if is_beginning else offset):
            self.client.seek(at)
        partition.paused = False
        self.client.resume([at])

    def pause(self, partition: P) -> None:
        """Read nothing of the partition for now."""
        if not partition.paused:
            self.client.pause([TopicPartition(*partition.place)])
            partition.paused = True

    def resume(self, partition: P) -> None:
        """Read the partition again."""
        if partition.paused:
            self.client.resume([TopicPartition(*partition.place)])
            partition.paused = False

    def ends(self) -> dict[P, int]:
        """The end offsets of the partitions, as far as they are known."""
        found, answers = {}, True
        for partition in self.partitions.values():
            at, end = TopicPartition(*partition.place), -1
            # While nothing is fetched the client does not learn where the log ends.
            if partition.paused and partition.start is not None and answers:
                try:
                    _, end = self.client.get_watermark_offsets(at, timeout=END_S) or (0, -1)
                except KafkaException:
                    end = -1
                # While the broker does not answer, not each partition is waited for.
                answers = end >= 0
            if end < 0:
                _, end = self.client.get_watermark_offsets(at, cached=True) or (0, -1)
            if end >= 0:
                found[partition] = end
        return found

    # -- committing ----------------------------------------------------------------------------

    def commit(self, wanted: Sequence[tuple[P, int, int | None]], *, last: bool = False) -> set[P]:
        """Commit an offset, and a number as metadata, for each partition; returns those that Kafka
        acknowledged.

        What fails may be tried again with the next round: the same offsets, so that a request that
        arrives late changes nothing. ``last``: there is no next round, so do not wait until the
        pause after a failure is over.
        """
        if not self.may_commit(last=last) or not wanted:
            return set()
        try:
            answers = self.client.commit(offsets=self._request(wanted), asynchronous=False) or []
        except KafkaException as error:
            self._commit_failed(error)
            return set()
        done = self._acknowledge(answers)
        return {partition for partition, _, _ in wanted if partition.place in done}

    def commit_later(self, wanted: Sequence[tuple[P, int, int | None]]) -> None:
        """As ``commit``, without waiting: ``acknowledged`` of the partitions changes while reading,
        or does not.
        """
        if not self.may_commit() or not wanted:
            return
        try:
            self.client.commit(offsets=self._request(wanted), asynchronous=True)
        except KafkaException as error:
            self._commit_failed(error)

    def may_commit(self, *, last: bool = False) -> bool:
        """Whether it is certain enough that the partitions are ours, and the pause after a failure
        is over.
        """
        now = time.monotonic()
        return now - self.known_at <= self.fence_s and (last or now >= self._commit_after)

    def _request(self, wanted: Sequence[tuple[P, int, int | None]]) -> list[TopicPartition]:
        offsets = []
        for partition, offset, number in wanted:
            self._requested[partition.place] = (offset, number)
            metadata = "" if number is None else self._form.encode(number)
            offsets.append(partition.at(offset, metadata))
        return offsets

    def _committed(self, error: KafkaError | None, answers: list[TopicPartition]) -> None:
        """Called by the client with the result of each asynchronous commit."""
        if error is not None:
            self._commit_failed(error)
        else:
            self._acknowledge(answers)

    def _acknowledge(self, answers: Sequence[TopicPartition]) -> set[Place]:
        done: set[Place] = set()
        errors = []
        for answer in answers:
            place = (answer.topic, answer.partition)
            if answer.error is not None:
                errors.append(answer.error)
                continue
            done.add(place)
            partition, requested = self.partitions.get(place), self._requested.get(place)
            if partition is not None and requested is not None and requested[0] == answer.offset:
                partition.acknowledged = requested
        if errors:
            self._commit_failed(errors[0])
        elif done:
            self._commit_outage.over()
        return done

    def _commit_failed(self, error: object) -> None:
        self._commit_outage.failed(error)
        self._commit_after = time.monotonic() + COMMIT_PAUSE_S

    # -- partitions come and go ----------------------------------------------------------------

    def _assign(self, client: Consumer, places: list[TopicPartition]) -> None:
        new = self._take_over(client.committed(places, timeout=COMMITTED_S))
        starts = [partition.at(_start(partition)) for partition in new]
        if self._cooperative:
            client.incremental_assign(starts)
        else:
            client.assign(starts)
        self._pause_unstarted(new)

    def _take_over(self, committed: list[TopicPartition]) -> list[P]:
        new = []
        for found in committed:
            if found.error is not None:
                raise KafkaException(found.error)
            offset = found.offset if found.offset >= 0 else None
            metadata = self._form.decode(kafka.committed_metadata(self.client, found))
            name = self._names[found.topic]
            partition = self._owner.assigned(
                Assignment(found.topic, name, found.partition, offset, metadata)
            )
            self.partitions[partition.place] = partition
            new.append(partition)
        return new

    def _pause_unstarted(self, new: Sequence[P]) -> None:
        waiting = [partition for partition in new if partition.start is None]
        for partition in waiting:
            partition.paused = True
        if waiting:
            self.client.pause([TopicPartition(*partition.place) for partition in waiting])

    def _take_over_anew(self) -> None:
        """Forget all work in progress and ask where each partition stands.

        Raises ``KafkaException``.
        """
        places = [TopicPartition(*place) for place in self.partitions]
        if not places:
            return
        self._logger.warning(
            "this process stood still for more than %.0f s: asking Kafka where its partitions "
            "stand",
            self.fence_s,
        )
        committed = self.client.committed(places, timeout=COMMITTED_S)
        self.client.pause(places)
        for partition in list(self.partitions.values()):
            partition.cancelled.set()
            self._owner.dropped(partition)
        for partition in self._take_over(committed):
            partition.must_seek = True
            if partition.start is None:
                partition.paused = True
            else:
                self.resume_at(partition, partition.start)

    def _revoke(self, client: Consumer, places: list[TopicPartition]) -> None:
        self._owner.revoked(self._assigned(places))
        self._drop(places)
        if self._cooperative:
            client.incremental_unassign(places)
        else:
            client.unassign()

    def _lose(self, _client: Consumer, places: list[TopicPartition]) -> None:
        self._logger.warning(
            "lost %d partitions: the group got no heartbeat of this process", len(places)
        )
        self._drop(places)

    def _assigned(self, places: Iterable[TopicPartition]) -> list[P]:
        found = (self.partitions.get((at.topic, at.partition)) for at in places)
        return [partition for partition in found if partition is not None]

    def _drop(self, places: Iterable[TopicPartition]) -> None:
        for partition in self._assigned(places):
            del self.partitions[partition.place]
            self._requested.pop(partition.place, None)
            partition.cancelled.set()
            self._owner.dropped(partition)


def _start(partition: P) -> int:
    if partition.start is not None:
        return partition.start
    committed = partition.assignment.committed
    return OFFSET_BEGINNING if committed is None else committed
