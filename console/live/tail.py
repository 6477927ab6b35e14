"""Reads steps and alerts from the sink's committed offsets on: once per process, for all viewers.

The sink commits an offset after everything below it is in ClickHouse. So the records from that
offset on, and a snapshot of the store that is read later, together have every record.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from stepstream.admin.groups import sink_group
from stepstream.common import kafka
from stepstream.common.kafka import KafkaUnreachable
from stepstream.console.live.buffer import Item, Kept, PartitionBuffer
from stepstream.console.live.records import alert_of, step_reader
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.retention import record_limits
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.batching.prices import PriceFollower

BUFFER_BYTES: Final = 64 << 20
"""Maximum size of all buffers together, and of the records of one run that are read back."""
LINGER_S: Final = 60.0
"""How long the tail goes on without a viewer, so that a page that is loaded again finds it."""
KEPT_S: Final = 10.0
"""How long records stay after the sink has committed them: for viewers that are a moment behind,
and for pages that connect again."""
CHECK_S: Final = 1.0
"""Time between two checks of the sink's progress."""
ANSWER_S: Final = 3.0
"""Longest wait for an answer of Kafka."""
RETRY_S: Final = 1.0
"""Pause after an error before the tail begins again."""
READ_BACK_S: Final = 30.0
"""Longest time of one ``read_back``."""
BATCH: Final = 1_000
"""Maximum number of records that are taken from Kafka at a time."""
Place = tuple[str, int]
"""Topic without prefix, and partition."""
_log = logging.getLogger("stepstream.console")


@dataclass
class Health:
    """What is known of Kafka and of the sink's progress."""

    kafka_ok: bool = False
    kafka_since_us: int = 0
    """When ``kafka_ok`` last changed, in microseconds since 1970."""
    behind: int = 0
    """Step events that the store does not have yet."""
    caught_up_us: int = 0
    """All step events appended up to this time have been read, in microseconds since 1970."""


