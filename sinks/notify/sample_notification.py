"""The sample notification of ``subscriptions test``, marked as a test."""

from __future__ import annotations

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.ids import derived_id
from stepstream.sinks.notify.channel import ChannelContext, Outcome, deliver
from stepstream.sinks.notify.grouping import Notification, labels_of
from stepstream.sinks.notify.message import SAMPLE


def sample(subscription: Subscription, now_us: int) -> Notification:
    """A notification about an alert that does not exist."""
    match = subscription.match
    alert = AlertStruct(
        alert_id=derived_id("test", subscription.name, now_us),
        seq=1,
        state="resolved",  # systems that keep alerts open must not keep this one
        severity=match.severity[0] if match.severity else "info",
        alert=SAMPLE,
        rule=SAMPLE,
        project=_plain(match.project, "default"),
        environment=_plain(match.environment, ""),
        agent=_plain(match.agent, "agent"),
        task=_plain(match.task, "task"),
        trace_id="0" * 31 + "1",
        message=f"this is a test of the subscription {subscription.name}; nothing is wrong",
        opened_at=now_us,
        updated_at=now_us,
        resolved_at=now_us,
    )
    return Notification(
        id=derived_id("notification", subscription.name, f"{alert.alert_id}:1"),
        subscription=subscription.name,
        group=f"test-{alert.alert_id}",
        labels=labels_of(subscription, alert),
        why="news",
        alerts=(alert,),
        others=(),
        firing=0,
        resolved=1,
        new_alerts=1,
        attempt=1,
        waiting_since_us=now_us,
        appended_us=0,
    )


def send_sample(subscription: Subscription, context: ChannelContext, now_us: int) -> Outcome:
    """Send the sample once and return the result."""
    return deliver(sample(subscription, now_us), subscription, context)


def _plain(pattern: str, otherwise: str) -> str:
    return otherwise if any(sign in pattern for sign in "*?[") else pattern
