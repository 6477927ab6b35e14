"""What keeps the SDK's own troubles away from the agent: errors stop here, and are logged seldom.

Nothing an agent calls may raise because of us. ``never_raises`` catches what goes wrong inside; ``RateLimitedLog`` says it on the
logger ``stepstream``, each kind of trouble at most once a minute, with a count of what was left unsaid.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final, ParamSpec

from stepstream.schemas.printable import printable

P = ParamSpec("P")

LOGGER: Final = logging.getLogger("stepstream")
EVERY_S: Final = 60.0
MOST_KINDS: Final = 1_000

suppressed: Final[ContextVar[bool]] = ContextVar("stepstream_suppressed", default=False)
"""True where nothing may be recorded: in the SDK's own threads and hooks, which would otherwise record themselves."""


class RateLimitedLog:
    """Log messages by kind, each kind at most once in ``every_s`` seconds. Safe in any thread."""

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

    def log(
        self,
        kind: str,
        message: str,
        *,
        level: int = logging.WARNING,
        error: BaseException | None = None,
    ) -> bool:
        """Log ``message`` unless this kind was heard of lately; True when it was logged."""
        now = self._clock()
        with self._lock:
            said_at, unsaid = self._last.get(kind, (None, 0))
            if said_at is not None and now - said_at < self._every_s:
                self._last[kind] = (said_at, unsaid + 1)
                return False
            if len(self._last) >= MOST_KINDS:
                self._last.clear()
            self._last[kind] = (now, 0)
        more = f" ({unsaid} more like it since)" if unsaid else ""
        if self._logger.isEnabledFor(level):
            self._logger.handle(self._record(level, f"{message}{more}", error))
        return True

    def _record(self, level: int, message: str, error: BaseException | None) -> logging.LogRecord:
        """The log record, printable: what is complained about may quote what the agent works with."""
        cause = None if error is None else (type(error), error, error.__traceback__)
        text = " ".join(printable(message).split())
        record = self._logger.makeRecord(
            self._logger.name, level, __file__, 0, text, (), cause, "log"
        )
        if cause is not None:
            record.exc_text = printable("".join(traceback.format_exception(*cause))).rstrip("\n")
        return record

    def reset_after_fork(self) -> None:
        """Another thread may have held the lock when the process forked."""
        self._lock = threading.RLock()


sdk_log: Final = RateLimitedLog()


def never_raises(function: Callable[P, None]) -> Callable[P, None]:
    """The function, with every ``Exception`` from inside it logged instead of raised."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:
            if (
                isinstance(error, TypeError)
                and error.__traceback__ is not None
                and error.__traceback__.tb_next is None
            ):
                _misfit(function, args, kwargs)
            else:
                internal_error(function.__qualname__, error)

    return guarded


def _misfit(
    function: Callable[..., None], args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """The arguments do not fit the function: the call is wrong, nothing inside is."""
    from stepstream.producers.misuse import wrong_call

    try:
        wrong_call(function, args, kwargs)
    except Exception as error:
        internal_error(function.__qualname__, error)


def internal_error(where: str, error: BaseException) -> None:
    """Say that something broke inside the SDK; the agent goes on."""
    try:
        kind = f"{where}:{type(error).__name__}"
        message = f"stepstream: internal error in {where}; this step may be incomplete, the program is not affected"
        sdk_log.log(kind, message, level=logging.ERROR, error=error)
    except Exception:  # a logging handler of the program's own
        return
