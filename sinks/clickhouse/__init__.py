"""ClickHouse: the schema and its migrations, the sink that fills it from Kafka, and read access."""

from stepstream.sinks.clickhouse.client import connect
from stepstream.sinks.clickhouse.errors import StoreError
from stepstream.sinks.clickhouse.migration import (
    MigrationReport,
    SchemaStatus,
    migrate,
    require_current,
    status,
)

__all__ = [
    "MigrationReport",
    "SchemaStatus",
    "StoreError",
    "connect",
    "migrate",
    "require_current",
    "status",
]
