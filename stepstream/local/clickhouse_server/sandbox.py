"""Restricts this process to what it needs: no files outside its folder, programs or connections
(Linux).

The rules for statements refuse what is dangerous; where they have a gap the kernel refuses it as
well. Uses Landlock, which a process can apply to itself without privileges and cannot remove.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PR_SET_NO_NEW_PRIVS: Final = 38
_PATH_BENEATH: Final = 1
_READ_FILE, _READ_DIR, _WRITE_FILE, _TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
_READ: Final = _READ_FILE | _READ_DIR
_TCP_CONNECT: Final = 1 << 1
# By version of the kernel's interface: how many rights of files it knows.
_FILE_RIGHTS: Final = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/opt", "/nix", "/proc", "/sys")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def confine(writable: Iterable[Path], readable: Iterable[Path]) -> str:
    """Confine this thread and all threads that it starts.

    Returns why that is not possible; empty when it was done.
    """
    if sys.platform != "linux":
        return "only Linux has Landlock"
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return f"the kernel has no Landlock ({os.strerror(ctypes.get_errno())})"
    everything = (1 << _FILE_RIGHTS[min(version, max(_FILE_RIGHTS))]) - 1
    ruleset = _ruleset(libc, everything, _TCP_CONNECT if version >= 4 else 0)
    if ruleset < 0:
        return f"Landlock refuses ({os.strerror(ctypes.get_errno())})"
    try:
        run = 1  # the right to run programs is the lowest bit; no path gets it
        for path in (*map(Path, _SYSTEM), *readable):
            _allow(libc, ruleset, path, _READ & everything)
        for path in map(Path, _DEVICES):
            _allow(libc, ruleset, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & everything)
        for path in writable:
            _allow(libc, ruleset, path, everything & ~run)
        if (
            libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            or libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0
        ):
            return f"Landlock refuses ({os.strerror(ctypes.get_errno())})"
    finally:
        os.close(ruleset)
    return ""


def _ruleset(libc: ctypes.CDLL, files: int, network: int) -> int:
    attributes = struct.pack("<QQ", files, network)
    size = len(attributes) if network else 8
    return int(libc.syscall(_CREATE_RULESET, attributes, size, 0))


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """Rights on what lies beneath a path; nothing where there is no such path."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = struct.pack("<Qi", rights, opened)
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(opened)
