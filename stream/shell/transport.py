"""faust's Kafka transport, with batches for events and a floor for a commit.

faust wraps every message in four futures; that costs more than all our work. Here a whole chunk of raw records travels as
one event. What is committed is the floor that the stages report, with its metadata, and nothing else: faust's own
bookkeeping of acknowledged offsets would commit past what is still under way.

These classes override private methods of faust-streaming 0.15.3; ``tests/unit/stream/shell/test_faust_pin.py`` fails when they change.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from stepstream.stream.shell.unpack import bound_unpacking

CHUNK_RECORDS: Final = 250
"""The other stages have their turn after so many: about ten milliseconds."""
MAX_BUFFERED_RECORDS: Final = 2_000
FETCH_MAX_WAIT_MS: Final = 200
PREFETCH_BACKOFF_S: Final = 0.01
"""aiokafka asks a broker for nothing while records from it lie unread for less than this: 100 ms where it is not told."""
PART_MAX_WAIT_MS: Final = 10
"""How long a request waits that leaves out partitions whose records lie unread: nothing else is asked for meanwhile."""
BUSY_RECORDS_PER_S: Final = 1_000
BUSY_MIN_BYTES: Final = 262_144
"""With more records than that a request waits, for ``PART_MAX_WAIT_MS`` at most, until so much is there: every request costs
worker and broker a millisecond."""
PACE_S: Final = 0.25
"""How long records are counted before it is judged anew."""
FULL_WAIT_S: Final = 0.01
"""How long a topic that was full may wait until it is asked for again."""

MAX_BUFFERED_BYTES: Final = 67_108_864
"""Nor are more of a topic fetched while so much of it waits."""

SafeOffsets = dict[TP, tuple[int, str]]
"""What may be committed: for each partition the floor and its metadata."""


class Backlog:
    """How many records of each topic wait in faust's streams; no more of a topic are fetched while there are too many.

    Topics do not wait for each other: findings reach the alerts however many steps are still to be read.
    """

    def __init__(self) -> None:
        self._by_topic: dict[str, deque[tuple[int, int]]] = {}
        """Records and bytes of the chunks under way, in their order."""
        self._sums: dict[str, tuple[int, int]] = {}

    @property
    def records(self) -> int:
        """Of all topics."""
        return sum(records for records, _ in self._sums.values())

    def put(self, topic: str, count: int, size_bytes: int = 0) -> None:
        """A chunk is on its way to a stage."""
        self._by_topic.setdefault(topic, deque()).append((count, size_bytes))
        self._add(topic, count, size_bytes)

    def taken(self, topic: str) -> None:
        """A stage has taken the first chunk that was under way."""
        waiting = self._by_topic.get(topic)
        if waiting:
            count, size_bytes = waiting.popleft()
            self._add(topic, -count, -size_bytes)

    def _add(self, topic: str, count: int, size_bytes: int) -> None:
        records, held_bytes = self._sums.get(topic, (0, 0))
        self._sums[topic] = records + count, held_bytes + size_bytes

    def clear(self) -> None:
        """A rebalance has emptied the streams."""
        self._by_topic.clear()
        self._sums.clear()

    def is_full(self, topic: str) -> bool:
        """Whether the topic's stage has enough to do."""
        records, held_bytes = self._sums.get(topic, (0, 0))
        return records >= MAX_BUFFERED_RECORDS or held_bytes >= MAX_BUFFERED_BYTES


