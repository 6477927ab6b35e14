"""What a notifier shows of itself over HTTP: tries by channel and outcome, how long they take, what waits, what is parked."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from stepstream.common import observe
from stepstream.common.observe import Observer, ObserverServer
from stepstream.schemas import metrics as m
from stepstream.schemas.documents import Subscription
from stepstream.schemas.settings import Settings
from stepstream.sinks.notify.grouping import Notification

if TYPE_CHECKING:
    from stepstream.sinks.notify.channels.registry import Outcome
    from stepstream.sinks.notify.partitions import Partitions

STUCK_S: Final = 60.0
LOOK_S: Final = 2.0
_log = logging.getLogger("stepstream.admin.notify")


class NotifierMetrics:
    """Counts of one notifier. Carriers add to it, the main thread refreshes it, scrapes read it."""

    def __init__(self) -> None:
        self.observer = Observer()
        self.observer.health = self._health
        self.observer.readiness = self._readiness
        self._guard = threading.Lock()
        self._round_at = time.monotonic()
        self._look_at = 0.0
        self._ready = False
        self._tries: Counter[str] = Counter()

    def began(self, channel: str) -> None:
        """A try is under way."""
        with self._guard:
            self._tries[channel] += 1

    def ended(
        self, channel: str, outcome: Outcome, notification: Notification, took_s: float
    ) -> None:
        """A try has ended."""
        with self._guard:
            self._tries[channel] -= 1
            self.observer.counter(m.NOTIFY_TRIES).labels(channel, outcome.kind).inc()
            self.observer.histogram(m.NOTIFY_TRY_SECONDS).labels(channel).observe(took_s)
            at_once = (
                notification.why == "news"
                and notification.appended_us
                and notification.attempt == 1
            )
            if outcome.kind == "told" and at_once:
                latency_s = max(0.0, time.time() - notification.appended_us / 1e6)
                self.observer.histogram(m.NOTIFY_LATENCY).labels(channel).observe(latency_s)

    def round(
        self,
        partitions: Partitions,
        under_way: Mapping[int, int],
        subscriptions: Mapping[str, Subscription],
    ) -> None:
        """The main thread has gone round once."""
        self._round_at = time.monotonic()
        self._ready = partitions.ready
        if self._round_at < self._look_at:
            return
        self._look_at = self._round_at + LOOK_S
        waiting: Counter[str] = Counter({one.channel: 0 for one in subscriptions.values()})
        parked: Counter[str] = Counter(dict.fromkeys(waiting, 0))
        for core in partitions.cores.values():
            for lane in core.lanes.values():
                channel = lane.subscription.channel
                waiting[channel] += sum(bool(group.since_us) for group in lane.groups.values())
                parked[channel] += sum(
                    one.parked_seq >= one.alert.seq for one in lane.members.values()
                )
        observer = self.observer
        with self._guard:
            for channel, count in waiting.items():
                observer.gauge(m.NOTIFY_WAITING).labels(channel).set(count)
                observer.gauge(m.NOTIFY_PARKED).labels(channel).set(parked[channel])
            observer.gauge(m.NOTIFY_UNDER_WAY).set(sum(under_way.values()))
            observer.gauge(m.NOTIFY_SUBSCRIPTIONS).set(len(subscriptions))
            observer.mirror(
                m.NOTIFY_ALERTS, sum(core.counts.alerts for core in partitions.cores.values())
            )
            observer.mirror(
                m.NOTIFY_UNREADABLE,
                sum(core.counts.unreadable for core in partitions.cores.values()),
            )
            for number, lag in partitions.lag().items():
                observer.gauge(m.NOTIFY_LAG).labels(str(number)).set(lag)

    def _health(self) -> str:
        still = time.monotonic() - self._round_at
        return f"nothing has moved for {still:.0f} s" if self._ready and still > STUCK_S else ""

    def _readiness(self) -> str:
        return "" if self._ready else "no partition is assigned yet"


def serve(settings: Settings, figures: NotifierMetrics) -> ObserverServer | None:
    """Serve metrics and health until the server is closed; None when the settings turn them off."""
    return observe.serve(figures.observer, settings, _log)
