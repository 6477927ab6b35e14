"""One subscription on one partition of alerts: its alerts, their groups, and when the next notification may go. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.ids import derived_id
from stepstream.sinks.notify.grouping import (
    AT_MOST,
    FOLDED,
    Group,
    Notification,
    TrackedAlert,
    Why,
    gravest_first,
    group_key,
    interval_us,
    labels_of,
    repeat_us,
    wait_us,
)
from stepstream.sinks.notify.rate_limits import Bucket, pause_us, quiet_until_us

AT_ONCE: Final = 8
"""Notifications of one subscription under way at once, while its channel works; one while it does not."""
OTHERS: Final = 20
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class SubscriptionQueue:
    """A subscription's state. ``schedule`` says which group is to be looked at when; its owner fetches that."""

    subscription: Subscription
    partition: int
    members: dict[str, TrackedAlert] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    waiting: dict[str, None] = field(default_factory=dict)
    """Groups that are due and find no room, in their order."""
    under_way: int = 0
    failures: int = 0
    """Tries in a row that failed for a reason that may pass."""
    blocked_until_us: int = 0
    bucket: Bucket | None = None
    schedule: list[tuple[int, str]] = field(default_factory=list)

    # -- what comes ----------------------------------------------------------------------------------------------------

    def take(self, alert: AlertStruct, now_us: int, appended_us: int = 0) -> TrackedAlert:
        """Take over an alert's newer record."""
        member = self.members.get(alert.alert_id)
        if member is None:
            member = self.members[alert.alert_id] = TrackedAlert(
                alert, group_key(self.subscription, alert)
            )
        member.alert, member.appended_us = alert, appended_us
        group = self.group_of(member)
        if alert.silenced_until > now_us:
            self._look(group, alert.silenced_until)
        elif member.has_news(self.subscription, now_us):
            group.since_us = group.since_us or now_us
            self._look(group, self._when_due(group, now_us))
        else:
            self._plan_repeat(group, now_us)
        return member

    def group_of(self, member: TrackedAlert) -> Group:
        """The group that a member is told with."""
        group = self.groups.get(member.group)
        if group is None:
            group = self.groups[member.group] = Group(member.group)
        group.members.add(member.alert.alert_id)
        return group

    def _when_due(self, group: Group, now_us: int) -> int:
        if group.attempts:
            return max(now_us, group.next_try_us)
        if group.told_us:
            return max(now_us, group.told_us + interval_us(self.subscription))
        return group.since_us + wait_us(self.subscription)

    def _look(self, group: Group, when_us: int) -> None:
        """Look at the group at that time, if not before."""
        if group.under_way is None and (not group.due_us or group.due_us > when_us):
            group.due_us = when_us
            self.schedule.append((when_us, group.key))

    # -- what goes -----------------------------------------------------------------------------------------------------

    def ready(self, group: Group, now_us: int) -> Notification | None:
        """The group's time has come: what is to be told now, if anything."""
        group.due_us = 0
        if group.under_way is not None:
            return None
        members = self._members(group)
        news = [m for m in members if m.has_news(self.subscription, now_us)]
        why: Why = "news" if news else "repeat"
        if not news:
            group.since_us, group.attempts = 0, 0
            news = [m for m in members if m.repeats(now_us)]
            if (
                not news
                or not repeat_us(self.subscription)
                or now_us < group.told_us + repeat_us(self.subscription)
            ):
                self._plan_repeat(group, now_us)
                return None
        later = self._not_before(group, news, now_us)
        if later > now_us:
            self._look(group if group.members else self.groups[FOLDED], later)
            return None
        if self.under_way >= (1 if self.failures else AT_ONCE):
            self.waiting[group.key] = None
            return None
        return self._sent(group, self._notification(group, news, why, now_us), now_us)

    def _sent(self, group: Group, notification: Notification, now_us: int) -> Notification:
        group.under_way = notification
        self.under_way += 1
        if self.subscription.rate_limit is not None and self.bucket is not None:
            self.bucket.take(self.subscription.rate_limit, now_us)
        return notification

    def _not_before(self, group: Group, news: list[TrackedAlert], now_us: int) -> int:
        """When the channel, the rate limit and the quiet hours allow it."""
        times = [group.next_try_us if group.attempts else 0, self.blocked_until_us]
        quiet = self.subscription.quiet_hours
        if quiet is not None and not any(m.alert.severity in quiet.but for m in news):
            times.append(quiet_until_us(quiet, now_us))
        limit = self.subscription.rate_limit
        if limit is not None:
            self.bucket = self.bucket or Bucket(float(limit.notifications), now_us)
            free_us = self.bucket.free_at_us(limit, now_us)
            if free_us > now_us and max(times) <= now_us:
                self._fold(group)
            times.append(free_us)
        return max(times)

    def _fold(self, group: Group) -> None:
        """What the rate limit holds back is told together."""
        if group.key == FOLDED or group.attempts:
            return
        folded = self.groups.setdefault(FOLDED, Group(FOLDED))
        folded.since_us = min(folded.since_us or group.since_us, group.since_us)
        for alert_id in group.members:
            self.members[alert_id].group = FOLDED
        folded.members |= group.members
        group.members = set()

    def _notification(
        self, group: Group, news: list[TrackedAlert], why: Why, now_us: int
    ) -> Notification:
        most = AT_MOST.get(self.subscription.channel, len(news))
        chosen = gravest_first([m.alert for m in news])[:most]
        told = {alert.alert_id for alert in chosen}
        members = self._members(group)
        firing = [m.alert for m in members if m.alert.state == "firing"]
        others = gravest_first([a for a in firing if a.alert_id not in told])[:OTHERS]
        grouped = group.key != FOLDED and (
            self.subscription.group_by or self.subscription.digest is None
        )
        labels = (
            labels_of(self.subscription, chosen[0]) if grouped else {"project": chosen[0].project}
        )
        return Notification(
            id=self._id(group, labels, why, chosen, others, len(firing)),
            subscription=self.subscription.name,
            group=group.key,
            labels=labels,
            why=why,
            alerts=tuple(chosen),
            others=tuple(others),
            firing=len(firing),
            resolved=sum(alert.state == "resolved" for alert in chosen),
            untold=sum(not self.members[alert_id].told_seq for alert_id in told),
            attempt=group.attempts + 1,
            since_us=group.since_us or now_us,
            appended_us=min((m.appended_us for m in news if m.alert.alert_id in told), default=0),
            partition=self.partition,
        )

    def _id(
        self,
        group: Group,
        labels: dict[str, str],
        why: Why,
        alerts: list[AlertStruct],
        others: list[AlertStruct],
        firing: int,
    ) -> str:
        """The idempotency key: made from everything that the body is made from, so that one key never has two bodies.

        A receiver may refuse a key that comes again with another body. Where anything has changed between two tries (another
        alert of the group ended, the templates were edited), the second one has a key of its own.
        """
        wording = (
            self.subscription.template,
            self.subscription.content,
            self.subscription.link_template,
        )
        context = (
            self.subscription.name,
            group.key,
            labels,
            why,
            group.told_us if why == "repeat" else 0,
            firing,
        )
        told = [_encode(alert).decode() for alert in alerts]
        words = [wording[0].title, wording[0].body, *wording[1:]]
        return derived_id(
            "notification",
            _encode((*context, words, [one.alert_id for one in others])).decode(),
            *told,
        )

    # -- what became of it ---------------------------------------------------------------------------------------------

    def told(self, notification: Notification, now_us: int) -> list[TrackedAlert]:
        """The channel took it; the members whose state that changed."""
        group = self._ended(notification)
        self.failures = self.blocked_until_us = 0
        changed = []
        for alert in notification.alerts:
            member = self.members.get(alert.alert_id)
            if member is not None and alert.seq >= member.told_seq:
                member.told_seq, member.told_state = alert.seq, alert.state
                member.told_severity, member.told_at_us = alert.severity, now_us
                changed.append(member)
        if group is not None:
            group.told_us, group.attempts, group.next_try_us, group.reason = now_us, 0, 0, ""
        return changed

    def failed(
        self, notification: Notification, reason: str, now_us: int, retry_after_us: int = 0
    ) -> list[TrackedAlert]:
        """The try failed for a reason that may pass; the members that wait now."""
        group = self._ended(notification)
        self.failures += 1
        self.blocked_until_us = now_us + max(
            retry_after_us, pause_us(self.failures, self.subscription.name)
        )
        if group is not None:
            group.attempts, group.reason = notification.attempt, reason
            pause = max(retry_after_us, pause_us(group.attempts, notification.id))
            # Later than the channel as a whole: so the next try is another's, and one that nobody takes stops nobody.
            group.next_try_us = max(now_us + pause, self.blocked_until_us + 1)
        return self._of(notification)

    def parked(self, notification: Notification) -> list[TrackedAlert]:
        """It is given up; the members that are parked."""
        group = self._ended(notification)
        if group is not None:
            group.attempts, group.next_try_us, group.reason = 0, 0, ""
        for alert in notification.alerts:
            member = self.members.get(alert.alert_id)
            if member is not None:
                member.parked_seq = alert.seq
        return self._of(notification)

    def overdue(self, since_us: int, now_us: int) -> bool:
        """Whether it has been tried for long enough."""
        return now_us - since_us >= self.subscription.retry_for

    def again(self, key: str, now_us: int) -> None:
        """After an end: plan when the group is looked at again."""
        group = self.groups.get(key)
        if group is None:
            return
        members = self._members(group)
        news = [m for m in members if m.has_news(self.subscription, now_us)]
        if not news:
            group.since_us = 0
            self._plan_repeat(group, now_us)
            if silences := [m.alert.silenced_until for m in members if m.is_silenced(now_us)]:
                self._look(group, min(silences))
            return
        group.since_us = group.since_us or now_us
        # More than one notification held: the rest at once.
        rest = (
            not group.attempts and group.told_us == now_us and self.subscription.channel in AT_MOST
        )
        self._look(group, now_us if rest else self._when_due(group, now_us))

    def next_waiting(self) -> Iterator[Group]:
        """Groups that waited for room, as far as there is some; each must be looked at."""
        room = (1 if self.failures else AT_ONCE) - self.under_way
        for key in list(self.waiting)[: max(0, room)]:
            del self.waiting[key]
            if (group := self.groups.get(key)) is not None:
                yield group

    def forget(self, alert_id: str) -> None:
        """Drop an alert that is over."""
        member = self.members.pop(alert_id, None)
        group = self.groups.get(member.group) if member is not None else None
        if group is not None:
            group.members.discard(alert_id)
            if not group.members and group.under_way is None:
                del self.groups[group.key]

    def _ended(self, notification: Notification) -> Group | None:
        group = self.groups.get(notification.group)
        self.under_way = max(0, self.under_way - 1)
        if group is None or group.under_way is not notification:
            return None
        group.under_way = None
        return group

    def _of(self, notification: Notification) -> list[TrackedAlert]:
        return [self.members[a.alert_id] for a in notification.alerts if a.alert_id in self.members]

    def _members(self, group: Group) -> list[TrackedAlert]:
        return [self.members[alert_id] for alert_id in group.members if alert_id in self.members]

    def _plan_repeat(self, group: Group, now_us: int) -> None:
        every = repeat_us(self.subscription)
        if every and group.told_us and any(m.repeats(now_us) for m in self._members(group)):
            self._look(group, max(now_us, group.told_us + every))
