"""Deliveries and alerts as they stand, from their topics: the newest record of each."""

from __future__ import annotations

from typing import Final

import msgspec
from pydantic import ValidationError

from stepstream.schemas.alert import Alert, AlertStruct
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.documents import AlertMatch
from stepstream.schemas.settings import Settings
from stepstream.sinks.alert_tail import matches
from stepstream.sinks.notify.latest import Latest

_delivery: Final = msgspec.json.Decoder(DeliveryStruct).decode
_alert: Final = msgspec.json.Decoder(AlertStruct).decode


class Listing:
    """Both lists, kept up to date as they are asked for. Used by many threads."""

    def __init__(self, settings: Settings) -> None:
        self._deliveries: Latest[DeliveryStruct] = Latest(
            settings,
            "deliveries",
            _delivery,
            key=lambda one: (one.subscription, one.alert_id),
            order=lambda _one: 0,
            age=lambda one: one.time,
        )
        self._alerts: Latest[AlertStruct] = Latest(
            settings,
            "alerts",
            _alert,
            key=lambda one: one.alert_id,
            order=lambda one: one.seq,
            age=lambda one: one.updated_at,
        )

    def deliveries(
        self, *, subscription: str = "", state: str = "", limit: int = 100
    ) -> list[DeliveryStruct]:
        """The newest first. Raises ``KafkaUnreachable``."""
        found = [
            one
            for one in self._deliveries.records()
            if (not subscription or one.subscription == subscription)
            and (not state or one.state == state)
        ]
        return sorted(found, key=lambda one: -one.time)[:limit]

    def alerts(self, match: AlertMatch, *, state: str = "", limit: int = 100) -> list[Alert]:
        """Alerts that match, the one that changed last first. Raises ``KafkaUnreachable``."""
        known = [one for one in self._alerts.records() if not state or one.state == state]
        known.sort(key=lambda one: -one.updated_at)
        found: list[Alert] = []
        for one in known:
            if len(found) >= limit:
                break
            if matches(match, one):
                try:
                    found.append(Alert.model_validate(msgspec.to_builtins(one)))
                except ValidationError:
                    continue
        return found

    def close(self) -> None:
        """Let Kafka and what is held go."""
        self._deliveries.close()
        self._alerts.close()


def deliveries(
    settings: Settings, *, subscription: str = "", state: str = "", limit: int = 100
) -> list[DeliveryStruct]:
    """One look at the deliveries, the newest first. Raises ``KafkaUnreachable``."""
    listing = Listing(settings)
    try:
        return listing.deliveries(subscription=subscription, state=state, limit=limit)
    finally:
        listing.close()


def alerts(
    settings: Settings, match: AlertMatch, *, state: str = "", limit: int = 100
) -> list[Alert]:
    """One look at the alerts, the one that changed last first. Raises ``KafkaUnreachable``."""
    listing = Listing(settings)
    try:
        return listing.alerts(match, state=state, limit=limit)
    finally:
        listing.close()
