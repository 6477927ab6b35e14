"""A run and what is under way for it: what it holds of the floor, what was sent and not yet acknowledged."""

from __future__ import annotations

from stepstream.stream.core.outputs import Output
from stepstream.stream.run.run import Run


class RunCheckpoint:
    """Delivery bookkeeping beside a ``Run``; a ``OffsetHolder`` of the floor."""

    __slots__ = (
        "announced",
        "announcing",
        "covering",
        "dirty",
        "has_failed",
        "last_offset",
        "needed_from",
        "pending",
        "published_us",
        "run",
        "scheduled_us",
        "size_bytes",
        "state",
        "through",
        "urgent",
        "usage_us",
        "usage_waits",
        "waits_us",
        "wants_cover",
        "wants_look",
    )  # fmt: skip

    def __init__(self, run: Run, through: int) -> None:
        self.run = run
        self.through = through
        """Records up to this offset are merged and covered by an acknowledged state."""
        self.last_offset = through
        self.needed_from = -1
        self.pending = 0
        """Outputs sent and not acknowledged."""
        self.covering = False
        """A state record is sent and not acknowledged."""
        self.wants_cover = False
        """It has closed, or has held the floor back for long: its state is to be written when nothing is pending."""
        self.dirty = False
        """Something has changed since the last trajectory."""
        self.urgent = False
        """The next trajectory does not wait for the revision interval."""
        self.announced: list[Output] = []
        """Findings and commands that only time has shown: sent once a state that names them is acknowledged."""
        self.announcing = 0
        """How many of them the state under way names."""
        self.published_us = 0
        self.usage_us = 0
        """When its usage was published last."""
        self.usage_waits = False
        """Its usage is to be published when an interval has passed since."""
        self.waits_us: int | None = None
        """When its trajectory is due next, if it waits for that."""
        self.scheduled_us: int | None = None
        self.wants_look = False
        """Something may be due before it is scheduled: its root ended, or a detector asks for it."""
        self.size_bytes = 0
        """What it counts for in what is held."""
        self.state = b""
        self.has_failed = False
        """Something that was done for it raised: what is still under way for it says nothing any more."""

    def put_away(self) -> None:
        """Let go of the run: floors and timers may remember who held them for as long as an older run is open."""
        del self.run
        self.waits_us, self.usage_waits = None, False
        self.state = b""
