"""The sink process: Kafka to ClickHouse, every record once.

Per topic and partition: cut a batch [a..b]; commit offset a with metadata ``end=b`` (the intent, which also finds out whether
the partition is still ours); insert under the batch's token; commit b+1. Who gets a partition with an intent repeats exactly
that batch. All Kafka work is done in the main thread, all work with the store in a few others.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message

from stepstream.common import kafka
from stepstream.common.listen import AddressTaken
from stepstream.common.retry import Cancelled, retry
from stepstream.schemas.batches import describe
from stepstream.schemas.retention import record_limits, retention
from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.commits import Commits
from stepstream.sinks.batching.lane import BatchPolicy, Stage
from stepstream.sinks.batching.partitions import Assigned, Partitions, Place
from stepstream.sinks.batching.threads import Threads
from stepstream.sinks.clickhouse import memory
from stepstream.sinks.clickhouse.errors import StoreUnreachable
from stepstream.sinks.clickhouse.migration import migrate
from stepstream.sinks.clickhouse.observation import serve
from stepstream.sinks.clickhouse.position import Position
from stepstream.sinks.clickhouse.pricelist import PriceFollower
from stepstream.sinks.clickhouse.records import Record, Source, record_of
from stepstream.sinks.clickhouse.stats import SinkStats
from stepstream.sinks.clickhouse.work import Ending, Hook, Outcome, Workshop

logger = logging.getLogger("stepstream.sink")

THREADS: Final = 3
READ_AT_ONCE: Final = 2_000
IDLE_WAIT_S: Final = 0.1
BUSY_WAIT_S: Final = 0.01
DRAIN_S: Final = 20.0
LOOK_S: Final = 1.0
TRIM_RECORDS: Final = 20_000
"""So many records later, when there is a moment, memory is given back."""


def run(settings: Settings, *, hook: Hook = lambda _point: None) -> int:
    """Store what comes until SIGTERM or SIGINT; then finish what has been read. Returns the exit code.

    0: stopped as told. 1: something failed that waiting does not mend; nothing that is not stored is committed. Raises
    ``AddressTaken`` where the port of its metrics is not free.
    """
    for name, level in (("clickhouse_connect", logging.CRITICAL), ("urllib3", logging.ERROR)):
        logging.getLogger(name).setLevel(level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    memory.tune()
    server = None
    try:
        sink = Sink(settings, hook=hook)
        server = serve(settings, sink.stats)
        sink.run(stop)
    except AddressTaken:
        raise
    except Exception:
        logger.exception("the sink ends")
        return 1
    finally:
        if server is not None:
            server.close()
    return 0


class Sink:
    """One sink. ``run`` may be called once."""

    def __init__(self, settings: Settings, *, hook: Hook = lambda _point: None) -> None:
        self.settings = settings
        self.stats = SinkStats()
        self._hook = hook
        self._limits = record_limits(settings)
        self._kept = retention(settings, "steps")
        self._threads = Threads(THREADS)
        self._fence_s = settings.session_timeout / 2_000_000
        self._known_at = 0.0
        """When Kafka was last asked whether the partitions are ours: the beginning of the last round."""
        self._workshop = Workshop(settings, hook, fence_s=self._fence_s)
        self._prices = PriceFollower(settings)
        self._bad = kafka.BadBatches()
        self._look_after = 0.0
        self._trimmed_at = 0

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set. Raises what waiting does not mend."""
        if not self._prepare(stop):
            return
        policy = BatchPolicy(
            self.settings.sink_batch_rows,
            self.settings.sink_batch_bytes,
            self.settings.sink_batch_interval / 1_000_000,
        )
        self._partitions = Partitions(self.settings, policy, self._came, self._going)
        self._commits = Commits(self._partitions.consumer, self._fence_s)
        try:
            self._known_at = time.monotonic()
            while not stop.is_set():
                if self._begin_round():
                    self._look_around()
                    self._read()
                    self._step()
            self._drain()
        finally:
            self._partitions.close()
            self._prices.close()
            self._workshop.close()

    def _prepare(self, stop: threading.Event) -> bool:
        """Wait for the store and bring its schema up to date; wait for Kafka and read the prices."""
        try:
            retry(lambda: migrate(self.settings), StoreUnreachable, self._workshop.store, stop=stop)
            retry(
                self._prices.read_all,
                (kafka.KafkaUnreachable, KafkaException),
                self._workshop.kafka,
                stop=stop,
            )
        except Cancelled:
            return False
        return True

    def _begin_round(self) -> bool:
        """Notice when the last round took so long (a process frozen, a machine asleep) that others may have gone on.

        False: it is not known where our partitions go on.
        """
        now = time.monotonic()
        if now - self._known_at > self._fence_s:
            try:
                self._partitions.start_over()
            except KafkaException as error:
                self._workshop.kafka.failed(error)
                self._partitions.read(
                    READ_AT_ONCE, IDLE_WAIT_S
                )  # for the group's sake; the records will come again
                return False
        self._known_at = now
        return True

    # -- partitions come and go ----------------------------------------------------------------------------------------

    def _came(self, held: Assigned) -> None:
        source = Source("", held.lane.partition, limits=self._limits, retention=self._kept)
        self._threads.submit(held, lambda: self._workshop.open(held, source))

    def _going(self, leaving: Sequence[Assigned]) -> None:
        """Finish what is in flight and commit it, or leave it to who comes next, who will repeat it."""
        deadline = self._known_at + self._fence_s
        while (
            any(held.lane.stage is Stage.RUNNING for held in leaving)
            and time.monotonic() < deadline
        ):
            self._collect(wait_s=0.05)
        self._commits.send_positions(leaving, known_at=self._known_at)

    # -- reading -------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Take what Kafka has, unless memory is full: then wait for the store."""
        now = time.monotonic()
        if self._partitions.stalled(now):
            self._collect(wait_s=BUSY_WAIT_S)
            return
        messages = self._partitions.read(READ_AT_ONCE, self._wait_s(now))
        if messages and messages[-1].error() is None:
            self._workshop.kafka.over()
        by_place: dict[Place, list[Record]] = {}
        for message in messages:
            place = (message.topic(), message.partition())
            if message.error() is None:
                records = by_place.get(place)  # type: ignore[arg-type]
                if records is None:
                    records = by_place[place] = []  # type: ignore[index]
                records.append(record_of(message))
            else:
                self._hand_over(by_place)  # an end of a partition lies behind what was read of it
                by_place = {}
                self._trouble(message, self._partitions.held.get(place))  # type: ignore[arg-type]
        self._hand_over(by_place)

    def _hand_over(self, by_place: dict[Place, list[Record]]) -> None:
        now = time.monotonic()
        for place, records in by_place.items():
            held = self._partitions.held.get(place)
            if held is not None:
                held.lane.add(records, now)
                self.stats.read[held.lane.name] += len(records)

    def _trouble(self, message: Message, held: Assigned | None) -> None:
        error = message.error()
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:
            if held is not None:
                held.lane.at_end(message.offset() or 0)
        elif error.fatal():
            raise KafkaException(error)
        elif error.code() in kafka.UNREADABLE:
            if held is not None and self._bad.is_hopeless(message):
                self._threads.submit(held, lambda: self._workshop.refuse_batch(held, message))
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            self._workshop.kafka.failed(
                f"topic {message.topic()} is not there: run `stepstream topics create`"
            )
        else:
            self._workshop.kafka.failed(error)

    def _wait_s(self, now: float) -> float:
        lanes = [held.lane for held in self._partitions.held.values()]
        if any(lane.stage is Stage.RUNNING for lane in lanes):
            return BUSY_WAIT_S
        return max(0.001, min([IDLE_WAIT_S, *(lane.wait_s(now) for lane in lanes)]))

    # -- batches -------------------------------------------------------------------------------------------------------

    def _step(self, *, flush: bool = False) -> None:
        """Collect what is done, cut what is due, commit, and start what is committed."""
        self._collect()
        now = time.monotonic()
        for held in self._partitions.held.values():
            if held.lane.due(now, flush=flush):
                held.lane.cut(now)
                self._hook(f"planned {held.lane.name}")
        for held in self._commits.send(self._partitions.held.values(), known_at=self._known_at):
            self._hook(f"intent {held.lane.name}")
            self._start(held, now)

    def _start(self, held: Assigned, now: float) -> None:
        batch = held.lane.batch
        if batch is None:
            return
        if batch.replay:
            self.stats.replayed += 1
            logger.info(
                "%s %d: repeating batch %d-%d",
                held.lane.name,
                held.lane.partition,
                batch.first,
                batch.last,
            )
        held.lane.started()
        held.fenced_at = now
        source = replace(held.source, prices=self._prices.book, now_ms=time.time_ns() // 1_000_000)
        self._threads.submit(held, lambda: self._workshop.store_batch(held, batch, source))

    def _collect(self, *, wait_s: float = 0.0) -> None:
        """Take over what the threads have finished; wait for the first one."""
        while (done := self._threads.finished(wait_s)) is not None:
            wait_s = 0.0
            owner, result = done
            if (
                not isinstance(owner, Assigned)
                or self._partitions.held.get(owner.place) is not owner
            ):
                continue  # the partition has gone meanwhile
            if isinstance(result, Position):
                self._partitions.go_on(owner, result, time.monotonic())
            elif isinstance(result, Outcome):
                self._finished(owner, result)
            elif isinstance(result, kafka.BadBatch):
                self._pass_over(owner, result)

    def _pass_over(self, held: Assigned, batch: kafka.BadBatch) -> None:
        """A batch that cannot be read is noted: go on behind it."""
        logger.error(
            "%s %d: %s",
            held.lane.name,
            held.lane.partition,
            describe(batch.first, batch.last, batch.why),
        )
        held.lane.at_end(batch.last + 1)
        self._partitions.consumer.seek(held.at(batch.last + 1))
        self._bad.passed(batch)
        self.stats.dead_lettered[held.lane.name] += 1

    def _finished(self, held: Assigned, outcome: Outcome) -> None:
        lane = held.lane
        self._count(lane.name, outcome)
        if outcome.ending is Ending.STORED:
            self._hook(f"stored {lane.name}")
            lane.stored(outcome.insert_s)
        elif outcome.ending is Ending.STALE:
            lane.again()
        elif outcome.ending is Ending.REFUSED:
            logger.warning(
                "the store refuses a batch of %s %d: %s",
                lane.name,
                lane.partition,
                outcome.detail[:500],
            )
            lane.take_apart()

    def _count(self, name: str, outcome: Outcome) -> None:
        stats = self.stats
        stats.inserted.update(outcome.rows)
        stats.skipped.update({(name, reason): count for reason, count in outcome.skipped.items()})
        stats.dead_lettered[name] += outcome.dead_lettered
        stats.insert_s += outcome.insert_s
        stats.retries = self._workshop.store.failures
        stats.batches[name] += outcome.ending is Ending.STORED

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        """Once a second: how far behind we are, memory after much work, new prices."""
        now = time.monotonic()
        if now < self._look_after:
            return
        self._look_after = now + LOOK_S
        self.stats.lag = self._partitions.lags()
        read = self.stats.read.total()
        if read - self._trimmed_at >= TRIM_RECORDS and not any(
            held.lane.busy for held in self._partitions.held.values()
        ):
            self._trimmed_at = read
            memory.give_back()
        try:
            self._prices.poll()
        except (kafka.KafkaUnreachable, KafkaException) as error:
            self._workshop.kafka.failed(error)

    def _drain(self) -> None:
        """Store what has been read, as far as the store takes it within a while; the rest stays in Kafka."""
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            if not self._begin_round():
                return
            self._step(flush=True)
            if not any(held.lane.busy for held in self._partitions.held.values()):
                return
            self._collect(wait_s=0.02)
        logger.warning(
            "the store did not take what was read in time: it stays in Kafka for the next start"
        )
