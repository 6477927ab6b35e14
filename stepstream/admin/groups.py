"""Consumer groups as Kafka sees them: who is in, what they hold, how far behind they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from stepstream.admin import topics
from stepstream.common.kafka import consumer
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import TOPIC_NAMES, topic

Place = tuple[str, int]
"""A topic and a partition."""


@dataclass(frozen=True)
class Group:
    """A consumer group: its members, assigned partitions, and the lag of each known partition."""

    name: str
    state: str
    members: int
    assigned: frozenset[Place]
    lags: dict[Place, int]

    @property
    def lag(self) -> int:
        """Records between what is committed and what is there."""
        return sum(self.lags.values())

    def holds(self, name: str, partitions: int) -> bool:
        """Whether its members hold every partition of the topic."""
        # During a rebalance the assignments are those of the past.
        return self.state == "STABLE" and all(
            (name, number) in self.assigned for number in range(partitions)
        )


def worker_group(settings: Settings) -> str:
    """The consumer group of workers."""
    return f"{settings.topic_prefix}.{settings.worker_group}"


def sink_group(settings: Settings) -> str:
    """The consumer group of sinks."""
    return f"{settings.topic_prefix}.{settings.sink_group}"


def notify_group(settings: Settings) -> str:
    """The consumer group of notifiers."""
    return f"{settings.topic_prefix}.{settings.notify_group}"


PARTS: Final = {"worker": worker_group, "sink": sink_group, "notify": notify_group}
"""The parts that share a topic between them, and the group of each."""
READS: Final = {"worker": "steps", "sink": "steps", "notify": "alerts"}
"""The topic whose partitions they must hold."""


def ready(client: AdminClient, settings: Settings, part: str, *, timeout: float = 10) -> bool:
    """Whether the members of the group have all partitions assigned; False while Kafka starts."""
    name = topic(settings.topic_prefix, READS[part])
    try:
        stored = client.list_topics(name, timeout=timeout).topics[name]
        return bool(stored.partitions) and members(
            client, PARTS[part](settings), timeout=timeout
        ).holds(name, len(stored.partitions))
    except KafkaException:
        return False


def members(client: AdminClient, name: str, *, timeout: float = 10) -> Group:
    """The group without lags; one that does not exist has no members. Raises ``KafkaException``."""
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


def describe(settings: Settings, group: str, *, timeout: float = 10) -> Group:
    """The group with the lag of each committed or assigned partition. Raises ``KafkaException``."""
    client = consumer(settings, group)
    try:
        found = members(topics.admin(settings), group, timeout=timeout)
        ours = {f"{settings.topic_prefix}.{known}" for known in TOPIC_NAMES}
        stored = client.list_topics(timeout=timeout).topics
        places = [
            (name, number) for name in ours & stored.keys() for number in stored[name].partitions
        ]
        lags = dict(_lags(client, places, found.assigned, timeout))
    finally:
        client.close()
    return replace(found, lags=lags)


def _lags(
    client: Consumer, places: Iterable[Place], assigned: frozenset[Place], timeout: float
) -> Iterator[tuple[Place, int]]:
    # A consumer that joins nothing, because an admin client crashes in librdkafka 2.16 (a null
    # pointer) when it asks for offsets while the coordinator is loading.
    for found in client.committed([TopicPartition(*place) for place in places], timeout=timeout):
        place = (found.topic, found.partition)
        # Every topic is asked for; without offset and member the group does not read this one.
        if found.offset < 0 and place not in assigned:
            continue
        low, high = client.get_watermark_offsets(found, timeout=timeout)
        yield place, max(0, high - (found.offset if found.offset >= 0 else low))
