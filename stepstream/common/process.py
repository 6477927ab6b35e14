"""The identity of a process, by which it is recognised after a restart of this one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """A pid and the moment its process began: the pair that no later process can share."""

    pid: int
    began: str


def identity_of(pid: int) -> Identity | None:
    """The process with this pid; None when there is none, or the platform does not show it."""
    began = _began_linux(pid) if sys.platform == "linux" else _began_ps(pid)
    return Identity(pid, began) if began else None


def _began_linux(pid: int) -> str | None:
    """Clock ticks after boot, with the boot's id; a zombie counts as gone."""
    try:
        # After the last ")": the program's name stands in parentheses and may contain ")".
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _began_ps(pid: int) -> str | None:
    if os.name != "posix":
        return None
    answer = subprocess.run(
        # macOS and the BSDs have no /proc.
        ["ps", "-o", "lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or None


def end_leftover(known: Identity, grace: float = 12.0) -> bool:
    """End a process that an earlier owner left behind; True when it is gone.

    It usually ends by itself within a second, because its launcher notices that the owner is gone.
    """
    for wait, number in (
        (grace / 2, signal.SIGTERM),
        (grace / 2, getattr(signal, "SIGKILL", signal.SIGTERM)),
        (2, 0),
    ):
        if _gone_within(known, wait):
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(known.pid, number)
    return identity_of(known.pid) != known


def _gone_within(known: Identity, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while identity_of(known.pid) == known:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
