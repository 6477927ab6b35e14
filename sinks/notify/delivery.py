"""Delivery of the alerts of one partition: matched, grouped, planned, and remembered. Pure; time is passed in.

What happens is written to the deliveries topic, on the partition that the alerts are on. An alert's record holds the floor
(what a restart reads again) until a delivery record covers it: written when it was told or, where that takes longer than
``SAVE_AFTER_US``, as pending. So the floor waits for no channel.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

import msgspec

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.delivery import DeliveryState, DeliveryStruct, delivery_key
from stepstream.schemas.documents import Subscription
from stepstream.schemas.misfits import alert_misfit
from stepstream.schemas.times import HOUR_US
from stepstream.sinks.alert_tail import matches
from stepstream.sinks.notify.grouping import Group, Notification, TrackedAlert, group_key
from stepstream.sinks.notify.pipeline_monitor import PROBE_AGENT
from stepstream.sinks.notify.restore import members_of
from stepstream.sinks.notify.subscription_index import SubscriptionIndex
from stepstream.sinks.notify.subscription_queue import SubscriptionQueue

SAVE_AFTER_US: Final = 500_000
KEEP_OVER_US: Final = HOUR_US
"""So long after its end an alert is still known, for records that come twice."""
KEEP_OVER: Final = 50_000
REWRITE_AFTER: Final = 50_000
"""Delivery records after which one that is still needed is written again, so that a restart reads few."""

_decode = msgspec.json.Decoder(AlertStruct).decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class UnsentDelivery:
    """A delivery record to be sent, and what it covers."""

    key: str
    value: bytes
    lane: str
    alert_id: str
    covers: tuple[int, ...] = ()


@dataclass(slots=True)
class Counts:
    """What came."""

    alerts: int = 0
    unreadable: int = 0


class PartitionDelivery:
    """Alerts of one partition and the subscriptions that want them."""

    def __init__(self, partition: int, subscriptions: Mapping[str, Subscription]) -> None:
        self.partition = partition
        self.counts = Counts()
        self.position = 0
        self.lanes: dict[str, SubscriptionQueue] = {}
        self._subscriptions = {name: one for name, one in subscriptions.items() if one.enabled}
        self._index = SubscriptionIndex(self._subscriptions)
        self._agenda: list[tuple[int, str, str]] = []
        self._held: OrderedDict[int, int] = OrderedDict()
        self._unsaved: deque[tuple[int, str, str]] = deque()
        self._places: OrderedDict[str, int] = OrderedDict()
        self._end = 0
        self._known_from = 0
        self._over: deque[tuple[int, int, str, str]] = deque()
        self._outbox: list[UnsentDelivery] = []

    # -- restoring -----------------------------------------------------------------------------------------------------

    def restore(
        self,
        records: Iterable[tuple[int, DeliveryStruct]],
        floor: int,
        now_us: int,
        *,
        end: int = 0,
    ) -> None:
        """Take over what the deliveries topic says, in its order; alerts below ``floor`` are covered by it.

        Nothing is told before the alerts below ``end`` are known: whoever was killed may have told any of them without its
        being remembered, and an older state of an alert must not be told after a newer one.
        """
        self.position, self._known_from = floor, end
        for name, members in members_of(records, self._places).items():
            lane = self._lane(name)
            if lane is not None:
                self._adopt(lane, members, now_us)
        self._end = max([self._end, *(place + 1 for place in self._places.values())])

    def _adopt(
        self,
        lane: SubscriptionQueue,
        members: dict[str, tuple[TrackedAlert, DeliveryStruct | None]],
        now_us: int,
    ) -> None:
        """Give a lane its members, in groups as its subscription has them now."""
        for alert_id, (member, last) in members.items():
            member.group = group_key(lane.subscription, member.alert)
            lane.members[alert_id] = member
            group = lane.group_of(member)
            group.told_us = max(group.told_us, member.told_at_us)
            if last is not None and member.has_news(lane.subscription, now_us):
                group.since_us = min(group.since_us or last.since or now_us, last.since or now_us)
                group.attempts = max(group.attempts, last.attempts if last.state == "failed" else 0)
                group.next_try_us = max(
                    group.next_try_us, last.next_try if last.state == "failed" else 0
                )
            if member.is_over(lane.subscription):
                self._over.append((now_us, -1, lane.subscription.name, alert_id))
        for key in list(lane.groups):
            lane.again(key, now_us)
        self._plan(lane)

    def apply(self, subscriptions: Mapping[str, Subscription], now_us: int) -> None:
        """Subscriptions as they are from now on. One that changed tries again what it had parked."""
        wanted = {name: one for name, one in subscriptions.items() if one.enabled}
        before, self._subscriptions = self._subscriptions, wanted
        self._index = SubscriptionIndex(wanted)
        for name, lane in list(self.lanes.items()):
            if wanted.get(name) == before.get(name):
                continue
            del self.lanes[name]
            if name not in wanted:
                for member in lane.members.values():
                    self._release(member.unsaved)
                continue
            for member in lane.members.values():
                member.parked_seq = 0
            fresh = self._lane(name)
            if fresh is not None:
                self._adopt(
                    fresh, {key: (member, None) for key, member in lane.members.items()}, now_us
                )

    def _lane(self, name: str) -> SubscriptionQueue | None:
        lane = self.lanes.get(name)
        if lane is None and name in self._subscriptions:
            lane = self.lanes[name] = SubscriptionQueue(self._subscriptions[name], self.partition)
        return lane

    # -- what comes ----------------------------------------------------------------------------------------------------

    def feed(
        self, offset: int, value: bytes | None, timestamp_us: int, now_us: int
    ) -> AlertStruct | None:
        """Process one record of the alerts topic; the alert in it, if it is one."""
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
        self.inform(alert, offset, timestamp_us, now_us)
        return alert

    def inform(self, alert: AlertStruct, offset: int, appended_us: int, now_us: int) -> None:
        """Give an alert to the subscriptions that want it. ``offset`` -1: it is on no topic."""
        for name, subscription in self._index.candidates(alert):
            lane = self.lanes.get(name)
            known = lane.members.get(alert.alert_id) if lane is not None else None
            if alert.agent == PROBE_AGENT and subscription.match.agent != PROBE_AGENT:
                continue
            if known is None and not matches(subscription.match, alert):
                continue  # who was told of an alert hears of its end, whatever it has become
            if known is not None and alert.seq <= known.alert.seq:
                continue
            lane = self._lane(name)
            if lane is not None:
                self._take(lane, alert, offset, appended_us, now_us)

    def _take(
        self,
        lane: SubscriptionQueue,
        alert: AlertStruct,
        offset: int,
        appended_us: int,
        now_us: int,
    ) -> None:
        name = lane.subscription.name
        known = lane.members.get(alert.alert_id)
        before = known.alert if known is not None else None
        had_news = known is not None and known.has_news(lane.subscription, now_us)
        member = lane.take(alert, now_us, appended_us)
        self._plan(lane)
        gates = before is not None and (
            before.acknowledged_by,
            before.silenced_until,
            before.state,
        ) != (
            alert.acknowledged_by,
            alert.silenced_until,
            alert.state,
        )
        has_news = member.has_news(lane.subscription, now_us)
        if has_news or had_news or gates or alert.silenced_until > now_us:
            if offset >= 0:
                self._held[offset] = self._held.get(offset, 0) + 1
                member.unsaved.append(offset)
            self._unsaved.append((now_us + SAVE_AFTER_US, name, alert.alert_id))
        elif member.is_over(lane.subscription):
            self._over.append((now_us, offset, name, alert.alert_id))

    # -- what goes -----------------------------------------------------------------------------------------------------

    def tick(self, now_us: int) -> list[Notification]:
        """What is to be told now; each must come back by ``told``, ``failed`` or ``refused``."""
        found: list[Notification] = []
        agenda = self._agenda
        while self._is_caught_up and agenda and agenda[0][0] <= now_us:
            when_us, name, key = heappop(agenda)
            lane = self.lanes.get(name)
            group = lane.groups.get(key) if lane is not None else None
            if lane is not None and group is not None and group.due_us == when_us:
                self._look(lane, group, now_us, found)
        self._save_late(now_us)
        self._forget(now_us)
        self._rewrite(now_us)
        return found

    @property
    def next_us(self) -> int:
        """When there is something to be looked at; 0: not before something comes."""
        queues = (self._agenda, self._unsaved) if self._is_caught_up else (self._unsaved,)
        return min((queue[0][0] for queue in queues if queue), default=0)

    @property
    def _is_caught_up(self) -> bool:
        return self.position >= self._known_from

    def at_end(self) -> None:
        """The alerts topic has no more for now: of what was there when this began, the last may have been removed."""
        self._known_from = 0

    def _look(
        self, lane: SubscriptionQueue, group: Group, now_us: int, found: list[Notification]
    ) -> None:
        if lane.failures and group.since_us and lane.overdue(group.since_us, now_us):
            self._give_up(lane, group, now_us)
        notification = lane.ready(group, now_us)
        self._plan(lane)
        if notification is not None:
            found.append(notification)

    def _give_up(self, lane: SubscriptionQueue, group: Group, now_us: int) -> None:
        """The channel has not worked for so long that what waited for it is parked, untried or not."""
        reason = group.reason or "the channel did not work for as long as this waited"
        for alert_id in list(group.members):
            member = lane.members.get(alert_id)
            if member is not None and member.has_news(lane.subscription, now_us):
                member.parked_seq = member.alert.seq
                self._save(lane, member, "parked", now_us, reason=reason)
        group.attempts, group.since_us = 0, 0

    def _plan(self, lane: SubscriptionQueue) -> None:
        for when_us, key in lane.schedule:
            heappush(self._agenda, (when_us, lane.subscription.name, key))
        lane.schedule.clear()

    # -- what became of it ---------------------------------------------------------------------------------------------

    def told(self, notification: Notification, now_us: int) -> None:
        """The channel took it."""
        lane = self.lanes.get(notification.subscription)
        if lane is None:
            return
        latency = now_us - notification.appended_us if notification.appended_us else 0
        for member in lane.told(notification, now_us):
            self._save(
                lane,
                member,
                "delivered",
                now_us,
                notification=notification,
                latency_us=max(0, latency),
            )
        self._go_on(lane, notification, now_us)

    def failed(
        self, notification: Notification, reason: str, now_us: int, retry_after_us: int = 0
    ) -> None:
        """It may work later. It is parked where that took too long."""
        lane = self.lanes.get(notification.subscription)
        if lane is None:
            return
        if notification.why == "news" and lane.overdue(notification.since_us, now_us):
            lane.failures += 1
            self.refused(
                notification, f"given up after {notification.attempt} tries: {reason}", now_us
            )
            return
        members = lane.failed(notification, reason, now_us, retry_after_us)
        group = lane.groups.get(notification.group)
        for member in members:
            self._save(
                lane,
                member,
                "failed",
                now_us,
                notification=notification,
                reason=reason,
                group=group,
            )
        self._go_on(lane, notification, now_us)

    def refused(self, notification: Notification, reason: str, now_us: int) -> None:
        """It will never work: parked, visible, not tried again before something changes."""
        lane = self.lanes.get(notification.subscription)
        if lane is None:
            return
        for member in lane.parked(notification):
            self._save(lane, member, "parked", now_us, notification=notification, reason=reason)
        self._go_on(lane, notification, now_us)

    def _go_on(self, lane: SubscriptionQueue, notification: Notification, now_us: int) -> None:
        lane.again(notification.group, now_us)
        for group in lane.next_waiting():
            group.due_us = now_us
            lane.schedule.append((now_us, group.key))
        self._plan(lane)

    # -- remembering ---------------------------------------------------------------------------------------------------

    def drain(self) -> list[UnsentDelivery]:
        """Delivery records to be sent now, in order."""
        out, self._outbox = self._outbox, []
        return out

    def acknowledged(self, saved: UnsentDelivery, place: int) -> None:
        """Kafka has it, at that offset of the deliveries topic."""
        self._release(saved.covers)
        self._end = max(self._end, place + 1)
        lane = self.lanes.get(saved.lane)
        if lane is not None and saved.alert_id in lane.members:
            self._places[saved.key] = place
            self._places.move_to_end(saved.key)

    @property
    def floor(self) -> int:
        """Alerts below this offset need not be read again."""
        return next(iter(self._held), self.position)

    @property
    def restore_from(self) -> int:
        """Delivery records below this offset need not be read again."""
        return min(next(iter(self._places.values()), self._end), self._end)

    def _save(
        self,
        lane: SubscriptionQueue,
        member: TrackedAlert,
        state: DeliveryState,
        now_us: int,
        *,
        notification: Notification | None = None,
        reason: str = "",
        latency_us: int = 0,
        group: Group | None = None,
    ) -> None:
        alert, over = member.alert, member.is_over(lane.subscription)
        seq = member.told_seq if state == "delivered" else alert.seq
        group = group or lane.groups.get(member.group)
        record = DeliveryStruct(
            subscription=lane.subscription.name, alert_id=alert.alert_id, seq=seq, state=state, time=now_us,
            channel=lane.subscription.channel,
            notification_id=notification.id if notification is not None else "",
            group=member.group,
            attempts=notification.attempt if notification is not None else group.attempts if group is not None else 0,
            next_try=max(group.next_try_us, group.due_us) if group is not None and state in ("failed", "pending") else 0,
            since=notification.since_us if notification is not None else group.since_us if group is not None else 0,
            reason=reason, latency_us=latency_us,
            told_seq=member.told_seq, told_state=member.told_state, told_severity=member.told_severity,
            told_at=member.told_at_us,
            alert=alert.alert, project=alert.project, environment=alert.environment, agent=alert.agent,
            severity=alert.severity, alert_state=alert.state,
            record=None if over and state == "delivered" else alert,
        )  # fmt: skip
        key = delivery_key(record.subscription, record.alert_id)
        self._outbox.append(
            UnsentDelivery(
                key, _encode(record), record.subscription, record.alert_id, tuple(member.unsaved)
            )
        )
        if over:
            last = member.unsaved[-1] if member.unsaved else self.position - 1
            self._over.append((now_us, last, record.subscription, record.alert_id))
        member.unsaved = []

    def _save_late(self, now_us: int) -> None:
        """What was not told at once is remembered as it stands."""
        while self._unsaved and self._unsaved[0][0] <= now_us:
            _, name, alert_id = self._unsaved.popleft()
            lane = self.lanes.get(name)
            member = lane.members.get(alert_id) if lane is not None else None
            if lane is not None and member is not None and member.unsaved:
                state, reason = member.standing(lane.subscription, now_us)
                self._save(lane, member, state, now_us, reason=reason)

    def _release(self, offsets: Iterable[int]) -> None:
        for offset in offsets:
            left = self._held.get(offset, 0) - 1
            if left > 0:
                self._held[offset] = left
            else:
                self._held.pop(offset, None)

    def _forget(self, now_us: int) -> None:
        """Drop alerts that are over for a while and that no restart would read again."""
        while self._over:
            at_us, offset, name, alert_id = self._over[0]
            if offset >= self.floor or (
                now_us - at_us < KEEP_OVER_US and len(self._over) < KEEP_OVER
            ):
                return
            self._over.popleft()
            lane = self.lanes.get(name)
            member = lane.members.get(alert_id) if lane is not None else None
            if lane is not None and (
                member is None or (member.is_over(lane.subscription) and not member.unsaved)
            ):
                lane.forget(alert_id)
                self._places.pop(delivery_key(name, alert_id), None)

    def _rewrite(self, now_us: int) -> None:
        """Write again what is old and still needed."""
        while (
            self._places
            and self._end - (place := next(iter(self._places.values()))) > REWRITE_AFTER
        ):
            key = next(iter(self._places))
            name, _, alert_id = key.partition("|")
            lane = self.lanes.get(name)
            member = lane.members.get(alert_id) if lane is not None else None
            if lane is None or member is None:
                del self._places[key]
                continue
            self._places.move_to_end(key)
            self._places[key] = place
            state, reason = member.standing(lane.subscription, now_us)
            self._save(lane, member, state, now_us, reason=reason)
            return
