"""Free ports on the loopback interface."""

from __future__ import annotations

import os
import socket

LOOPBACK = "127.0.0.1"


def _bind(port: int) -> socket.socket:
    probe = socket.socket()
    if os.name == "posix":  # as the servers do; on Windows the option would let two share a port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((LOOPBACK, port))
        if port:
            probe.listen(1)
    except OSError:
        probe.close()
        raise
    return probe


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    try:
        _bind(port).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Different ports on which no program listens at this moment."""
    probes = [_bind(0) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
