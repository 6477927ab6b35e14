"""Consumer groups as Kafka sees them: who is in, what they hold, how far behind they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConsumerGroupTopicPartitions,
    OffsetSpec,
)

from stepstream.schemas.settings import Settings

Place = tuple[str, int]
"""A topic and a partition."""


@dataclass(frozen=True)
class Group:
    """One group: its members, the partitions they hold, and the records not yet done in each partition it knows."""

    name: str
    state: str
    members: int
    assigned: frozenset[Place]
    lags: dict[Place, int]

    @property
    def lag(self) -> int:
        """Records between what is committed and what is there."""
        return sum(self.lags.values())

    def holds(self, topic: str, partitions: int) -> bool:
        """Whether its members hold every partition of the topic."""
        return self.state == "STABLE" and all((topic, number) in self.assigned for number in range(partitions))


def worker_group(settings: Settings) -> str:
    """The consumer group of workers."""
    return f"{settings.topic_prefix}.{settings.worker_group}"


def sink_group(settings: Settings) -> str:
    """The consumer group of sinks."""
    return f"{settings.topic_prefix}.{settings.sink_group}"


def members(client: AdminClient, name: str, *, timeout: float = 10) -> Group:
    """The group without its lags; an unknown group is one without members. Raises ``KafkaException``."""
    try:
        described = client.describe_consumer_groups([name], request_timeout=timeout)[name].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise
        return Group(name, "DEAD", 0, frozenset(), {})
    assigned = {
        (place.topic, place.partition)
        for member in described.members
        if member.assignment is not None
        for place in member.assignment.topic_partitions
    }
    return Group(name, described.state.name, len(described.members), frozenset(assigned), {})


def describe(client: AdminClient, name: str, *, timeout: float = 10) -> Group:
    """The group with its lags, in the partitions it has committed or holds. Raises ``KafkaException``."""
    group = members(client, name, timeout=timeout)
    committed = _committed(client, name, timeout) if group.state != "DEAD" else {}
    places = committed.keys() | group.assigned
    ends = _offsets(client, places, OffsetSpec.latest(), timeout)
    starts = _offsets(client, places - committed.keys(), OffsetSpec.earliest(), timeout)
    lags = {place: max(0, end - committed.get(place, starts.get(place, end))) for place, end in ends.items()}
    return Group(group.name, group.state, group.members, group.assigned, lags)


def _committed(client: AdminClient, name: str, timeout: float) -> dict[Place, int]:
    futures = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)], request_timeout=timeout)
    places = futures[name].result().topic_partitions or []
    return {(place.topic, place.partition): place.offset for place in places if place.error is None and place.offset >= 0}


def _offsets(client: AdminClient, places: Iterable[Place], which: Any, timeout: float) -> dict[Place, int]:
    wanted = {TopicPartition(*place): which for place in places}
    if not wanted:
        return {}
    found = {}
    for place, future in client.list_offsets(wanted, request_timeout=timeout).items():
        try:
            found[(place.topic, place.partition)] = future.result().offset
        except KafkaException:  # the topic is gone, its committed offsets are not
            continue
    return found
