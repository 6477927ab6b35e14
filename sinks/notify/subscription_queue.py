"""One subscription on one partition: its alerts, their groups, and when each is delivered. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.channels import Channel
from stepstream.schemas.documents import Subscription
from stepstream.schemas.ids import derived_id
from stepstream.sinks.notify.grouping import (
    RATE_LIMITED,
    Group,
    Notification,
    TrackedAlert,
    Why,
    group_key,
    interval_us,
    labels_of,
    most_severe_first,
    repeat_us,
    wait_us,
)
from stepstream.sinks.notify.rate_limits import TokenBucket, pause_us, quiet_until_us

MAX_IN_FLIGHT: Final = 8
"""Notifications of one subscription in flight at the same time. One while its channel fails."""
MAX_OTHERS: Final = 20
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class SubscriptionQueue:
    """The alerts and groups of one subscription on one partition.

    The owner calls ``take_schedule`` after each call, and ``next_notification`` for a group at the
    time it was scheduled for.
    """

    subscription: Subscription
    partition: int
    channel: Channel = field(init=False)
    alerts: dict[str, TrackedAlert] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    waiting: dict[str, None] = field(default_factory=dict)
    """Keys of groups that are due while too many notifications are in flight, in order."""
    in_flight: int = 0
    failures: int = 0
    """Failed attempts in a row, over all groups."""
    blocked_until_us: int = 0
    bucket: TokenBucket | None = None
    schedule: list[tuple[int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.channel = self.subscription.options

    # -- changes of alerts -------------------------------------------------------------------------

    def update(self, alert: AlertStruct, now_us: int, appended_us: int = 0) -> TrackedAlert:
        """Take over a newer record of an alert and schedule its group."""
        tracked = self.alerts.get(alert.alert_id)
        if tracked is None:
            key = group_key(self.subscription, alert)
            tracked = self.alerts[alert.alert_id] = TrackedAlert(alert, key)
        tracked.alert, tracked.appended_us = alert, appended_us
        group = self.group_of(tracked)
        if alert.silenced_until > now_us:
            self._schedule(group, alert.silenced_until)
        elif tracked.has_news(self.subscription, now_us):
            group.waiting_since_us = group.waiting_since_us or now_us
            self._schedule(group, self._due_us(group, now_us))
        else:
            self._schedule_repeat(group, now_us)
        return tracked

    def group_of(self, tracked: TrackedAlert) -> Group:
        """The group of an alert, created if it is missing."""
        group = self.groups.get(tracked.group)
        if group is None:
            group = self.groups[tracked.group] = Group(tracked.group)
        group.alert_ids.add(tracked.alert.alert_id)
        return group

    def remove(self, alert_id: str) -> None:
        """Drop an alert, and its group if it is empty."""
        tracked = self.alerts.pop(alert_id, None)
        group = self.groups.get(tracked.group) if tracked is not None else None
        if group is not None:
            group.alert_ids.discard(alert_id)
            if not group.alert_ids and group.in_flight is None:
                del self.groups[group.key]

    def _due_us(self, group: Group, now_us: int) -> int:
        if group.attempts:
            return max(now_us, group.next_attempt_us)
        if group.delivered_us:
            return max(now_us, group.delivered_us + interval_us(self.subscription))
        return group.waiting_since_us + wait_us(self.subscription)

    # -- schedule ----------------------------------------------------------------------------------

    def take_schedule(self) -> list[tuple[int, str]]:
        """The times and keys of groups that were scheduled since the last call."""
        taken, self.schedule = self.schedule, []
        return taken

    def _schedule(self, group: Group, when_us: int) -> None:
        """Check the group at that time, unless it is checked before."""
        if group.in_flight is None and (not group.due_us or group.due_us > when_us):
            group.due_us = when_us
            self.schedule.append((when_us, group.key))

    def _schedule_repeat(self, group: Group, now_us: int) -> None:
        interval = repeat_us(self.subscription, self.channel)
        if not interval or not group.delivered_us:
            return
        if any(one.repeats(now_us) for one in self._alerts_of(group)):
            self._schedule(group, max(now_us, group.delivered_us + interval))

    def reschedule(self, key: str, now_us: int) -> None:
        """Schedule a group anew, after an attempt or a restart."""
        group = self.groups.get(key)
        if group is None:
            return
        alerts = self._alerts_of(group)
        if any(one.has_news(self.subscription, now_us) for one in alerts):
            group.waiting_since_us = group.waiting_since_us or now_us
            self._schedule(group, self._next_due_us(group, now_us))
            return
        group.waiting_since_us = 0
        self._schedule_repeat(group, now_us)
        if silences := [one.alert.silenced_until for one in alerts if one.is_silenced(now_us)]:
            self._schedule(group, min(silences))

    def _next_due_us(self, group: Group, now_us: int) -> int:
        # A notification that was just delivered had the most alerts that the channel takes in one:
        # the next ones follow at once.
        was_full = not group.attempts and group.delivered_us == now_us
        if was_full and self.channel.max_alerts is not None:
            return now_us
        return self._due_us(group, now_us)

    def take_waiting(self) -> Iterator[Group]:
        """The groups that waited because of ``MAX_IN_FLIGHT`` and can be checked now."""
        free = self._max_in_flight - self.in_flight
        for key in list(self.waiting)[: max(0, free)]:
            del self.waiting[key]
            if (group := self.groups.get(key)) is not None:
                yield group

    @property
    def _max_in_flight(self) -> int:
        return 1 if self.failures else MAX_IN_FLIGHT

    # -- notifications -----------------------------------------------------------------------------

    def next_notification(self, group: Group, now_us: int) -> Notification | None:
        """What is to be delivered of a group that is due; None: nothing, or later."""
        group.due_us = 0
        if group.in_flight is not None:
            return None
        chosen, why = self._to_deliver(group, now_us)
        if not chosen:
            self._schedule_repeat(group, now_us)
            return None
        allowed_us = self._allowed_us(group, chosen, now_us)
        if allowed_us > now_us:
            # A rate limit may have moved the group's alerts to another group.
            self._schedule(group if group.alert_ids else self.groups[RATE_LIMITED], allowed_us)
            return None
        if self.in_flight >= self._max_in_flight:
            self.waiting[group.key] = None
            return None
        notification = self._notification(group, chosen, why, now_us)
        group.in_flight = notification
        self.in_flight += 1
        if self.subscription.rate_limit is not None and self.bucket is not None:
            self.bucket.take(self.subscription.rate_limit, now_us)
        return notification

    def _to_deliver(self, group: Group, now_us: int) -> tuple[list[TrackedAlert], Why]:
        """The changed alerts of a group, or those that are due to be repeated."""
        alerts = self._alerts_of(group)
        changed = [one for one in alerts if one.has_news(self.subscription, now_us)]
        if changed:
            return changed, "news"
        group.waiting_since_us, group.attempts = 0, 0
        interval = repeat_us(self.subscription, self.channel)
        if not interval or now_us < group.delivered_us + interval:
            return [], "repeat"
        return [one for one in alerts if one.repeats(now_us)], "repeat"

    def _allowed_us(self, group: Group, chosen: list[TrackedAlert], now_us: int) -> int:
        """When failures, the quiet hours and the rate limit allow a notification."""
        times = [group.next_attempt_us if group.attempts else 0, self.blocked_until_us]
        quiet = self.subscription.quiet_hours
        if quiet is not None and not any(one.alert.severity in quiet.but for one in chosen):
            times.append(quiet_until_us(quiet, now_us))
        limit = self.subscription.rate_limit
        if limit is not None:
            self.bucket = self.bucket or TokenBucket(float(limit.notifications), now_us)
            free_us = self.bucket.free_at_us(limit, now_us)
            if free_us > now_us and max(times) <= now_us:
                self._merge_rate_limited(group)
            times.append(free_us)
        return max(times)

    def _merge_rate_limited(self, group: Group) -> None:
        """Move a group's alerts to the group of what the rate limit holds back."""
        if group.key == RATE_LIMITED or group.attempts:
            return
        merged = self.groups.setdefault(RATE_LIMITED, Group(RATE_LIMITED))
        since_us = group.waiting_since_us
        merged.waiting_since_us = min(merged.waiting_since_us or since_us, since_us)
        for alert_id in group.alert_ids:
            self.alerts[alert_id].group = RATE_LIMITED
        merged.alert_ids |= group.alert_ids
        group.alert_ids = set()

    def _notification(
        self, group: Group, chosen: list[TrackedAlert], why: Why, now_us: int
    ) -> Notification:
        limit = self.channel.max_alerts or len(chosen)
        alerts = most_severe_first([one.alert for one in chosen])[:limit]
        included = {alert.alert_id for alert in alerts}
        in_group = [one.alert for one in self._alerts_of(group)]
        firing = [alert for alert in in_group if alert.state == "firing"]
        others = most_severe_first([one for one in firing if one.alert_id not in included])
        labels = self._labels(group, alerts[0])
        appended = [one.appended_us for one in chosen if one.alert.alert_id in included]
        others = others[:MAX_OTHERS]
        return Notification(
            id=self._id(group, labels, why, alerts, others, len(firing)),
            subscription=self.subscription.name,
            group=group.key,
            labels=labels,
            why=why,
            alerts=tuple(alerts),
            others=tuple(others),
            firing=len(firing),
            resolved=sum(alert.state == "resolved" for alert in alerts),
            new_alerts=sum(not self.alerts[alert_id].delivered_seq for alert_id in included),
            attempt=group.attempts + 1,
            waiting_since_us=group.waiting_since_us or now_us,
            appended_us=min(appended, default=0),
            partition=self.partition,
        )

    def _labels(self, group: Group, first: AlertStruct) -> dict[str, str]:
        has_labels = self.subscription.group_by or self.subscription.digest is None
        if group.key == RATE_LIMITED or not has_labels:
            return {"project": first.project}
        return labels_of(self.subscription, first)

    def _id(
        self,
        group: Group,
        labels: dict[str, str],
        why: Why,
        alerts: list[AlertStruct],
        others: list[AlertStruct],
        firing: int,
    ) -> str:
        """The idempotency key: derived from everything that the body is made from.

        A receiver may refuse a key that comes again with another body. If anything changed between
        two attempts (another alert of the group ended, a template was edited), the key changes.
        """
        template = self.subscription.template
        texts = [
            template.title,
            template.body,
            self.subscription.content,
            self.subscription.link_template,
        ]
        context = (
            self.subscription.name,
            group.key,
            labels,
            why,
            group.delivered_us if why == "repeat" else 0,
            firing,
        )
        return derived_id(
            "notification",
            _encode((*context, texts, [one.alert_id for one in others])).decode(),
            *(_encode(alert).decode() for alert in alerts),
        )

    # -- outcomes ----------------------------------------------------------------------------------

    def delivered(self, notification: Notification, now_us: int) -> list[TrackedAlert]:
        """The channel accepted it. Returns the alerts whose state that changes."""
        group = self._finish(notification)
        self.failures = self.blocked_until_us = 0
        changed = []
        for alert in notification.alerts:
            tracked = self.alerts.get(alert.alert_id)
            if tracked is not None and alert.seq >= tracked.delivered_seq:
                tracked.delivered_seq, tracked.delivered_state = alert.seq, alert.state
                tracked.delivered_severity, tracked.delivered_at_us = alert.severity, now_us
                changed.append(tracked)
        if group is not None:
            group.delivered_us, group.attempts = now_us, 0
            group.next_attempt_us, group.reason = 0, ""
        return changed

    def failed(
        self, notification: Notification, reason: str, now_us: int, retry_after_us: int = 0
    ) -> list[TrackedAlert]:
        """The attempt failed and is repeated later. Returns the alerts that wait now."""
        group = self._finish(notification)
        self.failures += 1
        pause = max(retry_after_us, pause_us(self.failures, self.subscription.name))
        self.blocked_until_us = now_us + pause
        if group is not None:
            group.attempts, group.reason = notification.attempt, reason
            pause = max(retry_after_us, pause_us(group.attempts, notification.id))
            # Later than the queue as a whole: the next attempt is another group's, so that one
            # notification that always fails does not block the others.
            group.next_attempt_us = max(now_us + pause, self.blocked_until_us + 1)
        return self._tracked(notification)

    def parked(self, notification: Notification) -> list[TrackedAlert]:
        """End a delivery without success. Returns the alerts that are parked."""
        group = self._finish(notification)
        if group is not None:
            group.attempts, group.next_attempt_us, group.reason = 0, 0, ""
        for alert in notification.alerts:
            tracked = self.alerts.get(alert.alert_id)
            if tracked is not None:
                tracked.parked_seq = alert.seq
        return self._tracked(notification)

    def is_overdue(self, since_us: int, now_us: int) -> bool:
        """Whether something that waits since then has been tried for as long as ``retry_for``."""
        return now_us - since_us >= self.subscription.retry_for

    def _finish(self, notification: Notification) -> Group | None:
        group = self.groups.get(notification.group)
        self.in_flight = max(0, self.in_flight - 1)
        if group is None or group.in_flight is not notification:
            return None
        group.in_flight = None
        return group

    def _tracked(self, notification: Notification) -> list[TrackedAlert]:
        ids = (alert.alert_id for alert in notification.alerts)
        return [self.alerts[alert_id] for alert_id in ids if alert_id in self.alerts]

    def _alerts_of(self, group: Group) -> list[TrackedAlert]:
        return [self.alerts[alert_id] for alert_id in group.alert_ids if alert_id in self.alerts]
