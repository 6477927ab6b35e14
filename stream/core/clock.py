"""One clock per partition: log time, so that no deadline passes because a worker or the brokers were away.

It stands at the append time of the last record processed or, when a fetch came back at the high watermark, at the wall
time of that fetch. It never runs ahead of either and never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass

JUMP_US = 2_000_000
CATCH_UP_US = 10_000_000


@dataclass(slots=True)
class PartitionClock:
    """``now_us`` is the partition's time; ``timers_from_us`` is when timers may fire again after a jump.

    A jump means that nobody watched for a while: producers are given time to deliver what they held meanwhile before a
    silence is taken for one. What began after a jump was never out of sight: it need not wait for that.
    """

    now_us: int = 0
    timers_from_us: int = 0
    watched_from_us: int = 0
    """A run whose first record was appended since then was watched all the time."""

    def advance(self, time_us: int, *, watching: bool) -> None:
        """Move to ``time_us`` unless that is in the past. ``watching``: there are runs whose timers a jump could trip."""
        if (
            time_us <= self.now_us
        ):  # append times of one partition may step back when its leader changes
            return
        if watching and time_us - self.now_us > JUMP_US:
            self.timers_from_us = time_us + CATCH_UP_US
            self.watched_from_us = max(self.watched_from_us, time_us)
        self.now_us = time_us

    def disturb(self) -> None:
        """Brokers are in trouble, whatever a fetch says: producers may need as long to deliver as after a jump."""
        self.timers_from_us = self.watched_from_us = self.now_us + CATCH_UP_US

    @property
    def timers_may_fire(self) -> bool:
        """False while producers catch up after a jump."""
        return self.now_us >= self.timers_from_us

    def may_close(self, began_us: int) -> bool:
        """Whether an ended run whose first record was appended then may close."""
        return self.timers_may_fire or began_us >= self.watched_from_us
