"""Deliveries and alerts as they stand, from their topics: the newest record of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
from confluent_kafka import TopicPartition
from pydantic import ValidationError

from stepstream import kafka
from stepstream.schemas.alert import Alert
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.documents import AlertMatch
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.alert_tail import matches

TAIL_RECORDS: Final = 100_000
"""Of each partition so many records, the newest, are looked at."""
_decode = msgspec.json.Decoder(DeliveryStruct).decode


def deliveries(settings: Settings, *, subscription: str = "", state: str = "", limit: int = 100) -> list[DeliveryStruct]:
    """The newest first. Raises ``KafkaUnreachable``."""
    newest: dict[tuple[str, str], DeliveryStruct] = {}
    for value in _values(settings, "deliveries"):
        try:
            record = _decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if not subscription or record.subscription == subscription:
            newest[record.subscription, record.alert_id] = record
    found = [record for record in newest.values() if not state or record.state == state]
    return sorted(found, key=lambda record: -record.time)[:limit]


def alerts(settings: Settings, match: AlertMatch, *, state: str = "", limit: int = 100) -> list[Alert]:
    """Alerts that match, the one that changed last first. Raises ``KafkaUnreachable``."""
    newest: dict[str, Alert] = {}
    for value in _values(settings, "alerts"):
        try:
            alert = Alert.model_validate_json(value)
        except ValidationError:
            continue
        known = newest.get(alert.alert_id)
        if known is None or alert.seq >= known.seq:
            newest[alert.alert_id] = alert
    found = [alert for alert in newest.values() if (not state or alert.state == state) and matches(match, alert)]
    return sorted(found, key=lambda alert: -alert.updated_at)[:limit]


def _values(settings: Settings, name: str) -> Iterator[bytes]:
    full = topic(settings.topic_prefix, name)
    client = kafka.consumer(settings, "stepstream-reader")
    try:
        count = kafka.partition_count(client, full)
        ends = {p: client.get_watermark_offsets(TopicPartition(full, p), timeout=10)[1] for p in range(count)}
    finally:
        client.close()
    for partition, end in ends.items():
        for message in kafka.read_to_end(settings, full, [partition], offset=max(0, end - TAIL_RECORDS)):
            if value := message.value():
                yield value
