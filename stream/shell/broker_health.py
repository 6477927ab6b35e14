"""Whether a partition's brokers have failed lately, as far as a client that can still read from it
can know.

A fetch that finds no more records shows that none were appended, not that none were sent: after a
partition's leader has gone, producers find the new leader later than a consumer does, and while a
replica is missing neither their records nor the worker's outputs are acknowledged.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from faust.types import TP

STALLED_S: Final = 1.0
"""Without an acknowledgement of the worker's own outputs for so long, the brokers count as failed.
"""

LEADER_S: Final = 3.0
"""For so long a change of leader counts, so that it is also noticed for a partition whose state is
being loaded.
"""


class BrokerHealth:
    """Watches the leaders of partitions and the acknowledgements of the worker's outputs."""

    def __init__(
        self,
        stalled_s: Callable[[], float],
        leader_of: Callable[[TP], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``stalled_s`` returns for how many seconds no output was acknowledged although some were
        sent.
        """
        self._stalled_s = stalled_s
        self._leader_of = leader_of
        self._clock = clock
        self._leaders: dict[TP, int | None] = {}
        self._changed_at: dict[TP, float] = {}

    def has_failed(self, tp: TP) -> bool:
        """Whether the partition may be without new records because of its brokers."""
        now = self._clock()
        leader = self._leader_of(tp)
        if leader is not None and leader != self._leaders.setdefault(tp, leader):
            self._leaders[tp] = leader
            self._changed_at[tp] = now
        changed_at = self._changed_at.get(tp)
        has_new_leader = changed_at is not None and now - changed_at < LEADER_S
        return has_new_leader or self._stalled_s() > STALLED_S
