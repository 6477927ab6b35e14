"""Threads for calls that may take long."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Final

_log: Final = logging.getLogger("stepstream.executor")


class Threads:
    """Threads that are kept for further calls. They are daemons: one that hangs ends with the
    process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0

    def run(self, function: Callable[[], None]) -> None:
        """Call the function in a thread: an idle one, else a new one."""
        with self._guard:
            is_free = self._idle > 0
            self._idle -= is_free
        if is_free:
            self._calls.put(function)
        else:
            threading.Thread(
                target=self._work, args=(function,), name="executor-attempt", daemon=True
            ).start()

    def _work(self, function: Callable[[], None]) -> None:
        while True:
            try:
                function()
            except BaseException as error:
                _log.error("internal error in a thread of the executor", exc_info=error)
            with self._guard:
                self._idle += 1
            function = self._calls.get()
