"""The processes between Kafka and ClickHouse: whether they run and make progress.

The committed offset of a worker shows little of its progress, because the oldest open run holds it
back. So the worker's progress records are used: each states that everything appended up to and
including its time is processed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import msgspec
from confluent_kafka import Consumer, TopicPartition

from stepstream.admin import groups
from stepstream.admin.fleet import readable
from stepstream.common import kafka
from stepstream.doctor.check import Check, fail, warn
from stepstream.doctor.standing import Standing, evaluate
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.schemas.trajectory import ProgressStruct

TIMEOUT_S: Final = 5.0
WATCHED_S: Final = 12.0
"""How long a process without progress is watched: two progress reports of a worker, which come
every 5 s, and a margin.
"""
POLL_EVERY_S: Final = 1.0
PROGRESS_RECORDS: Final = 20_000
"""Newest records of the usage topic that are searched for progress records."""
MAX_PARTITIONS_READ: Final = 8
"""Maximum number of partitions whose oldest waiting record is read."""
_decode = msgspec.json.Decoder(ProgressStruct).decode


def checks(settings: Settings) -> Iterator[Check]:
    """Yields one check for each firing alert about the pipeline, and one each for worker, sink and
    notifier. Raises ``KafkaException`` or ``KafkaUnreachable``.
    """
    yield from _alerts(settings)
    for part in groups.PARTS:
        yield _part(settings, part)


def _alerts(settings: Settings) -> Iterator[Check]:
    from stepstream.sinks.notify.open_findings import open_findings, own_findings_partition

    for finding in open_findings(settings, own_findings_partition(settings)).values():
        since = format_duration(time.time_ns() // 1_000 - finding.time)
        text = f"{finding.alert} has been firing for {since}: {finding.message}"
        todo = "see the lines below and `stepstream alerts`; it is resolved when the cause is fixed"
        yield (
            fail("alert", text, todo)
            if finding.severity in ("error", "critical")
            else warn("alert", text, todo)
        )


def _part(settings: Settings, part: str) -> Check:
    first = last = standing_of(settings, part)
    began = time.monotonic()
    # A process that is killed and started again needs seconds to read; only one without any
    # progress in the whole time counts as stalled.
    while (
        last.is_behind
        and last.members
        and last.progress == first.progress
        and time.monotonic() - began < WATCHED_S
    ):
        time.sleep(POLL_EVERY_S)
        last = standing_of(settings, part)
    return evaluate(
        last,
        moved=last.progress != first.progress,
        watched_us=round((time.monotonic() - began) * 1e6),
        stalled_after_us=settings.watch_after,
        open_runs=_open_runs(settings) if part == "worker" else None,
    )


def standing_of(settings: Settings, part: str) -> Standing:
    """The progress of all processes of a kind, from their consumer group.

    ``part`` is ``worker``, ``sink`` or ``notify``. Raises ``KafkaException`` or
    ``KafkaUnreachable``.
    """
    group = groups.describe(settings, groups.PARTS[part](settings), timeout=TIMEOUT_S)
    prefix = f"{settings.topic_prefix}."
    client = kafka.consumer(settings, group.name)
    try:
        committed = _committed(client, group)
        behind = {place: lag for place, lag in group.lags.items() if lag}
        ever = any(offset >= 0 for offset in committed.values())
        if not ever:
            # A group without committed offsets has no lags to go by: every record waits.
            behind = _unread(client, topic(settings.topic_prefix, groups.READS[part]))
        # Offsets, times and counts are added up: the sum is only compared for change.
        progress = sum(offset for offset in committed.values() if offset > 0)
        processed_us: dict[int, int] = {}
        if part == "worker" and ever:
            processed_us = _processed_us(settings)
            progress += sum(processed_us.values()) + _written(settings, client)
            behind = _not_processed(
                client, topic(settings.topic_prefix, "steps"), processed_us, behind
            )
        oldest_us = _oldest_us(settings, client, behind)
    finally:
        client.close()
    names = sorted({name.removeprefix(prefix) for name, _ in behind})
    return Standing(
        part=part,
        group=group.name,
        members=group.members,
        ever=ever,
        waiting=sum(behind.values()),
        waits_us=max(0, time.time_ns() // 1_000 - oldest_us) if oldest_us else 0,
        reads=", ".join(names),
        progress=progress,
        done_us=min(processed_us.values(), default=0),
    )


def _committed(client: Consumer, group: groups.Group) -> dict[groups.Place, int]:
    places = [TopicPartition(*place) for place in group.lags]
    return (
        {(at.topic, at.partition): at.offset for at in client.committed(places, timeout=TIMEOUT_S)}
        if places
        else {}
    )


def _unread(client: Consumer, name: str) -> dict[groups.Place, int]:
    """By partition: the number of records of a topic, for a group that has read none."""
    found = {}
    for partition in range(kafka.partition_count(client, name)):
        low, high = client.get_watermark_offsets(TopicPartition(name, partition), timeout=TIMEOUT_S)
        if high > low:
            found[name, partition] = high - low
    return found


def _processed_us(settings: Settings) -> dict[int, int]:
    """By partition of steps: the time up to which, inclusively, everything appended is processed.

    From the newest progress records of the workers.
    """
    name = topic(settings.topic_prefix, "usage")
    client = kafka.consumer(settings, "stepstream-reader")
    try:
        # All progress records are in partition 0.
        end = client.get_watermark_offsets(TopicPartition(name, 0), timeout=TIMEOUT_S)[1]
    finally:
        client.close()
    found: dict[int, int] = {}
    for message in kafka.read_to_end(
        settings, name, [0], offset=max(0, end - PROGRESS_RECORDS), timeout=TIMEOUT_S
    ):
        if (message.key() or b"").startswith(b"!progress|"):
            for progress in readable([message.value() or b""], _decode):
                found[progress.partition] = max(progress.time, found.get(progress.partition, 0))
    return found


def _written(settings: Settings, client: Consumer) -> int:
    """The number of records that workers have written: it grows while they work, even before
    they report progress or commit offsets."""
    from stepstream.sinks.notify.pipeline_progress import WORKER_OUTPUTS

    total = 0
    for output in WORKER_OUTPUTS:
        name = topic(settings.topic_prefix, output)
        for partition in range(kafka.partition_count(client, name)):
            total += client.get_watermark_offsets(
                TopicPartition(name, partition), timeout=TIMEOUT_S
            )[1]
    return total


def _not_processed(
    client: Consumer, steps: str, processed_us: dict[int, int], behind: dict[groups.Place, int]
) -> dict[groups.Place, int]:
    """``behind`` without the usage topic, and with the lag of the steps topic computed from the
    workers' progress records.
    """
    # A worker commits the offset of its oldest open run, so its lag stays large while it is up to
    # date. Its progress records give the true position.
    found = {place: lag for place, lag in behind.items() if place[0] not in (steps, _usage(steps))}
    # Kafka's times are milliseconds; plus one, because records of that millisecond are processed.
    asked = [
        TopicPartition(steps, partition, time_us // 1_000 + 1)
        for partition, time_us in processed_us.items()
    ]
    for at in client.offsets_for_times(asked, timeout=TIMEOUT_S) if asked else ():
        high = client.get_watermark_offsets(TopicPartition(steps, at.partition), timeout=TIMEOUT_S)[
            1
        ]
        if 0 <= at.offset < high:
            found[steps, at.partition] = high - at.offset
    found |= {
        place: lag
        for place, lag in behind.items()
        if place[0] == steps and place[1] not in processed_us
    }
    return found


def _usage(steps: str) -> str:
    """The usage topic: its offsets are committed minutes later, when windows are sealed."""
    return steps.removesuffix("steps") + "usage"


def _oldest_us(settings: Settings, client: Consumer, behind: dict[groups.Place, int]) -> int:
    """When the oldest waiting record was appended; 0 if none waits."""
    # The partitions with the most waiting records first: each costs a read of its own.
    oldest = []
    for (name, partition), lag in sorted(behind.items(), key=lambda item: -item[1])[
        :MAX_PARTITIONS_READ
    ]:
        high = client.get_watermark_offsets(TopicPartition(name, partition), timeout=TIMEOUT_S)[1]
        first = next(
            iter(
                kafka.read_to_end(settings, name, [partition], offset=high - lag, timeout=TIMEOUT_S)
            ),
            None,
        )
        if first is not None:
            oldest.append(first.timestamp()[1] * 1_000)
    return min(oldest, default=0)


def _open_runs(settings: Settings) -> int | None:
    """Number of running runs in the store; None if it does not answer."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from stepstream.sinks.clickhouse import StoreError, connect

    try:
        client = connect(settings, readonly=True, timeout_s=10)
    except StoreError:
        return None
    try:
        return int(str(client.command("SELECT count() FROM runs WHERE status = 'running'")))
    except ClickHouseError:
        return None
    finally:
        client.close()
