"""The partitions that a sink holds: how they come, pause and go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from stepstream.common import kafka
from stepstream.common.commit_metadata import SINK
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.batching.lane import BatchPolicy, Lane, Stage
from stepstream.sinks.clickhouse.feeds import PROGRESS_TABLES, Feed, feed_of
from stepstream.sinks.clickhouse.position import Position
from stepstream.sinks.clickhouse.records import Source

logger = logging.getLogger("stepstream.sink")

STALL_S: Final = 1.0
"""A partition whose records wait for longer than this is paused; until then the sink just reads nothing."""

END_S: Final = 0.5
"""Kafka is asked for the end of a paused partition for so long at most."""

MEMORY_BATCHES: Final = 3
"""Records of all partitions together take as many bytes as this many of the largest batches, or about so."""

Place = tuple[str, int]


@dataclass(eq=False, slots=True)
class Assigned:
    """A partition that this sink holds."""

    place: Place
    lane: Lane
    feed: Feed
    source: Source
    committed: int | None
    """The committed offset when it came."""
    intent_end: int | None
    cancel: threading.Event = field(default_factory=threading.Event)
    paused: bool = False
    full_since: float | None = None
    fenced_at: float = 0.0
    """When the intent of the batch in flight was committed last."""
    must_seek: bool = False
    """Where the consumer stands is not where the partition goes on."""

    def at(self, offset: int, metadata: str = "") -> TopicPartition:
        """The partition with an offset."""
        return TopicPartition(*self.place, offset, metadata=metadata)


class Partitions:
    """Kafka's side of a sink. Everything here runs in its main thread; callbacks come while it reads."""

    def __init__(
        self,
        settings: Settings,
        policy: BatchPolicy,
        came: Callable[[Assigned], None],
        going: Callable[[Sequence[Assigned]], None],
    ) -> None:
        self.held: dict[Place, Assigned] = {}
        self._policy = policy
        self._came = came
        self._going = going
        self._names = {topic(settings.topic_prefix, name): name for name in PROGRESS_TABLES}
        self.consumer = _consumer(settings)
        self.consumer.subscribe(
            list(self._names), on_assign=self._assign, on_revoke=self._revoke, on_lost=self._lose
        )

    def read(self, most: int, wait_s: float) -> list[Message]:
        """What Kafka has; partitions may come and go meanwhile."""
        messages: list[Message] = self.consumer.consume(most, timeout=wait_s)
        return messages

    def go_on(self, held: Assigned, position: Position, now: float) -> None:
        """It is known where the partition goes on: read it from there."""
        if position.note:
            logger.warning("%s %d: %s", held.lane.name, held.lane.partition, position.note)
        held.lane.open(position.offset, position.replay_end, now)
        start = held.at(position.offset)
        at_beginning = held.committed is None and position.stored is None
        if held.must_seek or not (at_beginning or position.offset == held.committed):
            self.consumer.seek(start)
        self.consumer.resume([start])

    def stalled(self, now: float) -> bool:
        """Whether some partition's records wait for the store; one that waits for long is paused instead."""
        stalled = False
        crowded = (
            sum(held.lane.held_bytes for held in self.held.values())
            >= MEMORY_BATCHES * self._policy.bytes
        )
        for held in self.held.values():
            if not (held.lane.ahead or (crowded and not held.lane.hungry)):
                held.full_since = None
                if held.paused:
                    self.consumer.resume([TopicPartition(*held.place)])
                    held.paused = False
            elif held.full_since is None:
                held.full_since = now
                stalled = True
            elif not held.paused and now - held.full_since < STALL_S:
                stalled = True
            elif not held.paused:
                self.consumer.pause([TopicPartition(*held.place)])
                held.paused = True
        return stalled

    def lags(self) -> dict[tuple[str, int], int]:
        """Records between what is stored and the ends as far as they are known, by topic (without prefix) and partition.

        The lanes are told.
        """
        lags, asked = {}, True
        for held in self.held.values():
            place, high = TopicPartition(*held.place), -1
            if held.paused and asked:  # nothing is fetched, so nothing is learnt of its end
                try:
                    _, high = self.consumer.get_watermark_offsets(place, timeout=END_S) or (0, -1)
                except KafkaException:
                    high = -1
                asked = high >= 0
            if high < 0:
                _, high = self.consumer.get_watermark_offsets(place, cached=True) or (0, 0)
            if high >= 0 and held.lane.stage is not Stage.OPENING:
                held.lane.behind = lags[held.lane.name, held.lane.partition] = max(
                    0, high - held.lane.position
                )
        return lags

    def close(self) -> None:
        """Leave the group."""
        self.consumer.close()

    def start_over(self) -> None:
        """Forget what is in flight and find out anew where every partition goes on. Raises ``KafkaException``."""
        places = [TopicPartition(*place) for place in self.held]
        if not places:
            return
        logger.warning(
            "this sink stood still for too long: it asks anew where its partitions go on"
        )
        found = self.consumer.committed(places, timeout=30)
        self.consumer.pause(places)
        for held in self.held.values():
            held.cancel.set()
        for held in self._take_over(found):
            held.must_seek = True
            self._came(held)

    def _assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        """Take partitions over, paused until it is known where each goes on."""
        new = self._take_over(consumer.committed(places, timeout=30))
        starts = [
            held.at(OFFSET_BEGINNING if held.committed is None else held.committed) for held in new
        ]
        consumer.incremental_assign(starts)
        consumer.pause(starts)
        for held in new:
            self._came(held)

    def _take_over(self, committed: list[TopicPartition]) -> list[Assigned]:
        new = []
        for found in committed:
            if found.error is not None:
                raise KafkaException(found.error)
            place, name = (found.topic, found.partition), self._names[found.topic]
            lane = Lane(name, found.partition, self._policy.of(name))
            offset = found.offset if found.offset >= 0 else None
            metadata = kafka.committed_metadata(self.consumer, found)
            held = Assigned(
                place,
                lane,
                feed_of(name),
                Source("", found.partition),
                offset,
                SINK.decode(metadata),
            )
            self.held[place] = held
            new.append(held)
        return new

    def _revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        self._going(
            [held for p in places if (held := self.held.get((p.topic, p.partition))) is not None]
        )
        self._forget(places)
        consumer.incremental_unassign(places)

    def _lose(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        logger.warning("lost %d partitions: this sink was away for too long", len(places))
        self._forget(places)

    def _forget(self, places: Iterable[TopicPartition]) -> None:
        for place in places:
            held = self.held.pop((place.topic, place.partition), None)
            if held is not None:
                held.cancel.set()


def _consumer(settings: Settings) -> Consumer:
    return kafka.consumer(
        settings,
        f"{settings.topic_prefix}.{settings.sink_group}",
        **{
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": settings.session_timeout // 1000,
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 32_768,
            # A partition that is resumed waits for the fetch in flight.
            "fetch.wait.max.ms": 100,
            "fetch.min.bytes": 131_072,  # batches wait longer than this takes, and each fetch costs broker and sink
            "fetch.queue.backoff.ms": 50,
            "topic.metadata.refresh.interval.ms": 10_000,
        },
    )
