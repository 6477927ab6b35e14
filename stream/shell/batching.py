"""Chunks of records between faust's consumer and the stages: how they are handed over, bounded and
committed. Nothing here overrides anything; ``transport.py`` calls it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.types import TP

CHUNK_RECORDS: Final = 250
"""Records of a chunk: processing them takes about ten milliseconds, then the other stages have
their turn.
"""

MAX_BUFFERED_RECORDS: Final = 2_000
MAX_BUFFERED_BYTES: Final = 67_108_864
"""Nothing more of a topic is fetched while this many records or bytes of it wait."""

BUSY_RECORDS_PER_S: Final = 1_000
BUSY_MIN_BYTES: Final = 262_144
"""With more records a second than ``BUSY_RECORDS_PER_S`` a request waits for this many bytes,
``PART_MAX_WAIT_MS`` at most: every request costs worker and broker a millisecond.
"""
PACE_S: Final = 0.25
"""Records are counted for so long before ``Pace`` decides again."""

SafeOffsets = dict[TP, tuple[int, str]]
"""What may be committed: the safe offset of each partition, with its metadata."""


class Backlog:
    """Counts the records of each topic that wait in faust's streams, so that no more are fetched
    while there are too many.

    Each topic has a bound of its own: findings reach the alert stage however many steps are still
    to be read.
    """

    def __init__(self) -> None:
        self._by_topic: dict[str, deque[tuple[int, int]]] = {}
        """Records and bytes of the waiting chunks, in order."""
        self._sums: dict[str, tuple[int, int]] = {}

    @property
    def records(self) -> int:
        """Waiting records of all topics."""
        return sum(records for records, _ in self._sums.values())

    def put(self, topic: str, count: int, size_bytes: int = 0) -> None:
        """Count a chunk that waits for its stage."""
        self._by_topic.setdefault(topic, deque()).append((count, size_bytes))
        self._add(topic, count, size_bytes)

    def taken(self, topic: str) -> None:
        """A stage has taken its first waiting chunk."""
        waiting = self._by_topic.get(topic)
        if waiting:
            count, size_bytes = waiting.popleft()
            self._add(topic, -count, -size_bytes)

    def _add(self, topic: str, count: int, size_bytes: int) -> None:
        records, total_bytes = self._sums.get(topic, (0, 0))
        self._sums[topic] = records + count, total_bytes + size_bytes

    def clear(self) -> None:
        """A rebalance has emptied the streams."""
        self._by_topic.clear()
        self._sums.clear()

    def is_full(self, topic: str) -> bool:
        """Whether enough of the topic waits."""
        records, total_bytes = self._sums.get(topic, (0, 0))
        return records >= MAX_BUFFERED_RECORDS or total_bytes >= MAX_BUFFERED_BYTES


class Pace:
    """How many bytes a fetch waits for, by how many records come a second."""

    __slots__ = ("_records", "_since_s", "min_bytes")

    def __init__(self) -> None:
        self.min_bytes = 1
        self._records = 0
        self._since_s = 0.0

    def note(self, records: int, now_s: float) -> None:
        """``records`` more have come."""
        self._records += records
        passed_s = now_s - self._since_s
        if passed_s >= PACE_S:
            self.min_bytes = BUSY_MIN_BYTES if self._records > BUSY_RECORDS_PER_S * passed_s else 1
            self._records, self._since_s = 0, now_s


class Handover:
    """Hands fetched batches over in chunks, one message each, until a rebalance begins."""

    def __init__(
        self,
        *,
        generation: Callable[[], int],
        is_flowing: Callable[[], bool],
        read_offsets: MutableMapping[TP, int | None],
        deliver: Callable[[TP, list[Any]], Awaitable[None]],
        backlog: Backlog,
    ) -> None:
        """``read_offsets`` has the last offset of each partition that was handed over, moved back
        by a rebalance; ``deliver`` may wait until a rebalance is over.
        """
        self._generation = generation
        self._is_flowing = is_flowing
        self._read_offsets = read_offsets
        self._deliver = deliver
        self._backlog = backlog

    async def hand_over(self, tp: TP, batch: list[Any], generation: int) -> None:
        """Hand over a batch that was fetched under ``generation``."""
        read = self._read_offsets[tp]
        for start in range(0, len(batch), CHUNK_RECORDS):
            chunk = batch[start : start + CHUNK_RECORDS]
            if read is not None and chunk[-1].offset < read:
                continue
            if self._generation() != generation or not self._is_flowing():
                return  # a rebalance: every partition is read again from its committed offset
            size_bytes = sum([len(record.value) for record in chunk if record.value is not None])
            self._backlog.put(tp.topic, len(chunk), size_bytes)
            # After a wait for the end of a rebalance the stage drops the message.
            await self._deliver(tp, chunk)
            if self._generation() != generation:
                # The read offset has moved back to the committed one: moving it forward would skip
                # what is between.
                return
            self._read_offsets[tp] = chunk[-1].offset


async def commit_safe_offsets(
    commit: Callable[[dict[TopicPartition, OffsetAndMetadata]], Awaitable[None]],
    offsets: Mapping[TP, int],
    safe_offsets: SafeOffsets,
    assigned: set[TP],
    log: Any,
) -> bool:
    """Commit the safe offsets of the partitions in ``offsets`` that are assigned.

    Returns whether Kafka has stored them. Raises what is no error of Kafka.
    """
    wanted = {
        TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(
            *safe_offsets.get(tp, (offset, ""))
        )
        for tp, offset in offsets.items()
        if tp in assigned
    }
    if not wanted:
        return False
    try:
        await commit(wanted)
    except (CommitFailedError, IllegalStateError) as error:
        log.info("commit refused, the partitions have another owner: %s", error)
        return False
    except KafkaError as error:
        log.warning("offsets could not be committed and will be tried again: %r", error)
        return False
    return True


def ahead_of(
    subscriptions: SubscriptionState, first: Mapping[TopicPartition, int]
) -> list[tuple[TopicPartition, int]]:
    """The partitions among ``first`` whose fetch position is after the offset given there."""
    subscription = subscriptions.subscription
    assignment = None if subscription is None else subscription.assignment
    found = []
    for partition, offset in first.items():
        if assignment is not None and partition in assignment.tps:
            state = assignment.state_value(partition)
            if state.has_valid_position and state.position > offset:
                found.append((partition, offset))
    return found


def first_offsets(records: Mapping[TopicPartition, list[Any]]) -> dict[TopicPartition, int]:
    """The first offset of each batch that is not empty."""
    return {partition: batch[0].offset for partition, batch in records.items() if batch}


def smallest_first(
    records: Mapping[TopicPartition, list[Any]],
) -> list[tuple[TopicPartition, list[Any]]]:
    """The batches of a fetch, those with few records first: a few findings do not wait for many
    steps.
    """
    return sorted(records.items(), key=_size)


def _size(item: tuple[TopicPartition, list[Any]]) -> int:
    return len(item[1])
