"""faust's Kafka transport with chunks of records for events, and with the stages' safe offsets for
commits.

This module and ``unpack.py`` are the only ones that override private methods: of faust-streaming
0.15.3 and aiokafka 0.14.0, which pyproject.toml pins. ``tests/unit/stream/shell/test_faust_pin.py``
fails when one of the methods changes. The two main reasons; the others are at the methods:

- faust wraps each message in ``Service.wait_first`` (four futures, ``asyncio.wait``,
  cancellations): 70 to 100 us a message, ten times what the worker itself needs. Slow consumption
  was reported as robinhood/faust#563; the cause is not reported upstream.
- faust commits past messages that are still being processed: faust-streaming/faust#606, open, with
  the unmerged fix #707. An acknowledged event does not mean that its results are stored: only the stages know what may be committed.
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
"""Records of a chunk: processing them takes about ten milliseconds, then the other stages have
their turn.
"""
MAX_BUFFERED_RECORDS: Final = 2_000
FETCH_MAX_WAIT_MS: Final = 200
PREFETCH_BACKOFF_S: Final = 0.01
"""aiokafka asks a broker for nothing while records from it are unread for less than this; its
default is 100 ms.
"""
PART_MAX_WAIT_MS: Final = 10
"""The wait of a request that leaves out partitions with unread records: no other request is sent
meanwhile.
"""
BUSY_RECORDS_PER_S: Final = 1_000
BUSY_MIN_BYTES: Final = 262_144
"""With more records a second than ``BUSY_RECORDS_PER_S`` a request waits for so many bytes,
``PART_MAX_WAIT_MS`` at most: every request costs worker and broker a millisecond.
"""
PACE_S: Final = 0.25
"""Records are counted for so long before ``Pace`` decides again."""
FULL_WAIT_S: Final = 0.01
"""A topic that was full is asked for again after so long."""

MAX_BUFFERED_BYTES: Final = 67_108_864
"""Nothing more of a topic is fetched while so many records or bytes of it wait."""

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
        """A chunk begins to wait for its stage."""
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


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """Commits safe offsets with metadata; a refused commit changes nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pace = Pace()

    # The wait of a fetch is not a setting of faust: it is 1.5 s, for which timers would stand
    # still. Not reported upstream.
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
        """As in faust, but records that have been fetched are handed out as the decoder made them."""
        # aiokafka makes a ConsumerRecord of each record, which costs as much as decoding its JSON.
        # It still does so for records that arrive while this waits. Not reported upstream.
        shorten_waits(consumer._fetcher)
        for result in consumer._fetcher._records.values():
            if isinstance(result, FetchResult) and result.has_more():
                result._partition_records._consumer_record = _as_decoded
        fetched = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        self._pace.note(sum(map(len, fetched.values())), time.monotonic())
        consumer._fetcher._fetch_min_bytes = self._pace.min_bytes
        return fetched

    # faust ends the consumer where a rebalance comes between asking for a commit and committing:
    # faust-streaming/faust#94, open. It commits no metadata: not reported upstream.
    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        consumer = self._ensure_consumer()
        safe_offsets = batch_transport(self.consumer.transport).safe_offsets
        assigned = self.assignment()
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
            await consumer.commit(wanted)
        except (CommitFailedError, IllegalStateError) as error:
            self.log.info("commit refused, the partitions have another owner: %s", error)
            return False
        except KafkaError as error:
            self.log.warning("offsets could not be committed and will be tried again: %r", error)
            return False
        except Exception as error:
            await self.crash(error)
            return False
        return True

    async def fetch_again(self, first: Mapping[TopicPartition, int]) -> None:
        """Move the fetch positions back to these offsets; never forward."""
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
        """Where the fetcher stands, the high watermark, and the wall time (ms) of the fetch that
        reported it.
        """
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
        # Read before the high watermark: the fetching thread sets it afterwards, so an old
        # watermark cannot get a new time.
        time_ms = state.timestamp or 0
        return (state.position if state.has_valid_position else None), state.highwater, time_ms


def shorten_waits(fetcher: Any) -> None:
    """Keep a partition with records from waiting for one without.

    aiokafka sends a broker one request at a time. A request for the partitions without unread
    records may wait for its whole time, and the records that the other partitions get meanwhile are
    asked for only after it. Not reported upstream.
    """
    if fetcher._prefetch_backoff == PREFETCH_BACKOFF_S:
        return
    fetcher._prefetch_backoff = PREFETCH_BACKOFF_S
    plan = fetcher._get_actions_per_node

    def shortened(assignment: Any) -> Any:
        soon = fetcher._records or fetcher._fetch_min_bytes > 1
        fetcher._fetch_max_wait_ms = PART_MAX_WAIT_MS if soon else FETCH_MAX_WAIT_MS
        return plan(assignment)

    fetcher._get_actions_per_node = shortened


