"""How records leave the process: one small protocol.

Only the sender's thread calls a transport. ``KafkaTransport`` is one; a disk spool and an HTTP endpoint are to follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

Done = Callable[[str], None]
"""Called once per record, from ``poll``: with an empty string when it is safe, else with what went wrong."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of the steps topic."""

    key: bytes
    value: bytes


class Transport(Protocol):
    """Takes records and says, later, what became of each."""

    def send(self, record: Record, done: Done) -> bool:
        """Take the record; False, and nothing taken, while there is no room. ``done`` is called exactly once for each taken."""

    def poll(self, timeout_s: float) -> None:
        """Call the ``done`` of records whose fate is known; wait up to ``timeout_s`` for one."""

    def close(self) -> None:
        """Let go of connections. Records still under way are given up: their ``done`` is called with the reason."""

    def abandon(self) -> None:
        """Forget everything without touching it: the process has forked, and threads and sockets are the parent's."""
