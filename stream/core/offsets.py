"""The safe offset of a partition: the offset below which no record needs to be read again.

A record is needed until what it led to is stored in Kafka: a run's records until a state record
that contains them is acknowledged, a dead-lettered record until its copy is. Everything below the
lowest needed offset may be committed.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Protocol


class OffsetDependent(Protocol):
    """Something that needs records to be readable. ``needed_from`` is the lowest of their offsets,
    -1 for none.
    """

    needed_from: int


class OffsetTracker:
    """The position of a partition and the lowest offset that any dependent needs."""

    __slots__ = ("_heap", "_tie", "position")

    def __init__(self, position: int = 0) -> None:
        self.position = position
        """Offset of the next record to be processed."""
        # The offsets of one dependent only grow, so entries are never removed: one whose dependent
        # needs another offset by now is out of date and is skipped when it reaches the top.
        self._heap: list[tuple[int, int, OffsetDependent]] = []
        self._tie = 0

    def hold(self, dependent: OffsetDependent, offset: int) -> None:
        """``dependent`` needs the records from ``offset`` on, and none before."""
        dependent.needed_from = offset
        self._tie += 1
        heappush(self._heap, (offset, self._tie, dependent))

    def release(self, dependent: OffsetDependent) -> None:
        """``dependent`` needs no record any more."""
        dependent.needed_from = -1

    def oldest(self) -> OffsetDependent | None:
        """The dependent that needs the lowest offset, None where no record is needed."""
        heap = self._heap
        while heap:
            offset, _, dependent = heap[0]
            if dependent.needed_from == offset:
                return dependent
            heappop(heap)
        return None

    @property
    def safe(self) -> int:
        """The offset that may be committed."""
        dependent = self.oldest()
        return self.position if dependent is None else dependent.needed_from
