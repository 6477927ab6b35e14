"""ClickHouse as the store of a sink."""

from __future__ import annotations

from collections.abc import Collection

from clickhouse_connect.driver.exceptions import ClickHouseError

from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.records import Source
from stepstream.sinks.batching.writer import TopicHandler
from stepstream.sinks.clickhouse import memory
from stepstream.sinks.clickhouse.errors import StoreError, StoreUnreachable, worded
from stepstream.sinks.clickhouse.handlers import PROGRESS_TABLES, handler_of
from stepstream.sinks.clickhouse.insert import Inserter
from stepstream.sinks.clickhouse.migration import migrate
from stepstream.sinks.clickhouse.offsets import highest_offset, rows_between
from stepstream.sinks.clickhouse.rows import Block


class ClickHouseWriter:
    """Implements ``StoreWriter``. May be used by several threads; each gets its own connection."""

    # Every stored topic has one table whose highest offset shows the progress.
    topics: Collection[str] = tuple(PROGRESS_TABLES)
    temporary_errors: tuple[type[Exception], ...] = (ClickHouseError, StoreError)
    unreachable: tuple[type[Exception], ...] = (StoreUnreachable,)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._inserter = Inserter(settings)
        self.description = f"ClickHouse at {settings.clickhouse_url}"

    def migrate(self) -> None:
        """Bring the schema up to date."""
        migrate(self._settings)

    def handler(self, name: str) -> TopicHandler:
        """A new handler for a partition of the topic."""
        return handler_of(name, self._inserter.client)

    def last_offset(self, name: str, source: Source, at_least: int) -> int | None:
        """The highest stored offset of a partition; None where there is none from ``at_least``
        on.
        """
        table = PROGRESS_TABLES[name]
        return highest_offset(self._inserter.client(), table, source, at_least=at_least)

    def count_rows(self, name: str, source: Source, first: int, last: int) -> int:
        """How many rows of the offsets first..last are in the topic's progress table."""
        return rows_between(self._inserter.client(), PROGRESS_TABLES[name], source, first, last)

    def insert(self, block: Block, token: str) -> float:
        """Insert a block under a token and return the seconds it took. Raises ``RowsRefused``."""
        return self._inserter.insert(block, token)

    def reconnect(self) -> None:
        """Drop the connection of this thread."""
        self._inserter.drop_client()

    def explain(self, error: Exception) -> str:
        """Return one line of text about the error, for the log."""
        return worded(error)

    def idle(self) -> None:
        """Give free memory back to the system."""
        memory.give_back()
