"""What the sink's threads do: find where a partition goes on, and bring one batch into the store, however long it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final

from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from stepstream.common.kafka import BadBatch, KafkaUnreachable, client_config, measured
from stepstream.common.letters import refuse_batch
from stepstream.common.retry import DEFAULT_BACKOFF, OutageLog
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.batching.lane import Batch, Lane
from stepstream.sinks.batching.partitions import Assigned
from stepstream.sinks.clickhouse.deadletter import DeadLetters, FuseBlown
from stepstream.sinks.clickhouse.errors import StoreError, worded
from stepstream.sinks.clickhouse.feeds import PROGRESS_TABLES
from stepstream.sinks.clickhouse.insert import Inserter, RowsRefused
from stepstream.sinks.clickhouse.position import Position, go_on, highest_offset, rows_between
from stepstream.sinks.clickhouse.records import STORE_REFUSED, Refused, Source

logger = logging.getLogger("stepstream.sink")

Hook = Callable[[str], None]
"""Called at named points of the protocol; for tests that end the process there."""

PASSING: Final = (ClickHouseError, StoreError, OSError, KafkaException, KafkaUnreachable, FuseBlown)
"""What may be over after a while. Anything else is a defect and ends the sink."""


class Ending(Enum):
    """How a batch came back."""

    STORED = "stored"
    STALE = "stale"
    """Too long ago that its intent was committed: is the partition still ours?"""
    REFUSED = "refused"
    """The store will not take it as a whole."""
    ABANDONED = "abandoned"


@dataclass(slots=True)
class Outcome:
    """What became of a batch."""

    ending: Ending
    insert_s: float = 0.0
    rows: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    dead_lettered: int = 0
    detail: str = ""


class Workshop:
    """Does the jobs of all lanes, in threads; each job runs in one of them from beginning to end."""

    def __init__(self, settings: Settings, hook: Hook, *, fence_s: float) -> None:
        self._settings = settings
        self._hook = hook
        self._fence_s = fence_s
        self._inserter = Inserter(settings)
        self._dead_letters = DeadLetters(settings)
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self.store = OutageLog(
            f"ClickHouse at {settings.clickhouse_url} does not take rows", logger
        )
        self.kafka = OutageLog("Kafka", logger)

    def close(self) -> None:
        """Let go of connections."""
        self._admin = None
        self._dead_letters.close()

    def open(self, held: Assigned, source: Source) -> Position | None:
        """Find where the partition goes on and fill its feed; None when it was taken away meanwhile."""
        position: Position | None = None
        attempt = 0
        while not held.cancel.is_set():
            try:
                if not held.source.topic_id:
                    held.source = self._identified(held.lane, source)
                position = self._position(held)
                held.feed.open(self._inserter.client(), held.source, position)
            except PASSING as error:
                self._inserter.drop_client()
                (self.kafka if isinstance(error, KafkaException) else self.store).failed(
                    worded(error)
                )
                attempt += 1
                held.cancel.wait(DEFAULT_BACKOFF.pause_s(attempt))
            else:
                self.kafka.over()
                self.store.over()
                return position
        return None

    def _identified(self, lane: Lane, source: Source) -> Source:
        name = topic(self._settings.topic_prefix, lane.name)
        described = (
            self._kafka()
            .describe_topics(TopicCollection([name]), request_timeout=10)[name]
            .result()
        )
        return replace(
            source,
            topic_id=str(described.topic_id),
            partition=lane.partition,
            partitions=len(described.partitions),
        )

    def _position(self, held: Assigned) -> Position:
        client, lane = self._inserter.client(), held.lane
        committed = held.committed
        stored = highest_offset(
            client, PROGRESS_TABLES[lane.name], held.source, at_least=committed or 0
        )
        if committed is None:
            low, high = self._ends(
                TopicPartition(topic(self._settings.topic_prefix, lane.name), lane.partition)
            )
            return go_on(None, None, stored, low=low, high=high)
        return go_on(committed, held.intent_end, stored)

    def _ends(self, place: TopicPartition) -> tuple[int, int]:
        """The ends of a partition's log, over a connection of its own: a consumer's is held up by its fetches."""
        client = self._kafka()
        specs: list[Any] = [OffsetSpec.earliest(), OffsetSpec.latest()]  # type: ignore[no-untyped-call]
        low, high = (
            client.list_offsets({place: spec}, request_timeout=10)[place].result().offset
            for spec in specs
        )
        return low, high

    def _kafka(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = AdminClient(client_config(self._settings))
            return self._admin

    def store_batch(self, held: Assigned, batch: Batch, source: Source) -> Outcome:
        """Bring the batch into the store. Failures that may pass are tried again for ever, with the same rows and token."""
        attempt = 0
        outcome = Outcome(Ending.ABANDONED)
        while not held.cancel.is_set():
            if time.monotonic() - held.fenced_at > self._fence_s:
                outcome.ending = Ending.STALE
                return outcome
            try:
                return self._attempt(held, batch, source, outcome)
            except RowsRefused as refusal:
                if self._isolated(held, batch, refusal, outcome):
                    return outcome
            except PASSING as error:
                self.store.failed(worded(error))
            attempt += 1
            held.cancel.wait(DEFAULT_BACKOFF.pause_s(attempt))
        return outcome

    def _attempt(self, held: Assigned, batch: Batch, source: Source, outcome: Outcome) -> Outcome:
        if batch.built is None:
            batch.built = held.feed.build(self._inserter.client, batch, source)
        built = batch.built
        for number, block in enumerate(built.blocks):
            if number < batch.stored_blocks:
                continue
            self._hook(f"insert {block.table.name}")
            outcome.insert_s += self._inserter.insert(
                block, batch.token(source.topic_id, source.partition)
            )
            self._hook(f"inserted {block.table.name}")
            batch.stored_blocks += 1
            outcome.rows[block.table.name] += block.rows
        if built.refused:
            self._dead_letter(held.lane, batch, built.refused)
            outcome.dead_lettered += len(built.refused)
        held.feed.stored(built)
        self.store.over()
        outcome.skipped = built.skipped
        outcome.ending = Ending.STORED
        return outcome

    def refuse_batch(self, held: Assigned, message: Message) -> BadBatch | None:
        """Find where a batch that cannot be read ends, and note it; None when its partition was taken away meanwhile."""
        attempt = 0
        while not held.cancel.is_set():
            try:
                batch = measured(self._settings, message)
                refuse_batch(self._settings, batch, held.lane.name, "sink")
            except PASSING as error:
                self.kafka.failed(error)
                attempt += 1
                held.cancel.wait(DEFAULT_BACKOFF.pause_s(attempt))
            else:
                return batch
        return None

    def _dead_letter(self, lane: Lane, batch: Batch, refused: list[Refused]) -> None:
        again, batch.letters_tried = batch.letters_tried, True
        self._dead_letters.send(refused, lane.name, lane.partition, again=again)

    def _isolated(
        self, held: Assigned, batch: Batch, refusal: RowsRefused, outcome: Outcome
    ) -> bool:
        """Take a refused batch apart, or dead-letter the record it comes down to. False: try the same again."""
        lane = held.lane
        try:
            table = PROGRESS_TABLES[lane.name]
            if rows_between(self._inserter.client(), table, held.source, batch.first, batch.last):
                self.store.failed(
                    f"part of batch {batch.first}-{batch.last} of {lane.name} is stored, the rest refused: {refusal}"
                )
                return False
            outcome.detail = str(refusal)
            if len(batch.records) > 1:
                outcome.ending = Ending.REFUSED
                return True
            record = batch.records[0]
            logger.error(
                "the store refuses %s %d@%d: %s", lane.name, lane.partition, record.offset, refusal
            )
            self._dead_letter(lane, batch, [Refused(record, STORE_REFUSED, str(refusal))])
        except PASSING as error:
            self.store.failed(worded(error))
            return False
        outcome.dead_lettered += 1
        outcome.ending = Ending.STORED
        return True
