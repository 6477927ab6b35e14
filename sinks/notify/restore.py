"""The tracked alerts of each subscription, from the records of the deliveries topic. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.delivery import DeliveryStruct, delivery_key
from stepstream.sinks.notify.grouping import TrackedAlert

RestoredAlerts = dict[str, dict[str, tuple[TrackedAlert, DeliveryStruct | None]]]


def restored_alerts(
    records: Iterable[tuple[int, DeliveryStruct]], record_offsets: OrderedDict[str, int]
) -> RestoredAlerts:
    """Tracked alerts by subscription and alert id, each with its last record.

    ``records`` have their offsets, in order; the last offset of each key is put into
    ``record_offsets``.
    """
    found: RestoredAlerts = {}
    for offset, record in records:
        alerts = found.setdefault(record.subscription, {})
        tracked, _ = alerts.get(record.alert_id, (None, None))
        if tracked is None:
            tracked = TrackedAlert(record.record or _without_details(record))
        else:
            _apply(tracked, record)
        _apply_delivered(tracked, record)
        if record.state == "parked":
            tracked.parked_seq = record.seq
        alerts[record.alert_id] = tracked, record
        key = delivery_key(record.subscription, record.alert_id)
        record_offsets[key] = offset
        record_offsets.move_to_end(key)
    return found


# A notifier that was suspended may write old records after newer ones of its successor. Both of
# the following therefore keep the newest change, not the last record.


def _apply(tracked: TrackedAlert, record: DeliveryStruct) -> None:
    if record.record is not None and record.record.seq >= tracked.alert.seq:
        tracked.alert = record.record
    elif record.record is None and record.seq >= tracked.alert.seq:
        tracked.alert = _without_details(record)


def _apply_delivered(tracked: TrackedAlert, record: DeliveryStruct) -> None:
    is_newer = record.told_seq > tracked.delivered_seq
    is_later = record.told_seq == tracked.delivered_seq
    if is_newer or (is_later and record.told_at > tracked.delivered_at_us):
        tracked.delivered_seq, tracked.delivered_state = record.told_seq, record.told_state
        tracked.delivered_severity = record.told_severity
        tracked.delivered_at_us = record.told_at


def _without_details(record: DeliveryStruct) -> AlertStruct:
    """What a delivery record without the alert's own record contains of it."""
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
