"""A thread that ends the process when its event loop hangs: nothing inside the loop could notice
that.

Time is counted in the thread's own turns, so that a process that was stopped as a whole, or a
machine that slept, does not count as stuck.
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
"""The time that a loop may hang is divided into this many turns."""

GRACE: Final = 1.5
"""Where not even this thread can run, the interpreter's own timer ends the process after this many
times as long.
"""


def end_process(reason: str) -> None:
    """Log the reason, write every thread's stack to standard error and exit without waiting for
    anything.
    """
    log.critical("the worker ends itself: %s", reason)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    os._exit(1)


class Watchdog:
    """Ends the process when ``beat`` is not called for ``hang_limit_s``; 0 switches it off."""

    def __init__(
        self,
        hang_limit_s: float,
        end: Callable[[str], None] = end_process,
        before: Callable[[str], None] = lambda _reason: None,
        trace: IO[str] | None = None,
    ) -> None:
        """``before`` is called with the reason before the process ends: it may note what was being
        processed.

        ``trace`` is the file for the stack trace of a process in which not even this thread can
        run; without it such a process is not ended.
        """
        self._trace = trace
        self._hang_limit_s = hang_limit_s
        self._before = before
        self._end = end
        self._beats = 0
        self._seen = -1
        self._silent = 0
        self._stop = threading.Event()

    def start(self) -> None:
        if self._hang_limit_s > 0:
            threading.Thread(target=self._watch, name="stepstream-watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def beat(self) -> None:
        """The loop has run."""
        self._beats += 1

    def check(self) -> str:
        """One turn. Returns the reason to end the process once no beat came for all turns, else an
        empty string.
        """
        beats = self._beats
        self._silent = 0 if beats != self._seen else self._silent + 1
        self._seen = beats
        return (
            f"its event loop has not run for {self._hang_limit_s:.0f} s"
            if self._silent >= TURNS
            else ""
        )

    def _watch(self) -> None:
        while not self._stop.wait(self._hang_limit_s / TURNS):
            # For a loop that hangs in C code without releasing the interpreter lock: this thread
            # cannot run either.
            if self._trace is not None:
                faulthandler.dump_traceback_later(
                    GRACE * self._hang_limit_s, exit=True, file=self._trace
                )
            if reason := self.check():
                try:
                    self._before(reason)
                except Exception:
                    log.exception("the record that was being processed could not be noted")
                self._end(reason)
                return
        if self._trace is not None:
            faulthandler.cancel_dump_traceback_later()
