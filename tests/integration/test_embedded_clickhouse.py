"""The embedded store: ClickHouse's protocol, exact after a crash, and read-only access that is."""

from __future__ import annotations

import clickhouse_connect


def test_the_shared_store_answers(clickhouse_url: str, clickhouse_database: str) -> None:
    """The fixture hands out a store that answers, with an empty database of the test's own."""
    client = clickhouse_connect.get_client(dsn=clickhouse_url, database=clickhouse_database)
    assert client.query("SELECT count() FROM system.tables WHERE database = currentDatabase()").result_rows == [(0,)]
    client.close()