class Pace:
    """How much is coming, and so how much a fetch waits for."""

    __slots__ = ("_records", "_since_s", "min_bytes")

    def __init__(self) -> None:
        self.min_bytes = 1
        self._records = 0
        self._since_s = 0.0

    def note(self, records: int, now_s: float) -> None:
        """So many more have come."""
        self._records += records
        passed_s = now_s - self._since_s
        if passed_s >= PACE_S:
            self.min_bytes = BUSY_MIN_BYTES if self._records > BUSY_RECORDS_PER_S * passed_s else 1
            self._records, self._since_s = 0, now_s


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """Commits floors with metadata; a refused commit changes nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pace = Pace()

    def _create_worker_consumer(self, transport: Any) -> Any:
        bound_unpacking()
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Any,
        timeout: float | None = None,  # noqa: ASYNC109  (faust's signature)
        max_records: int | None = None,
    ) -> Any:
        """As faust does it, but records that have been fetched come as the decoder made them.

        What aiokafka would make of each costs as much as decoding its JSON. It still does where it waits for a fetch.
        """
        hasten(consumer._fetcher)
        for result in consumer._fetcher._records.values():
            if isinstance(result, FetchResult) and result.has_more():
                result._partition_records._consumer_record = _as_decoded
        fetched = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        self._pace.note(sum(map(len, fetched.values())), time.monotonic())
        consumer._fetcher._fetch_min_bytes = self._pace.min_bytes
        return fetched

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        consumer = self._ensure_consumer()
        floors = batch_transport(self.consumer.transport).floors
        assigned = self.assignment()
        wanted = {
            TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(*floors.get(tp, (offset, "")))
            for tp, offset in offsets.items()
            if tp in assigned
        }
        if not wanted:
            return False
        try:
            await consumer.commit(wanted)
        except (CommitFailedError, IllegalStateError) as error:
            self.log.info("commit refused, the partitions have another owner: %s", error)
            return False
        except KafkaError as error:
            self.log.warning("the floors could not be committed, it is tried again: %r", error)
            return False
        except Exception as error:
            await self.crash(error)
            return False
        return True

    async def give_back(self, first: Mapping[TopicPartition, int]) -> None:
        """Fetch again from these offsets, unless that lies further on already."""
        consumer = self._ensure_consumer()
        subscription = consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        for partition, offset in first.items():
            if assignment is not None and partition in assignment.tps:
                state = assignment.state_value(partition)
                if state.has_valid_position and state.position > offset:
                    consumer.seek(partition, offset)

    def leader(self, tp: TP) -> int | None:
        """The broker that leads the partition, as far as the client knows."""
        if self._consumer is None:
            return None
        leader: int | None = self._consumer._client.cluster.leader_for_partition(
            TopicPartition(tp.topic, tp.partition)
        )
        return leader

    def position_and_end(self, tp: TP) -> tuple[int | None, int | None, int]:
        """Where the fetcher stands, the high watermark, and the wall time (ms) of the fetch that reported it."""
        consumer = self._consumer
        if consumer is None:
            return None, None, 0
        partition = TopicPartition(tp.topic, tp.partition)
        subscription = consumer._subscription.subscription
        if (
            subscription is None
            or subscription.assignment is None
            or partition not in subscription.assignment.tps
        ):
            return None, None, 0
        state = subscription.assignment.state_value(partition)
        time_ms = (
            state.timestamp or 0
        )  # before the end: the fetching thread sets it after, and an old end must not look new
        return (state.position if state.has_valid_position else None), state.highwater, time_ms


def hasten(fetcher: Any) -> None:
    """Let no partition wait for another's silence.

    aiokafka has one request under way to a broker. One for the partitions that have nothing unread may find nothing for all
    of its time, and what comes to the others meanwhile is asked for only after it.
    """
    if fetcher._prefetch_backoff == PREFETCH_BACKOFF_S:
        return
    fetcher._prefetch_backoff = PREFETCH_BACKOFF_S
    plan = fetcher._get_actions_per_node

    def hastened(assignment: Any) -> Any:
        soon = fetcher._records or fetcher._fetch_min_bytes > 1
        fetcher._fetch_max_wait_ms = PART_MAX_WAIT_MS if soon else FETCH_MAX_WAIT_MS
        return plan(assignment)

    fetcher._get_actions_per_node = hastened


def _size(item: tuple[TopicPartition, list[Any]]) -> int:
    return len(item[1])


def _as_decoded(_tp: TopicPartition, record: Any) -> Any:
    return record


class BatchConsumer(driver.Consumer):
    """Hands over chunks of records and commits floors."""

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _floors(self) -> SafeOffsets:
        return batch_transport(self.transport).floors

    def ack(self, message: Any) -> bool:
        """Acknowledging a chunk says nothing about what it led to."""
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        """The message of a chunk, named after its last record."""
        time_s, generation = record.timestamp / 1000, self.app.consumer_generation_id
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.offset,
            time_s,
            0,
            None,
            None,
            None,
            None,
            tp=tp,
            generation_id=generation,
        )

    def _filter_tps_with_pending_acks(self, topics: Iterable[Any] | None = None) -> Iterator[TP]:
        return iter(list(self._floors))

    def _new_offset(self, tp: TP) -> int | None:
        floor = self._floors.get(tp)
        return None if floor is None else floor[0]

    async def _commit_offsets(
        self, offsets: Mapping[TP, int], start_new_transaction: bool = True
    ) -> bool:
        if not offsets or not await self._commit(dict(offsets)):
            return False
        self._committed_offset.update(offsets)
        return True

    async def on_task_error(self, exc: BaseException) -> None:
        """Nothing is committed because of an error."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """faust's own watchdog looks at single messages; ours looks at floors."""

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109  (faust's)
        """Records of the partitions whose stages have room; of all that are active, where faust asks for all."""
        backlog = batch_transport(self.transport).backlog
        roomy = {tp for tp in active_partitions or () if not backlog.is_full(tp.topic)}
        if len(roomy) == len(active_partitions or ()):
            return await super()._getmany(active_partitions, timeout)
        if roomy:
            return await super()._getmany(roomy, FULL_WAIT_S)
        await asyncio.sleep(FULL_WAIT_S)
        return {}

    async def _drain_messages(self, fetcher: Any) -> None:
        backlog = batch_transport(self.transport).backlog
        while not (self._stopped.is_set() or fetcher._stopped.is_set()):
            records, _ = await self._wait_next_records(1.0)
            generation = (
                self.app.consumer_generation_id
            )  # their own: a rebalance needs more turns of the loop than this
            if not records:
                await asyncio.sleep(0)
                continue
            if not self.flow_active:
                await self._give_back(records)
                continue
            for partition, batch in sorted(
                records.items(), key=_size
            ):  # a few findings do not wait for many steps
                await self._hand_over(
                    TP(partition.topic, partition.partition), batch, generation, backlog
                )
                await asyncio.sleep(0)

    async def _give_back(self, records: Mapping[TopicPartition, list[Any]]) -> None:
        """A fetch that began before a rebalance may bring the new assignment's first records before anybody takes them.

        faust would go back to the committed offsets: there may be none, and asking for them may fail.
        """
        first = {partition: batch[0].offset for partition, batch in records.items() if batch}
        await self._thread.call_thread(cast(Any, self._thread).give_back, first)

    async def _hand_over(self, tp: TP, batch: list[Any], generation: int, backlog: Backlog) -> None:
        read = self._read_offset[tp]
        for start in range(0, len(batch), CHUNK_RECORDS):
            chunk = batch[start : start + CHUNK_RECORDS]
            if read is not None and chunk[-1].offset < read:
                continue
            if self.app.consumer_generation_id != generation or not self.flow_active:
                return  # a rebalance: every partition is read again from its floor
            message = self._to_message(tp, chunk[-1])
            message.value = cast(Any, chunk)
            backlog.put(
                tp.topic,
                len(chunk),
                sum([len(record.value) for record in chunk if record.value is not None]),
            )
            await self.callback(message)  # waits out a rebalance; its stage then drops the message
            if self.app.consumer_generation_id != generation:
                return  # the read offset has gone back to the floor: what lies between must not be taken for read
            self._read_offset[tp] = chunk[-1].offset


class BatchTransport(driver.Transport):
    """The transport that a worker's app is given."""

    Consumer = BatchConsumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.floors: SafeOffsets = {}
        self.backlog = Backlog()


def batch_transport(transport: Any) -> BatchTransport:
    """The transport as ours; faust's types know only its base."""
    return cast(BatchTransport, transport)
