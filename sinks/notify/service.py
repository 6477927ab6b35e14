"""The notify process: alerts to subscribers.

The main thread does all work with Kafka and all deciding; a few hundred others only carry: each try to deliver is one call
in a thread of its own, so that a channel that does not answer delays nobody else.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException, Message

from stepstream.common import kafka
from stepstream.common.listen import AddressTaken
from stepstream.schemas.channels import listed_variables
from stepstream.schemas.documents import Subscription
from stepstream.schemas.settings import Settings
from stepstream.sinks.notify.channels.http_client import Client
from stepstream.sinks.notify.channels.registry import Outcome, send
from stepstream.sinks.notify.channels.webhook import ChannelContext
from stepstream.sinks.notify.delivery import PartitionDelivery
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.notifier_metrics import NotifierMetrics, serve
from stepstream.sinks.notify.outbox import Outbox
from stepstream.sinks.notify.partitions import Partitions
from stepstream.sinks.notify.secrets import Secrets
from stepstream.sinks.notify.subscriptions import Subscriptions

DELIVERY_THREADS: Final = 256
IDLE_S: Final = 0.1
BUSY_S: Final = 0.01
GOING_S: Final = 3.0
PAUSE_S: Final = 1.0
_log = logging.getLogger("stepstream.admin.notify")
_T = TypeVar("_T")
Came = tuple[PartitionDelivery, Notification, Outcome]


def context_of(settings: Settings) -> ChannelContext:
    """What channels work with, by the settings."""
    return ChannelContext(
        client=Client(allow_private=settings.notify_allow_private),
        secrets=Secrets(
            Path(settings.notify_secrets_dir),
            listed=listed_variables(settings.notify_secret_variables),
        ),
        clock_s=time.time,
        allow_commands=settings.notify_allow_commands,
        allow_private=settings.notify_allow_private,
    )


def run(
    settings: Settings, *, parts: Callable[[Notifier], list[Any]] = lambda _notifier: []
) -> int:
    """Deliver alerts until SIGTERM or SIGINT. Returns the exit code: 0 stopped as told, 1 something failed.

    ``parts`` makes what runs beside it (admin API, watcher); each is closed at the end. Raises ``AddressTaken`` where a port
    is not free.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    notifier = Notifier(settings, context_of(settings))
    server = None
    beside: list[Any] = []
    try:
        server = serve(settings, notifier.figures)
        beside = parts(notifier)
        notifier.run(stop)
    except AddressTaken:
        raise
    except Exception:
        _log.exception("the notifier ends")
        return 1
    finally:
        for part in (*beside, server):
            if part is not None:
                part.close()
    return 0


