"""Whether an executor takes attempts: the program's ``@app.ready`` functions, called in threads."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from stepstream.producers.values.failures import message_of, type_of

if TYPE_CHECKING:
    from stepstream.producers.executor.declared import ReadyCheck
    from stepstream.producers.executor.threads import Threads

EVERY_S: Final = 5.0
LONGEST_S: Final = 10.0
"""A function that has not returned after this long counts as not ready."""


class Readiness:
    """The result of the last round of checks. ``reason`` is empty while the executor is ready."""

    def __init__(self, checks: Sequence[ReadyCheck], threads: Threads) -> None:
        self._checks = checks
        self._threads = threads
        self._guard = threading.Lock()
        self._began_s: float | None = None
        self._next_s = 0.0
        self._reason = "the first check has not ended" if checks else ""

    def reason(self, now_s: float) -> str:
        """Why it is not ready; starts the next round when that is due."""
        with self._guard:
            began_s, reason = self._began_s, self._reason
            starts = bool(self._checks) and began_s is None and now_s >= self._next_s
            if starts:
                self._began_s = now_s
                self._next_s = now_s + EVERY_S
        if starts:
            self._threads.run(self._round)
        if began_s is not None and now_s - began_s > LONGEST_S:
            return f"a check has not ended for {now_s - began_s:.0f} s"
        return reason

    def _round(self) -> None:
        reason = next(filter(None, map(_reason, self._checks)), "")
        with self._guard:
            self._reason, self._began_s = reason, None


def _reason(check: ReadyCheck) -> str:
    name = getattr(check, "__name__", "a check")
    try:
        found = check()
        if inspect.isawaitable(found):
            found = asyncio.run(_awaited(found))
    except Exception as error:
        return f"{name} raised {type_of(error)}: {message_of(error)}"[:1_000]
    # A function without a return statement is ready when it does not raise.
    return "" if found is None or found else f"{name} returned {found!r}"[:1_000]


async def _awaited(found: object) -> object:
    return await found  # type: ignore[misc]
