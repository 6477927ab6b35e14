"""The notify process: delivers alerts to subscribers.

The main thread does all work with Kafka and takes all decisions. Each delivery attempt is one call
in a thread of a pool, so a channel that does not answer delays no other.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException

from stepstream.common import kafka
from stepstream.common.listen import AddressTaken
from stepstream.common.retry import Cancelled, OutageLog, retry
from stepstream.schemas.channels import listed_variables
from stepstream.schemas.documents import Subscription
from stepstream.schemas.settings import Settings
from stepstream.sinks.notify.channel import ChannelContext, Outcome, deliver
from stepstream.sinks.notify.delivery import PartitionDelivery
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.http_client import HttpClient
from stepstream.sinks.notify.notifier_metrics import NotifierMetrics, serve
from stepstream.sinks.notify.outbox import Outbox
from stepstream.sinks.notify.partitions import AlertRecord, Partitions
from stepstream.sinks.notify.secrets import Secrets
from stepstream.sinks.notify.subscriptions import Subscriptions

DELIVERY_THREADS: Final = 256
IDLE_WAIT_S: Final = 0.1
BUSY_WAIT_S: Final = 0.01
"""How long the main thread waits for Kafka: shorter while results of attempts may arrive."""
REVOKE_WAIT_S: Final = 3.0
"""How long a rebalance waits for attempts in flight, and then for their records."""
REVOKE_SHARE: Final = 1 / 8
"""But not longer than this share of a session each: after half a session the final commit would be
refused, because the process would seem to have stood still."""
_log = logging.getLogger("stepstream.admin.notify")
_T = TypeVar("_T")


def context_of(settings: Settings) -> ChannelContext:
    """The context of delivery attempts, by the settings."""
    return ChannelContext(
        client=HttpClient(allow_private=settings.notify_allow_private),
        secrets=Secrets(
            Path(settings.notify_secrets_dir),
            listed=listed_variables(settings.notify_secret_variables),
        ),
        clock_s=time.time,
        allow_commands=settings.notify_allow_commands,
        allow_private=settings.notify_allow_private,
        console_url=settings.console_url,
    )


def run(
    settings: Settings, *, parts: Callable[[Notifier], list[Any]] = lambda _notifier: []
) -> int:
    """Deliver alerts until SIGTERM or SIGINT.

    ``parts`` makes what runs in the same process (API, monitor); each is closed at the end.
    Returns the exit code: 0 after a signal, 1 after a failure. Raises ``AddressTaken`` if a port
    is in use.
    """
    # urllib3 warns about every connection that it drops from a full pool.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    notifier = Notifier(settings, context_of(settings))
    server = None
    running: list[Any] = []
    try:
        server = serve(settings, notifier.metrics)
        running = parts(notifier)
        notifier.run(stop)
    except AddressTaken:
        raise
    except Exception:
        _log.exception("the notifier failed and exits")
        return 1
    finally:
        for part in (*running, server):
            if part is not None:
                part.close()
    return 0


class Notifier:
    """One notifier. Several share the partitions of the alerts topic. Call ``run`` once."""

    def __init__(self, settings: Settings, context: ChannelContext) -> None:
        self.settings = settings
        self.context = context
        self.subscriptions = Subscriptions(settings)
        self.metrics = NotifierMetrics()
        self._results: queue.SimpleQueue[tuple[PartitionDelivery, Notification, Outcome]] = (
            queue.SimpleQueue()
        )
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(DELIVERY_THREADS, thread_name_prefix="deliver")
        self._in_flight: Counter[int] = Counter()
        """Attempts in flight by partition."""
        self._version = 0
        session_s = settings.session_timeout / 1e6
        self._revoke_wait_s = min(REVOKE_WAIT_S, session_s * REVOKE_SHARE)
        self.outbox: Outbox
        self.partitions: Partitions
        self.on_alert: list[Callable[[PartitionDelivery, Any, int], None]] = []
        """Called in the main thread with each alert: (partition, alert, append time)."""

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set. Raises errors that a retry does not solve."""
        try:
            retry(
                self.subscriptions.start,
                (kafka.KafkaUnreachable, KafkaException),
                OutageLog("Kafka cannot be reached", _log),
                stop=stop,
            )
        except Cancelled:
            return
        self.outbox = Outbox(self.settings)
        self.partitions = Partitions(
            self.settings, lambda: self.subscriptions.current, self._finish, _now_us
        )
        try:
            self.partitions.start()
            while not stop.is_set():
                self._round()
        finally:
            self.partitions.close()
            self.subscriptions.close()
            self._threads.shutdown(wait=False, cancel_futures=True)
            self.context.client.close()

    def call(self, function: Callable[[], _T], timeout_s: float = 10) -> _T:
        """Run a function in the main thread and return its result. For other threads."""
        future: Future[_T] = Future()
        self._calls.put((function, future))
        return future.result(timeout_s)

    def _round(self) -> None:
        received = self.partitions.read(self._wait_s())
        # After the wait: a subscription that was added meanwhile applies to these alerts.
        self._update_subscriptions()
        for delivery, records, is_end in received:
            self._process(delivery, records)
            if is_end:
                delivery.reached_end()
        self._collect()
        self._start_attempts()
        self._save()
        self.partitions.commit()
        self._run_calls()
        self.metrics.update(self.partitions, self._in_flight.total(), self.subscriptions.current)

    def _wait_s(self) -> float:
        """How long to wait for Kafka: not beyond the time at which a notification is due."""
        is_busy = bool(self._in_flight) or self.outbox.in_flight
        due = [one.next_us for one in self.partitions.deliveries.values() if one.next_us]
        until_due = [(when_us - _now_us()) / 1e6 for when_us in due]
        return max(0.0, min([BUSY_WAIT_S if is_busy else IDLE_WAIT_S, *until_due]))

    def _update_subscriptions(self) -> None:
        if self.subscriptions.version != self._version:
            self._version = self.subscriptions.version
            for delivery in self.partitions.deliveries.values():
                delivery.update_subscriptions(self.subscriptions.current, _now_us())

    def _process(self, delivery: PartitionDelivery, records: list[AlertRecord]) -> None:
        for offset, value, appended_us in records:
            alert = delivery.read(offset, value, appended_us, _now_us())
            if alert is not None:
                for listener in self.on_alert:
                    listener(delivery, alert, appended_us)

    def _start_attempts(self) -> None:
        for delivery in self.partitions.deliveries.values():
            for notification in delivery.due(_now_us()):
                waiting = delivery.queues.get(notification.subscription)
                if waiting is not None:
                    self._in_flight[delivery.partition] += 1
                    self._threads.submit(
                        self._attempt, delivery, notification, waiting.subscription
                    )

    def _attempt(
        self, delivery: PartitionDelivery, notification: Notification, subscription: Subscription
    ) -> None:
        """Make one delivery attempt, in a thread of the pool."""
        began = time.monotonic()
        outcome = deliver(notification, subscription, self.context)
        self.metrics.attempted(
            subscription.channel, outcome, notification, time.monotonic() - began
        )
        self._results.put((delivery, notification, outcome))

    def _collect(self, wait_s: float = 0.0) -> None:
        """Take over the results of attempts. Waits for the first one, at most ``wait_s``."""
        while True:
            try:
                delivery, notification, outcome = (
                    self._results.get(timeout=wait_s) if wait_s else self._results.get_nowait()
                )
            except queue.Empty:
                return
            wait_s = 0.0
            number = delivery.partition
            self._in_flight[number] -= 1
            if self._in_flight[number] <= 0:
                del self._in_flight[number]
            # The partition may have been revoked meanwhile, and even assigned again.
            if self.partitions.deliveries.get(number) is delivery:
                apply_outcome(delivery, notification, outcome, _now_us())

    def _save(self) -> None:
        for delivery in self.partitions.deliveries.values():
            self.outbox.send(delivery)
        self.outbox.poll()

    def _finish(self, revoked: list[PartitionDelivery]) -> None:
        """Wait a while for results of partitions that are revoked, and save them.

        The next owner repeats the attempts that have no saved result.
        """
        deadline = time.monotonic() + self._revoke_wait_s
        while (
            any(delivery.partition in self._in_flight for delivery in revoked)
            and time.monotonic() < deadline
        ):
            self._collect(0.05)
        for delivery in revoked:
            self.outbox.send(delivery)
        self.outbox.flush(self._revoke_wait_s)
        for delivery in revoked:
            self._in_flight.pop(delivery.partition, None)

    def _run_calls(self) -> None:
        while True:
            try:
                function, future = self._calls.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)


def apply_outcome(
    delivery: PartitionDelivery, notification: Notification, outcome: Outcome, now_us: int
) -> None:
    """Record the result of an attempt, and log it unless the notification was delivered."""
    match outcome.kind:
        case "delivered":
            delivery.delivered(notification, now_us)
            return
        case "failed":
            delivery.failed(notification, outcome.text, now_us, outcome.retry_after_us)
            what = "failed and will be tried again"
        case "refused":
            delivery.refused(notification, outcome.text, now_us)
            what = "was refused and is parked"
    _log.warning(
        "subscription %s, attempt %d %s: %s",
        notification.subscription,
        notification.attempt,
        what,
        outcome.text,
    )


def _now_us() -> int:
    return time.time_ns() // 1_000
