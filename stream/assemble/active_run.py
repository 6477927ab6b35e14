"""A run in memory with everything that the stage keeps for it."""

from __future__ import annotations

from stepstream.stream.assemble.checkpoint import RunCheckpoint
from stepstream.stream.run.run import Run


class Publication:
    """What of a run was published, and when more of it is due. Written by ``PublishSchedule``."""

    __slots__ = (
        "due_us",
        "is_outdated",
        "is_urgent",
        "published_us",
        "usage_is_queued",
        "usage_published_us",
    )

    def __init__(self) -> None:
        self.is_outdated = False
        """Something has changed since the last trajectory."""
        self.is_urgent = False
        """The next trajectory does not wait for the revision interval."""
        self.published_us = 0
        self.due_us: int | None = None
        """When the next trajectory is due, if it is queued."""
        self.usage_published_us = 0
        self.usage_is_queued = False


class ActiveRun:
    """A run that is open, or closed and not yet checkpointed as closed."""

    __slots__ = ("checkpoint", "publication", "run", "scheduled_us", "size_bytes")

    def __init__(self, run: Run, through: int) -> None:
        """``through``: an acknowledged state record contains its records up to this offset; -1:
        there is none.
        """
        self.run = run
        self.checkpoint = RunCheckpoint(through)
        self.publication = Publication()
        self.scheduled_us: int | None = None
        """When it is woken next; None where that is to be worked out."""
        self.size_bytes = 0
        """What ``MemoryAccounting`` counts for it."""

    @property
    def is_unpublished(self) -> bool:
        """Whether its newest trajectory is still to be published; late fragments have none."""
        return self.publication.is_outdated and not self.run.is_late_fragment
