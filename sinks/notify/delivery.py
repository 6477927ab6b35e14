"""Delivery of the alerts of one partition: matching, grouping, scheduling, and what is saved.

No I/O and no clock. Every result is written to the deliveries topic, to the partition of the same
number as that of the alert. A restart reads alerts from the safe offset. An alert holds it back
until the alert's state is saved in a delivery record: with the result, or after half a second
(``SAVE_AFTER_US``) without a result as ``pending``. So a slow channel does not hold it back.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

import msgspec

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.delivery import (
    DeliveryState,
    DeliveryStruct,
    delivery_key,
    split_delivery_key,
)
from stepstream.schemas.documents import Subscription
from stepstream.schemas.misfits import alert_misfit
from stepstream.schemas.times import HOUR_US
from stepstream.sinks.alert_tail import matches
from stepstream.sinks.notify.grouping import Group, Notification, TrackedAlert, group_key
from stepstream.sinks.notify.pipeline_monitor import PROBE_AGENT
from stepstream.sinks.notify.restore import restored_alerts
from stepstream.sinks.notify.subscription_index import SubscriptionIndex
from stepstream.sinks.notify.subscription_queue import SubscriptionQueue

SAVE_AFTER_US: Final = 500_000
FINISHED_KEPT_US: Final = HOUR_US
"""How long a finished alert is remembered, so that a record that comes twice is recognised."""
MAX_FINISHED: Final = 50_000
"""Above this number of finished alerts in a partition the oldest are dropped before that time."""
REWRITE_AFTER: Final = 50_000
"""A delivery record that a restart still needs is written again once this many newer records exist,
so that a restart does not have to read further back.
"""

_decode = msgspec.json.Decoder(AlertStruct).decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class UnsentDelivery:
    """A delivery record to be written, and the offsets of the alert's records that it saves."""

    key: str
    value: bytes
    subscription: str
    alert_id: str
    alert_offsets: tuple[int, ...] = ()


@dataclass(slots=True)
class Counts:
    """Records read from the alerts topic."""

    alerts: int = 0
    unreadable: int = 0