def _size(item: tuple[TopicPartition, list[Any]]) -> int:
    return len(item[1])


def _as_decoded(_tp: TopicPartition, record: Any) -> Any:
    return record


class BatchConsumer(driver.Consumer):
    """Hands over chunks of records and commits safe offsets."""

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _safe_offsets(self) -> SafeOffsets:
        return batch_transport(self.transport).safe_offsets

    # The next three: faust commits what lies before the first event that is not acknowledged, and
    # past it where that is the first of all: faust-streaming/faust#606, open.
    def ack(self, message: Any) -> bool:
        """Mark the chunk as acknowledged; that commits nothing."""
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
        return iter(list(self._safe_offsets))

    def _new_offset(self, tp: TP) -> int | None:
        found = self._safe_offsets.get(tp)
        return None if found is None else found[0]

    # faust 0.15.3 notes an offset as committed although the commit failed, and never tries it
    # again: faust-streaming/faust#316, fixed by #692 after this release.
    async def _commit_offsets(
        self, offsets: Mapping[TP, int], start_new_transaction: bool = True
    ) -> bool:
        if not offsets or not await self._commit(dict(offsets)):
            return False
        self._committed_offset.update(offsets)
        return True

    # faust commits after an exception of an agent, including the event that raised. Not reported
    # upstream.
    async def on_task_error(self, exc: BaseException) -> None:
        """Commit nothing."""

    # faust's watchdog expects each message to be acknowledged in time and compares times across
    # threads: faust-streaming/faust#175, open. ``WorkerObservation.stuck`` checks the position
    # instead.
    def verify_event_path(self, now: float, tp: TP) -> None:
        """Check nothing."""

    # faust stops fetching for all topics, for a whole second, once one stream is full.
    # faust-streaming/faust#53, closed, asked for bounds of each topic.
    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109  (faust's signature)
        """Records of the active partitions whose topics are not full."""
        backlog = batch_transport(self.transport).backlog
        roomy = {tp for tp in active_partitions or () if not backlog.is_full(tp.topic)}
        if len(roomy) == len(active_partitions or ()):
            return await super()._getmany(active_partitions, timeout)
        if roomy:
            return await super()._getmany(roomy, FULL_WAIT_S)
        await asyncio.sleep(FULL_WAIT_S)
        return {}

    # Replaces the loop that wraps each message in futures; see the top of this module.
    async def _drain_messages(self, fetcher: Any) -> None:
        backlog = batch_transport(self.transport).backlog
        while not (self._stopped.is_set() or fetcher._stopped.is_set()):
            records, _ = await self._wait_next_records(1.0)
            # The generation of these records: a rebalance takes more turns of the loop than the
            # return from the wait.
            generation = self.app.consumer_generation_id
            if not records:
                await asyncio.sleep(0)
                continue
            if not self.flow_active:
                await self._fetch_again(records)
                continue
            # Small batches first, so that a few findings do not wait for many steps.
            for partition, batch in sorted(records.items(), key=_size):
                await self._hand_over(
                    TP(partition.topic, partition.partition), batch, generation, backlog
                )
                await asyncio.sleep(0)

    async def _fetch_again(self, records: Mapping[TopicPartition, list[Any]]) -> None:
        """Move back to the records of a fetch that returned while the flow was stopped.

        A fetch that began before a rebalance may return the first records of the new assignment.
        faust drops them and goes back to the committed offsets; there may be none, and asking for
        them may fail.
        """
        first = {partition: batch[0].offset for partition, batch in records.items() if batch}
        await self._thread.call_thread(cast(Any, self._thread).fetch_again, first)

    async def _hand_over(self, tp: TP, batch: list[Any], generation: int, backlog: Backlog) -> None:
        read = self._read_offset[tp]
        for start in range(0, len(batch), CHUNK_RECORDS):
            chunk = batch[start : start + CHUNK_RECORDS]
            if read is not None and chunk[-1].offset < read:
                continue
            if self.app.consumer_generation_id != generation or not self.flow_active:
                return  # a rebalance: every partition is read again from its committed offset
            message = self._to_message(tp, chunk[-1])
            message.value = cast(Any, chunk)
            backlog.put(
                tp.topic,
                len(chunk),
                sum([len(record.value) for record in chunk if record.value is not None]),
            )
            await self.callback(
                message
            )  # waits until a rebalance is over; the stage then drops the message
            if self.app.consumer_generation_id != generation:
                # The read offset has moved back to the committed one: moving it forward would skip
                # what is between.
                return
            self._read_offset[tp] = chunk[-1].offset


class BatchTransport(driver.Transport):
    """The transport of a worker's app."""

    Consumer = BatchConsumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.safe_offsets: SafeOffsets = {}
        self.backlog = Backlog()


def batch_transport(transport: Any) -> BatchTransport:
    """The transport with its own type; faust's types only have its base."""
    return cast(BatchTransport, transport)
