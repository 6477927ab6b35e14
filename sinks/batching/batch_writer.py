"""The work of a sink's threads: find where to resume a partition, and insert one batch."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from confluent_kafka import KafkaException

from stepstream.common.kafka import KafkaUnreachable
from stepstream.common.retry import DEFAULT_BACKOFF, OutageLog
from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.batcher import PendingBatch
from stepstream.sinks.batching.deadletter import DeadLetters, TooManyRefused
from stepstream.sinks.batching.partition import SinkPartition
from stepstream.sinks.batching.position import Position, resume_position
from stepstream.sinks.batching.records import STORE_REFUSED, Refused, Source
from stepstream.sinks.batching.topic_log import TopicLog
from stepstream.sinks.batching.writer import RowsRefused, StoreWriter

logger = logging.getLogger("stepstream.sink")

Hook = Callable[[str], None]
"""Called at named points of the protocol, so that tests can end or stop the process there."""

KAFKA_ERRORS: Final = (KafkaException, KafkaUnreachable)


class BatchResult(Enum):
    """How the work on a batch ended."""

    STORED = "stored"
    """Every row is inserted, or dead-lettered if it was refused."""
    STALE = "stale"
    """Its range was committed too long ago: the partition may have been given to another sink
    since.
    """
    REFUSED = "refused"
    """The store does not accept it as a whole."""
    CANCELLED = "cancelled"
    """The partition was taken away, or the sink stops."""


@dataclass(slots=True)
class BatchOutcome:
    """What became of a batch."""

    result: BatchResult
    insert_s: float = 0.0
    rows: Counter[str] = field(default_factory=Counter)
    """Rows inserted, by table."""
    skipped: Counter[str] = field(default_factory=Counter)
    dead_lettered: int = 0
    detail: str = ""


class BatchWriter:
    """Opens partitions and stores batches, for all partitions of a sink.

    Each call runs in one thread of a pool; calls for different partitions run at the same time.
    """

    def __init__(
        self,
        settings: Settings,
        writer: StoreWriter,
        kafka_outage: OutageLog,
        *,
        hook: Hook,
        fence_s: float,
    ) -> None:
        self._writer = writer
        self._hook = hook
        self._fence_s = fence_s
        self._log = TopicLog(settings)
        self._dead_letters = DeadLetters(settings)
        self._kafka_outage = kafka_outage
        self._temporary: tuple[type[Exception], ...] = (
            *writer.temporary_errors,
            *KAFKA_ERRORS,
            OSError,
            TooManyRefused,
        )
        self.outage = OutageLog(f"{writer.description} accepts no rows", logger)

    def close(self) -> None:
        """Drop the connections to Kafka."""
        self._log.close()
        self._dead_letters.close()

    def open(self, partition: SinkPartition) -> Position | None:
        """Find where to resume the partition and prepare its handler; None when it was taken away
        meanwhile.
        """
        failures = 0
        while not partition.cancelled.is_set():
            try:
                if not partition.source.topic_id:
                    partition.source = self._identified(partition)
                position = self._position(partition)
                partition.handler.open(partition.source, position)
            except self._temporary as error:
                self._writer.reconnect()
                outage = self._kafka_outage if isinstance(error, KAFKA_ERRORS) else self.outage
                outage.failed(self._writer.explain(error))
                failures += 1
                partition.cancelled.wait(DEFAULT_BACKOFF.pause_s(failures))
            else:
                self._kafka_outage.over()
                self.outage.over()
                return position
        return None

    def _identified(self, partition: SinkPartition) -> Source:
        topic_id, partitions = self._log.identify(partition.name)
        return replace(
            partition.source,
            topic_id=topic_id,
            partition=partition.partition,
            partitions=partitions,
        )

    def _position(self, partition: SinkPartition) -> Position:
        name, committed = partition.name, partition.assignment.committed
        stored = self._writer.last_offset(name, partition.source, committed or 0)
        if committed is not None:
            return resume_position(committed, partition.assignment.metadata, stored)
        low, high = self._log.ends(name, partition.partition)
        return resume_position(None, None, stored, low=low, high=high)

    def store(self, partition: SinkPartition, batch: PendingBatch, source: Source) -> BatchOutcome:
        """Insert the batch.

        Temporary failures are retried without limit, with the same rows and the same token.
        """
        failures = 0
        outcome = BatchOutcome(BatchResult.CANCELLED)
        while not partition.cancelled.is_set():
            if time.monotonic() - partition.range_committed_at > self._fence_s:
                outcome.result = BatchResult.STALE
                return outcome
            try:
                return self._attempt(partition, batch, source, outcome)
            except RowsRefused as refusal:
                if self._settle_refusal(partition, batch, refusal, outcome):
                    return outcome
            except self._temporary as error:
                self.outage.failed(self._writer.explain(error))
            failures += 1
            partition.cancelled.wait(DEFAULT_BACKOFF.pause_s(failures))
        return outcome

    def _attempt(
        self,
        partition: SinkPartition,
        batch: PendingBatch,
        source: Source,
        outcome: BatchOutcome,
    ) -> BatchOutcome:
        if batch.blocks is None:
            batch.blocks = partition.handler.build(batch, source)
        built = batch.blocks
        for number, block in enumerate(built.blocks):
            if number < batch.stored_blocks:
                continue
            self._hook(f"insert {block.name}")
            token = batch.token(source.topic_id, source.partition)
            outcome.insert_s += self._writer.insert(block, token)
            self._hook(f"inserted {block.name}")
            batch.stored_blocks += 1
            outcome.rows[block.name] += block.rows
        if built.refused:
            self._dead_letter(partition, batch, built.refused)
            outcome.dead_lettered += len(built.refused)
        partition.handler.stored(built)
        self.outage.over()
        outcome.skipped = built.skipped
        outcome.result = BatchResult.STORED
        return outcome

    def _dead_letter(
        self, partition: SinkPartition, batch: PendingBatch, refused: list[Refused]
    ) -> None:
        again, batch.may_have_letters = batch.may_have_letters, True
        self._dead_letters.send(refused, partition.name, partition.partition, again=again)

    def _settle_refusal(
        self,
        partition: SinkPartition,
        batch: PendingBatch,
        refusal: RowsRefused,
        outcome: BatchOutcome,
    ) -> bool:
        """Report the batch as refused, so that it is split, or dead-letter its only record.

        False: try the same again.
        """
        try:
            if self._is_partly_stored(partition, batch, refusal):
                return False
            outcome.detail = str(refusal)
            if len(batch.records) > 1:
                outcome.result = BatchResult.REFUSED
                return True
            record = batch.records[0]
            logger.error(
                "%r: the store refuses the record at offset %d: %s",
                partition,
                record.offset,
                refusal,
            )
            self._dead_letter(partition, batch, [Refused(record, STORE_REFUSED, str(refusal))])
        except self._temporary as error:
            self.outage.failed(self._writer.explain(error))
            return False
        outcome.dead_lettered += 1
        outcome.result = BatchResult.STORED
        return True

    def _is_partly_stored(
        self, partition: SinkPartition, batch: PendingBatch, refusal: RowsRefused
    ) -> bool:
        # A split batch gets other tokens, so rows that are stored already would be stored twice.
        name = partition.name
        if not self._writer.count_rows(name, partition.source, batch.first, batch.last):
            return False
        self.outage.failed(
            f"part of batch {batch.first}-{batch.last} of {partition!r} is stored, the rest "
            f"refused: {refusal}"
        )
        return True