class PartitionDelivery:
    """The alerts of one partition and the queues of the subscriptions that match them."""

    def __init__(self, partition: int, subscriptions: Mapping[str, Subscription]) -> None:
        self.partition = partition
        self.counts = Counts()
        self.position = 0
        """The next offset to read from the alerts topic."""
        self.queues: dict[str, SubscriptionQueue] = {}
        self._subscriptions = {name: one for name, one in subscriptions.items() if one.enabled}
        self._index = SubscriptionIndex(self._subscriptions)
        self._agenda: list[tuple[int, str, str]] = []
        """A heap of (time, subscription, group)."""
        self._unsaved_offsets: OrderedDict[int, int] = OrderedDict()
        """Offset of an alert -> number of queues whose state of it is not saved yet."""
        self._unsaved: deque[tuple[int, str, str]] = deque()
        """(time, subscription, alert id): when an alert without a result is saved as pending."""
        self._record_offsets: OrderedDict[str, int] = OrderedDict()
        """Key -> offset of the newest delivery record that a restart needs, lowest first."""
        self._next_record_offset = 0
        self._deliver_from = 0
        """The offset that must be reached before anything is delivered, see ``restore``."""
        self._finished: deque[tuple[int, int, str, str]] = deque()
        """(time, alert offset, subscription, alert id) of alerts that can be dropped later."""
        self._unsent: list[UnsentDelivery] = []

    # -- restore -----------------------------------------------------------------------------------

    def restore(
        self,
        records: Iterable[tuple[int, DeliveryStruct]],
        offset: int,
        now_us: int,
        *,
        end: int = 0,
    ) -> None:
        """Restore the state from delivery records, given with their offsets in order.

        Alerts are read from ``offset`` on. Nothing is delivered before ``end`` is reached: a
        notifier that was killed may have delivered any of the alerts before ``end`` without saving
        that, and an older state of an alert must not be delivered after a newer one.
        """
        self.position, self._deliver_from = offset, end
        for name, alerts in restored_alerts(records, self._record_offsets).items():
            queue = self._queue(name)
            if queue is not None:
                self._add_restored(queue, alerts, now_us)
        ends = (last + 1 for last in self._record_offsets.values())
        self._next_record_offset = max([self._next_record_offset, *ends])

    def _add_restored(
        self,
        queue: SubscriptionQueue,
        alerts: dict[str, tuple[TrackedAlert, DeliveryStruct | None]],
        now_us: int,
    ) -> None:
        """Add alerts, each with its last record, to a queue and group them."""
        for alert_id, (tracked, last) in alerts.items():
            tracked.group = group_key(queue.subscription, tracked.alert)
            queue.alerts[alert_id] = tracked
            group = queue.group_of(tracked)
            group.delivered_us = max(group.delivered_us, tracked.delivered_at_us)
            if last is not None and tracked.has_news(queue.subscription, now_us):
                _restore_attempts(group, last, now_us)
            if tracked.is_finished(queue.subscription):
                self._finished.append((now_us, -1, queue.subscription.name, alert_id))
        for key in list(queue.groups):
            queue.reschedule(key, now_us)
        self._schedule(queue)

    def update_subscriptions(self, subscriptions: Mapping[str, Subscription], now_us: int) -> None:
        """Use these subscriptions from now on. Parked alerts of a changed subscription are tried
        again.
        """
        wanted = {name: one for name, one in subscriptions.items() if one.enabled}
        before, self._subscriptions = self._subscriptions, wanted
        self._index = SubscriptionIndex(wanted)
        for name, queue in list(self.queues.items()):
            if wanted.get(name) == before.get(name):
                continue
            del self.queues[name]
            if name not in wanted:
                for tracked in queue.alerts.values():
                    self._count_saved(tracked.unsaved_offsets)
                continue
            for tracked in queue.alerts.values():
                tracked.parked_seq = 0
            changed = self._queue(name)
            if changed is not None:
                alerts = {key: (tracked, None) for key, tracked in queue.alerts.items()}
                # Values of a dict are invariant: (alert, None) is not (alert, record | None).
                self._add_restored(changed, alerts, now_us)  # type: ignore[arg-type]

    def _queue(self, name: str) -> SubscriptionQueue | None:
        """The queue of a subscription, created if missing; None if it is not in force."""
        queue = self.queues.get(name)
        if queue is None and name in self._subscriptions:
            queue = SubscriptionQueue(self._subscriptions[name], self.partition)
            self.queues[name] = queue
        return queue

    def _tracked(self, name: str, alert_id: str) -> tuple[SubscriptionQueue, TrackedAlert] | None:
        """A queue and an alert in it, if there still are both."""
        queue = self.queues.get(name)
        tracked = queue.alerts.get(alert_id) if queue is not None else None
        return (queue, tracked) if queue is not None and tracked is not None else None

    # -- alerts ------------------------------------------------------------------------------------

    def read(
        self, offset: int, value: bytes | None, timestamp_us: int, now_us: int
    ) -> AlertStruct | None:
        """Process one record of the alerts topic. Returns its alert.

        None if the offset was read before, or if the record is unreadable, which is counted.
        """
        if offset < self.position:
            return None
        self.position = offset + 1
        try:
            alert = _decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            alert = None
        if alert is None or alert_misfit(alert):
            self.counts.unreadable += 1
            return None
        self.counts.alerts += 1
        self.add(alert, offset, timestamp_us, now_us)
        return alert

    def skip_to(self, offset: int) -> None:
        """Records before this offset cannot be read and are left out."""
        self.position = max(self.position, offset)

    def add(self, alert: AlertStruct, offset: int, appended_us: int, now_us: int) -> None:
        """Add an alert to the matching queues. ``offset`` -1: it is not from the topic."""
        for name, subscription in self._index.candidates(alert):
            # Alerts about synthetic runs go only to subscriptions that name their agent.
            if alert.agent == PROBE_AGENT and subscription.match.agent != PROBE_AGENT:
                continue
            known = self._tracked(name, alert.alert_id)
            # An alert that matched before is followed to its end, even if it matches no more.
            if known is None and not matches(subscription.match, alert):
                continue
            if known is not None and alert.seq <= known[1].alert.seq:
                continue
            queue = self._queue(name)
            if queue is not None:
                self._add_to(queue, alert, offset, appended_us, now_us)

    def _add_to(
        self,
        queue: SubscriptionQueue,
        alert: AlertStruct,
        offset: int,
        appended_us: int,
        now_us: int,
    ) -> None:
        name = queue.subscription.name
        known = queue.alerts.get(alert.alert_id)
        before = known.alert if known is not None else None
        had_news = known is not None and known.has_news(queue.subscription, now_us)
        tracked = queue.update(alert, now_us, appended_us)
        self._schedule(queue)
        # Saved is what a restart could not derive again from later records: something to deliver,
        # now or before this record, a silence, or the action of a person.
        if (
            had_news
            or tracked.has_news(queue.subscription, now_us)
            or alert.silenced_until > now_us
            or (before is not None and _actions_differ(before, alert))
        ):
            if offset >= 0:
                self._unsaved_offsets[offset] = self._unsaved_offsets.get(offset, 0) + 1
                tracked.unsaved_offsets.append(offset)
            self._unsaved.append((now_us + SAVE_AFTER_US, name, alert.alert_id))
        elif tracked.is_finished(queue.subscription):
            self._finished.append((now_us, offset, name, alert.alert_id))

    # -- notifications -----------------------------------------------------------------------------

    def due(self, now_us: int) -> list[Notification]:
        """Returns the notifications to send now, and does what else is due: saves alerts without a
        result, drops finished ones, rewrites a record that is far behind.

        To be called at ``next_us``. Each notification's result is to be reported by ``delivered``,
        ``failed`` or ``refused``.
        """
        found: list[Notification] = []
        agenda = self._agenda
        while self._is_caught_up and agenda and agenda[0][0] <= now_us:
            when_us, name, key = heappop(agenda)
            queue = self.queues.get(name)
            group = queue.groups.get(key) if queue is not None else None
            # A group that was scheduled again has more than one entry; only the last one counts.
            if queue is not None and group is not None and group.due_us == when_us:
                self._check(queue, group, now_us, found)
        self._save_pending(now_us)
        self._drop_finished(now_us)
        self._rewrite(now_us)
        return found

    @property
    def next_us(self) -> int:
        """When ``due`` has something to do next; 0: not before another alert comes."""
        planned = (self._agenda, self._unsaved) if self._is_caught_up else (self._unsaved,)
        return min((entries[0][0] for entries in planned if entries), default=0)

    @property
    def _is_caught_up(self) -> bool:
        return self.position >= self._deliver_from

    def reached_end(self) -> None:
        """The alerts topic has no further records for now."""
        # Retention may have deleted the records below the end that ``restore`` was given: delivery
        # would wait for offsets that no longer come.
        self._deliver_from = 0

    def _check(
        self, queue: SubscriptionQueue, group: Group, now_us: int, found: list[Notification]
    ) -> None:
        since_us = group.waiting_since_us
        if queue.failures and since_us and queue.is_overdue(since_us, now_us):
            self._park_group(queue, group, now_us)
        notification = queue.next_notification(group, now_us)
        self._schedule(queue)
        if notification is not None:
            found.append(notification)

    def _park_group(self, queue: SubscriptionQueue, group: Group, now_us: int) -> None:
        """Park the group's alerts, also those that were never tried: the channel has failed for as
        long as the subscription's ``retry_for``.
        """
        reason = group.reason or "the channel failed for as long as retry_for allows"
        for alert_id in list(group.alert_ids):
            tracked = queue.alerts.get(alert_id)
            if tracked is not None and tracked.has_news(queue.subscription, now_us):
                tracked.parked_seq = tracked.alert.seq
                self._save(queue, tracked, "parked", now_us, reason=reason)
        group.attempts, group.waiting_since_us = 0, 0

    def _schedule(self, queue: SubscriptionQueue) -> None:
        for when_us, key in queue.take_schedule():
            heappush(self._agenda, (when_us, queue.subscription.name, key))

    # -- results -----------------------------------------------------------------------------------

    def delivered(self, notification: Notification, now_us: int) -> None:
        """The channel accepted it."""
        queue = self.queues.get(notification.subscription)
        if queue is None:
            return
        latency = now_us - notification.appended_us if notification.appended_us else 0
        for tracked in queue.delivered(notification, now_us):
            self._save(
                queue,
                tracked,
                "delivered",
                now_us,
                notification=notification,
                latency_us=max(0, latency),
            )
        self._continue(queue, notification, now_us)

    def failed(
        self, notification: Notification, reason: str, now_us: int, retry_after_us: int = 0
    ) -> None:
        """The attempt failed. It is repeated, or parked once ``retry_for`` is over."""
        queue = self.queues.get(notification.subscription)
        if queue is None:
            return
        is_overdue = queue.is_overdue(notification.waiting_since_us, now_us)
        # A repetition is never parked: what it repeats was delivered.
        if notification.why == "news" and is_overdue:
            queue.failures += 1
            attempts = f"given up after {notification.attempt} attempts"
            self.refused(notification, f"{attempts}: {reason}", now_us)
            return
        for tracked in queue.failed(notification, reason, now_us, retry_after_us):
            self._save(queue, tracked, "failed", now_us, notification=notification, reason=reason)
        self._continue(queue, notification, now_us)

    def refused(self, notification: Notification, reason: str, now_us: int) -> None:
        """It will never be accepted: it is parked until the alert or the subscription changes."""
        queue = self.queues.get(notification.subscription)
        if queue is None:
            return
        for tracked in queue.parked(notification):
            self._save(queue, tracked, "parked", now_us, notification=notification, reason=reason)
        self._continue(queue, notification, now_us)

    def _continue(self, queue: SubscriptionQueue, notification: Notification, now_us: int) -> None:
        """Schedule the group again, and the groups that waited for this attempt to end."""
        queue.reschedule(notification.group, now_us)
        for group in queue.take_waiting():
            group.due_us = now_us
            queue.schedule.append((now_us, group.key))
        self._schedule(queue)

    # -- delivery records --------------------------------------------------------------------------

    def take_unsent(self) -> list[UnsentDelivery]:
        """The delivery records to write, in order."""
        taken, self._unsent = self._unsent, []
        return taken

    def acknowledged(self, written: UnsentDelivery, offset: int) -> None:
        """A record is on the deliveries topic, at this offset."""
        self._count_saved(written.alert_offsets)
        self._next_record_offset = max(self._next_record_offset, offset + 1)
        if self._tracked(written.subscription, written.alert_id) is not None:
            self._record_offsets[written.key] = offset
            self._record_offsets.move_to_end(written.key)

    @property
    def safe_offset(self) -> int:
        """The offset of the alerts topic from which a restart has to read."""
        return next(iter(self._unsaved_offsets), self.position)

    @property
    def restore_offset(self) -> int:
        """The offset of the deliveries topic from which a restart has to read."""
        lowest = next(iter(self._record_offsets.values()), self._next_record_offset)
        return min(lowest, self._next_record_offset)

    def _save(
        self,
        queue: SubscriptionQueue,
        tracked: TrackedAlert,
        state: DeliveryState,
        now_us: int,
        *,
        notification: Notification | None = None,
        reason: str = "",
        latency_us: int = 0,
    ) -> None:
        """Add a delivery record with the current state of the alert."""
        alert, is_finished = tracked.alert, tracked.is_finished(queue.subscription)
        group = queue.groups.get(tracked.group)
        record = _record(queue, tracked, state, notification, group)
        record.time, record.reason, record.latency_us = now_us, reason, latency_us
        if not (is_finished and state == "delivered"):
            record.record = alert
        name, alert_id = record.subscription, record.alert_id
        offsets = tuple(tracked.unsaved_offsets)
        key = delivery_key(name, alert_id)
        self._unsent.append(UnsentDelivery(key, _encode(record), name, alert_id, offsets))
        if is_finished:
            # Without offsets it was saved before; then any offset read so far is late enough.
            last = offsets[-1] if offsets else self.position - 1
            self._finished.append((now_us, last, name, alert_id))
        tracked.unsaved_offsets = []

    def _save_pending(self, now_us: int) -> None:
        """Save alerts that have had no result for ``SAVE_AFTER_US``."""
        while self._unsaved and self._unsaved[0][0] <= now_us:
            _, name, alert_id = self._unsaved.popleft()
            found = self._tracked(name, alert_id)
            if found is not None and found[1].unsaved_offsets:
                self._save_current(*found, now_us)

    def _save_current(self, queue: SubscriptionQueue, tracked: TrackedAlert, now_us: int) -> None:
        state, reason = tracked.standing(queue.subscription, now_us)
        self._save(queue, tracked, state, now_us, reason=reason)

    def _count_saved(self, offsets: Iterable[int]) -> None:
        """One queue fewer has to save these offsets; with none left, the safe offset may pass."""
        for offset in offsets:
            left = self._unsaved_offsets.get(offset, 0) - 1
            if left > 0:
                self._unsaved_offsets[offset] = left
            else:
                self._unsaved_offsets.pop(offset, None)

    def _drop_finished(self, now_us: int) -> None:
        """Drop alerts that were finished a while ago and that a restart would not read again."""
        while self._finished:
            at_us, offset, name, alert_id = self._finished[0]
            is_recent = now_us - at_us < FINISHED_KEPT_US and len(self._finished) < MAX_FINISHED
            if offset >= self.safe_offset or is_recent:
                return
            self._finished.popleft()
            queue = self.queues.get(name)
            if queue is None:
                continue
            tracked = queue.alerts.get(alert_id)
            if tracked is None or (
                tracked.is_finished(queue.subscription) and not tracked.unsaved_offsets
            ):
                queue.remove(alert_id)
                self._record_offsets.pop(delivery_key(name, alert_id), None)

    def _rewrite(self, now_us: int) -> None:
        """Write the oldest record that is still needed again, if it is far behind."""
        while self._record_offsets:
            key, offset = next(iter(self._record_offsets.items()))
            if self._next_record_offset - offset <= REWRITE_AFTER:
                return
            name, alert_id = split_delivery_key(key)
            found = self._tracked(name, alert_id)
            if found is None:
                del self._record_offsets[key]
                continue
            self._record_offsets.move_to_end(key)
            self._save_current(*found, now_us)
            return


