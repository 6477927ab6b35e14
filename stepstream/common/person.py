"""The name of the person who runs this process, as commands and sessions record it."""

from __future__ import annotations

import getpass
import os
import socket


def who() -> str:
    """USER@HOST of this process, for the audit log."""
    return f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        # A container may run as a number that the system has no name for.
        return f"uid-{os.getuid()}"
