"""Checks of Kafka: brokers, topics, partitions of the newest steps, lag, dead letter, documents."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    ResourceType,
)

from stepstream.admin import topics
from stepstream.admin.deadletter import read as read_letters
from stepstream.common.kafka import KafkaUnreachable, consumer, position_of, read_to_end
from stepstream.common.settings import SettingsError
from stepstream.doctor import baselines, pipeline
from stepstream.doctor.check import Check, fail, ok, warn
from stepstream.schemas.formatting import format_number_of
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_MS, MINUTE_MS
from stepstream.schemas.topics import topic

TIMEOUT_S: Final = 5.0
SAMPLE: Final = 200
"""Newest records checked per partition."""
CLOCK_WARN_S: Final = 2.0
# Up to this number dead letters are read one by one, so that duplicates are not counted.
COUNTED: Final = 10_000


def checks(settings: Settings) -> Iterator[Check]:
    """All checks of Kafka; only the first if Kafka cannot be reached."""
    try:
        reports = topics.list_topics(settings, timeout=TIMEOUT_S)
    except SettingsError as error:
        yield fail("kafka", str(error), "start `stepstream up`, or set kafka_brokers")
        return
    except KafkaUnreachable as error:
        yield fail("kafka", str(error), "start it, or correct kafka_brokers, TLS and SASL settings")
        return
    client = topics.admin(settings)
    yield from _brokers(client, settings)
    yield from _topics(reports)
    # The checks below read these topics: each would only repeat the failure after its timeout.
    if any(report.state == "missing" for report in reports):
        return
    yield from _offsets_retention(client, settings)
    yield from _newest_steps(settings)
    yield from pipeline.checks(settings)
    yield from _deadletter(settings)
    yield from _documents(settings)
    yield from baselines.checks(settings)


def _brokers(client: AdminClient, settings: Settings) -> Iterator[Check]:
    began = time.monotonic()
    count = len(client.list_topics(timeout=TIMEOUT_S).brokers)
    took_ms = (time.monotonic() - began) * 1000
    brokers = format_number_of(count, "broker")
    text = f"{brokers} at {settings.kafka_brokers}, answered in {took_ms:.0f} ms"
    if count < settings.replication_factor:
        yield warn(
            "kafka",
            f"{text}; replication_factor is {settings.replication_factor}",
            "start more brokers",
        )
    else:
        yield ok("kafka", text)


def _topics(reports: list[topics.TopicReport]) -> Iterator[Check]:
    missing = [report.name for report in reports if report.state == "missing"]
    if missing:
        yield fail("topics", f"missing: {', '.join(missing)}", "stepstream topics create")
    differing = [report for report in reports if report.differences]
    for report in differing:
        todo = (
            "change the setting back, or see `stepstream topics create`"
            if report.refused
            else "change the topic, or the setting"
        )
        yield warn("topics", f"{report.name}: {'; '.join(report.differences)}", todo)
    if not missing and not differing:
        yield ok("topics", f"all {len(reports)} exist with the right settings")


def _offsets_retention(client: AdminClient, settings: Settings) -> Iterator[Check]:
    """Kafka must keep committed offsets for longer than the data.

    A consumer whose offsets have expired would read everything again, or skip records.
    """
    minutes = _broker_setting(client, "offsets.retention.minutes")
    if minutes is None:
        yield warn(
            "offsets",
            "the broker does not report offsets.retention.minutes",
            "make sure that it is longer than the retention of every topic",
        )
        return
    longest = (
        max(int(spec.config.get("retention.ms", 0)) for spec in topics.specs(settings)) // MINUTE_MS
    )
    if int(minutes) <= longest:
        yield warn(
            "offsets",
            f"offsets.retention.minutes is {minutes}: without a running consumer, offsets expire "
            f"before the data ({longest} minutes)",
            f"set offsets.retention.minutes={2 * longest} on the brokers",
        )
    else:
        yield ok(
            "offsets",
            f"kept for {int(minutes) // 1440} days, the data for at most {longest // 1440}",
        )


def _broker_setting(client: AdminClient, name: str) -> str | None:
    brokers = client.list_topics(timeout=TIMEOUT_S).brokers
    # Any broker will do: the setting should be the same in the whole cluster.
    resource = ConfigResource(ResourceType.BROKER, str(next(iter(brokers))))
    try:
        entry = (
            client.describe_configs([resource], request_timeout=TIMEOUT_S)[resource]
            .result()
            .get(name)
        )
    # A managed cluster may refuse to describe brokers; the caller then warns.
    except KafkaException:
        return None
    return None if entry is None or entry.value is None else str(entry.value)


def _newest_steps(settings: Settings) -> Iterator[Check]:
    """Whether producers use the right partitioner, and the brokers' clock is right."""
    name = topic(settings.topic_prefix, "steps")
    partitions = topics.require_topic(settings, name)
    seen = misplaced = newest_ms = 0
    for partition in range(partitions):
        for message in _tail(settings, name, partition):
            key = message.key()
            seen += 1
            misplaced += bool(key) and partition_for(key, partitions) != position_of(message)[0]
            newest_ms = max(newest_ms, message.timestamp()[1])
    if misplaced:
        yield warn(
            "partitioner",
            f"{misplaced} of the newest {seen} steps are not on the partition of their key; "
            "workers have to move them",
            "set partitioner=murmur2_random in every librdkafka producer (the default of Java and "
            "aiokafka is right)",
        )
    else:
        yield ok(
            "partitioner",
            f"the newest steps ({seen}) are on the partitions of their keys"
            if seen
            else "no steps yet",
        )
    # The topic's timestamps are the brokers' (LogAppendTime). Only a clock that is ahead can be
    # seen: an old newest step may also mean that no agent is running.
    ahead_s = newest_ms / 1000 - time.time()
    if ahead_s > CLOCK_WARN_S:
        yield warn(
            "clock",
            f"the brokers' clock is at least {ahead_s:.0f} s ahead of this machine's",
            "synchronise clocks (NTP)",
        )


