"""Waiting for something that is away: growing pauses with jitter, and a log that says it once and then now and then."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Final

logger = logging.getLogger("stepstream.sink")

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
REPEAT_S: Final = 30.0


class Outage:
    """The trouble of one dependency, shared by threads."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._since: float | None = None
        self._told = 0.0
        self.failures = 0

    def failed(self, error: object) -> None:
        """Note a failure; tell about the first one and then every half minute."""
        now = time.monotonic()
        with self._lock:
            self.failures += 1
            if self._since is None:
                self._since, self._told = now, now
                logger.warning("%s: %s; trying again until it works", self._what, error)
            elif now - self._told >= REPEAT_S:
                self._told = now
                logger.warning("%s, for %.0f s now: %s", self._what, now - self._since, error)

    def over(self) -> None:
        """Note a success."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            logger.info("%s: over after %.1f s", self._what, time.monotonic() - since)


def pause_s(attempt: int) -> float:
    """How long to wait after the ``attempt``-th failure in a row."""
    longest: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 10))
    return longest * random.uniform(0.5, 1.0)
