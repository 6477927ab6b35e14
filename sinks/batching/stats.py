"""Counters of a sink, and how far behind it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class SinkStats:
    """Written by the sink's main thread only; other threads may read it."""

    read: Counter[str] = field(default_factory=Counter)
    """Records read, by topic."""
    inserted: Counter[str] = field(default_factory=Counter)
    """Rows inserted, by table; a batch that is repeated after a crash counts again, although it
    changes nothing.
    """
    skipped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Records left out, by topic and reason."""
    dead_lettered: Counter[str] = field(default_factory=Counter)
    """Records that the store refused, by topic."""
    batches: Counter[str] = field(default_factory=Counter)
    """Batches inserted, by topic."""
    replayed: int = 0
    """Batches repeated because their result was unknown when the partition was assigned."""
    retries: int = 0
    """Failed attempts to insert."""
    insert_s: float = 0.0
    """Seconds spent in inserts that succeeded."""
    rule_evaluations: Counter[str] = field(default_factory=Counter)
    """Evaluations of rules ``sql`` by alert name; this and the next written by their thread."""
    rule_errors: Counter[str] = field(default_factory=Counter)
    lag: dict[tuple[str, int], int] = field(default_factory=dict)
    """Records between what is stored and the partition's end, by topic and partition."""

    @property
    def rows(self) -> int:
        """Rows inserted into all tables."""
        return self.inserted.total()
