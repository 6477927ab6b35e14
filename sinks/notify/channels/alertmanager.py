"""Prometheus Alertmanager, API v2."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.channels import CHANNELS, Channel, Url
from stepstream.schemas.documents import Subscription
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.printable import printable
from stepstream.schemas.times import MINUTE_US
from stepstream.sinks.notify import escape
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.grouping import Notification, repeat_us
from stepstream.sinks.notify.message import link, rfc3339
from stepstream.sinks.notify.quoting import texts_of


@CHANNELS.register("alertmanager")
class Alertmanager(Channel):
    """A Prometheus Alertmanager (API v2). A firing alert is sent again and again, as it expects."""

    max_alerts: ClassVar[int | None] = 200

    url: Url
    labels: dict[str, str] = Field(
        default_factory=dict, description="added to the labels of every alert"
    )
    resend: DurationUs = Field(MINUTE_US, description="how often a firing alert is sent again")

    def resend_us(self) -> int:
        """Alertmanager resolves an alert that is not sent again."""
        return self.resend

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Post the alerts. A firing one ends by itself after three missed repetitions."""
        until_us = context.clock_s() * 1e6 + 3 * repeat_us(subscription, self)
        data = [self._alert(alert, subscription, until_us) for alert in notification.alerts]
        url = f"{context.secret(self.url).rstrip('/')}/api/v2/alerts"
        return context.post(url, data, self.timeout)

    def _alert(
        self, alert: AlertStruct, subscription: Subscription, until_us: float
    ) -> dict[str, Any]:
        # The labels are an alert's identity there: one whose severity rises is a new alert, and
        # the one before it ends by itself.
        labels = {
            "alertname": alert.alert,
            "severity": alert.severity,
            "project": alert.project,
            "environment": alert.environment,
            "agent": alert.agent,
            "task": alert.task,
            "rule": alert.rule,
            "subject": alert.subject,
            "alert_id": alert.alert_id,
            **self.labels,
        }
        texts = texts_of(alert, subscription.content)
        description = "\n".join(part for part in (texts["quoted"], texts["detail"]) if part)
        annotations = {
            "summary": escape.apart(texts["message"] or alert.rule),
            "description": escape.apart(description),
            "trace_id": escape.apart(printable(alert.trace_id)),
        }
        is_resolved = alert.state == "resolved"
        found = {
            "labels": {name: printable(value) for name, value in labels.items() if value},
            "annotations": {name: value for name, value in annotations.items() if value},
            "startsAt": rfc3339(alert.opened_at),
            "endsAt": rfc3339(alert.resolved_at if is_resolved else until_us),
        }
        target = link(alert, subscription)
        return found | ({"generatorURL": target} if target else {})