class Notifier:
    """One notifier; several share the partitions of the alerts topic. ``run`` may be called once."""

    def __init__(self, settings: Settings, kit: ChannelContext) -> None:
        self.settings = settings
        self.kit = kit
        self.directory = Subscriptions(settings)
        self.figures = NotifierMetrics()
        self._came: queue.SimpleQueue[Came] = queue.SimpleQueue()
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._carriers = ThreadPoolExecutor(DELIVERY_THREADS, thread_name_prefix="deliver")
        self._under_way: dict[int, int] = {}
        self._version = 0
        self.outbox: Outbox
        self.partitions: Partitions
        self.seen: list[Callable[[PartitionDelivery, Any, int], None]] = []
        """Called with each alert that was read: (partition, alert, append time)."""
        self.every_round: list[Callable[[], None]] = []

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set. Raises what waiting does not mend; nothing is lost by that."""
        if not self._prepare(stop):
            return
        self.outbox = Outbox(self.settings)
        self.partitions = Partitions(
            self.settings, lambda: self.directory.subscriptions, self._going, _now_us
        )
        try:
            self.partitions.start()
            while not stop.is_set():
                self._round()
        finally:
            self.partitions.close()
            self.directory.close()
            self._carriers.shutdown(wait=False, cancel_futures=True)
            self.kit.client.close()

    def call(self, function: Callable[[], _T], timeout_s: float = 10) -> _T:
        """Run a function in the main thread, where the state is, and return what it returns. For other threads."""
        future: Future[_T] = Future()
        self._calls.put((function, future))
        return future.result(timeout_s)

    def _prepare(self, stop: threading.Event) -> bool:
        """Wait for Kafka and read the subscriptions."""
        told = False
        while not stop.is_set():
            try:
                self.directory.start()
                return True
            except (kafka.KafkaUnreachable, KafkaException) as error:
                if not told:
                    _log.warning("waiting for Kafka: %s", error)
                told = True
                stop.wait(PAUSE_S)
        return False

    def _round(self) -> None:
        messages = self.partitions.read(self._wait_s())
        self._apply()  # after waiting: what was subscribed to meanwhile is in force for them
        for message in messages:
            self._feed(message)
        self._collect()
        self._tell()
        self._save()
        self.partitions.commit()
        for action in self.every_round:
            action()
        self._answer()
        self.figures.round(self.partitions, self._under_way, self.directory.subscriptions)

    def _wait_s(self) -> float:
        """How long Kafka may take: until the next thing is due, and not long while tries are under way."""
        longest = BUSY_S if self._under_way or self.outbox.under_way else IDLE_S
        due = [core.next_us for core in self.partitions.cores.values() if core.next_us]
        return max(0.0, min([longest, *((when - _now_us()) / 1e6 for when in due)]))

    def _apply(self) -> None:
        if self.directory.version != self._version:
            self._version = self.directory.version
            for core in self.partitions.cores.values():
                core.apply(self.directory.subscriptions, _now_us())

    def _feed(self, message: Message) -> None:
        number, offset = kafka.position_of(message)
        core = self.partitions.cores.get(number)
        if core is None:
            return
        if message.error() is not None:
            core.at_end()
            return
        appended_us = message.timestamp()[1] * 1000
        alert = core.feed(offset, message.value(), appended_us, _now_us())
        if alert is not None:
            for told in self.seen:
                told(core, alert, appended_us)

    def _tell(self) -> None:
        for core in self.partitions.cores.values():
            for notification in core.tick(_now_us()):
                lane = core.lanes.get(notification.subscription)
                if lane is not None:
                    self._under_way[core.partition] = self._under_way.get(core.partition, 0) + 1
                    self._carriers.submit(self._carry, core, notification, lane.subscription)

    def _carry(
        self, core: PartitionDelivery, notification: Notification, subscription: Subscription
    ) -> None:
        self.figures.began(subscription.channel)
        began = time.monotonic()
        outcome = send(notification, subscription, self.kit)
        self.figures.ended(subscription.channel, outcome, notification, time.monotonic() - began)
        self._came.put((core, notification, outcome))

    def _collect(self, wait_s: float = 0.0) -> None:
        """Take over what the carriers bring back."""
        while True:
            try:
                core, notification, outcome = (
                    self._came.get(timeout=wait_s) if wait_s else self._came.get_nowait()
                )
            except queue.Empty:
                return
            wait_s = 0.0
            left = self._under_way.get(core.partition, 0) - 1
            self._under_way = (
                {**self._under_way, core.partition: left}
                if left > 0
                else self._without(core.partition)
            )
            if self.partitions.cores.get(core.partition) is core:
                conclude(core, notification, outcome, _now_us())

    def _without(self, number: int) -> dict[int, int]:
        return {known: count for known, count in self._under_way.items() if known != number}

    def _save(self) -> None:
        for core in self.partitions.cores.values():
            for saved in core.drain():
                self.outbox.send(core, saved)
        self.outbox.poll()

    def _going(self, leaving: list[PartitionDelivery]) -> None:
        """Take what comes back within a while, and remember it; who comes next repeats the rest."""
        deadline = time.monotonic() + GOING_S
        while (
            any(core.partition in self._under_way for core in leaving)
            and time.monotonic() < deadline
        ):
            self._collect(0.05)
        for core in leaving:
            for saved in core.drain():
                self.outbox.send(core, saved)
        self.outbox.flush(GOING_S)
        for core in leaving:
            self._under_way.pop(core.partition, None)

    def _answer(self) -> None:
        while True:
            try:
                function, future = self._calls.get_nowait()
            except queue.Empty:
                return
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)


def conclude(
    core: PartitionDelivery, notification: Notification, outcome: Outcome, now_us: int
) -> None:
    """Tell the core what became of a try."""
    match outcome.kind:
        case "told":
            core.told(notification, now_us)
        case "failed":
            core.failed(notification, outcome.text, now_us, outcome.retry_after_us)
        case _:
            core.refused(notification, outcome.text, now_us)
    if outcome.kind != "told":
        what = "will be tried again" if outcome.kind == "failed" else "is parked"
        _log.warning(
            "%s (try %d) %s: %s",
            notification.subscription,
            notification.attempt,
            what,
            outcome.text,
        )


def _now_us() -> int:
    return time.time_ns() // 1_000
