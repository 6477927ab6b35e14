"""What a subscription knows of its alerts: the newest record of each, what was told of it, and the groups they form.

Pure and serialisable: everything here is restored from the deliveries topic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from stepstream.schemas.alert import SEVERITIES, AlertStruct
from stepstream.schemas.delivery import DeliveryState
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.quoting import written_time

GROUP_WAIT_US: Final = 30_000_000
GROUP_INTERVAL_US: Final = 300_000_000
AT_MOST: Final = {"webhook": 200, "alertmanager": 200, "command": 200}
"""Alerts of one notification, for channels whose readers take each alert by itself; what is over follows at once."""
FOLDED: Final = "..."
"""The group of what a rate limit held back."""

Why = Literal["news", "repeat"]


@dataclass(slots=True)
class TrackedAlert:
    """An alert and what this subscription was told of it."""

    alert: AlertStruct
    group: str = ""
    told_seq: int = 0
    told_state: str = ""
    told_severity: str = ""
    told_at_us: int = 0
    parked_seq: int = 0
    appended_us: int = 0
    """When the newest record was appended to the alerts topic; 0 where that is not known any more."""
    unsaved: list[int] = field(default_factory=list)
    """Offsets of records on the alerts topic that are not yet covered by a delivery record."""

    def has_news(self, subscription: Subscription, now_us: int) -> bool:
        """Whether there is something to tell about it now."""
        alert = self.alert
        if alert.seq <= max(self.told_seq, self.parked_seq) or self.is_silenced(now_us):
            return False
        # Told at least once, even when it is over; but an incident speaks for its runs, and what is withdrawn is no trouble.
        if not self.told_seq:
            slept_over = alert.state == "resolved" and alert.silenced_until > alert.resolved_at
            return not slept_over and not alert.incident_id and not alert.withdrawn
        if alert.state != self.told_state:
            return alert.state == "firing" or subscription.send_resolved
        if self.told_severity and SEVERITIES.index(alert.severity) > SEVERITIES.index(
            self.told_severity
        ):
            return True
        return subscription.send_updates

    def standing(self, subscription: Subscription, now_us: int) -> tuple[DeliveryState, str]:
        """How the alert stands with the subscription while nothing is under way, and why it is not told."""
        alert = self.alert
        if self.has_news(subscription, now_us):
            return "pending", ""
        if self.parked_seq >= alert.seq:
            return "parked", "given up before"
        if self.told_seq:
            return "delivered", ""
        if alert.incident_id:
            return "grouped", f"told as part of incident {alert.incident_id[:8]}"
        if self.is_silenced(now_us) and alert.state == "firing":
            return "pending", f"silenced until {written_time(alert.silenced_until)}"
        if alert.state == "resolved" and alert.silenced_until > alert.resolved_at:
            return "silenced", "it was over before its silence was"
        if alert.withdrawn:
            return "silenced", "withdrawn before it was told"
        return "pending", ""

    def is_silenced(self, now_us: int) -> bool:
        """Whether somebody asked not to hear of it for now."""
        return self.alert.silenced_until > now_us

    def repeats(self, now_us: int) -> bool:
        """Whether it is told again while nothing changes."""
        return (
            self.told_seq > 0
            and self.alert.state == "firing"
            and not self.alert.acknowledged_by
            and not self.is_silenced(now_us)
        )

    def is_over(self, subscription: Subscription) -> bool:
        """Whether nothing more is to be expected of it."""
        return self.alert.state == "resolved" and not self.has_news(
            subscription, max(0, self.alert.silenced_until)
        )


@dataclass(slots=True)
class Group:
    """Alerts of one subscription that are told together."""

    key: str
    members: set[str] = field(default_factory=set)
    due_us: int = 0
    """When it is looked at next; 0: when something new comes."""
    since_us: int = 0
    """Since when there is something to tell; 0: there is nothing."""
    told_us: int = 0
    attempts: int = 0
    next_try_us: int = 0
    reason: str = ""
    under_way: Notification | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """What is told at once. ``id`` is the idempotency key: what has the same key has the same body."""

    id: str
    subscription: str
    group: str
    labels: dict[str, str]
    why: Why
    alerts: tuple[AlertStruct, ...]
    """What is told, the gravest first."""
    others: tuple[AlertStruct, ...]
    """Alerts of the group that still fire and were told before; some of them."""
    firing: int
    resolved: int
    untold: int
    """Alerts told here for the first time."""
    attempt: int
    since_us: int
    appended_us: int
    """When the oldest record told here was appended; 0 where that is not known."""
    partition: int = -1

    @property
    def state(self) -> Literal["firing", "resolved"]:
        """Whether anything of the group fires."""
        return "firing" if self.firing else "resolved"

    @property
    def severity(self) -> str:
        """The gravest."""
        return max((alert.severity for alert in self.alerts), key=SEVERITIES.index)


def labels_of(subscription: Subscription, alert: AlertStruct) -> dict[str, str]:
    """The fields that make the alert's group."""
    return {
        name: str(getattr(alert, name))
        for name in dict.fromkeys(("project", *subscription.group_by))
    }


def group_key(subscription: Subscription, alert: AlertStruct) -> str:
    """The group of an alert: its own, that of its labels, or the one of the digest."""
    if subscription.digest is not None:
        return "digest"
    if not subscription.group_by:
        return alert.alert_id
    return "|".join(value.replace("|", "/") for value in labels_of(subscription, alert).values())


def wait_us(subscription: Subscription) -> int:
    """How long a new group waits for more."""
    if subscription.digest is not None:
        return subscription.digest
    return (subscription.group_wait or GROUP_WAIT_US) if subscription.group_by else 0


def interval_us(subscription: Subscription) -> int:
    """How long after it was told a group waits before it tells what is new."""
    if subscription.digest is not None:
        return subscription.digest
    return (subscription.group_interval or GROUP_INTERVAL_US) if subscription.group_by else 0


def repeat_us(subscription: Subscription) -> int:
    """After how long what still fires is told again; 0: never."""
    if subscription.channel == "alertmanager":
        resend: int = getattr(subscription.options, "resend")  # noqa: B009 - only this channel has it
        return min(resend, subscription.repeat_interval or resend)
    return subscription.repeat_interval or 0


def gravest_first(alerts: list[AlertStruct]) -> list[AlertStruct]:
    """In the order in which a person wants to read them."""
    return sorted(
        alerts,
        key=lambda one: (
            one.state != "firing",
            -SEVERITIES.index(one.severity),
            one.opened_at,
            one.alert_id,
        ),
    )
