"""What a store has to offer so that a sink can fill it, each record exactly once."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from stepstream.sinks.batching.batcher import PendingBatch
from stepstream.sinks.batching.position import Position
from stepstream.sinks.batching.records import RowBlocks, Source


class RowsRefused(Exception):
    """The store will never accept these rows, however often they are sent; the message is the
    store's.
    """


class TopicHandler(Protocol):
    """What is particular to a topic, for one of its partitions.

    Only one thread uses it at a time.
    """

    def open(self, source: Source, position: Position) -> None:
        """Read from the store what is needed before the first batch."""

    def build(self, batch: PendingBatch, source: Source) -> RowBlocks[Any]:
        """The rows of a batch. The same batch has to give the same rows after a restart."""

    def stored(self, blocks: RowBlocks[Any]) -> None:
        """The batch is in the store."""


class StoreWriter(Protocol):
    """A store as the sink fills it.

    The two guarantees that exactly once rests on: ``insert`` stores a block as a whole or not at
    all, and a block that was inserted under a token is not inserted again under it, also after a
    restart of either side.
    """

    @property
    def description(self) -> str:
        """What log lines call the store, e.g. "ClickHouse at http://localhost:8123"."""

    @property
    def topics(self) -> Collection[str]:
        """The topics to store, named without prefix."""

    @property
    def temporary_errors(self) -> tuple[type[Exception], ...]:
        """Errors after which the sink tries again.

        Any other error except ``RowsRefused`` is a defect and ends the sink.
        """

    @property
    def unreachable(self) -> tuple[type[Exception], ...]:
        """Errors of a store that does not answer: at the start those alone are waited for."""

    def migrate(self) -> None:
        """Bring the schema up to date."""

    def handler(self, name: str) -> TopicHandler:
        """A new handler for a partition of the topic."""

    def last_offset(self, name: str, source: Source, at_least: int) -> int | None:
        """The highest stored offset of a partition of the topic; None where there is none from
        ``at_least`` on.
        """

    def count_rows(self, name: str, source: Source, first: int, last: int) -> int:
        """How many rows of the offsets first..last are stored.

        Only rows that may not be stored twice are counted: of steps those that are in rollups.
        """

    def insert(self, block: Any, token: str) -> float:
        """Insert a block under a token and return the seconds it took. Raises ``RowsRefused``."""

    def reconnect(self) -> None:
        """Drop the connection of this thread; the next call makes another."""

    def explain(self, error: Exception) -> str:
        """The error in words for the log."""

    def idle(self) -> None:
        """Called when nothing is pending after much work: a chance to release memory."""
