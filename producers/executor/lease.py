"""When an executor must stop its attempts: pure.

The scheduler counts a lease from the time at which Kafka appended a heartbeat. The executor counts
from the earlier moment at which it sent that heartbeat, and stops after two thirds of the lease, so
that its attempts have ended before the scheduler gives them to another executor.
"""

from __future__ import annotations

from typing import Final

from stepstream.schemas.task_common import BEAT_INTERVAL_US

_BEATS: Final = 9
_STOP_SHARE: Final = 2 / 3
_KILL_SHARE: Final = 5 / 6


def beat_interval_s(lease_s: float) -> float:
    """The time between two heartbeats."""
    return min(BEAT_INTERVAL_US / 1e6, lease_s / _BEATS)


class Lease:
    """The lease of one executor. Times are seconds of a steady clock.

    ``sent_s`` is when the last acknowledged record was sent that renewed it.
    """

    def __init__(self, lease_s: float, sent_s: float) -> None:
        self.lease_s = lease_s
        self.sent_s = sent_s

    def renew(self, sent_s: float) -> None:
        """A heartbeat that was sent at this time is acknowledged."""
        # Acknowledgements of several heartbeats may arrive in any sequence.
        self.sent_s = max(self.sent_s, sent_s)

    @property
    def stop_at_s(self) -> float:
        """When attempts must be stopped: no attempt begins after this."""
        return self.sent_s + self.lease_s * _STOP_SHARE

    @property
    def kill_at_s(self) -> float:
        """When the process must end if its attempts have not."""
        return self.sent_s + self.lease_s * _KILL_SHARE

    def is_lost(self, now_s: float) -> bool:
        return now_s >= self.stop_at_s
