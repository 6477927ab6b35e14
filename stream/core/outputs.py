"""What a stage wants sent, and what each output holds back until it is acknowledged."""

from __future__ import annotations

from typing import Any

Headers = tuple[tuple[str, bytes], ...]


class Hold:
    """Holds the floor at one record until its copy (dead-lettered, re-routed) or what it led to is acknowledged."""

    __slots__ = ("pending", "uncovered")

    def __init__(self) -> None:
        self.uncovered = -1
        self.pending = 0


class Output:
    """One record to send: topic name without prefix; ``partition`` -1 leaves it to the key."""

    __slots__ = (
        "beside",
        "born_us",
        "headers",
        "holder",
        "key",
        "partition",
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
        holder: Any = None,
        through: int = -1,
        urgent: bool = False,
    ) -> None:
        self.topic = topic
        self.key = key
        self.value = value
        self.partition = partition
        self.headers = headers
        self.holder = holder
        self.through = through
        self.urgent = urgent
        """Others wait for it, whatever its topic."""
        self.beside: Output | None = None
        """What is to be sent before it, and by nobody else: the finding about a batch that was passed over."""
        self.born_us = 0
        """Append time of what it was made from, for its latency; 0 where that says nothing."""
