"""Findings about the pipeline itself (project ``stepstream``) that are raised and not over, read from the findings topic."""

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

LOOK_BACK: Final = 50_000
"""So many of the newest findings are searched."""
_decode = msgspec.json.Decoder(FindingStruct).decode


def own_findings_partition(settings: Settings) -> int:
    """The partition of the findings topic, and of the alerts topic, that our own are on; -1 where there is no such topic."""
    client = kafka.consumer(settings, "stepstream-reader")
    try:
        count = kafka.partition_count(client, topic(settings.topic_prefix, "findings"))
    finally:
        client.close()
    return partition_for(PROJECT, count) if count else -1


def open_findings(settings: Settings, partition: int) -> dict[tuple[str, str], FindingStruct]:
    """By rule and subject: the newest finding of each that fires. Raises ``KafkaUnreachable`` or ``KafkaException``."""
    name = topic(settings.topic_prefix, "findings")
    client = kafka.consumer(settings, "stepstream-reader")
    try:
        end = client.get_watermark_offsets(TopicPartition(name, partition), timeout=10)[1]
    finally:
        client.close()
    found: dict[tuple[str, str], FindingStruct] = {}
    for message in kafka.read_to_end(settings, name, [partition], offset=max(0, end - LOOK_BACK)):
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
