"""Metrics and health of a notifier: attempts, latency, what waits, what is parked."""

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
    from stepstream.sinks.notify.channel import Outcome
    from stepstream.sinks.notify.partitions import Partitions

STUCK_S: Final = 60.0
"""The health check fails when the main thread has not completed a round for so long."""
REFRESH_S: Final = 2.0
_log = logging.getLogger("stepstream.admin.notify")


class NotifierMetrics:
    """Metrics of one notifier. Thread-safe: threads of the pool add, the main thread refreshes."""

    def __init__(self) -> None:
        self.observer = Observer()
        self.observer.health = self._health
        self.observer.readiness = self._readiness
        self._lock = threading.Lock()
        self._last_round = time.monotonic()
        self._next_refresh = 0.0
        self._ready = False

    def attempted(
        self, channel: str, outcome: Outcome, notification: Notification, seconds: float
    ) -> None:
        """Count a delivery attempt that has ended."""
        # The latency of later attempts depends on pauses more than on this process.
        is_first = (
            notification.why == "news" and notification.appended_us and notification.attempt == 1
        )
        with self._lock:
            self.observer.counter(m.NOTIFY_TRIES).labels(channel, outcome.label).inc()
            self.observer.histogram(m.NOTIFY_TRY_SECONDS).labels(channel).observe(seconds)
            if outcome.kind == "delivered" and is_first:
                latency_s = max(0.0, time.time() - notification.appended_us / 1e6)
                self.observer.histogram(m.NOTIFY_LATENCY).labels(channel).observe(latency_s)

    def update(
        self,
        partitions: Partitions,
        in_flight: int,
        subscriptions: Mapping[str, Subscription],
    ) -> None:
        """Note that the main thread has completed a round, and refresh the gauges now and then."""
        self._last_round = time.monotonic()
        self._ready = partitions.ready
        if self._last_round < self._next_refresh:
            return
        self._next_refresh = self._last_round + REFRESH_S
        deliveries = partitions.deliveries.values()
        waiting: Counter[str] = Counter({one.channel: 0 for one in subscriptions.values()})
        parked: Counter[str] = Counter(dict.fromkeys(waiting, 0))
        for delivery in deliveries:
            for queue in delivery.queues.values():
                channel = queue.subscription.channel
                waiting[channel] += sum(
                    bool(group.waiting_since_us) for group in queue.groups.values()
                )
                parked[channel] += sum(
                    one.parked_seq >= one.alert.seq for one in queue.alerts.values()
                )
        observer = self.observer
        with self._lock:
            for channel, count in waiting.items():
                observer.gauge(m.NOTIFY_WAITING).labels(channel).set(count)
                observer.gauge(m.NOTIFY_PARKED).labels(channel).set(parked[channel])
            observer.gauge(m.NOTIFY_UNDER_WAY).set(in_flight)
            observer.gauge(m.NOTIFY_SUBSCRIPTIONS).set(len(subscriptions))
            observer.mirror(m.NOTIFY_ALERTS, sum(one.counts.alerts for one in deliveries))
            observer.mirror(m.NOTIFY_UNREADABLE, sum(one.counts.unreadable for one in deliveries))
            for number, lag in partitions.lag().items():
                observer.gauge(m.NOTIFY_LAG).labels(str(number)).set(lag)

    def _health(self) -> str:
        still_s = time.monotonic() - self._last_round
        if self._ready and still_s > STUCK_S:
            return f"the main thread has been stuck for {still_s:.0f} s"
        return ""

    def _readiness(self) -> str:
        return "" if self._ready else "no partition is assigned yet"


def serve(settings: Settings, metrics: NotifierMetrics) -> ObserverServer | None:
    """Serve metrics and health until the server is closed; None if the settings turn them off."""
    return observe.serve(metrics.observer, settings, _log)
