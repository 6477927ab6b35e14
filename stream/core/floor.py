"""The floor of a partition: the offset below which nothing needs to be read again.

Records hold it: a run's records until a state record that covers them is acknowledged, a dead-lettered record until its
copy is. Everything below the lowest held offset may be committed.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Protocol


class Holder(Protocol):
    """Whatever holds the floor back: ``uncovered`` is its lowest offset not yet covered, -1 for none."""

    uncovered: int


class Floor:
    """Lowest held offset of many holders. Their offsets only grow, so a heap with stale entries serves."""

    __slots__ = ("_heap", "_tie", "position")

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self._heap: list[tuple[int, int, Holder]] = []
        self._tie = 0

    def hold(self, holder: Holder, offset: int) -> None:
        """``holder`` needs the records from ``offset`` on."""
        holder.uncovered = offset
        self._tie += 1
        heappush(self._heap, (offset, self._tie, holder))

    def release(self, holder: Holder) -> None:
        """``holder`` needs nothing any more."""
        holder.uncovered = -1

    def oldest(self) -> Holder | None:
        """The holder of the lowest offset."""
        heap = self._heap
        while heap:
            offset, _, holder = heap[0]
            if holder.uncovered == offset:
                return holder
            heappop(heap)
        return None

    @property
    def value(self) -> int:
        """The floor: the lowest held offset, or the position when nothing is held."""
        holder = self.oldest()
        return self.position if holder is None else holder.uncovered
