"""The processes between Kafka and ClickHouse: who runs, whether they get on, and what the notifier says of them.

What is committed says little of a worker: an open run holds its committed offset back. So what it tells itself, that it has
processed everything that was appended before a time, is held against what was appended since.
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
from stepstream.doctor.standing import Standing, judge
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.schemas.trajectory import ProgressStruct

TIMEOUT_S: Final = 5.0
WATCHED_S: Final = 12.0
"""How long a part that seems to stand still is watched: a worker tells how far it is every five seconds."""
LOOK_EVERY_S: Final = 1.0
TOLD: Final = 20_000
"""Newest records of the usage topic among which the worker's own word is searched."""
DATED: Final = 8
"""Partitions of which the oldest waiting record is read."""
_decode = msgspec.json.Decoder(ProgressStruct).decode


def checks(settings: Settings) -> Iterator[Check]:
    """Worker, sink, notifier, and the alerts about the pipeline that fire."""
    yield from _alerts(settings)
    for part in groups.PARTS:
        yield _part(settings, part)


def _alerts(settings: Settings) -> Iterator[Check]:
    from stepstream.sinks.notify.open_findings import open_findings, own_findings_partition

    for finding in open_findings(settings, own_findings_partition(settings)).values():
        since = format_duration(time.time_ns() // 1_000 - finding.time)
        text = f"{finding.alert} fires, for {since}: {finding.message}"
        todo = (
            "see the lines below, and `stepstream alerts`; it ends by itself when the cause is gone"
        )
        yield (
            fail("alert", text, todo)
            if finding.severity in ("error", "critical")
            else warn("alert", text, todo)
        )


def _part(settings: Settings, part: str) -> Check:
    first = last = standing_of(settings, part)
    began = time.monotonic()
    while (
        last.is_behind
        and last.members
        and last.progress == first.progress
        and time.monotonic() - began < WATCHED_S
    ):
        time.sleep(LOOK_EVERY_S)
        last = standing_of(settings, part)
    return judge(
        last,
        moved=last.progress != first.progress,
        watched_us=round((time.monotonic() - began) * 1e6),
        stalled_after_us=settings.watch_after,
        open_runs=_open_runs(settings) if part == "worker" else None,
    )


def standing_of(settings: Settings, part: str) -> Standing:
    """How a part stands now. Raises ``KafkaException`` or ``KafkaUnreachable``."""
    group = groups.describe(settings, groups.PARTS[part](settings), timeout=TIMEOUT_S)
    prefix = f"{settings.topic_prefix}."
    client = kafka.consumer(settings, group.name)
    try:
        committed = _committed(client, group)
        behind = {place: lag for place, lag in group.lags.items() if lag}
        ever = any(offset >= 0 for offset in committed.values())
        if not ever:
            behind = _unread(client, topic(settings.topic_prefix, groups.READS[part]))
        progress = sum(offset for offset in committed.values() if offset > 0)
        told_us: dict[int, int] = {}
        if part == "worker" and ever:
            told_us = _told(settings)
            progress += sum(told_us.values()) + _written(settings, client)
            behind = _not_processed(client, topic(settings.topic_prefix, "steps"), told_us, behind)
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
        done_us=min(told_us.values(), default=0),
    )


def _committed(client: Consumer, group: groups.Group) -> dict[groups.Place, int]:
    places = [TopicPartition(*place) for place in group.lags]
    return (
        {(at.topic, at.partition): at.offset for at in client.committed(places, timeout=TIMEOUT_S)}
        if places
        else {}
    )


def _unread(client: Consumer, name: str) -> dict[groups.Place, int]:
    """Everything on a topic that nobody has read yet."""
    found = {}
    for partition in range(kafka.partition_count(client, name)):
        low, high = client.get_watermark_offsets(TopicPartition(name, partition), timeout=TIMEOUT_S)
        if high > low:
            found[name, partition] = high - low
    return found


def _told(settings: Settings) -> dict[int, int]:
    """By partition of the steps: the time before which everything is processed, as the worker last told."""
    name = topic(settings.topic_prefix, "usage")
    client = kafka.consumer(settings, "stepstream-reader")
    try:
        end = client.get_watermark_offsets(TopicPartition(name, 0), timeout=TIMEOUT_S)[1]
    finally:
        client.close()
    found: dict[int, int] = {}
    for message in kafka.read_to_end(
        settings, name, [0], offset=max(0, end - TOLD), timeout=TIMEOUT_S
    ):
        if (message.key() or b"").startswith(b"!progress|"):
            for told in readable([message.value() or b""], _decode):
                found[told.partition] = max(told.time, found.get(told.partition, 0))
    return found


def _written(settings: Settings, client: Consumer) -> int:
    """How many records the workers ever wrote: grows while they work, whatever they have told or committed."""
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
    client: Consumer, steps: str, told_us: dict[int, int], behind: dict[groups.Place, int]
) -> dict[groups.Place, int]:
    """What was appended to the steps since the worker's word; what is known of other topics stays."""
    found = {place: lag for place, lag in behind.items() if place[0] not in (steps, _usage(steps))}
    asked = [
        TopicPartition(steps, partition, time_us // 1_000 + 1)
        for partition, time_us in told_us.items()
    ]
    for at in client.offsets_for_times(asked, timeout=TIMEOUT_S) if asked else ():
        high = client.get_watermark_offsets(TopicPartition(steps, at.partition), timeout=TIMEOUT_S)[
            1
        ]
        if 0 <= at.offset < high:
            found[steps, at.partition] = high - at.offset
    found |= {
        place: lag for place, lag in behind.items() if place[0] == steps and place[1] not in told_us
    }
    return found


def _usage(steps: str) -> str:
    """The topic of usage: its committed offset moves when windows are sealed, which is minutes later by design."""
    return steps.removesuffix("steps") + "usage"


def _oldest_us(settings: Settings, client: Consumer, behind: dict[groups.Place, int]) -> int:
    """When the oldest waiting record was appended; 0 where nothing waits."""
    oldest = []
    for (name, partition), lag in sorted(behind.items(), key=lambda item: -item[1])[:DATED]:
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
    """Runs that the store has as running; None where it does not answer."""
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
