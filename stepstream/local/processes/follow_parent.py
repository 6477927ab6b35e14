"""Ends this process when its parent ends or closes this process's standard input."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import Final

CHECK_S: Final = 1.0
GRACE_S: Final = 25.0


def follow_parent(*, grace_s: float = GRACE_S) -> None:
    """Start a thread that sends this process SIGTERM when the parent is gone or wants it to end.

    A process that is still there ``grace_s`` seconds later exits with code 1.
    """
    threading.Thread(
        target=_watch, args=(os.getppid(), grace_s), name="follow-parent", daemon=True
    ).start()


def _watch(parent: int, grace_s: float) -> None:
    while not _ended(parent):
        pass
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGTERM)
    # A handler of SIGTERM that hangs must not keep a process without a parent alive.
    time.sleep(grace_s)
    os._exit(1)


def _ended(parent: int) -> bool:
    """Wait up to a second; True when the parent wants us to end or is gone."""
    if os.name != "posix":
        return not os.read(0, 1)
    # A forked copy of the parent may keep the other end open, so the pipe alone is not enough.
    if os.getppid() != parent:
        return True
    readable, _, _ = select.select([0], [], [], CHECK_S)
    return bool(readable) and not os.read(0, 1)