class Tail:
    """The consumer and its buffers. Its methods may be called from any thread; some block."""

    def __init__(self, settings: Settings, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._settings = settings
        self._buffer_bytes = buffer_bytes
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._buffers: dict[Place, PartitionBuffer] = {}
        self._committed: dict[Place, int] = {}
        self._past: deque[tuple[float, dict[Place, int]]] = deque()
        """What was committed during the last ``KEPT_S`` seconds, oldest first."""
        self._partitions = 0
        self._viewers = 0
        self._last_leave_s = 0.0
        self._book = PriceBook()
        self.generation = 0
        """Increased when buffers are emptied or topics made anew: an offset that a client got under
        an earlier generation is invalid.
        """
        self.health = Health(kafka_since_us=_now_us())
        self.seen_steps = 0
        """Number of step events read: when it changes, runs have changed."""
        self.stored_task_changes = 0
        """Sum of the sink's committed offsets of taskstate: when it changes, the store has new
        changes of tasks.
        """
        self._task_places: list[TopicPartition] = []
        self._names = {topic(settings.topic_prefix, name): name for name in ("steps", "alerts")}
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
        self._thread.start()

    # For viewers

    def enter(self) -> None:
        """Register a viewer, and start to read if there was none. To be paired with ``leave``."""
        with self._lock:
            self._viewers += 1
        self._wanted.set()

    def leave(self) -> None:
        """Remove a viewer."""
        with self._lock:
            self._viewers -= 1
            self._last_leave_s = time.monotonic()

    @property
    def is_ready(self) -> bool:
        return self._ready.is_set()

    def place_of_run(self, trace_id: str) -> Place:
        """The partition of a run's steps."""
        return "steps", partition_for(trace_id, max(1, self._partitions))

    def places(self, name: str) -> list[Place]:
        """The partitions of a topic."""
        with self._lock:
            return [place for place in self._buffers if place[0] == name]

    def watch(self, place: Place, key: bytes) -> None:
        """Keep a key's records ready for ``since``; the empty key stands for all records.

        Raises ``KeyError`` before ``is_ready``.
        """
        with self._lock:
            self._buffers[place].watch(key)

    def unwatch(self, place: Place, key: bytes) -> None:
        with self._lock:
            if place in self._buffers:
                self._buffers[place].unwatch(key)

    def since(self, place: Place, key: bytes, offset: int) -> tuple[int, list[Item]]:
        """The next offset of the partition, and the key's records from ``offset`` on."""
        with self._lock:
            buffer = self._buffers.get(place)
            return (offset, []) if buffer is None else (buffer.next, buffer.since(key, offset))

    def bounds(self, place: Place, key: bytes) -> tuple[int, int, int]:
        """Returns three offsets of a partition.

        They are the one that the sink has committed, the one from which on all records of the
        watched key are in the buffer, and the next to be read. Raises ``KeyError`` before
        ``is_ready``.
        """
        with self._lock:
            buffer = self._buffers[place]
            first = buffer.first_of(key)
            return self._committed.get(place, first), first, buffer.next

    def read_back(self, place: Place, key: bytes, first: int, end: int) -> list[Item]:
        """A key's records in [first, end) from Kafka: what the buffer had no room for.

        Blocks for up to 30 s. Raises ``KafkaUnreachable`` if that is not enough or the records take
        more than 64 MiB, and ``KafkaException``.
        """
        name, partition = place
        full = topic(self._settings.topic_prefix, name)
        read = self._reader(place)
        found: list[Item] = []
        size = 0
        client = kafka.consumer(self._settings, "stepstream-reader")
        try:
            client.assign([TopicPartition(full, partition, first)])
            deadline = time.monotonic() + READ_BACK_S
            position = first
            while position < end and time.monotonic() < deadline:
                for message in client.consume(BATCH, timeout=0.2):
                    if message.error() is not None:
                        continue
                    record = _kept(message)
                    position = record.offset + 1
                    if record.key == key and record.offset < end:
                        found.append(Item(record.offset, read(record)))
                        size += len(record.value)
                if size > BUFFER_BYTES:
                    raise KafkaUnreachable("the store is too far behind to show this run whole")
            if position < end:
                raise KafkaUnreachable(f"{full} could not be read from offset {position} on")
        finally:
            client.close()
        return found

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        self._wanted.set()
        self._thread.join(10)

    # The thread

    def _run(self) -> None:
        while self._wanted.wait() and not self._stopping.is_set():
            try:
                with self._consumer() as (client, prices):
                    self._follow(client, prices)
            except (KafkaUnreachable, KafkaException) as error:
                self._note(False)
                _log.info("Kafka: %s", error)
                self._stopping.wait(RETRY_S)
            except Exception:
                _log.exception("the live stream stops and begins again")
                self._note(False)
                self._stopping.wait(RETRY_S)

    @contextmanager
    def _consumer(self) -> Iterator[tuple[Consumer, PriceFollower]]:
        # With the id of the sink's group, to read its committed offsets. The client assigns
        # partitions itself and neither subscribes nor commits, so it does not join the group.
        client = kafka.consumer(
            self._settings, sink_group(self._settings), **{"fetch.wait.max.ms": 50}
        )
        prices = PriceFollower(self._settings)
        try:
            self._begin(client)
            prices.read_all()
            self._book = prices.book
            yield client, prices
        finally:
            prices.close()
            client.close()

    def _begin(self, client: Consumer) -> None:
        """Assign every partition at the position of its buffer.

        A new buffer begins at the sink's committed offset.
        """
        places = [
            TopicPartition(full, partition)
            for full in self._names
            for partition in range(kafka.partition_count(client, full, timeout=ANSWER_S))
        ]
        self._partitions = sum(self._names[place.topic] == "steps" for place in places)
        states = topic(self._settings.topic_prefix, "taskstate")
        self._task_places = [
            TopicPartition(states, partition)
            for partition in range(kafka.partition_count(client, states, timeout=ANSWER_S))
        ]
        if not self._partitions:
            raise KafkaUnreachable("there are no topics yet: `stepstream topics create` makes them")
        committed = self._ask_committed(client, places)
        with self._lock:
            fresh = not self._buffers
            for place, offset in committed.items():
                if place not in self._buffers:
                    self._buffers[place] = PartitionBuffer(offset, self._reader(place))
            self._committed = committed
            if fresh:
                self.generation += 1
        for one in places:
            one.offset = self._buffers[self._names[one.topic], one.partition].next
        client.assign(places)
        self._note(True)
        self._ready.set()

    def _reader(self, place: Place) -> Any:
        if place[0] == "alerts":
            return alert_of
        limits = record_limits(self._settings)
        return step_reader(place[1], self._partitions, limits, lambda: self._book)

    def _ask_committed(self, client: Consumer, places: list[TopicPartition]) -> dict[Place, int]:
        """The sink's committed offset of each partition; where it has none, the first record.

        Raises ``KafkaException``.
        """
        found = {}
        for one in client.committed(places, timeout=ANSWER_S):
            if one.error is not None:
                raise KafkaException(one.error)
            offset = one.offset
            if offset < 0:
                offset = client.get_watermark_offsets(one, timeout=ANSWER_S)[0]
            found[self._names[one.topic], one.partition] = offset
        return found

    def _follow(self, client: Consumer, prices: PriceFollower) -> None:
        checked_s = time.monotonic()
        while not self._stopping.is_set() and not self._is_idle():
            messages = client.consume(BATCH, timeout=0.05)
            if messages:
                self._take(messages)
            if time.monotonic() - checked_s >= CHECK_S:
                self._check(client)
                if prices.poll():
                    self._book = prices.book
                checked_s = time.monotonic()
        if not self._stopping.is_set():
            self._forget()

    def _take(self, messages: list[Message]) -> None:
        with self._lock:
            for message in messages:
                if message.error() is not None:
                    continue
                name = self._names[message.topic() or ""]
                buffer = self._buffers[name, message.partition() or 0]
                record = _kept(message)
                if record.offset < buffer.next:
                    # The topic was made anew: offsets have begun again.
                    buffer.restart(record.offset)
                    self.generation += 1
                buffer.add(record)
                self.seen_steps += name == "steps"
            self._bound()

    def _bound(self) -> None:
        """Drop the oldest records of the largest buffer while all together are too large."""
        total = sum(buffer.bytes for buffer in self._buffers.values())
        while total > self._buffer_bytes:
            largest = max(self._buffers.values(), key=lambda one: one.bytes)
            before = largest.bytes
            largest.drop_oldest()
            total -= before - largest.bytes

    def _check(self, client: Consumer) -> None:
        """Once a second: the sink's progress, and whether Kafka answers. Raises
        ``KafkaException``."""
        places = [
            TopicPartition(topic(self._settings.topic_prefix, name), partition)
            for name, partition in self._buffers
        ]
        committed = self._ask_committed(client, places)
        ends = {
            (self._names[place.topic], place.partition): client.get_watermark_offsets(
                place, timeout=ANSWER_S, cached=True
            )[1]
            for place in places
        }
        with self._lock:
            self._past.append((time.monotonic(), committed))
            while time.monotonic() - self._past[0][0] > KEPT_S:
                for place, offset in self._past.popleft()[1].items():
                    self._buffers[place].drop_below(offset)
            self._committed = committed
            steps = [place for place in committed if place[0] == "steps"]
            self.health.behind = sum(
                max(0, self._buffers[place].next - committed[place]) for place in steps
            )
            if all(self._buffers[place].next >= ends[place] for place in steps):
                self.health.caught_up_us = _now_us()
        if self._task_places:
            # Not read: the page reads tasks from the store, so it must know when that has changed.
            found = client.committed(self._task_places, timeout=ANSWER_S)
            self.stored_task_changes = sum(max(0, one.offset) for one in found)
        self._note(True)

    def _note(self, ok: bool) -> None:
        now = _now_us()
        if ok != self.health.kafka_ok:
            self.health.kafka_ok = ok
            self.health.kafka_since_us = now

    def _is_idle(self) -> bool:
        with self._lock:
            return self._viewers <= 0 and time.monotonic() - self._last_leave_s > LINGER_S

    def _forget(self) -> None:
        """No viewer is left: free the memory."""
        with self._lock:
            if self._viewers > 0:
                return
            self._ready.clear()
            self._wanted.clear()
            self._buffers = {}
            self._past.clear()


def _kept(message: Message) -> Kept:
    key = message.key() or b""
    if len(key) != 32:
        # An id that was written as a UUID names the same run.
        key = key.replace(b"-", b"").lower()
    return Kept(message.offset() or 0, message.timestamp()[1], key, message.value() or b"")


def _now_us() -> int:
    return time.time_ns() // 1_000
