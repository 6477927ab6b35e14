"""PagerDuty, Events API v2."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from pydantic import Field

from stepstream.schemas.channels import CHANNELS, Channel, Secret
from stepstream.schemas.documents import Subscription
from stepstream.schemas.printable import printable
from stepstream.sinks.notify import escape
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message, rfc3339, values

_MAX_TEXT_CHARS: Final = 50_000
_MAX_KEY_CHARS: Final = 255


@CHANNELS.register("pagerduty")
class PagerDuty(Channel):
    """PagerDuty: one incident for each group, resolved when nothing of the group fires."""

    hosts: ClassVar[dict[str, str]] = {
        "pagerduty": "https://events.pagerduty.com",
        "pagerduty-eu": "https://events.eu.pagerduty.com",
    }

    routing_key: Secret
    eu: bool = Field(False, description="the account is in PagerDuty's European region")

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Trigger the incident, or trigger it again with the changes; resolve it at the end."""
        host = context.host(self, "pagerduty-eu" if self.eu else "pagerduty")
        url = f"{host}/v2/enqueue"
        key = {
            "routing_key": context.secret(self.routing_key),
            "dedup_key": f"{subscription.name}/{notification.group}"[:_MAX_KEY_CHARS],
        }
        answer = ""
        if notification.firing or notification.new_alerts:
            answer = context.post(url, key | _trigger(notification, subscription), self.timeout)
        if not notification.firing:
            answer = context.post(url, key | {"event_action": "resolve"}, self.timeout)
        return answer


def _trigger(notification: Notification, subscription: Subscription) -> dict[str, Any]:
    text = message(notification, subscription, escape.apart)
    known = values(notification.alerts[0], notification, subscription, escape.apart)
    labels = {name: escape.apart(printable(label)) for name, label in notification.labels.items()}
    return {
        "event_action": "trigger",
        "client": "stepstream",
        "payload": {
            "summary": text.title,
            "source": known["agent"] or known["project"],
            "severity": notification.severity,
            "timestamp": rfc3339(min(one.opened_at for one in notification.alerts)),
            "component": known["subject"] or known["task"],
            "group": known["project"],
            "class": known["rule"],
            "custom_details": {
                "text": escape.shortened(text.body, _MAX_TEXT_CHARS),
                "firing": notification.firing,
                "labels": labels,
            },
        },
        "links": [{"href": text.link, "text": "Open"}] if text.link else [],
    }
