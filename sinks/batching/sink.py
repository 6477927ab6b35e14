"""The sink: Kafka to a store, every record exactly once. ``README.md`` of this folder explains the
protocol.

All work with Kafka is done in the main thread, all work with the store in a few others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from confluent_kafka import KafkaException

from stepstream.common.commit_metadata import SINK
from stepstream.common.consumer import Assignment, GroupConsumer, Received
from stepstream.common.kafka import KafkaUnreachable
from stepstream.common.retry import Cancelled, OutageLog, retry
from stepstream.schemas.retention import record_limits, retention
from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.batch_writer import BatchOutcome, BatchResult, BatchWriter, Hook
from stepstream.sinks.batching.batcher import BatchPolicy, BatchState
from stepstream.sinks.batching.partition import Backpressure, SinkPartition
from stepstream.sinks.batching.position import Position
from stepstream.sinks.batching.prices import PriceFollower
from stepstream.sinks.batching.records import Record, Source, record_of
from stepstream.sinks.batching.stats import SinkStats
from stepstream.sinks.batching.threads import JobThreads
from stepstream.sinks.batching.writer import StoreWriter

logger = logging.getLogger("stepstream.sink")

THREADS: Final = 3
"""Threads that insert, each with a connection of its own."""
READ_RECORDS_AT_ONCE: Final = 2_000
"""The most records of one read: the main loop commits and starts inserts between two reads."""
IDLE_WAIT_S: Final = 0.1
"""The longest wait for records while nothing is being inserted."""
BUSY_WAIT_S: Final = 0.01
"""The longest wait for records during an insert: its result should be committed at once."""
DRAIN_S: Final = 20.0
"""How long the sink stores what it has read before it ends. Kubernetes kills it after 30 s."""
HOUSEKEEPING_S: Final = 1.0
"""The interval of ``_housekeeping``."""
IDLE_AFTER_RECORDS: Final = 20_000
"""The writer's ``idle`` is called after this many records, once nothing is pending."""

CONSUMER: Final = {
    "queued.max.messages.kbytes": 32_768,
    # A partition that is resumed waits for the fetch in progress.
    "fetch.wait.max.ms": 100,
    # Batches wait longer than it takes to get this much, and each fetch costs broker and sink.
    "fetch.min.bytes": 131_072,
    "fetch.queue.backoff.ms": 50,
    "topic.metadata.refresh.interval.ms": 10_000,
}


