"""Alerts as they come, in a program: ``subscribe``, its async form, and a callback in the background.

Each alert record is delivered at least once and, within one subscription, never twice: repeats of (alert_id, seq) are
dropped. With a name a subscription goes on where the program left off; without one it is a tail that leaves no trace.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Final, Literal, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import ValidationError

from stepstream import kafka
from stepstream.schemas.alert import Alert
from stepstream.schemas.documents import AlertMatch
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

__all__ = ["Alerts", "Listener", "NoAlertsTopic", "asubscribe", "matches", "on_alert", "subscribe"]

Since = Literal["latest", "earliest"] | datetime
_SLICE_SECONDS: Final = 0.2
_REMEMBERED: Final = 100_000
_WAITED_OUT: Final = kafka.RETRIABLE | {
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # a broker that has just started does not know its topics yet
}
_log = logging.getLogger("stepstream.subscribe")


class NoAlertsTopic(LookupError):
    """The alerts topic does not exist where the settings point; the message says what to do."""


def subscribe(
    name: str | None = None,
    *,
    since: Since = "latest",
    settings: Settings | None = None,
    timeout: float | None = None,
    **match: Any,
) -> Alerts:
    """The alerts from now on (or ``since`` the earliest kept, or a time), as an iterator that waits for the next one.

    ``match`` filters by severity, alert, rule, project, environment, agent and task (patterns with * and ?); ``severity``
    may be one or several. ``timeout`` ends the iteration when no alert came for so many seconds; by default it never ends.

    With a ``name`` it goes on after the last alert whose loop body was finished, also in another process, and ``since``
    holds for the first time only; an alert whose body was left by ``break`` or an exception comes again. Programs under
    the same name share the alerts between them.

    Broker outages are waited out. Raises ``KafkaUnreachable`` or ``NoAlertsTopic`` at the call, ``ValueError`` for a
    filter that cannot be. Close it (or use ``with``) to leave early; it is also closed when it is dropped.
    """
    return Alerts(_Tail(settings or _settings(), name, since, _filter(match)), timeout)


async def asubscribe(
    name: str | None = None,
    *,
    since: Since = "latest",
    settings: Settings | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - silence ends the iteration, it does not fail it
    **match: Any,
) -> AsyncIterator[Alert]:
    """As ``subscribe``, for ``async for``: nothing here blocks the event loop. It begins when the iteration begins."""
    wanted = _filter(match)
    loop = asyncio.get_running_loop()
    # One thread of its own: consumers are not shared between threads, and the loop's default pool stays free.
    thread = ThreadPoolExecutor(1, thread_name_prefix="stepstream-alerts")
    try:
        tail = await loop.run_in_executor(thread, lambda: _Tail(settings or _settings(), name, since, wanted))
        try:
            deadline = _deadline(timeout)
            while time.monotonic() < deadline:
                alert = await loop.run_in_executor(thread, tail.poll, _SLICE_SECONDS)
                if alert is not None:
                    yield alert
                    await loop.run_in_executor(thread, tail.done)
                    deadline = _deadline(timeout)
        finally:
            await asyncio.shield(loop.run_in_executor(thread, tail.close))
    finally:
        thread.shutdown(wait=False)


def on_alert(
    callback: Callable[[Alert], object],
    name: str | None = None,
    *,
    since: Since = "latest",
    settings: Settings | None = None,
    **match: Any,
) -> Listener:
    """Call ``callback`` with each alert, in a background thread, until the returned listener is closed.

    An exception in the callback is logged and the next alert is delivered. Arguments and errors are those of ``subscribe``.
    """
    return Listener(callback, subscribe(name, since=since, settings=settings, **match))


def matches(match: AlertMatch, alert: Alert) -> bool:
    """Whether the alert is one of those that are meant."""
    if match.severity and alert.severity not in match.severity:
        return False
    fields = ("alert", "rule", "project", "environment", "agent", "task")
    return all(fnmatchcase(getattr(alert, field), getattr(match, field)) for field in fields)


class Alerts(Iterator[Alert]):
    """Alerts as they come; what ``subscribe`` returns."""

    def __init__(self, tail: _Tail, timeout: float | None) -> None:
        self._tail = tail
        self._timeout = timeout
        self._stopping = threading.Event()

    def __next__(self) -> Alert:
        self._tail.done()
        deadline = _deadline(self._timeout)
        while not self._stopping.is_set() and time.monotonic() < deadline:
            alert = self._tail.poll(_SLICE_SECONDS)
            if alert is not None:
                return alert
        raise StopIteration

    def stop(self) -> None:
        """End the iteration soon, from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Leave: remember the place (with a name) and let go of the connection. Not while another thread iterates."""
        self._stopping.set()
        self._tail.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if "_stopping" in self.__dict__:
            self.close()


class Listener:
    """A background thread that calls back; what ``on_alert`` returns. ``error`` is what ended it, if anything did."""

    def __init__(self, callback: Callable[[Alert], object], alerts: Alerts) -> None:
        self._callback = callback
        self._alerts = alerts
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="stepstream-alerts", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self, timeout: float = 10) -> None:
        """Stop after the callback that is running, if one is; waits for it up to ``timeout`` seconds."""
        self._alerts.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            for alert in self._alerts:
                try:
                    self._callback(alert)
                except Exception:
                    _log.exception("the callback failed on alert %s (%s)", alert.alert_id, alert.alert)
        except Exception as error:
            self.error = error
            _log.exception("the alert listener ended")
        finally:
            self._alerts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Tail:
    """The consumer below all forms: what to read, what has been seen, how far the caller has got. One thread at a time."""

    def __init__(self, settings: Settings, name: str | None, since: Since, match: AlertMatch) -> None:
        if isinstance(since, datetime) and since.tzinfo is None:
            since = since.astimezone()
        self._topic = topic(settings.topic_prefix, "alerts")
        self._match = match
        self._named = name is not None
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._handed_out: tuple[int, int] | None = None
        self._finished: dict[int, int] = {}
        self._unsaved = False
        self._closed = False
        group = f"{settings.topic_prefix}.alerts.{name}" if name is not None else "stepstream-reader"
        self._consumer = Consumer(
            {
                **kafka.client_config(settings),
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 2,  # what goes wrong is said below, once, in Python's log
                "error_cb": self._trouble,
            }
        )
        self._away = False
        try:
            self._starts = self._find_starts(settings, since)
            if self._named:
                self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked)
            else:
                self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in self._starts.items()])
        except BaseException:
            self._consumer.close()
            raise

    def poll(self, timeout: float) -> Alert | None:
        """The next alert that is wanted, or None when none came in time."""
        message = self._consumer.poll(timeout)
        if message is None:
            self._save()
            return None
        error = message.error()
        self._away = False
        if error is not None:
            if error.fatal() or error.code() not in _WAITED_OUT:
                raise KafkaException(error)
            return None
        position = kafka.position_of(message)
        alert = self._read(message)
        if alert is None or not self._is_news(alert) or not matches(self._match, alert):
            self._finish(position)
            return None
        self._handed_out = position
        return alert

    def done(self) -> None:
        """The alert handed out last has been dealt with."""
        if self._handed_out is not None:
            self._finish(self._handed_out)
            self._handed_out = None
            self._save()

    def _trouble(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._away:
            self._away = True
            _log.warning("no Kafka broker answers; waiting for one (%s)", error.str())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._save_surely()
        self._consumer.close()

    def _find_starts(self, settings: Settings, since: Since) -> dict[int, int]:
        """Where each partition begins for somebody new: fixed now, so that what comes from now on is not missed."""
        count = kafka.partition_count(self._consumer, self._topic)
        if not count:
            raise NoAlertsTopic(
                f"there is no topic {self._topic} at {settings.kafka_brokers}: "
                f"start `stepstream up`, or create the topics with `stepstream topics create`"
            )
        try:
            ends = {p: self._consumer.get_watermark_offsets(TopicPartition(self._topic, p), timeout=10) for p in range(count)}
            if isinstance(since, datetime):
                wanted = [TopicPartition(self._topic, p, round(since.timestamp() * 1_000)) for p in range(count)]
                found = {at.partition: at.offset for at in self._consumer.offsets_for_times(wanted, timeout=10)}
                return {p: found[p] if found[p] >= 0 else high for p, (_, high) in ends.items()}
        except KafkaException as error:
            raise kafka.KafkaUnreachable(f"the ends of {self._topic} could not be read: {error}") from None
        return {p: low if since == "earliest" else high for p, (low, high) in ends.items()}

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Go on from what was saved; a partition where nothing was begins at its start, which is saved at once."""
        saved = {at.partition: at.offset for at in consumer.committed(partitions, timeout=30)}
        for at in partitions:
            at.offset = saved[at.partition]
            if at.offset < 0:
                at.offset = self._finished[at.partition] = self._starts.get(at.partition, 0)
        consumer.assign(partitions)
        self._save_surely()

    def _revoked(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._save_surely()
        self._finished.clear()

    def _read(self, message: Message) -> Alert | None:
        value = message.value()
        if not value:
            return None
        try:
            return Alert.model_validate_json(value)
        except ValidationError as error:
            partition, offset = kafka.position_of(message)
            _log.warning("%s[%d] at %d is no alert and was skipped: %s", self._topic, partition, offset, error)
            return None

    def _is_news(self, alert: Alert) -> bool:
        if alert.seq <= self._seen.get(alert.alert_id, 0):
            return False
        self._seen[alert.alert_id] = alert.seq
        self._seen.move_to_end(alert.alert_id)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True

    def _finish(self, position: tuple[int, int]) -> None:
        if self._named:
            self._finished[position[0]] = position[1] + 1
            self._unsaved = True

    def _save(self) -> None:
        """Keep how far the caller has got, without waiting: the next one, or the last, makes good for a failure."""
        if self._unsaved:
            self._unsaved = False
            self._consumer.commit(offsets=self._offsets(), asynchronous=True)

    def _save_surely(self) -> None:
        if not self._finished:
            return
        try:
            self._consumer.commit(offsets=self._offsets(), asynchronous=False)
            self._unsaved = False
        except KafkaException as error:
            _log.warning("the place in %s could not be saved, some alerts may come again: %s", self._topic, error)

    def _offsets(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition, offset) for partition, offset in self._finished.items()]


def _filter(match: dict[str, Any]) -> AlertMatch:
    severity = match.get("severity")
    if severity is not None:
        match = {**match, "severity": (severity,) if isinstance(severity, str) else tuple(severity)}
    return AlertMatch(**match)


def _settings() -> Settings:
    from stepstream.settings import load, require_kafka

    settings = load()
    require_kafka(settings)
    return settings


def _deadline(timeout: float | None) -> float:
    return float("inf") if timeout is None else time.monotonic() + timeout
