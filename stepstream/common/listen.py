"""Errors of servers that cannot listen on their port."""

from __future__ import annotations

import errno


def taken(port: int, setting: str, host: str = "127.0.0.1") -> str:
    """The message for users; ``setting`` is the setting of the port."""
    flag = "--" + setting.replace("_", "-")
    return (
        f"port {port} on {host} is taken by another program: "
        f"stop that program, or set {setting} ({flag}) to another port (0 takes a free one)"
    )


class AddressTaken(OSError):
    """A server cannot listen because another program uses its port."""

    def __init__(self, port: int, setting: str, host: str = "127.0.0.1") -> None:
        super().__init__(errno.EADDRINUSE, taken(port, setting, host))

    def __str__(self) -> str:
        return str(self.strerror)


def explained(error: OSError, port: int, setting: str, host: str = "127.0.0.1") -> OSError:
    """The error to raise for a failed ``listen``."""
    if isinstance(error, AddressTaken):
        return error
    if error.errno == errno.EADDRINUSE:
        return AddressTaken(port, setting, host)
    return OSError(
        error.errno,
        f"cannot listen on {host}:{port} (setting {setting}): {error.strerror or error}",
    )