class Sink:
    """One sink process. ``run`` may be called once."""

    def __init__(
        self, settings: Settings, writer: StoreWriter, *, hook: Hook = lambda _point: None
    ) -> None:
        self.stats = SinkStats()
        self._settings = settings
        self._writer = writer
        self._hook = hook
        self._policy = BatchPolicy(
            settings.sink_batch_rows,
            settings.sink_batch_bytes,
            settings.sink_batch_interval / 1_000_000,
        )
        self._limits = record_limits(settings)
        self._retention = retention(settings, "steps")
        self._threads = JobThreads(THREADS)
        self._prices = PriceFollower(settings)
        self._kafka_outage = OutageLog("Kafka", logger)
        self._consumer: GroupConsumer[SinkPartition]
        self._batches: BatchWriter
        self._backpressure: Backpressure
        self._housekeeping_at = 0.0
        self._idle_at = 0

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set.

        Raises the store's error for a wrong password or a schema newer than this program
        (``StoreError`` of ClickHouse), and ``UnknownMetadata``.
        """
        consumer = self._consumer = GroupConsumer(
            self._settings,
            SINK,
            self,
            self._writer.topics,
            self._settings.sink_group,
            cooperative=True,
            logger=logger,
            outage=self._kafka_outage,
            config=CONSUMER,
        )
        self._backpressure = Backpressure(consumer, self._policy)
        self._batches = BatchWriter(
            self._settings,
            self._writer,
            self._kafka_outage,
            hook=self._hook,
            fence_s=consumer.fence_s,
        )
        try:
            if not self._prepare(stop):
                return
            consumer.join()
            while not stop.is_set():
                if consumer.begin_round():
                    self._housekeeping()
                    self._read()
                    self._step()
                else:
                    # This process was suspended and it is unknown which partitions it still owns:
                    # only read, to stay a member of the group. These records are read again.
                    consumer.read(READ_RECORDS_AT_ONCE, IDLE_WAIT_S, record_of)
            self._drain()
        finally:
            consumer.close()
            self._prices.close()
            self._batches.close()

    def _prepare(self, stop: threading.Event) -> bool:
        """Wait for the store and migrate it, wait for Kafka and read the prices; False when stopped
        meanwhile.
        """
        # A wrong password or a newer schema ends the sink at once: only a person can change it.
        try:
            retry(self._writer.migrate, self._writer.unreachable, self._batches.outage, stop=stop)
            retry(
                self._prices.read_all,
                (KafkaUnreachable, KafkaException),
                self._kafka_outage,
                stop=stop,
            )
        except Cancelled:
            return False
        return True

    # -- partitions come and go ----------------------------------------------------------------

    def assigned(self, assignment: Assignment) -> SinkPartition:
        """Begin to find out where to resume; the partition stays paused until then."""
        # The topic's id is not known yet: ``BatchWriter.open`` asks Kafka for it.
        source = Source("", assignment.partition, limits=self._limits, retention=self._retention)
        handler = self._writer.handler(assignment.name)
        partition = SinkPartition(assignment, self._policy, handler, source)
        self._threads.submit(partition, lambda: self._batches.open(partition))
        return partition

    def revoked(self, partitions: Sequence[SinkPartition]) -> None:
        """Finish pending batches and commit them; what does not finish in time is repeated by the
        next owner.
        """
        # Until then Kafka cannot have given the partitions to another sink.
        deadline = self._consumer.known_at + self._consumer.fence_s
        while (
            any(p.batcher.state is BatchState.INSERTING for p in partitions)
            and time.monotonic() < deadline
        ):
            self._collect(wait_s=0.05)
        # A batch that is still being inserted keeps its committed range: the next owner repeats it.
        positions = [
            (partition, partition.batcher.position, None)
            for partition in partitions
            if not partition.batcher.position_is_committed
            and partition.batcher.state is not BatchState.INSERTING
        ]
        self._consumer.commit(positions, last=True)

    def dropped(self, partition: SinkPartition) -> None:
        """Nothing is left to do: results of its jobs are ignored from now on."""

    # -- reading -------------------------------------------------------------------------------

    def _read(self) -> None:
        """Take what Kafka has, unless memory is full: then wait for the store."""
        now = time.monotonic()
        if self._backpressure.must_wait(now):
            self._collect(wait_s=BUSY_WAIT_S)
            return
        self._take(self._consumer.read(READ_RECORDS_AT_ONCE, self._longest_poll_s(now), record_of))

    def _take(self, received: Received[SinkPartition, Record]) -> None:
        now = time.monotonic()
        for partition, records in received.records.items():
            partition.batcher.add(records, now)
            self.stats.read[partition.name] += len(records)
        for partition, end in received.ends.items():
            partition.batcher.reached_end(end)
        for skipped in received.skipped:
            skipped.partition.batcher.reached_end(skipped.batch.last + 1)
            self.stats.dead_lettered[skipped.partition.name] += 1

    def _longest_poll_s(self, now: float) -> float:
        batchers = [partition.batcher for partition in self._consumer.partitions.values()]
        if any(batcher.state is BatchState.INSERTING for batcher in batchers):
            return BUSY_WAIT_S
        return max(0.001, min([IDLE_WAIT_S, *(batcher.time_left_s(now) for batcher in batchers)]))

    # -- batches -------------------------------------------------------------------------------

    def _step(self, *, flush: bool = False) -> None:
        """Collect what is done, cut what is due, commit, and start what is committed."""
        self._collect()
        now = time.monotonic()
        for partition in self._consumer.partitions.values():
            if partition.batcher.is_due(now, flush=flush):
                partition.batcher.cut(now)
                self._hook(f"planned {partition.name}")
        for partition in self._commit():
            self._hook(f"committed {partition.name}")
            self._start(partition, now)

    def _commit(self) -> list[SinkPartition]:
        """Commit ranges of planned batches and positions of stored ones, in one request.

        Returns the partitions whose planned batch may be inserted.
        """
        wanted: list[tuple[SinkPartition, int, int | None]] = []
        ready: list[SinkPartition] = []
        for partition in self._consumer.partitions.values():
            batcher, batch = partition.batcher, partition.batcher.batch
            if batcher.state is BatchState.PLANNED and batch is not None:
                if batch.replay:  # its range is what is committed
                    ready.append(partition)
                else:
                    wanted.append((partition, batch.first, batch.last))
            elif not batcher.position_is_committed:
                wanted.append((partition, batcher.position, None))
        # A batch whose range is committed may not be inserted either: the partition may have
        # another owner by now.
        if not self._consumer.may_commit():
            return []
        committed = self._consumer.commit(wanted)
        for partition, _, _ in wanted:
            if partition in committed:
                partition.batcher.position_is_committed = True
                if partition.batcher.state is BatchState.PLANNED:
                    ready.append(partition)
        return ready

    def _start(self, partition: SinkPartition, now: float) -> None:
        batch = partition.batcher.batch
        if batch is None:
            return
        if batch.replay:
            self.stats.replayed += 1
            logger.info("%r: repeating batch %d-%d", partition, batch.first, batch.last)
        partition.batcher.started()
        partition.range_committed_at = now
        now_ms = time.time_ns() // 1_000_000
        source = replace(partition.source, prices=self._prices.book, now_ms=now_ms)
        self._threads.submit(partition, lambda: self._batches.store(partition, batch, source))

    def _collect(self, *, wait_s: float = 0.0) -> None:
        """Take the results of finished jobs; wait up to ``wait_s`` seconds for the first one."""
        while (done := self._threads.finished(wait_s)) is not None:
            wait_s = 0.0
            partition, result = done
            if not isinstance(partition, SinkPartition):
                continue
            if self._consumer.partitions.get(partition.place) is not partition:
                continue  # it was taken away meanwhile
            if isinstance(result, Position):
                self._resume(partition, result)
            elif isinstance(result, BatchOutcome):
                self._finished(partition, result)

    def _resume(self, partition: SinkPartition, position: Position) -> None:
        if position.note:
            logger.warning("%r: %s", partition, position.note)
        partition.batcher.open(position.offset, position.replay_end, time.monotonic())
        is_new = partition.assignment.committed is None and position.stored is None
        self._consumer.resume_at(partition, position.offset, is_beginning=is_new)

    def _finished(self, partition: SinkPartition, outcome: BatchOutcome) -> None:
        batcher = partition.batcher
        self._count(partition.name, outcome)
        if outcome.result is BatchResult.STORED:
            self._hook(f"stored {partition.name}")
            batcher.stored(outcome.insert_s)
        elif outcome.result is BatchResult.STALE:
            batcher.plan_again()
        elif outcome.result is BatchResult.REFUSED:
            logger.warning("%r: the store refuses a batch: %s", partition, outcome.detail[:500])
            batcher.split()
        # CANCELLED: the partition belongs to another sink now; nothing is left to do.

    def _count(self, name: str, outcome: BatchOutcome) -> None:
        stats = self.stats
        stats.inserted.update(outcome.rows)
        stats.skipped.update({(name, reason): count for reason, count in outcome.skipped.items()})
        stats.dead_lettered[name] += outcome.dead_lettered
        stats.insert_s += outcome.insert_s
        stats.retries = self._batches.outage.failures
        stats.batches[name] += outcome.result is BatchResult.STORED

    # -- housekeeping --------------------------------------------------------------------------

    def _housekeeping(self) -> None:
        """Once a second: measure the lag, release memory after much work, read new prices."""
        now = time.monotonic()
        if now < self._housekeeping_at:
            return
        self._housekeeping_at = now + HOUSEKEEPING_S
        self._measure_lag()
        read = self.stats.read.total()
        if read - self._idle_at >= IDLE_AFTER_RECORDS and not self._has_work():
            self._idle_at = read
            self._writer.idle()
        try:
            self._prices.poll()
        except (KafkaUnreachable, KafkaException) as error:
            self._kafka_outage.failed(error)

    def _measure_lag(self) -> None:
        lags = {}
        for partition, end in self._consumer.ends().items():
            batcher = partition.batcher
            if batcher.state is not BatchState.OPENING:
                batcher.lag = max(0, end - batcher.position)
                lags[partition.name, partition.partition] = batcher.lag
        self.stats.lag = lags

    def _has_work(self) -> bool:
        return any(partition.batcher.has_work for partition in self._consumer.partitions.values())

    def _drain(self) -> None:
        """Store what has been read, as far as the store accepts it in time; the rest stays in
        Kafka.
        """
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            if not self._consumer.begin_round():
                return
            self._step(flush=True)
            if not self._has_work():
                return
            self._collect(wait_s=0.02)
        logger.warning(
            "the store did not accept what was read within %.0f s: it stays in Kafka", DRAIN_S
        )
