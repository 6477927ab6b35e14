"""A thread that ends the process when its event loop stands still: nothing inside the loop could notice that.

Time is counted in the thread's own turns: a process that was stopped as a whole, or a machine that slept, is not stuck.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import IO, Final

log = logging.getLogger("stepstream.worker")

TURNS: Final = 10
"""How many looks make up the time that a loop may stand still."""

GRACE: Final = 1.5
"""Where not even this thread may run for so many times as long, the interpreter's own timer ends the process."""


def end_process(reason: str) -> None:
    """Say where every thread stands, and leave without waiting for anything."""
    log.critical("the worker ends itself: %s", reason)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    os._exit(1)


class Watchdog:
    """Bitten when nobody calls ``beat`` for ``patience_s``; 0 keeps it asleep."""

    def __init__(
        self,
        patience_s: float,
        bite: Callable[[str], None] = end_process,
        before: Callable[[str], None] = lambda _reason: None,
        trace: IO[str] | None = None,
    ) -> None:
        """``before`` is called with the reason before the process ends: it may say what was being processed.

        ``trace`` is where the interpreter writes as it ends a process in which not even this thread may run; without it
        such a process is not ended.
        """
        self._trace = trace
        self._patience_s = patience_s
        self._before = before
        self._bite = bite
        self._beats = 0
        self._seen = -1
        self._silent = 0
        self._stop = threading.Event()

    def start(self) -> None:
        """Watch from now on."""
        if self._patience_s > 0:
            threading.Thread(target=self._watch, name="stepstream-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()

    def beat(self) -> None:
        """The loop is alive."""
        self._beats += 1

    def look(self) -> str:
        """One turn; what is wrong once the loop has been silent for all of them, else nothing."""
        beats = self._beats
        self._silent = 0 if beats != self._seen else self._silent + 1
        self._seen = beats
        return (
            f"its event loop has stood still for {self._patience_s:.0f} s"
            if self._silent >= TURNS
            else ""
        )

    def _watch(self) -> None:
        while not self._stop.wait(self._patience_s / TURNS):
            if (
                self._trace is not None
            ):  # for a loop that stands still in C code and lets no thread run, this one neither
                faulthandler.dump_traceback_later(
                    GRACE * self._patience_s, exit=True, file=self._trace
                )
            if reason := self.look():
                try:
                    self._before(reason)
                except Exception:
                    log.exception("what was being processed could not be noted")
                self._bite(reason)
                return
        if self._trace is not None:
            faulthandler.cancel_dump_traceback_later()
