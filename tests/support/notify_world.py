"""Alerts, subscriptions and a notifier's partition without Kafka, for tests of delivery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.delivery import PartitionDelivery
from stepstream.sinks.notify.grouping import Notification

S = 1_000_000


M = 60 * S


NOW = 1_767_225_600 * S  # 2026-01-01 00:00 UTC, a Thursday


_decode = msgspec.json.Decoder(DeliveryStruct).decode


def subscription(name: str = "oncall", **fields: Any) -> Subscription:
    return Subscription.model_validate(
        {"name": name, "to": {"webhook": {"url": "https://h.example/x"}}} | fields
    )


def alert(alert_id: str = "a", seq: int = 1, **fields: Any) -> AlertStruct:
    known: dict[str, Any] = {
        "alert_id": alert_id, "seq": seq, "state": "firing", "severity": "warning", "alert": "loop", "rule": "loop",
        "project": "shop", "agent": "support", "message": "same call 5 times", "opened_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    if fields.get("state") == "resolved":
        known["resolved_at"] = NOW + S
    return AlertStruct(**(known | fields))


class World:
    """A partition of alerts, its deliveries topic, and notifiers that come and go."""

    def __init__(self, *subscriptions: Subscription) -> None:
        self.subscriptions = {one.name: one for one in subscriptions}
        self.log: list[bytes] = []
        self.deliveries: list[bytes] = []
        self.committed = 0
        self.restore_from = 0
        self.now = NOW
        self.core = self._start()

    def _start(self) -> PartitionDelivery:
        core = PartitionDelivery(0, self.subscriptions)
        records = [
            (n, _decode(value)) for n, value in enumerate(self.deliveries) if n >= self.restore_from
        ]
        core.restore(records, self.committed, self.now)
        return core

    def publish(self, one: AlertStruct) -> None:
        self.log.append(msgspec.json.encode(one))

    def step(self, seconds: float = 0) -> list[Notification]:
        """Let time pass and read what there is; what is to be told."""
        self.now += round(seconds * S)
        for offset in range(self.core.position, len(self.log)):
            self.core.feed(offset, self.log[offset], self.now, self.now)
        return self.core.tick(self.now)

    def save(self) -> None:
        """The deliveries topic takes what is to be remembered; offsets are committed."""
        for saved in self.core.drain():
            self.deliveries.append(saved.value)
            self.core.acknowledged(saved, len(self.deliveries) - 1)
        self.committed, self.restore_from = self.core.floor, self.core.restore_from

    def crash(self) -> None:
        self.core = self._start()

    def tell(self, seconds: float = 0) -> list[Notification]:
        """Everything that is to be told is taken and remembered."""
        told = self.step(seconds)
        for one in told:
            self.core.told(one, self.now)
        self.save()
        return told


SHAPES: tuple[Callable[[], Subscription], ...] = (
    subscription,
    lambda: subscription("updates", send_updates=True),
    lambda: subscription("grouped", group_by=["alert"], group_wait="5s", group_interval="20s"),
    lambda: subscription("digest", digest="1m"),
    lambda: subscription("limited", rate_limit={"notifications": 3, "per": "30s"}),
)
