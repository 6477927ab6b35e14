"""SIGTERM: open runs end as cancelled and their events are sent before the process ends.

Python's default action ends the process at once. The handler is installed when the first run begins
in the main thread, and only where the default action is in force or a handler written in Python. A
handler that is set later replaces it and is left alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from stepstream.producers.sdk_log import internal_error

# How long the end of the process is delayed at most for events that are not acknowledged.
FLUSH_S: Final = 2.0

_actions: Final[list[Callable[[], None]]] = []
_previous: list[Any] = []


class Terminated(KeyboardInterrupt):
    """What open steps end with: a cancellation, as by Ctrl-C."""


def end_runs_on_sigterm(action: Callable[[], None]) -> bool:
    """Call ``action`` on SIGTERM before the process ends.

    False outside the main thread, which is the only one that may set a handler: call it again.
    """
    if _previous:
        if action not in _actions:
            _actions.append(action)
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        previous = signal.getsignal(signal.SIGTERM)
        if previous is signal.SIG_DFL or callable(previous):
            signal.signal(signal.SIGTERM, _on_sigterm)
            _previous.append(previous)
            _actions.append(action)
    except ValueError:  # not in the main interpreter
        return True
    return True


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    previous = _previous[0]
    if callable(previous):
        # The program ends itself: its blocks end their steps, and the exit handler sends them.
        previous(number, frame)
        return
    for action in tuple(_actions):
        try:
            action()
        except Exception as error:
            internal_error("sigterm", error)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
