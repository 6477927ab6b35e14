"""Whether brokers are in trouble near a partition, as seen by a client that can still read from it.

A fetch that finds no more says that nothing was appended, not that nobody tried: after a leader has gone, producers find
the new one later than we do, and while a replica is missing neither their records nor ours are acknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from faust.types import TP

STALLED_S: Final = 1.0
"""Our own outputs unacknowledged for so long."""

LEADER_S: Final = 3.0
"""How long a change of leader is news, so that a partition whose state is just being read hears of it too."""


class Trouble:
    """Watches the leaders of partitions and the acknowledgements of what we send."""

    def __init__(
        self,
        stalled_s: Callable[[], float],
        leader_of: Callable[[TP], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``stalled_s`` says for how long nothing that we sent was acknowledged."""
        self._stalled_s = stalled_s
        self._leader_of = leader_of
        self._clock = clock
        self._leaders: dict[TP, int | None] = {}
        self._changed_at: dict[TP, float] = {}

    def is_near(self, tp: TP) -> bool:
        """Whether a silence of this partition may be the brokers' own."""
        now = self._clock()
        leader = self._leader_of(tp)
        if leader is not None and leader != self._leaders.setdefault(tp, leader):
            self._leaders[tp] = leader
            self._changed_at[tp] = now
        changed_at = self._changed_at.get(tp)
        return (
            changed_at is not None and now - changed_at < LEADER_S
        ) or self._stalled_s() > STALLED_S
