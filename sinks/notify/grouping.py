"""The state of one subscription's alerts: what was delivered of each, and the groups they form.

Pure. Everything here is restored from the deliveries topic after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from stepstream.schemas.alert import SEVERITIES, AlertStruct
from stepstream.schemas.channels import Channel
from stepstream.schemas.delivery import DeliveryState
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.quoting import format_time

GROUP_WAIT_US: Final = 30_000_000
GROUP_INTERVAL_US: Final = 300_000_000
RATE_LIMITED: Final = "..."
"""Key of the group of alerts that wait because of a rate limit."""

Why = Literal["news", "repeat"]


@dataclass(slots=True)
class TrackedAlert:
    """The newest record of an alert, and what of it the channel has accepted."""

    alert: AlertStruct
    group: str = ""
    delivered_seq: int = 0
    """0: nothing was delivered yet."""
    delivered_state: str = ""
    delivered_severity: str = ""
    delivered_at_us: int = 0
    parked_seq: int = 0
    appended_us: int = 0
    """When the newest record was appended to the alerts topic; 0 if unknown after a restart."""
    unsaved_offsets: list[int] = field(default_factory=list)
    """Offsets of the alerts topic whose records are not saved in a delivery record yet."""

    def has_news(self, subscription: Subscription, now_us: int) -> bool:
        """Whether there is a change to deliver now."""
        alert = self.alert
        if alert.seq <= max(self.delivered_seq, self.parked_seq) or self.is_silenced(now_us):
            return False
        if not self.delivered_seq:
            return self._is_new()
        if alert.state != self.delivered_state:
            return alert.state == "firing" or subscription.send_resolved
        return subscription.send_updates or self._is_worse()

    def _is_new(self) -> bool:
        """Whether an alert of which nothing was delivered is to be delivered, even if resolved."""
        alert = self.alert
        # An incident is delivered in place of the alerts of its runs.
        if alert.incident_id or alert.withdrawn:
            return False
        return not self._resolved_while_silenced()

    def _resolved_while_silenced(self) -> bool:
        return self.alert.state == "resolved" and self.alert.silenced_until > self.alert.resolved_at

    def _is_worse(self) -> bool:
        if not self.delivered_severity:
            return False
        return SEVERITIES.index(self.alert.severity) > SEVERITIES.index(self.delivered_severity)

    def standing(self, subscription: Subscription, now_us: int) -> tuple[DeliveryState, str]:
        """The delivery state of the alert while no attempt is in flight, and the reason for it."""
        alert = self.alert
        if self.has_news(subscription, now_us):
            return "pending", ""
        if self.parked_seq >= alert.seq:
            return "parked", "given up before"
        if self.delivered_seq:
            return "delivered", ""
        if alert.incident_id:
            return "grouped", f"delivered as part of incident {alert.incident_id[:8]}"
        if self.is_silenced(now_us) and alert.state == "firing":
            return "pending", f"silenced until {format_time(alert.silenced_until)}"
        if self._resolved_while_silenced():
            return "silenced", "it was resolved before its silence ended"
        if alert.withdrawn:
            return "silenced", "withdrawn before it was delivered"
        return "pending", ""

    def is_silenced(self, now_us: int) -> bool:
        """Whether the alert is silenced at that time."""
        return self.alert.silenced_until > now_us

    def repeats(self, now_us: int) -> bool:
        """Whether it is delivered again while nothing changes."""
        return (
            self.delivered_seq > 0
            and self.alert.state == "firing"
            and not self.alert.acknowledged_by
            and not self.is_silenced(now_us)
        )

    def is_finished(self, subscription: Subscription) -> bool:
        """Whether the alert is resolved and nothing of it is left to deliver."""
        return self.alert.state == "resolved" and not self.has_news(
            subscription, max(0, self.alert.silenced_until)
        )


@dataclass(slots=True)
class Group:
    """Alerts of one subscription that are delivered in one notification."""

    key: str
    alert_ids: set[str] = field(default_factory=set)
    due_us: int = 0
    """When it is checked next; 0: when one of its alerts changes."""
    waiting_since_us: int = 0
    """Since when there is something to deliver; 0: there is nothing."""
    delivered_us: int = 0
    attempts: int = 0
    next_attempt_us: int = 0
    reason: str = ""
    """Why the last attempt failed."""
    in_flight: Notification | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """What one delivery attempt sends. The same ``id`` always has the same body."""

    id: str
    """The idempotency key."""
    subscription: str
    group: str
    labels: dict[str, str]
    why: Why
    alerts: tuple[AlertStruct, ...]
    """The alerts to deliver, the most severe first."""
    others: tuple[AlertStruct, ...]
    """Alerts of the group that still fire and were delivered before; some of them."""
    firing: int
    resolved: int
    new_alerts: int
    """Number of alerts that are delivered for the first time."""
    attempt: int
    waiting_since_us: int
    appended_us: int
    """When the oldest record in it was appended to the alerts topic; 0 if unknown."""
    partition: int = -1

    @property
    def state(self) -> Literal["firing", "resolved"]:
        """``firing`` while any alert of the group fires."""
        return "firing" if self.firing else "resolved"

    @property
    def severity(self) -> str:
        """The highest severity of its alerts."""
        return max((alert.severity for alert in self.alerts), key=SEVERITIES.index)


def labels_of(subscription: Subscription, alert: AlertStruct) -> dict[str, str]:
    """The fields by which the alert is grouped. Alerts of different projects are never grouped."""
    return {
        name: str(getattr(alert, name))
        for name in dict.fromkeys(("project", *subscription.group_by))
    }


def group_key(subscription: Subscription, alert: AlertStruct) -> str:
    """The group of an alert: that of its labels, or the digest, or one of its own."""
    if subscription.digest is not None:
        return "digest"
    if not subscription.group_by:
        return alert.alert_id
    return "|".join(value.replace("|", "/") for value in labels_of(subscription, alert).values())


def wait_us(subscription: Subscription) -> int:
    """How long a new group waits for further alerts."""
    if subscription.digest is not None:
        return subscription.digest
    return (subscription.group_wait or GROUP_WAIT_US) if subscription.group_by else 0


def interval_us(subscription: Subscription) -> int:
    """The minimum time between two notifications of a group."""
    if subscription.digest is not None:
        return subscription.digest
    return (subscription.group_interval or GROUP_INTERVAL_US) if subscription.group_by else 0


def repeat_us(subscription: Subscription, channel: Channel) -> int:
    """After which time a firing alert is delivered again; 0: never."""
    intervals = [one for one in (subscription.repeat_interval, channel.resend_us()) if one]
    return min(intervals, default=0)


def most_severe_first(alerts: list[AlertStruct]) -> list[AlertStruct]:
    """Firing alerts first, by severity, then by the time at which they opened."""
    return sorted(
        alerts,
        key=lambda one: (
            one.state != "firing",
            -SEVERITIES.index(one.severity),
            one.opened_at,
            one.alert_id,
        ),
    )
