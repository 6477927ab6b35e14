"""Base of the errors that name a folder, a port, a package or a process of this machine."""

from __future__ import annotations


class LocalError(Exception):
    """Something of this machine is missing, taken or did not start; the message says what to do."""


class StartFailed(LocalError):
    """A process ended or did not answer in time; the message ends with its last output."""
