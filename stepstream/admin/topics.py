"""The Kafka topics of an installation: missing ones are created, existing ones only compared.

The steps of a run meet on one partition, so the number of partitions of the steps topic must never
change in place. The topics that follow it (trajectories, state) are created with the same number,
regardless of the settings.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from stepstream.common.kafka import client_config, unreachable, words
from stepstream.common.settings import require_kafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import TopicSpec, topic, topic_specs

TIMEOUT_S: Final = 10.0
ANSWER_S: Final = 5.0
"""Timeout for the first answer of the brokers."""
LATEST: Final[Any] = OffsetSpec.latest()  # type: ignore[no-untyped-call]
LEADERS: Final = {"steps": "steps", "fleet": "findings"}
"""By group of topics: the topic whose number of partitions the others follow."""

DRAIN: Final = """\
the partition count of {topic} never changes in place, because the steps of a run
would end up on two partitions. To move to {wanted}:
1. stop the producers of steps, and wait until `stepstream doctor` shows no lag of worker and sink;
2. stop workers and sinks;
3. set another topic_prefix and partitions = {wanted}, and run `stepstream topics create`;
4. start workers, sinks and producers again. ClickHouse keeps its data; apply documents
   again."""


class TopicsError(Exception):
    """Topics cannot be created or read; the message names them and the reason."""


@dataclass(frozen=True)
class TopicReport:
    """A topic: ``created`` now, ``exists`` with the right settings, ``differs``, or ``missing``."""

    name: str
    state: Literal["created", "exists", "differs", "missing"]
    partitions: int
    replicas: int
    differences: tuple[str, ...] = ()
    refused: str = ""
    """A change that is never made in place, with the instructions for it; usually empty."""


@dataclass(frozen=True)
class _Found:
    partitions: int
    replicas: int
    config: dict[str, str]


def admin(settings: Settings) -> AdminClient:
    """An admin client with the connection settings. Raises ``SettingsError`` without brokers."""
    require_kafka(settings)
    # Its errors come back from its calls: what it would log besides is noise.
    return AdminClient({**client_config(settings), "log_level": 0})


def specs(settings: Settings) -> tuple[TopicSpec, ...]:
    """The topics that these settings want."""
    return topic_specs(steps_retention_ms=settings.steps_topic_retention // 1000)


def create_topics(settings: Settings, *, timeout: float = TIMEOUT_S) -> list[TopicReport]:
    """Make the topics that are missing and report on all of them; what exists is not changed.

    Safe to call again and from several processes at once. Raises ``KafkaUnreachable`` and
    ``TopicsError``.
    """
    client = admin(settings)
    found = _find(client, settings, timeout)
    missing = [
        spec for spec in specs(settings) if topic(settings.topic_prefix, spec.name) not in found
    ]
    if missing:
        _create(client, settings, missing, found, timeout)
        # Until then a producer could find a partition without a leader and report an error.
        found |= _await(client, settings, timeout)
    created = {topic(settings.topic_prefix, spec.name) for spec in missing}
    return [_report(settings, spec, found, created) for spec in specs(settings)]


def list_topics(settings: Settings, *, timeout: float = TIMEOUT_S) -> list[TopicReport]:
    """Report on every topic, changing nothing."""
    found = _find(admin(settings), settings, timeout)
    return [_report(settings, spec, found, set()) for spec in specs(settings)]


def _find(client: AdminClient, settings: Settings, timeout: float) -> dict[str, _Found]:
    """Our topics that exist, with what they are set to."""
    metadata = _metadata(client, settings)
    names = [
        name
        for spec in specs(settings)
        if (name := topic(settings.topic_prefix, spec.name)) in metadata.topics
    ]
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    configs = client.describe_configs(resources, request_timeout=timeout) if resources else {}
    found = {}
    for resource, future in configs.items():
        try:
            config = {key: str(entry.value) for key, entry in future.result().items()}
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue  # just made: not every broker knows it yet
            raise TopicsError(
                f"the settings of topic {resource.name} cannot be read: {words(error)}"
            ) from None
        partitions = metadata.topics[resource.name].partitions
        replicas = min((len(one.replicas) for one in partitions.values()), default=0)
        found[resource.name] = _Found(len(partitions), replicas, config)
    return found


def _metadata(client: AdminClient, settings: Settings) -> ClusterMetadata:
    try:
        return client.list_topics(timeout=ANSWER_S)
    except KafkaException as error:
        raise unreachable(settings.kafka_brokers, ANSWER_S, error) from None


def has_topic(settings: Settings, name: str) -> bool:
    """Whether the topic exists. Raises ``KafkaUnreachable``."""
    return name in _metadata(admin(settings), settings).topics


def require_topic(settings: Settings, name: str) -> int:
    """The number of partitions of a topic.

    Raises ``KafkaUnreachable``, or ``TopicsError`` if the topic does not exist.
    """
    stored = _metadata(admin(settings), settings).topics.get(name)
    if stored is None:
        raise TopicsError(
            f"there is no topic {name}: run `stepstream topics create`, or check topic_prefix"
        )
    return len(stored.partitions)


def _wanted_partitions(settings: Settings, spec: TopicSpec, found: dict[str, _Found]) -> int:
    """The number of partitions to create: that of the topic it follows, else the setting."""
    if spec.partitioned == "one":
        return 1
    # Topics that are joined by partition number need as many partitions as their leader.
    leader = found.get(topic(settings.topic_prefix, LEADERS[spec.partitioned]))
    if leader is not None:
        return leader.partitions
    return settings.partitions if spec.partitioned == "steps" else settings.fleet_partitions


def _wanted_config(settings: Settings, spec: TopicSpec) -> dict[str, str]:
    return {**spec.config, "min.insync.replicas": str(settings.min_insync_replicas)}


def _create(
    client: AdminClient,
    settings: Settings,
    missing: list[TopicSpec],
    found: dict[str, _Found],
    timeout: float,
) -> None:
    if settings.min_insync_replicas > settings.replication_factor:
        raise TopicsError(
            f"min_insync_replicas is {settings.min_insync_replicas}, more than replication_factor "
            f"({settings.replication_factor}): no record could ever be acknowledged"
        )
    wanted = [
        NewTopic(
            topic(settings.topic_prefix, spec.name),
            num_partitions=_wanted_partitions(settings, spec, found),
            replication_factor=settings.replication_factor,
            config=_wanted_config(settings, spec),
        )
        for spec in missing
    ]
    for name, future in client.create_topics(
        wanted, operation_timeout=timeout, request_timeout=timeout
    ).items():
        try:
            future.result()
        except KafkaException as error:
            _raise_for(settings, name, error)


def _raise_for(settings: Settings, name: str, error: KafkaException) -> None:
    """Raise ``TopicsError``, unless another process created the topic at the same time."""
    code = error.args[0].code()
    if code == KafkaError.TOPIC_ALREADY_EXISTS:
        return
    if code == KafkaError.INVALID_REPLICATION_FACTOR:
        raise TopicsError(
            f"topic {name} cannot be created: replication_factor is {settings.replication_factor} "
            "and the cluster has fewer brokers; start more of them or lower replication_factor"
        ) from None
    raise TopicsError(f"topic {name} cannot be created: {words(error)}") from None


def _await(client: AdminClient, settings: Settings, timeout: float) -> dict[str, _Found]:
    """Wait until all topics exist and every partition has a leader that answers; returns them."""
    deadline = time.monotonic() + timeout
    while True:
        found = _find(client, settings, timeout)
        absent = [
            name
            for spec in specs(settings)
            if (name := topic(settings.topic_prefix, spec.name)) not in found
        ]
        if not absent and _all_answer(client, found, timeout):
            return found
        if time.monotonic() > deadline:
            raise TopicsError(
                f"created, but not available after {timeout:.0f} s: "
                f"{', '.join(absent) or 'some partitions'}"
            )
        time.sleep(0.05)


def _all_answer(client: AdminClient, found: dict[str, _Found], timeout: float) -> bool:
    wanted = {
        TopicPartition(name, number): LATEST
        for name, stored in found.items()
        for number in range(stored.partitions)
    }
    for future in client.list_offsets(wanted, request_timeout=timeout).values():
        try:
            future.result()
        except KafkaException:  # the broker does not know yet that it leads the partition
            return False
    return True


def _report(
    settings: Settings, spec: TopicSpec, found: dict[str, _Found], created: set[str]
) -> TopicReport:
    name = topic(settings.topic_prefix, spec.name)
    stored = found.get(name)
    if stored is None:
        return TopicReport(name, "missing", 0, 0)
    differences, refused = _compare_partitions(settings, spec, stored, found)
    wanted = _wanted_config(settings, spec)
    differences += [
        f"{key} is {stored.config.get(key, 'unset')}, wanted {value}"
        for key, value in wanted.items()
        if not _same(stored.config.get(key, ""), value)
    ]
    if stored.replicas != settings.replication_factor:
        differences.append(
            f"{stored.replicas} replicas, replication_factor is {settings.replication_factor}"
        )
    state: Any = "differs" if differences else "created" if name in created else "exists"
    return TopicReport(name, state, stored.partitions, stored.replicas, tuple(differences), refused)


def _compare_partitions(
    settings: Settings, spec: TopicSpec, stored: _Found, found: dict[str, _Found]
) -> tuple[list[str], str]:
    name = topic(settings.topic_prefix, spec.name)
    if spec.name == "steps" and stored.partitions != settings.partitions:
        difference = (
            f"{stored.partitions} partitions, the setting partitions is {settings.partitions}"
        )
        return [difference], DRAIN.format(topic=name, wanted=settings.partitions)
    if spec.name == LEADERS["fleet"] and stored.partitions != settings.fleet_partitions:
        return [
            f"{stored.partitions} partitions, the setting fleet_partitions is "
            f"{settings.fleet_partitions}"
        ], ""
    wanted = _wanted_partitions(settings, spec, found)
    if stored.partitions == wanted:
        return [], ""
    leader = (
        topic(settings.topic_prefix, LEADERS[spec.partitioned])
        if spec.partitioned in LEADERS
        else "a single one"
    )
    return [f"{stored.partitions} partitions, wanted {wanted} (as {leader})"], ""


def _same(one: str, other: str) -> bool:
    """Lists such as a cleanup.policy have no order."""
    return sorted(one.split(",")) == sorted(other.split(","))
