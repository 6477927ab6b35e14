"""Reads alerts in a program: ``subscribe``, its async form, and a callback from a thread.

Each alert record is returned at least once and, within one subscription, never twice: repeats of
(alert_id, seq) are dropped. With a name the position is saved in Kafka; without one it is a tail.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self

from stepstream.schemas.alert import Alert
from stepstream.schemas.documents import AlertMatch, match_of
from stepstream.schemas.settings import Settings
from stepstream.sinks.alert_tail import NoAlertsTopic, Since, Tail

__all__ = ["Alerts", "Listener", "NoAlertsTopic", "asubscribe", "on_alert", "subscribe"]

_SLICE_SECONDS: Final = 0.2
_log = logging.getLogger("stepstream.subscribe")


def subscribe(
    name: str | None = None,
    *,
    since: Since = "latest",
    settings: Settings | None = None,
    timeout: float | None = None,
    **match: Any,
) -> Alerts:
    """Iterate over alerts: from now on, or ``since`` the earliest kept or a time.

    ``match`` filters by severity, alert, rule, project, environment, agent, agent_version, task and
    user (patterns with * and ?), and by a ``text`` in the message; ``severity`` is one or several.
    ``timeout`` ends the iteration when no alert came for this many seconds; by default it does not
    end.

    With a ``name`` it continues after the last alert whose loop body was completed, also in another
    process, and ``since`` applies the first time only. An alert whose body was left by ``break`` or
    an exception is repeated. Programs with the same name share the alerts.

    Outages of the brokers are waited out. Close it (or use ``with``) to end early; it is also
    closed when it is garbage collected.

    Raises:
        KafkaUnreachable: no broker answers at the call.
        NoAlertsTopic: the topic does not exist.
        ValueError: the filter is invalid.
    """
    return Alerts(Tail(settings or _settings(), name, since, _filter(match)), timeout)


async def asubscribe(
    name: str | None = None,
    *,
    since: Since = "latest",
    settings: Settings | None = None,
    timeout: float | None = None,  # noqa: ASYNC109 - it ends the iteration, it is not an error
    **match: Any,
) -> AsyncIterator[Alert]:
    """As ``subscribe``, for ``async for``. It begins when the iteration begins."""
    wanted = _filter(match)
    loop = asyncio.get_running_loop()
    # A thread of its own: a consumer is used by one thread, and the default pool stays free.
    thread = ThreadPoolExecutor(1, thread_name_prefix="stepstream-alerts")
    try:
        tail = await loop.run_in_executor(
            thread, lambda: Tail(settings or _settings(), name, since, wanted)
        )
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
    """Call ``callback`` with each alert, in a thread, until the returned listener is closed.

    An exception in the callback is logged and the next alert is delivered. Arguments and errors are
    those of ``subscribe``.
    """
    return Listener(callback, subscribe(name, since=since, settings=settings, **match))


class Alerts(Iterator[Alert]):
    """The iterator that ``subscribe`` returns."""

    def __init__(self, tail: Tail, timeout: float | None) -> None:
        self._tail = tail
        self._timeout = timeout
        self._stopping = threading.Event()

    def __next__(self) -> Alert:
        self._tail.done()
        deadline = _deadline(self._timeout)
        while not self._stopping.is_set() and time.monotonic() < deadline:
            # In short slices, so that stop() from another thread takes effect soon.
            alert = self._tail.poll(_SLICE_SECONDS)
            if alert is not None:
                return alert
        raise StopIteration

    def stop(self) -> None:
        """End the iteration soon. Can be called from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Save the position (with a name) and close. Not while another thread iterates."""
        self._stopping.set()
        self._tail.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # The constructor may have failed before there was anything to close.
        if "_stopping" in self.__dict__:
            self.close()


class Listener:
    """The thread that ``on_alert`` starts. ``error`` is the exception that ended it, if one did."""

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
        """Stop after the running callback, if there is one; wait ``timeout`` seconds for it."""
        self._alerts.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            for alert in self._alerts:
                try:
                    self._callback(alert)
                except Exception:
                    _log.exception(
                        "the callback failed on alert %s (%s)", alert.alert_id, alert.alert
                    )
        except Exception as error:
            self.error = error
            _log.exception("the alert listener ended")
        finally:
            self._alerts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _filter(match: dict[str, Any]) -> AlertMatch:
    severity = match.get("severity")
    if severity is not None:
        match = {**match, "severity": (severity,) if isinstance(severity, str) else tuple(severity)}
    return match_of(match)


def _settings() -> Settings:
    from stepstream.common.settings import load, require_kafka

    settings = load()
    require_kafka(settings)
    return settings


def _deadline(timeout: float | None) -> float:
    return float("inf") if timeout is None else time.monotonic() + timeout
