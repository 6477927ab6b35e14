"""The protocol of transports, which take records out of the process.

Only the sender's thread calls a transport.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

Done = Callable[[str], None]
"""Called once for each record that was taken: with an empty string if it was delivered, otherwise
with the reason why it failed."""


class Undelivered(str):
    """The reason why a record was not delivered although it may be if it is sent again.

    Any other reason means that the record itself was refused.
    """

    __slots__ = ()


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of the steps topic."""

    key: bytes
    value: bytes


# After a few records the sender's thread pauses for so long, so that the next ones come together:
# at 1,000 steps a second, waking it for each record costs the program's thread more than the record
# itself.
GATHER_S: Final = 0.01


class Transport(Protocol):
    """Takes records, and reports later for each whether it was delivered.

    A transport for which a few records cost as much as many sets ``gather_s``, which replaces
    ``GATHER_S``.
    """

    def send(self, record: Record, done: Done) -> bool:
        """Take the record. False if there is no room now: the record was not taken.

        ``done`` is called exactly once for each record that was taken.
        """

    def poll(self, timeout_s: float) -> None:
        """Call ``done`` of the records whose outcome is known; wait up to ``timeout_s`` for one."""

    def close(self) -> None:
        """Close the connections. Unacknowledged records fail: ``done`` gets ``Undelivered``."""

    def abandon(self) -> None:
        """Drop everything in a forked child without closing it: the sockets are the parent's."""
