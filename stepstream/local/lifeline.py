"""A child process that ends when its parent does, however the parent went.

The parent holds the other end of our standard input and never writes to it. When that end closes (a wish to stop, or
the parent's death) we send ourselves SIGTERM, as a person would, and leave by force if that takes too long.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import Final

LOOK_S: Final = 1.0
GRACE_S: Final = 25.0


def follow_parent(*, grace_s: float = GRACE_S) -> None:
    """From now on, drain and end when the parent closes our standard input or is gone."""
    threading.Thread(
        target=_watch, args=(os.getppid(), grace_s), name="lifeline", daemon=True
    ).start()


def _watch(parent: int, grace_s: float) -> None:
    while not _ended(parent):
        pass
    signal.raise_signal(signal.SIGTERM) if os.name != "posix" else os.kill(
        os.getpid(), signal.SIGTERM
    )
    time.sleep(grace_s)
    os._exit(1)


def _ended(parent: int) -> bool:
    """Wait a moment; True when the parent wants us to end or is gone."""
    if os.name != "posix":
        return not os.read(0, 1)
    # A forked copy of the parent may hold the other end open: ask the kernel too.
    if os.getppid() != parent:
        return True
    readable, _, _ = select.select([0], [], [], LOOK_S)
    return bool(readable) and not os.read(0, 1)
