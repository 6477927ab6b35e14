"""SIGTERM: open runs end as cancelled and their events are sent before the process ends.

Python's default action ends the process at once. The handler is installed when the first run begins
in the main thread, and only where the default action is in force: a program with a handler of its
own ends its steps itself. A handler that is set later replaces this one and is left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

from stepstream.producers.sdk_log import internal_error

# How long the end of the process is delayed at most for events that are not acknowledged.
FLUSH_S: Final = 2.0

# Not empty as soon as the handler is installed.
_actions: Final[list[Callable[[], None]]] = []


class Terminated(KeyboardInterrupt):
    """What open steps end with: a cancellation, as by Ctrl-C."""


def end_runs_on_sigterm(action: Callable[[], None]) -> bool:
    """Call ``action`` on SIGTERM before the process ends.

    False outside the main thread, which is the only one that may set a handler: call it again.
    """
    if _actions:
        if action not in _actions:
            _actions.append(action)
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with contextlib.suppress(ValueError):  # not in the main interpreter
            signal.signal(signal.SIGTERM, _on_sigterm)
            _actions.append(action)
    return True


def _on_sigterm(_number: int, _frame: FrameType | None) -> None:
    for action in tuple(_actions):
        try:
            action()
        except Exception as error:
            internal_error("sigterm", error)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
