"""SIGTERM: open runs end as cancelled and their events are sent before the process ends.

The handler is installed when the first run begins in the main thread. Where the default action is
in force, which ends the process at once, the process ends by the signal afterwards. A Python
handler that was there before is called afterwards. A handler that is set later replaces this one
and is left alone, and so are an ignored signal and a handler that was not set from Python.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from stepstream.producers.sdk_log import internal_error

# How long the end of the process is delayed at most for events that are not acknowledged.
FLUSH_S: Final = 2.0

Action = Callable[[bool], None]
"""Ends the runs of a tracer and sends them; True: the process ends afterwards."""

# Not empty as soon as the handler is installed.
_actions: Final[list[Action]] = []
# The handler that was there before: signal.SIG_DFL or a function.
_earlier: Final[list[Any]] = []


class Terminated(KeyboardInterrupt):
    """What open steps end with: a cancellation, as by Ctrl-C."""


def end_runs_on_sigterm(action: Action) -> bool:
    """Call ``action`` on SIGTERM, before the handler that was there.

    False outside the main thread, which is the only one that may set a handler: call it again.
    """
    if _actions:
        if action not in _actions:
            _actions.append(action)
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    earlier = signal.getsignal(signal.SIGTERM)
    if earlier is signal.SIG_DFL or callable(earlier):
        with contextlib.suppress(ValueError):  # not in the main interpreter
            signal.signal(signal.SIGTERM, _on_sigterm)
            _earlier.append(earlier)
            _actions.append(action)
    return True


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    earlier = _earlier[0]
    is_end = earlier is signal.SIG_DFL
    for action in tuple(_actions):
        try:
            action(is_end)
        except Exception as error:
            internal_error("sigterm", error)
    if is_end:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        earlier(number, frame)
