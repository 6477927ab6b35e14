"""The time by which windows are sealed: how far the slowest partition of steps is."""

from __future__ import annotations

from collections.abc import Mapping


class Watermark:
    """``time_us`` is 0 until every partition has reported its progress, and never goes back."""

    def __init__(
        self, partitions: int, known: Mapping[int, int] | None = None, time_us: int = 0
    ) -> None:
        self.partitions = partitions
        self.known = dict(known or {})
        self.time_us = time_us

    def advance(self, partition: int, time_us: int) -> bool:
        """Take over a partition's progress; True if the slowest partition has moved on."""
        if not 0 <= partition < self.partitions or time_us <= self.known.get(partition, 0):
            return False
        self.known[partition] = time_us
        # A partition that has not reported may be hours behind: sealing without it would make its
        # records late.
        if len(self.known) < self.partitions:
            return False
        lowest = min(self.known.values())
        if lowest <= self.time_us:
            return False
        self.time_us = lowest
        return True
