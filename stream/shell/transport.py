"""faust's Kafka transport with chunks of records for events, and with the stages' safe offsets for
commits.

This module and ``unpack.py`` are the only ones that override private methods: of faust-streaming
0.15.3 and aiokafka 0.14.0, which pyproject.toml pins. ``tests/unit/stream/shell/test_faust_pin.py``
fails when one of the methods changes. The two main reasons; the others are at the methods:

- faust wraps each message in ``Service.wait_first`` (four futures, ``asyncio.wait``,
  cancellations): 70 to 100 us a message, ten times what the worker itself needs. Slow consumption
  was reported as robinhood/faust#563; the cause is not reported upstream.
- faust commits past messages that are still being processed: faust-streaming/faust#606, open, with
  the unmerged fix #707. An acknowledged event does not mean that its results are stored: only the
  stages know what may be committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

from aiokafka.consumer.fetcher import FetchResult
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from stepstream.stream.shell.batching import (
    Backlog,
    Handover,
    Pace,
    SafeOffsets,
    ahead_of,
    commit_safe_offsets,
    first_offsets,
    smallest_first,
)
from stepstream.stream.shell.unpack import bound_unpacking

FETCH_MAX_WAIT_MS: Final = 200
PREFETCH_BACKOFF_S: Final = 0.01
"""aiokafka asks a broker for nothing while records from it are unread for less than this; its
default is 100 ms.
"""
PART_MAX_WAIT_MS: Final = 10
"""The wait of a request that leaves out partitions with unread records: no other request is sent
meanwhile.
"""
FULL_WAIT_S: Final = 0.01
"""A topic that was full is asked for again after so long."""


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
        """As in faust, but fetched records are handed out as the decoder made them."""
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
        try:
            return await commit_safe_offsets(
                consumer.commit, offsets, safe_offsets, self.assignment(), self.log
            )
        except Exception as error:
            await self.crash(error)
            return False

    async def fetch_again(self, first: Mapping[TopicPartition, int]) -> None:
        """Move the fetch positions back to these offsets; never forward."""
        consumer = self._ensure_consumer()
        for partition, offset in ahead_of(consumer._subscription, first):
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
        handover = Handover(
            generation=lambda: self.app.consumer_generation_id,
            is_flowing=lambda: self.flow_active,
            read_offsets=self._read_offset,
            deliver=self._deliver,
            backlog=batch_transport(self.transport).backlog,
        )
        while not (self._stopped.is_set() or fetcher._stopped.is_set()):
            records, _ = await self._wait_next_records(1.0)
            # The generation of these records: a rebalance takes more turns of the loop than the
            # return from the wait.
            generation = self.app.consumer_generation_id
            if not records:
                await asyncio.sleep(0)
                continue
            if not self.flow_active:
                # A fetch that began before a rebalance may return the first records of the new
                # assignment. faust drops them and goes back to the committed offsets; there may be
                # none, and asking for them may fail.
                fetch_again = cast(Any, self._thread).fetch_again
                await self._thread.call_thread(fetch_again, first_offsets(records))
                continue
            for partition, batch in smallest_first(records):
                tp = TP(partition.topic, partition.partition)
                await handover.hand_over(tp, batch, generation)
                await asyncio.sleep(0)

    async def _deliver(self, tp: TP, chunk: list[Any]) -> None:
        message = self._to_message(tp, chunk[-1])
        message.value = cast(Any, chunk)
        await self.callback(message)


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
