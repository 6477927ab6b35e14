"""An absolute time limit for what is done over a socket.

The timeout of a socket starts again with every byte that arrives, so a server that sends one byte
a second keeps a request alive for ever. No HTTP or SMTP library for threads bounds the whole.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

CHECK_S: Final = 0.1
"""How late a connection may be shut down after its deadline."""


@dataclass(eq=False, slots=True)
class Limit:
    """The time limit of one request. ``sock`` is set as soon as it is connected."""

    deadline: float
    sock: socket.socket | None = None

    @property
    def remaining_s(self) -> float:
        """Seconds left, at least a millisecond: a socket timeout of 0 means non-blocking."""
        return max(0.001, self.deadline - time.monotonic())


class Deadlines:
    """Shuts down each socket whose deadline has passed. Thread-safe; runs a thread when used."""

    def __init__(self) -> None:
        self._limits: set[Limit] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._current = threading.local()

    @contextlib.contextmanager
    def limit(self, deadline: float) -> Iterator[Limit]:
        """Limit what this thread does over ``Limit.sock`` until the block is left.

        ``deadline`` is a time of ``time.monotonic``.
        """
        limit = Limit(deadline)
        with self._lock:
            self._limits.add(limit)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="stepstream-deadlines", daemon=True
                )
                self._thread.start()
        self._current.limit = limit
        try:
            yield limit
        finally:
            self._current.limit = None
            with self._lock:
                self._limits.discard(limit)

    def attach(self, sock: socket.socket) -> None:
        """Put a socket under this thread's limit, if it has one."""
        limit: Limit | None = getattr(self._current, "limit", None)
        if limit is not None:
            limit.sock = sock

    def _run(self) -> None:
        while True:
            time.sleep(CHECK_S)
            now = time.monotonic()
            with self._lock:
                late = [one.sock for one in self._limits if one.deadline < now]
            for sock in late:
                if sock is not None:
                    # Not close: the owner still reads from it, and its number would be reused.
                    with contextlib.suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)


DEADLINES: Final = Deadlines()
"""One for the process: its thread serves every client."""
