"""Base of the errors that name a folder, a port, a package or a process of this machine."""

from __future__ import annotations


class LocalError(Exception):
    """Something on this machine is missing, in use or did not start; the message explains what to
    do.
    """


class StartFailed(LocalError):
    """A process ended or did not answer in time; the message ends with its last output."""
