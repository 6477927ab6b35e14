"""Retrying what fails for a while: growing pauses, one log line per outage, and the loop around
both.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

REPEAT_LOG_S: Final = 30.0
MAX_DOUBLINGS: Final = 20

Errors = type[Exception] | tuple[type[Exception], ...]
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses between attempts: ``first_s``, doubled after each failure up to ``longest_s``."""

    first_s: float
    longest_s: float

    def pause_s(self, failures: int, key: str | None = None) -> float:
        """Seconds to wait after this many failures in a row: between half of the full pause and all
        of it.

        The share is random, or derived from ``key`` where the same history has to give the same
        times.
        """
        doublings = min(MAX_DOUBLINGS, max(0, failures - 1))
        full = min(self.longest_s, self.first_s * 2.0**doublings)
        # The jitter keeps processes that lost the same server from coming back all at once.
        share = random.random() if key is None else _share(f"{key}:{failures}")
        return full * (0.5 + share / 2)


DEFAULT_BACKOFF: Final = Backoff(first_s=0.2, longest_s=5.0)


class OutageLog:
    """Logs the outage of one dependency once, then twice a minute, and its end.

    Safe to share between threads.
    """

    def __init__(self, what: str, logger: logging.Logger) -> None:
        """``what`` begins each line, e.g. "ClickHouse at http://... accepts no rows"."""
        self._what = what
        self._logger = logger
        self._lock = threading.Lock()
        self._since: float | None = None
        self._logged_at = 0.0
        self.failures = 0
        self.error = ""
        """The last error while the outage lasts; empty when all is well."""

    def failed(self, error: object) -> None:
        """Count a failure and log it, unless the outage was logged within the last
        ``REPEAT_LOG_S``.
        """
        now = time.monotonic()
        with self._lock:
            self.failures += 1
            self.error = str(error)
            if self._since is None:
                self._since, self._logged_at = now, now
                self._logger.warning("%s: %s; retrying until it works", self._what, error)
            elif now - self._logged_at >= REPEAT_LOG_S:
                self._logged_at = now
                self._logger.warning("%s for %.0f s now: %s", self._what, now - self._since, error)

    def over(self) -> None:
        """Log the end of the outage, if there was one."""
        if self._since is None:  # without the lock: this is called after every success
            return
        with self._lock:
            since, self._since = self._since, None
            self.error = ""
        if since is not None:
            self._logger.info("%s: over after %.1f s", self._what, time.monotonic() - since)


class Cancelled(Exception):
    """The caller asked to stop before an attempt succeeded."""


def retry(
    action: Callable[[], _Result],
    temporary_errors: Errors,
    outage: OutageLog,
    *,
    stop: threading.Event,
    backoff: Backoff = DEFAULT_BACKOFF,
) -> _Result:
    """The result of the first attempt that does not raise one of ``temporary_errors``.

    Raises ``Cancelled`` once ``stop`` is set.
    """
    failures = 0
    while not stop.is_set():
        try:
            result = action()
        except temporary_errors as error:
            outage.failed(error)
            failures += 1
            stop.wait(backoff.pause_s(failures))
        else:
            outage.over()
            return result
    raise Cancelled


async def retry_in_thread(
    action: Callable[[], _Result],
    temporary_errors: Errors,
    outage: OutageLog,
    *,
    backoff: Backoff = DEFAULT_BACKOFF,
) -> _Result:
    """As ``retry``, for asyncio: each attempt runs in a thread; cancel the task to stop."""
    failures = 0
    while True:
        try:
            result = await asyncio.to_thread(action)
        except temporary_errors as error:
            outage.failed(error)
            failures += 1
            await asyncio.sleep(backoff.pause_s(failures))
        else:
            outage.over()
            return result


def _share(text: str) -> float:
    return zlib.crc32(text.encode()) / 0xFFFFFFFF
