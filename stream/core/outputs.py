"""Records that a stage wants sent, and what waits for their acknowledgement."""

from __future__ import annotations

from typing import Any

Headers = tuple[tuple[str, bytes], ...]


class OffsetHold:
    """Keeps one record readable until its copy (dead-lettered, re-routed) or its results are
    acknowledged.

    An ``OffsetDependent`` of ``stream.core.offsets``.
    """

    __slots__ = ("needed_from",)

    def __init__(self) -> None:
        self.needed_from = -1


class IndexedWrite(OffsetHold):
    """What the acknowledgement of a state record is for: its offset is remembered under ``name``.

    ``closed_at_us`` is 0 while the record is needed; else it is needed for the horizon after that.
    """

    __slots__ = ("closed_at_us", "name")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.closed_at_us = 0


class Output:
    """One record to send.

    ``topic`` is a name without prefix. ``partition`` -1 leaves the choice to the key. ``owner`` is
    what the acknowledgement is for: an ``OffsetHold`` to release, or the object whose count of
    pending outputs goes down. ``through`` is the last offset of the log that the record contains (a
    state, a checkpoint), or the offset of the record that it is a copy of (a dead letter).
    """

    __slots__ = (
        "appended_us",
        "headers",
        "key",
        "owner",
        "partition",
        "preceded_by",
        "through",
        "topic",
        "urgent",
        "value",
    )

    def __init__(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int = -1,
        headers: Headers = (),
        owner: Any = None,
        through: int = -1,
        urgent: bool = False,
    ) -> None:
        self.topic = topic
        self.key = key
        self.value = value
        self.partition = partition
        self.headers = headers
        self.owner = owner
        self.through = through
        # Other outputs wait for it, so it is not delayed to fill a batch, whatever its topic.
        self.urgent = urgent
        # An output that is sent just before this one and only together with it: the finding about a
        # batch that could not be read is left out when the batch is in the dead letter already.
        self.preceded_by: Output | None = None
        # Append time of the record that led to it, for the latency histogram; 0 leaves it out of
        # that.
        self.appended_us = 0
