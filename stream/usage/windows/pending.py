"""The newest record of each run and minute, kept until the minute is sealed.

A newer revision replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from stepstream.stream.core.outputs import OffsetHold
from stepstream.stream.usage.windows.records import Owner

UsageKey = tuple[str, str, str, int]
"""Trace, agent, agent version, minute."""


@dataclass(slots=True)
class PendingUsage:
    """The newest record of a run's minute: its owner and amounts."""

    revision: int
    owner: Owner
    user_id: str
    amounts: tuple[int, ...]


@dataclass(slots=True)
class PendingRun:
    """The newest summary of a run: its owner, the minute it counts in, and its amounts."""

    revision: int
    owner: Owner
    user_id: str
    minute: int
    status: str
    duration_us: int
    success: str = ""


@dataclass(slots=True)
class Slot:
    """A stretch of time that is sealed at once.

    ``hold`` keeps the records that fill it from being forgotten.
    """

    start: int
    hold: OffsetHold = field(default_factory=OffsetHold)
    usage: dict[UsageKey, PendingUsage] = field(default_factory=dict)
    traces: set[str] = field(default_factory=set)


class PendingRecords:
    """Open slots and what is in them."""

    def __init__(self, slot_us: int) -> None:
        self.slot_us = slot_us
        self.slots: dict[int, Slot] = {}
        self.runs: dict[str, PendingRun] = {}
        self.count = 0

    def slot(self, minute: int) -> Slot:
        """The open slot of a minute."""
        start = minute - minute % self.slot_us
        found = self.slots.get(start)
        if found is None:
            found = self.slots[start] = Slot(start)
        return found

    def put_usage(self, slot: Slot, key: UsageKey, new: PendingUsage) -> PendingUsage | None:
        """Hold a record; returns the one that it replaces."""
        old = slot.usage.get(key)
        slot.usage[key] = new
        self.count += old is None
        return old

    def put_run(self, slot: Slot, trace_id: str, new: PendingRun) -> None:
        """Hold a summary in place of the one before it."""
        old = self.runs.get(trace_id)
        if old is None:
            self.count += 1
        else:
            # A later revision may have ended in another minute, which another slot seals.
            self.slot(old.minute).traces.discard(trace_id)
        self.runs[trace_id] = new
        slot.traces.add(trace_id)

    def close(self, until_us: int) -> list[Slot]:
        """Let go of the slots that end by ``until_us``; the caller releases their holds."""
        closed = [
            self.slots.pop(start)
            for start in sorted(self.slots)
            if start + self.slot_us <= until_us
        ]
        for slot in closed:
            self.count -= len(slot.usage) + len(slot.traces)
            for trace_id in slot.traces:
                del self.runs[trace_id]
        return closed
