"""Open findings about the pipeline itself (project ``stepstream``), from the findings topic."""

from __future__ import annotations

from typing import Final

import msgspec
from confluent_kafka import TopicPartition

from stepstream.common import kafka
from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.notify.pipeline_monitor import PROJECT

MAX_RECORDS: Final = 50_000
"""Number of records searched, from the end of the topic."""
_decode = msgspec.json.Decoder(FindingStruct).decode


def own_findings_partition(settings: Settings) -> int:
    """The partition of the findings topic with the project's own findings; -1 without the topic.

    Their alerts are on the partition of the same number.
    """
    client = kafka.consumer(settings, "stepstream-reader")
    try:
        count = kafka.partition_count(client, topic(settings.topic_prefix, "findings"))
    finally:
        client.close()
    return partition_for(PROJECT, count) if count else -1


def open_findings(settings: Settings, partition: int) -> dict[tuple[str, str], FindingStruct]:
    """The newest firing finding by rule and subject, of those that are not resolved.

    Raises ``KafkaUnreachable`` or ``KafkaException``.
    """
    name = topic(settings.topic_prefix, "findings")
    client = kafka.consumer(settings, "stepstream-reader")
    try:
        end = client.get_watermark_offsets(TopicPartition(name, partition), timeout=10)[1]
    finally:
        client.close()
    found: dict[tuple[str, str], FindingStruct] = {}
    for message in kafka.read_to_end(settings, name, [partition], offset=max(0, end - MAX_RECORDS)):
        value = message.value() or b""
        if PROJECT.encode() not in value:
            continue
        try:
            finding = _decode(value)
        except msgspec.MsgspecError:
            continue
        if finding.project != PROJECT:
            continue
        if finding.state == "firing":
            found[finding.rule, finding.subject] = finding
        elif finding.state == "resolved":
            found.pop((finding.rule, finding.subject), None)
    return found
