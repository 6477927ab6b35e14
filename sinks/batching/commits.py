"""Committing: intents of planned batches and positions of stored ones, together in one request."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from stepstream.common.commit_metadata import SINK
from stepstream.common.retry import OutageLog
from stepstream.sinks.batching.lane import Stage
from stepstream.sinks.batching.partitions import Assigned

logger = logging.getLogger("stepstream.sink")

PAUSE_S: Final = 0.1


class Commits:
    """What fails is tried again with the very same offsets, so that a request that comes late says nothing new."""

    def __init__(self, consumer: Consumer, fence_s: float) -> None:
        self._consumer = consumer
        self._fence_s = fence_s
        self._trouble = OutageLog("offsets cannot be committed", logger)
        self._not_before = 0.0

    def send(self, all_held: Iterable[Assigned], *, known_at: float) -> list[Assigned]:
        """Commit whatever there is to be committed; returns those whose planned batch may start.

        ``known_at`` is when it was known that the partitions are ours: long ago, and nothing is committed. Kafka refuses
        the commits of who lost a partition to another, but while a group has no members it takes anyone's.
        """
        now = time.monotonic()
        if now < self._not_before or now - known_at > self._fence_s:
            return []
        wanted: list[tuple[Assigned, TopicPartition]] = []
        ready: list[Assigned] = []
        for held in all_held:
            lane, batch = held.lane, held.lane.batch
            if lane.stage is Stage.PLANNED and batch is not None:
                if batch.replay:  # its intent is what brought it here
                    ready.append(held)
                else:
                    wanted.append((held, held.at(batch.first, SINK.encode(batch.last))))
            elif not lane.acknowledged:
                wanted.append((held, held.at(lane.position)))
        committed = self._send([place for _, place in wanted])
        for held, place in wanted:
            if (place.topic, place.partition) in committed:
                held.lane.acknowledged = True
                if held.lane.stage is Stage.PLANNED:
                    ready.append(held)
        return ready

    def send_positions(self, leaving: Iterable[Assigned], *, known_at: float) -> None:
        """The last word about partitions that go: what is stored is committed, if Kafka still lets us."""
        if time.monotonic() - known_at > self._fence_s:
            return
        self._send(
            [
                h.at(h.lane.position)
                for h in leaving
                if not h.lane.acknowledged and h.lane.stage is not Stage.RUNNING
            ]
        )

    def _send(self, wanted: list[TopicPartition]) -> set[tuple[str, int]]:
        if not wanted:
            return set()
        try:
            answers = self._consumer.commit(offsets=wanted, asynchronous=False) or []
        except KafkaException as error:
            self._failed(error)
            return set()
        errors = [place.error for place in answers if place.error is not None]
        if errors:
            self._failed(errors[0])
        else:
            self._trouble.over()
        return {(place.topic, place.partition) for place in answers if place.error is None}

    def _failed(self, error: object) -> None:
        self._trouble.failed(error)
        self._not_before = time.monotonic() + PAUSE_S