def _actions_differ(before: AlertStruct, after: AlertStruct) -> bool:
    """Whether an alert was acknowledged, silenced, resolved or reopened."""
    return (
        before.acknowledged_by != after.acknowledged_by
        or before.silenced_until != after.silenced_until
        or before.state != after.state
    )


def _restore_attempts(group: Group, last: DeliveryStruct, now_us: int) -> None:
    """Restore when a group's alerts began to wait, and its failed attempts."""
    since_us = last.since or now_us
    group.waiting_since_us = min(group.waiting_since_us or since_us, since_us)
    if last.state == "failed":
        group.attempts = max(group.attempts, last.attempts)
        group.next_attempt_us = max(group.next_attempt_us, last.next_try)


def _record(
    queue: SubscriptionQueue,
    tracked: TrackedAlert,
    state: DeliveryState,
    notification: Notification | None,
    group: Group | None,
) -> DeliveryStruct:
    """The delivery record, without ``time``, ``reason``, ``latency_us`` and ``record``."""
    alert = tracked.alert
    if notification is not None:
        notification_id = notification.id
        attempts, since_us = notification.attempt, notification.waiting_since_us
    else:
        notification_id = ""
        attempts = group.attempts if group is not None else 0
        since_us = group.waiting_since_us if group is not None else 0
    next_us = 0
    if group is not None and state in ("failed", "pending"):
        next_us = max(group.next_attempt_us, group.due_us)
    return DeliveryStruct(
        subscription=queue.subscription.name,
        alert_id=alert.alert_id,
        seq=tracked.delivered_seq if state == "delivered" else alert.seq,
        state=state,
        time=0,
        channel=queue.subscription.channel,
        notification_id=notification_id,
        group=tracked.group,
        attempts=attempts,
        next_try=next_us,
        since=since_us,
        told_seq=tracked.delivered_seq,
        told_state=tracked.delivered_state,
        told_severity=tracked.delivered_severity,
        told_at=tracked.delivered_at_us,
        alert=alert.alert,
        project=alert.project,
        environment=alert.environment,
        agent=alert.agent,
        severity=alert.severity,
        alert_state=alert.state,
    )
