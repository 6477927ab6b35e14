"""Who goes first where there is not enough CPU for all: the store can wait a little, an alert and a stop cannot."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

NICENESS: Final = 10


def give_way(pid: int) -> None:
    """Let a process of ours run after others where they compete. Where the platform has no such thing nothing happens.

    Linux on a desktop shares the CPU between sessions before it looks at niceness: there the session says so too.
    """
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, max(NICENESS, os.getpriority(os.PRIO_PROCESS, pid)))
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))
