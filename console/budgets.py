"""Budgets and what was spent of them, read from Kafka in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from stepstream.admin import fleet
from stepstream.schemas.settings import Settings

# Workers write amounts every five minutes, and reading all of the topic takes seconds where many
# agents have many hours.
KEPT_S: Final = 60.0
MAX_SHOWN: Final = 200
_log = logging.getLogger("stepstream.console")

Row = dict[str, Any]


class Budgets:
    """The budgets as they were at the last reading. A caller never waits for Kafka."""

    def __init__(
        self, settings: Settings, read: Callable[[Settings, int], list[fleet.Row]] = fleet.budgets
    ) -> None:
        self._settings = settings
        self._read = read
        self._pool = ThreadPoolExecutor(1, "stepstream-budgets")
        self._lock = threading.Lock()
        self._rows: list[Row] | None = None
        self._next_s = 0.0

    def rows(self) -> list[Row] | None:
        """The budgets, the fullest first; None until they have been read once."""
        with self._lock:
            is_due = time.monotonic() >= self._next_s
            if is_due:
                self._next_s = time.monotonic() + KEPT_S
            found = self._rows
        if is_due:
            self._pool.submit(self._refresh)
        return found

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _refresh(self) -> None:
        try:
            rows = self._read(self._settings, time.time_ns() // 1_000)
        except Exception as error:
            # The amounts of before stay on the page, with their time.
            _log.warning("budgets cannot be read: %s", error)
            return
        found = [dict(zip(fleet.BUDGETS, row, strict=True)) for row in rows[:MAX_SHOWN]]
        with self._lock:
            self._rows = found
