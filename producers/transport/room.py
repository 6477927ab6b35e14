"""Bounded waiting for room in a full queue whose thread is still working through it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# A call that waits returns after this time as soon as there is room for its own event. Until then
# it waits for more room, so that one call in hundreds waits instead of each of them. With one
# interpreter lock the queue's thread encodes some hundred events meanwhile, because the waiting
# thread does not compete with it.
USUAL_WAIT_S: Final = 0.02
# The longest that a call waits. Longer than the time for which a busy machine may suspend a thread.
LONGEST_WAIT_S: Final = 0.1
# After a wait in which no room came, no call waits for so long: the program must not be slowed down
# by a queue whose thread waits for something else.
NO_WAIT_S: Final = 1.0
PAUSE_S: Final = 0.0005


class RoomWait:
    """Waits until a queue has room. Any thread may call it."""

    def __init__(self) -> None:
        self._no_wait_until_s = float("-inf")

    def wait(
        self, fits: Callable[[], bool], has_ample: Callable[[], bool], is_behind: Callable[[], bool]
    ) -> None:
        """Return when there is room, when not ``is_behind`` any more, or after some time.

        ``is_behind``: the queue's thread has work to do, so that room will come from that.
        """
        began_s = time.monotonic()
        if began_s < self._no_wait_until_s:
            return
        # A pause and not a condition: the caller may be a signal handler that has interrupted a
        # thread inside the queue's lock.
        while is_behind():
            time.sleep(PAUSE_S)
            if has_ample():
                return
            waited_s = time.monotonic() - began_s
            if waited_s > USUAL_WAIT_S and fits():
                return
            if waited_s > LONGEST_WAIT_S:
                self._no_wait_until_s = time.monotonic() + NO_WAIT_S
                return
