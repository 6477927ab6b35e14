"""The SDK's log: what goes wrong inside it, rate-limited, on the logger ``stepstream``.

The SDK never raises its own errors into the program. It logs them here, each kind at most once a
minute, with a count of the messages that were left out in between.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from stepstream.producers.forks import fork_lock
from stepstream.schemas.printable import printable

LOGGER: Final = logging.getLogger("stepstream")
EVERY_S: Final = 60.0
MOST_KINDS: Final = 1_000

suppressed: Final[ContextVar[bool]] = ContextVar("stepstream_suppressed", default=False)
"""True where nothing is recorded: in the SDK's own threads and hooks, which would otherwise record
themselves."""


class RateLimitedLog:
    """Log messages by kind, each kind at most once in ``every_s`` seconds. Thread-safe."""

    def __init__(
        self,
        logger: logging.Logger = LOGGER,
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.RLock()
        self._last: dict[str, tuple[float, int]] = {}
        # Set by the first message.
        self._redact: Callable[[str], str] | None = None

    def log(
        self,
        kind: str,
        message: str,
        *,
        level: int = logging.WARNING,
        error: BaseException | None = None,
    ) -> bool:
        """Log ``message`` unless this kind was logged less than ``every_s`` seconds ago.

        Returns True if the message was logged.
        """
        now = self._clock()
        with self._lock:
            logged_at, left_out = self._last.get(kind, (None, 0))
            if logged_at is not None and now - logged_at < self._every_s:
                self._last[kind] = (logged_at, left_out + 1)
                return False
            # Kinds contain the program's file names and lines, so their number has to be bounded.
            if len(self._last) >= MOST_KINDS:
                self._last.clear()
            self._last[kind] = (now, 0)
        more = f" ({left_out} more like it since)" if left_out else ""
        if self._logger.isEnabledFor(level):
            self._logger.handle(self._log_record(level, f"{message}{more}", error))
        return True

    def _log_record(
        self, level: int, message: str, error: BaseException | None
    ) -> logging.LogRecord:
        cause = None if error is None else (type(error), error, error.__traceback__)
        # A message may quote the agent's data: no secret of it is logged, and no control character
        # of it reaches a terminal.
        text = " ".join(self._without_secrets(printable(message)).split())
        record = self._logger.makeRecord(
            self._logger.name, level, __file__, 0, text, (), cause, "log"
        )
        if cause is not None:
            lines = printable("".join(traceback.format_exception(*cause))).rstrip("\n")
            record.exc_text = self._without_secrets(lines)
        return record

    def _without_secrets(self, text: str) -> str:
        if self._redact is None:
            # Not at the top: its expressions take some milliseconds to compile, and most programs
            # log nothing. The first message may come from any thread. Later ones do not take the
            # lock, which another thread may have for as long as it imports something.
            with fork_lock.importing():
                from stepstream.schemas.redaction import without_secrets
            self._redact = without_secrets
        return self._redact(text)

    def reset_after_fork(self) -> None:
        """Replace the lock: another thread may have owned it when the process forked."""
        self._lock = threading.RLock()


sdk_log: Final = RateLimitedLog()


def internal_error(where: str, error: BaseException) -> None:
    """Log an error inside the SDK; the program goes on."""
    try:
        kind = f"{where}:{type(error).__name__}"
        message = (
            f"stepstream: internal error in {where}; this step may be incomplete, "
            "the program is not affected"
        )
        sdk_log.log(kind, message, level=logging.ERROR, error=error)
    except Exception:  # raised by a logging handler of the program
        return
