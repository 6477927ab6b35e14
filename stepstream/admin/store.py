"""The store's tables, for commands and programs that start the pipeline."""

from __future__ import annotations

from stepstream.schemas.settings import Settings


def prepare_store(settings: Settings) -> None:
    """Create or upgrade the tables of the store that the settings name."""
    # Imported here: the client of ClickHouse comes with the extra `sink`.
    from stepstream.sinks.clickhouse import migrate

    migrate(settings)
