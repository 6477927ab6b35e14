"""Opsgenie, Alert API."""

from __future__ import annotations

from typing import Any, ClassVar, Final
from urllib.parse import quote

from pydantic import Field

from stepstream.schemas.channels import CHANNELS, Channel, Secret
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify import escape
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message, values

_PRIORITIES: Final = {"critical": "P1", "error": "P2", "warning": "P3", "info": "P5"}
# Limits of the API, in characters.
_MAX_ALIAS: Final = 512
_MAX_MESSAGE: Final = 130
_MAX_DESCRIPTION: Final = 15_000
_MAX_TAG: Final = 50


@CHANNELS.register("opsgenie")
class Opsgenie(Channel):
    """Opsgenie: one alert for each group, closed when nothing of the group fires."""

    hosts: ClassVar[dict[str, str]] = {
        "opsgenie": "https://api.opsgenie.com",
        "opsgenie-eu": "https://api.eu.opsgenie.com",
    }

    api_key: Secret
    eu: bool = Field(False, description="the account is in Opsgenie's European region")
    team: str = Field("", description="the team that is responsible")

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Create the alert, or update it by its alias; close it at the end."""
        url = f"{context.host(self, 'opsgenie-eu' if self.eu else 'opsgenie')}/v2/alerts"
        headers = {"Authorization": f"GenieKey {context.secret(self.api_key)}"}
        alias = f"{subscription.name}-{notification.group}".replace("/", "-")[:_MAX_ALIAS]
        answer = ""
        if notification.firing or notification.new_alerts:
            data = {"alias": alias, **self._alert(notification, subscription)}
            answer = context.post(url, data, self.timeout, headers)
        if not notification.firing:
            close = f"{url}/{quote(alias, safe='')}/close?identifierType=alias"
            answer = context.post(close, {"source": "stepstream"}, self.timeout, headers)
        return answer

    def _alert(self, notification: Notification, subscription: Subscription) -> dict[str, Any]:
        text = message(notification, subscription, escape.apart)
        known = values(notification.alerts[0], notification, subscription, escape.apart)
        responders = [{"type": "team", "name": self.team}]
        return {
            "message": escape.shortened(text.title, _MAX_MESSAGE),
            "description": escape.shortened(text.body, _MAX_DESCRIPTION),
            "priority": _PRIORITIES[notification.severity],
            "source": "stepstream",
            "entity": known["agent"],
            "tags": [escape.shortened(known["alert"], _MAX_TAG)],
            "details": {"project": known["project"], "notification_id": notification.id},
            **({"responders": responders} if self.team else {}),
        }
