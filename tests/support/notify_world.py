"""Alerts, subscriptions and a notifier's partition without Kafka, for tests of delivery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.times import SECOND_US
from stepstream.sinks.notify.delivery import PartitionDelivery
from stepstream.sinks.notify.grouping import Notification

NOW = 1_767_225_600 * SECOND_US  # 2026-01-01 00:00 UTC, a Thursday
_decode = msgspec.json.Decoder(DeliveryStruct).decode


def subscription(name: str = "oncall", **fields: Any) -> Subscription:
    """A subscription to every alert, through a webhook."""
    return Subscription.model_validate(
        {"name": name, "to": {"webhook": {"url": "https://h.example/x"}}} | fields
    )


def alert(alert_id: str = "a", seq: int = 1, **fields: Any) -> AlertStruct:
    """A firing warning, opened at ``NOW``."""
    known: dict[str, Any] = {
        "alert_id": alert_id, "seq": seq, "state": "firing", "severity": "warning", "alert": "loop",
        "rule": "loop",
        "project": "shop", "agent": "support", "message": "same call 5 times", "opened_at": NOW,
        "updated_at": NOW,
    }  # fmt: skip
    if fields.get("state") == "resolved":
        known["resolved_at"] = NOW + SECOND_US
    return AlertStruct(**(known | fields))


class World:
    """A partition of alerts, its deliveries topic, and notifiers that crash and restart."""

    def __init__(self, *subscriptions: Subscription) -> None:
        self.subscriptions = {one.name: one for one in subscriptions}
        self.log: list[bytes] = []
        # The deliveries topic.
        self.records: list[bytes] = []
        self.committed = 0
        self.restore_offset = 0
        self.now = NOW
        self.delivery = self._start()

    def _start(self) -> PartitionDelivery:
        delivery = PartitionDelivery(0, self.subscriptions)
        records = [
            # Records below the noted offset may have been removed by compaction: they must not be
            # needed.
            (n, _decode(value))
            for n, value in enumerate(self.records)
            if n >= self.restore_offset
        ]
        delivery.restore(records, self.committed, self.now)
        return delivery

    def publish(self, one: AlertStruct) -> None:
        """Append a record to the alerts topic."""
        self.log.append(msgspec.json.encode(one))

    def step(self, seconds: float = 0) -> list[Notification]:
        """Let time pass and read new alerts. Returns the notifications that are due."""
        self.now += round(seconds * SECOND_US)
        for offset in range(self.delivery.position, len(self.log)):
            self.delivery.read(offset, self.log[offset], self.now, self.now)
        return self.delivery.due(self.now)

    def save(self) -> None:
        """Write the delivery records and commit."""
        for record in self.delivery.take_unsent():
            self.records.append(record.value)
            self.delivery.acknowledged(record, len(self.records) - 1)
        self.committed = self.delivery.safe_offset
        self.restore_offset = self.delivery.restore_offset

    def crash(self) -> None:
        """A new notifier takes over, from what was committed."""
        self.delivery = self._start()

    def deliver(self, seconds: float = 0) -> list[Notification]:
        """As ``step``; every notification is accepted and saved."""
        notifications = self.step(seconds)
        for one in notifications:
            self.delivery.delivered(one, self.now)
        self.save()
        return notifications


SHAPES: tuple[Callable[[], Subscription], ...] = (
    subscription,
    lambda: subscription("updates", send_updates=True),
    lambda: subscription("grouped", group_by=["alert"], group_wait="5s", group_interval="20s"),
    lambda: subscription("digest", digest="1m"),
    lambda: subscription("limited", rate_limit={"notifications": 3, "per": "30s"}),
)
