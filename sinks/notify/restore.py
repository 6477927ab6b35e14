"""What the deliveries topic says, put back together: the members of each subscription. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.delivery import DeliveryStruct, delivery_key
from stepstream.sinks.notify.grouping import TrackedAlert

Restored = dict[str, dict[str, tuple[TrackedAlert, DeliveryStruct | None]]]


def members_of(
    records: Iterable[tuple[int, DeliveryStruct]], places: OrderedDict[str, int]
) -> Restored:
    """Members by subscription and alert, each with its last record; ``places`` gets the offset of each.

    A record of a notifier that had been frozen may come after newer ones: what was told once stays told, and the newest
    record of the alert stays the newest.
    """
    found: Restored = {}
    for offset, record in records:
        members = found.setdefault(record.subscription, {})
        member, _ = members.get(record.alert_id, (None, None))
        if member is None:
            member = TrackedAlert(record.record or _remains(record))
        elif record.record is not None and record.record.seq >= member.alert.seq:
            member.alert = record.record
        elif record.record is None and record.seq >= member.alert.seq:
            member.alert = _remains(record)
        if record.told_seq > member.told_seq or (
            record.told_seq == member.told_seq and record.told_at > member.told_at_us
        ):
            member.told_seq, member.told_state = record.told_seq, record.told_state
            member.told_severity, member.told_at_us = record.told_severity, record.told_at
        if record.state == "parked":
            member.parked_seq = record.seq
        members[record.alert_id] = member, record
        key = delivery_key(record.subscription, record.alert_id)
        places[key] = offset
        places.move_to_end(key)
    return found


def _remains(record: DeliveryStruct) -> AlertStruct:
    """What is known of an alert about which there is nothing more to tell."""
    return AlertStruct(
        alert_id=record.alert_id,
        seq=record.seq,
        state=record.alert_state,
        severity=record.severity,
        alert=record.alert,
        rule="",
        project=record.project,
        environment=record.environment,
        agent=record.agent,
        opened_at=record.time,
        updated_at=record.time,
    )
