"""The sink process: Kafka to ClickHouse, every record once.

Per topic and partition: cut a batch [a..b]; commit offset a with metadata ``end=b`` (the intent, which also finds out whether
the partition is still ours); insert under the batch's token; commit b+1. Who gets a partition with an intent repeats exactly
that batch. All Kafka work is done in the main thread, all work with the store in a few others.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from stepstream import kafka
from stepstream.schemas.accept import DAY_US, Limits
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import intent
from stepstream.sinks.clickhouse.errors import StoreUnreachable
from stepstream.sinks.clickhouse.feeds import PROGRESS_TABLES
from stepstream.sinks.clickhouse.lane import BatchPolicy, Lane, Stage
from stepstream.sinks.clickhouse.migration import migrate
from stepstream.sinks.clickhouse.outage import Outage, pause_s
from stepstream.sinks.clickhouse.position import Position
from stepstream.sinks.clickhouse.pricelist import PriceFollower
from stepstream.sinks.clickhouse.records import Source, record_of
from stepstream.sinks.clickhouse.stats import SinkStats
from stepstream.sinks.clickhouse.work import Assigned, Ending, Hook, Outcome, Threads, Workshop

logger = logging.getLogger("stepstream.sink")

THREADS: Final = 2
READ_AT_ONCE: Final = 2_000
IDLE_WAIT_S: Final = 0.1
BUSY_WAIT_S: Final = 0.01
STALL_S: Final = 1.0
"""A partition whose records wait for longer than this is paused; until then the sink just reads nothing."""
REVOKE_WAIT_S: Final = 10.0
DRAIN_S: Final = 20.0
FOLLOW_S: Final = 1.0

Place = tuple[str, int]


def run(settings: Settings, *, hook: Hook = lambda _point: None) -> int:
    """Store what comes until SIGTERM or SIGINT; then finish what has been read. Returns the exit code.

    0: stopped as told. 1: something failed that waiting does not mend; nothing that is not stored is committed.
    """
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        sink = Sink(settings, hook=hook)
        sink.run(stop)
    except Exception:
        logger.exception("the sink ends")
        return 1
    return 0


class Sink:
    """One sink. ``run`` may be called once."""

    def __init__(self, settings: Settings, *, hook: Hook = lambda _point: None) -> None:
        self.settings = settings
        self.stats = SinkStats()
        self._hook = hook
        self._fence_s = settings.session_timeout / 2_000_000
        self._policy = BatchPolicy(
            settings.sink_batch_rows, settings.sink_batch_bytes, settings.sink_batch_interval / 1_000_000
        )
        self._source = Source("", 0, limits=Limits(max_age_us=settings.steps_retention_days * DAY_US))
        self._names = {topic(settings.topic_prefix, name): name for name in PROGRESS_TABLES}
        self._held: dict[Place, Assigned] = {}
        self._threads = Threads(THREADS)
        self._workshop = Workshop(settings, hook, fence_s=self._fence_s)
        self._prices = PriceFollower(settings)
        self._commits = Outage("offsets cannot be committed")
        self._commit_after = 0.0
        self._follow_after = 0.0

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set. Raises what waiting does not mend."""
        if not (self._prepare_store(stop) and self._prepare_prices(stop)):
            return
        self._consumer = self._subscribe()
        try:
            while not stop.is_set():
                self._follow_prices()
                self._read()
                self._step()
            self._drain()
        finally:
            self._consumer.close()
            self._prices.close()

    # -- start -------------------------------------------------------------------------------------------------------

    def _prepare_store(self, stop: threading.Event) -> bool:
        """Wait for the store, and bring its schema up to date."""
        return _patiently(lambda: migrate(self.settings), StoreUnreachable, self._workshop.store, stop)

    def _prepare_prices(self, stop: threading.Event) -> bool:
        return _patiently(self._prices.read_all, (kafka.KafkaUnreachable, KafkaException), self._workshop.kafka, stop)

    def _subscribe(self) -> Consumer:
        client = kafka.consumer(
            self.settings,
            f"{self.settings.topic_prefix}.{self.settings.sink_group}",
            **{
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": self.settings.session_timeout // 1000,
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 32_768,
                "fetch.queue.backoff.ms": 50,
                "topic.metadata.refresh.interval.ms": 10_000,
            },
        )
        client.subscribe(list(self._names), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose)
        return client

    # -- partitions come and go ---------------------------------------------------------------------------------------

    def _assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """Take partitions over: paused, until it is known where each goes on."""
        known = {(p.topic, p.partition): p for p in consumer.committed(places, timeout=30)}
        starts = []
        for place in places:
            found = known[place.topic, place.partition]
            if found.error is not None:
                raise KafkaException(found.error)
            committed = found.offset if found.offset >= 0 else None
            lane = Lane(self._names[place.topic], place.partition, self._policy)
            held = Assigned.new(lane, committed, intent.decode(found.metadata))
            self._held[place.topic, place.partition] = held
            start = OFFSET_BEGINNING if committed is None else committed
            starts.append(TopicPartition(place.topic, place.partition, start))
        consumer.incremental_assign(starts)
        consumer.pause(starts)
        for place in places:
            self._find_position(self._held[place.topic, place.partition])

    def _find_position(self, held: Assigned) -> None:
        self._threads.submit(held, lambda: self._workshop.open(held, self._source))

    def _revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """Finish what is in flight and commit it, or leave it to who comes next, who will repeat it."""
        leaving = [held for p in places if (held := self._held.get((p.topic, p.partition))) is not None]
        deadline = time.monotonic() + REVOKE_WAIT_S
        while any(held.lane.stage is Stage.RUNNING for held in leaving) and time.monotonic() < deadline:
            self._collect(wait_s=0.05)
        self._commit_positions(leaving)
        self._forget(places)
        consumer.incremental_unassign(places)

    def _lose(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        """The partitions are another's already."""
        logger.warning("lost %d partitions: this sink was away for too long", len(places))
        self._forget(places)

    def _forget(self, places: Iterable[TopicPartition]) -> None:
        for place in places:
            held = self._held.pop((place.topic, place.partition), None)
            if held is not None:
                held.cancel.set()
                self.stats.lag.pop((held.lane.name, held.lane.partition), None)

    # -- reading -----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Take what Kafka has, unless memory is full: then wait for the store."""
        now = time.monotonic()
        if self._stalled(now):
            self._collect(wait_s=BUSY_WAIT_S)
            return
        for message in self._consumer.consume(READ_AT_ONCE, timeout=self._wait_s(now)):
            self._take(message, now)

    def _stalled(self, now: float) -> bool:
        """Whether some partition's records wait for the store; one that waits for long is paused instead."""
        stalled = False
        for (name, partition), held in self._held.items():
            if held.lane.full:
                held.full_since = held.full_since or now
                if held.paused:
                    continue
                if now - held.full_since < STALL_S:
                    stalled = True
                else:
                    self._consumer.pause([TopicPartition(name, partition)])
                    held.paused = True
            else:
                held.full_since = None
                if held.paused:
                    self._consumer.resume([TopicPartition(name, partition)])
                    held.paused = False
        return stalled

    def _wait_s(self, now: float) -> float:
        wait = IDLE_WAIT_S
        for held in self._held.values():
            if held.lane.stage is Stage.RUNNING:
                return BUSY_WAIT_S
            wait = min(wait, held.lane.wait_s(now))
        return max(wait, 0.001)

    def _take(self, message: Message, now: float) -> None:
        held = self._held.get((message.topic() or "", message.partition() or 0))
        error = message.error()
        if error is None:
            if held is not None:
                held.lane.add(record_of(message), now)
                self.stats.read[held.lane.name] += 1
        elif error.code() == KafkaError._PARTITION_EOF:
            if held is not None:
                held.lane.at_end(message.offset() or 0)
        elif error.fatal():
            raise KafkaException(error)
        else:
            self._workshop.kafka.failed(error)

    # -- batches -----------------------------------------------------------------------------------------------------

    def _step(self, *, flush: bool = False) -> None:
        """Collect what is done, cut what is due, commit, and start what is committed."""
        self._collect()
        now = time.monotonic()
        for held in self._held.values():
            if held.lane.due(now, flush=flush):
                held.lane.cut(now)
                self._hook(f"planned {held.lane.name}")
        if now >= self._commit_after:
            self._commit()

    def _commit(self) -> None:
        """Commit intents of planned batches and positions of stored ones, in one request; start the batches."""
        wanted: list[TopicPartition] = []
        ready: list[tuple[Place, Assigned]] = []
        for place, held in self._held.items():
            lane = held.lane
            if lane.stage is Stage.PLANNED and lane.batch is not None:
                if not lane.batch.replay:
                    metadata = intent.encode(lane.batch.last)
                    wanted.append(TopicPartition(*place, lane.batch.first, metadata=metadata))
                ready.append((place, held))
            elif not lane.acknowledged:
                wanted.append(TopicPartition(*place, lane.position, metadata=""))
        now = time.monotonic()
        committed = self._send_commit(wanted)
        for place, held in ready:
            if held.lane.batch is not None and (held.lane.batch.replay or place in committed):
                self._hook(f"intent {held.lane.name}")
                self._start(held, now)
        for place in committed:
            self._held[place].lane.acknowledged = True

    def _send_commit(self, wanted: list[TopicPartition]) -> set[Place]:
        """The places whose offset is committed. What is not will be tried again, with the same offsets."""
        if not wanted:
            return set()
        try:
            answers = self._consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            self._commits.failed(error)
            self._commit_after = time.monotonic() + 0.1
            return set()
        failed = [place.error for place in answers or () if place.error is not None]
        if failed:
            self._commits.failed(failed[0])
            self._commit_after = time.monotonic() + 0.1
        else:
            self._commits.over()
        return {(place.topic, place.partition) for place in answers or () if place.error is None}

    def _commit_positions(self, leaving: list[Assigned]) -> None:
        """The last word about partitions that go: what is stored is committed, if Kafka still lets us."""
        wanted = [
            TopicPartition(*place, held.lane.position, metadata="")
            for place, held in self._held.items()
            if held in leaving and not held.lane.acknowledged and held.lane.stage is not Stage.RUNNING
        ]
        self._send_commit(wanted)

    def _start(self, held: Assigned, now: float) -> None:
        batch = held.lane.batch
        if batch is None:
            return
        held.lane.started()
        held.fenced_at = now
        source = replace(held.source, prices=self._prices.book)
        if batch.replay:
            self.stats.replayed += 1
            logger.info("%s %d: repeating batch %d-%d", held.lane.name, held.lane.partition, batch.first, batch.last)
        self._threads.submit(held, lambda: self._workshop.store_batch(held, batch, source))

    def _collect(self, *, wait_s: float = 0.0) -> None:
        """Take over what the threads have finished."""
        while True:
            try:
                owner, result = self._threads.results.get(timeout=wait_s) if wait_s else self._threads.results.get_nowait()
            except queue.Empty:
                return
            wait_s = 0.0
            if isinstance(result, Exception):
                raise result
            if isinstance(owner, Assigned) and owner in self._held.values():
                self._finished(owner, result)

    def _finished(self, held: Assigned, result: object) -> None:
        if isinstance(result, Position):
            self._opened(held, result)
        elif isinstance(result, Outcome):
            self._count(held.lane, result)
            if result.ending is Ending.STORED:
                self._hook(f"stored {held.lane.name}")
                held.lane.stored(result.insert_s)
            elif result.ending is Ending.STALE:
                held.lane.again()
            elif result.ending is Ending.REFUSED:
                logger.warning(
                    "the store refuses %d records of %s %d; looking for the ones it means: %s",
                    len(held.lane.batch.records) if held.lane.batch else 0,
                    held.lane.name,
                    held.lane.partition,
                    result.detail.splitlines()[0][:300] if result.detail else "",
                )
                held.lane.take_apart()

    def _opened(self, held: Assigned, position: Position) -> None:
        lane = held.lane
        if position.note:
            logger.warning("%s %d: %s", lane.name, lane.partition, position.note)
        lane.open(position.offset, position.replay_end, time.monotonic())
        place = TopicPartition(topic(self.settings.topic_prefix, lane.name), lane.partition, position.offset)
        if position.offset != held.assigned_at and (held.assigned_at is not None or position.stored is not None):
            self._consumer.seek(place)
        self._consumer.resume([place])

    def _count(self, lane: Lane, outcome: Outcome) -> None:
        self.stats.inserted.update(outcome.rows)
        for reason, count in outcome.skipped.items():
            self.stats.skipped[lane.name, reason] += count
        self.stats.dead_lettered[lane.name] += outcome.dead_lettered
        self.stats.insert_s += outcome.insert_s
        self.stats.retries = self._workshop.store.failures
        if outcome.ending is Ending.STORED:
            self.stats.batches[lane.name] += 1

    # -- the rest ----------------------------------------------------------------------------------------------------

    def _follow_prices(self) -> None:
        now = time.monotonic()
        if now < self._follow_after:
            return
        self._follow_after = now + FOLLOW_S
        try:
            self._prices.poll()
        except (kafka.KafkaUnreachable, KafkaException) as error:
            self._workshop.kafka.failed(error)

    def _drain(self) -> None:
        """Store what has been read, as far as the store takes it within a while; the rest stays in Kafka."""
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            self._step(flush=True)
            if not any(self._busy(held.lane) for held in self._held.values()):
                return
            self._collect(wait_s=0.02)
        logger.warning("leaving %d records to the next start", sum(held.lane.buffered for held in self._held.values()))

    def _busy(self, lane: Lane) -> bool:
        if lane.stage is Stage.OPENING:
            return False
        return lane.stage is not Stage.FILLING or not lane.acknowledged or (lane.buffered > 0 and lane.replay_end is None)


def _patiently(
    action: Callable[[], Any], passing: type[Exception] | tuple[type[Exception], ...], outage: Outage, stop: threading.Event
) -> bool:
    """Do it, again and again while it fails with what may pass; False when told to stop before it is done."""
    attempt = 0
    while not stop.is_set():
        try:
            action()
        except passing as error:
            outage.failed(error)
            attempt += 1
            stop.wait(pause_s(attempt))
        else:
            outage.over()
            return True
    return False
