"""What the sink needs of the engine: a refused insert is an error, a token counts once, in views
too, also at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from stepstream.sinks.clickhouse.insert import SETTINGS

WINDOW = "SETTINGS non_replicated_deduplication_window = 100"


@pytest.fixture
def client(clickhouse_url: str, clickhouse_database: str) -> Iterator[Client]:
    """A client of an empty database."""
    client = clickhouse_connect.get_client(
        dsn=clickhouse_url, database=clickhouse_database, autogenerate_session_id=False
    )
    client.command(
        "CREATE TABLE t (a Int64, CONSTRAINT small CHECK a < 1000) ENGINE = MergeTree ORDER BY a "
        f"{WINDOW}"
    )
    client.command(
        f"CREATE TABLE total (a Int64) ENGINE = SummingMergeTree ORDER BY tuple() {WINDOW}"
    )
    client.command("CREATE MATERIALIZED VIEW v TO total AS SELECT throwIf(a = 13) + a AS a FROM t")
    yield client
    client.close()


@pytest.mark.parametrize("bad", [1000, 13])
def test_an_insert_that_cannot_be_written_is_an_error(client: Client, bad: int) -> None:
    """A broken constraint, or a view that fails, is an error of the insert: nothing is lost
    silently.
    """
    with pytest.raises(DatabaseError):
        client.insert("t", [[1], [bad]], column_names=["a"], settings=SETTINGS)
    # The view has its own table: a row there without one in `t` would count twice on the
    # repetition.
    assert client.command("SELECT count() FROM total") == 0


def test_one_token_sent_by_two_at_once_counts_once(
    client: Client, clickhouse_url: str, clickhouse_database: str
) -> None:
    """A frozen sink and its successor may send the same batch at the same moment."""

    def insert(token: int) -> None:
        with clickhouse_connect.get_client(dsn=clickhouse_url, database=clickhouse_database) as own:
            settings = SETTINGS | {"insert_deduplication_token": f"batch {token}"}
            own.insert(
                "t", [[14 + number] for number in range(500)], column_names=["a"], settings=settings
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(insert, [token for token in range(5) for _ in range(4)]))
    assert client.command("SELECT count() FROM t") == 5 * 500
    assert client.command("SELECT sum(a) FROM total") == 5 * sum(range(14, 514))
