"""A sample notification, for ``subscriptions test``: what a subscriber would get, marked as a test."""

from __future__ import annotations

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.ids import derived_id
from stepstream.sinks.notify.channels.registry import Outcome, send
from stepstream.sinks.notify.channels.webhook import ChannelContext
from stepstream.sinks.notify.grouping import Notification, labels_of
from stepstream.sinks.notify.message import SAMPLE


def sample(subscription: Subscription, now_us: int) -> Notification:
    """A notification about an alert that there is not."""
    match = subscription.match
    alert = AlertStruct(
        alert_id=derived_id("test", subscription.name, now_us),
        seq=1,
        state="resolved",  # so that systems which keep alerts do not keep this one
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
        untold=1,
        attempt=1,
        since_us=now_us,
        appended_us=0,
    )


def send_sample(subscription: Subscription, kit: ChannelContext, now_us: int) -> Outcome:
    """Send the sample, once, at once; what became of it."""
    return send(sample(subscription, now_us), subscription, kit)


def _plain(pattern: str, otherwise: str) -> str:
    return otherwise if any(sign in pattern for sign in "*?[") else pattern
