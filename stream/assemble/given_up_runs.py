"""Runs whose processing raised: which of their records are to be read again and dead-lettered, and
what becomes of later ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import OffsetHold
from stepstream.stream.core.records import Record

REMEMBERED: Final = 10_000
"""Number of given-up runs whose later records are dead-lettered at once. Those of a run that was
given up earlier begin a run of their own.
"""


class UnreadRange(NamedTuple):
    """The run's records among those from offset ``first`` to ``last`` are to be dead-lettered."""

    trace_id: str
    first: int
    last: int
    why: str
    hold: OffsetHold


class GivenUpRuns:
    """The given-up runs of one partition, and the records that no state contains."""

    def __init__(self, offsets: OffsetTracker) -> None:
        self._offsets = offsets
        self.runs: dict[str, str] = {}
        """Why, by trace id."""
        self._unread: list[UnreadRange] = []

    def add(self, trace_id: str, first: int, last: int, why: str, *, is_needed: bool) -> None:
        """Give a run up. ``is_needed``: no state contains its records from ``first`` on, so a
        restart must still be able to read them.
        """
        self.runs[trace_id] = why
        if len(self.runs) > REMEMBERED:
            del self.runs[next(iter(self.runs))]
        hold = OffsetHold()
        if is_needed:
            self._offsets.hold(hold, first)
        self._unread.append(UnreadRange(trace_id, first, last, why, hold))

    def take_unread(self) -> list[UnreadRange]:
        """What is to be read again since the last call; call ``refused`` with what was read."""
        taken, self._unread = self._unread, []
        return taken

    def refused(
        self, records: Iterable[Record], wanted: Iterable[UnreadRange]
    ) -> Iterator[tuple[Record, str]]:
        """The records of these runs among those that were read, each with its reason. Then they are
        not needed any more.
        """
        by_key = {unread.trace_id.encode(): unread for unread in wanted}
        for record in records:
            unread = by_key.get(record.key or b"")
            if unread is not None and unread.first <= record.offset <= unread.last:
                yield record, unread.why
        for unread in by_key.values():
            self._offsets.release(unread.hold)
