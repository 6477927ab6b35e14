"""Deliveries as they stand, from the deliveries topic: the newest record of each subscription and alert."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from confluent_kafka import TopicPartition

from stepstream import kafka
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

_decode = msgspec.json.Decoder(DeliveryStruct).decode


def deliveries(
    settings: Settings, *, subscription: str = "", state: str = "", limit: int = 100, tail_records: int = 100_000
) -> list[DeliveryStruct]:
    """The newest first; of each partition the last so many records are looked at. Raises ``KafkaUnreachable``."""
    newest: dict[tuple[str, str], DeliveryStruct] = {}
    for record in _records(settings, tail_records):
        if not subscription or record.subscription == subscription:
            newest[record.subscription, record.alert_id] = record
    found = [record for record in newest.values() if not state or record.state == state]
    return sorted(found, key=lambda record: -record.time)[:limit]


def _records(settings: Settings, tail_records: int) -> Iterator[DeliveryStruct]:
    name = topic(settings.topic_prefix, "deliveries")
    client = kafka.consumer(settings, "stepstream-reader")
    try:
        count = kafka.partition_count(client, name)
        ends = {p: client.get_watermark_offsets(TopicPartition(name, p), timeout=10)[1] for p in range(count)}
    finally:
        client.close()
    for partition, end in ends.items():
        for message in kafka.read_to_end(settings, name, [partition], offset=max(0, end - tail_records)):
            value = message.value()
            if value:
                try:
                    yield _decode(value)
                except (msgspec.MsgspecError, UnicodeDecodeError):
                    continue
