"""Process priorities: writing to the store may wait when the CPU is busy, alerts and commands may
not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

NICENESS: Final = 10


def lower_priority(pid: int) -> None:
    """Give a process of ours a lower priority. Does nothing on platforms without niceness."""
    if os.name != "posix":
        return
    for thread in _threads(pid):
        with contextlib.suppress(OSError):
            lowest = max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, lowest)
    # With autogroup (Linux desktops) the scheduler shares the CPU between sessions first, and
    # niceness counts only within one: the session needs a niceness of its own.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(NICENESS))


def _threads(pid: int) -> list[int]:
    """The threads of the process: on Linux each has a niceness of its own, new ones inherit it."""
    try:
        return [int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return [pid]