def _tail(settings: Settings, name: str, partition: int) -> Iterator[Any]:
    client = consumer(settings, "stepstream-doctor")
    try:
        _, high = client.get_watermark_offsets(TopicPartition(name, partition), timeout=TIMEOUT_S)
    finally:
        client.close()
    if high:
        yield from read_to_end(
            settings, name, [partition], offset=max(0, high - SAMPLE), timeout=TIMEOUT_S
        )


def _deadletter(settings: Settings) -> Iterator[Check]:
    place = TopicPartition(topic(settings.topic_prefix, "deadletter"), 0)
    client = consumer(settings, "stepstream-doctor")
    try:
        first, last = client.get_watermark_offsets(place, timeout=TIMEOUT_S)
        since_ms = int(time.time() * 1000) - DAY_MS
        since = client.offsets_for_times(
            [TopicPartition(place.topic, place.partition, since_ms)], timeout=TIMEOUT_S
        )[0].offset
    finally:
        client.close()
    if last <= first:
        yield ok("dead letter", "empty")
        return
    # offsets_for_times answers with a negative offset if no record is that new.
    recent = last - since if since >= 0 else 0
    count = last - first
    # After a crash a worker may write a letter twice: offsets would count both.
    if count <= COUNTED:
        times_ms = [letter.time_ms for letter in read_letters(settings)]
        count, recent = len(times_ms), sum(time_ms >= since_ms for time_ms in times_ms)
    text = f"{format_number_of(count, 'record')}, {recent:,} in the last 24 hours"
    yield (
        warn("dead letter", text, "stepstream deadletter list")
        if recent
        else ok("dead letter", text)
    )


def _documents(settings: Settings) -> Iterator[Check]:
    from stepstream.admin.documents import in_force
    from stepstream.schemas.documents import WrongDocument, decode_document

    stored = in_force(settings)
    for record in stored.values():
        try:
            decode_document(record.value)
        except WrongDocument as error:
            yield warn(
                "documents",
                f"{record.key} cannot be read by this version: {error}",
                "apply it again, or update stepstream",
            )
    yield ok(
        "documents",
        f"{len(stored)} in force" if stored else "none: the default rules apply",
    )
