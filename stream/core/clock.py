"""One clock per partition: log time, so that no deadline passes because a worker did not
run or the brokers did not answer.

The time is the append time of the last record processed or, when a fetch came back at the high
watermark, the wall time of that fetch. It never runs ahead of either and never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

JUMP_US: Final = 2_000_000
"""A larger step of the clock means that nothing was read for a while."""

CATCH_UP_US: Final = 10_000_000
"""The time that producers get after that to deliver what they have queued meanwhile."""


@dataclass(slots=True)
class PartitionClock:
    """``now_us`` is the partition's time; ``timers_from_us`` is when timers may fire again after a
    jump.

    After a jump a run without records may only wait for its producer to deliver. A run that began
    after the jump was never out of sight, so it need not wait.
    """

    now_us: int = 0
    timers_from_us: int = 0
    watched_from_us: int = 0
    """A run whose first record was appended at or after this time was in sight all the time."""

    def advance(self, time_us: int, *, watching: bool) -> None:
        """Move to ``time_us`` unless that is in the past. ``watching``: there are runs whose timers
        a jump could fire.
        """
        # Append times of one partition may step back when its leader changes.
        if time_us <= self.now_us:
            return
        if watching and time_us - self.now_us > JUMP_US:
            self.timers_from_us = time_us + CATCH_UP_US
            self.watched_from_us = max(self.watched_from_us, time_us)
        self.now_us = time_us

    def delay_timers(self) -> None:
        """Brokers have failed: producers may need as long to deliver as after a jump."""
        self.timers_from_us = self.watched_from_us = self.now_us + CATCH_UP_US

    @property
    def timers_may_fire(self) -> bool:
        """False while producers catch up after a jump."""
        return self.now_us >= self.timers_from_us

    def may_close(self, began_us: int) -> bool:
        """Whether an ended run whose first record was appended then may close."""
        return self.timers_may_fire or began_us >= self.watched_from_us
