"""People's actions on alerts: sent as findings, and seen through to the alert's next record."""

from __future__ import annotations

import time
from typing import Final

import msgspec
from confluent_kafka import TopicPartition
from pydantic import ValidationError

from stepstream.admin.commands import send_records
from stepstream.common import kafka
from stepstream.schemas.alert import Alert
from stepstream.schemas.alert_actions import Action, action_finding, mark_finding
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

WAIT_S: Final = 10.0
_encode = msgspec.json.Encoder().encode


class NotTaken(Exception):
    """No worker has applied the action in time; the message names possible causes."""


def act(
    settings: Settings,
    alert: Alert,
    action: Action,
    *,
    by: str,
    until_us: int = 0,
    message: str = "",
    wait_s: float = WAIT_S,
    now_us: int | None = None,
) -> Alert:
    """Acknowledge, silence or resolve an alert; returns its next state.

    Raises ``KafkaUnreachable``, or ``NotTaken`` if no worker applied it within ``wait_s``. The
    action is then in the findings topic and is applied when a worker reads it.
    """
    moment = time.time_ns() // 1_000 if now_us is None else now_us
    finding = action_finding(
        alert, action, by=by, now_us=moment, until_us=until_us, message=message
    )
    name = topic(settings.topic_prefix, "alerts")
    client = kafka.consumer(settings, "stepstream-reader")
    try:
        places = [
            TopicPartition(name, partition)
            for partition in range(kafka.partition_count(client, name))
        ]
        # Positions are set before sending: the worker may answer before the first poll.
        for place in places:
            place.offset = client.get_watermark_offsets(place, timeout=10)[1]
        client.assign(places)
        send_records(settings, [("findings", finding.project.encode(), _encode(finding), [])])
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            message_ = client.poll(0.1)
            value = None if message_ is None or message_.error() is not None else message_.value()
            # Substring first: decoding every alert of a busy cluster is slow.
            if value and finding.finding_id.encode() in value:
                return Alert.model_validate_json(value)
    finally:
        client.close()
    raise NotTaken(
        f"the alert was not {action} within {wait_s:.0f} s: it may be resolved already "
        f"(`stepstream alerts show {alert.alert_id[:8]}`), "
        "or no worker is running (`stepstream doctor`); the action is applied when a worker runs"
    )


def mark(settings: Settings, alert: Alert, *, right: bool, by: str, message: str = "") -> None:
    """Record whether an alert was right; returns when Kafka has it. Raises ``KafkaUnreachable``."""
    now_us = time.time_ns() // 1_000
    finding = mark_finding(alert, right=right, by=by, now_us=now_us, message=message)
    send_records(settings, [("findings", finding.project.encode(), _encode(finding), [])])


def find_alert(settings: Settings, prefix: str) -> Alert | None:
    """The newest state of the one alert whose id begins with ``prefix``; None if none or several
    do.
    """
    found: dict[str, Alert] = {}
    for message in kafka.read_to_end(settings, topic(settings.topic_prefix, "alerts")):
        key, value = (message.key() or b"").decode("utf-8", "replace"), message.value()
        if value and key.startswith(prefix):
            try:
                alert = Alert.model_validate_json(value)
            except ValidationError:
                continue
            known = found.get(key)
            if known is None or alert.seq >= known.seq:
                found[key] = alert
    return next(iter(found.values())) if len(found) == 1 else None
