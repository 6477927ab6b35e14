"""What was dropped from a store is listed by status and made again by migrate, without changing the
rest.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect, migrate, require_current, status
from stepstream.sinks.clickhouse.errors import StoreMissing
from stepstream.sinks.clickhouse.migrated import everything
from stepstream.sinks.clickhouse.public_views import VIEW_NAMES
from tests.support.sink import dump

OBJECTS = sorted(everything(Settings()))
COLUMNS = (
    ("steps_raw", "output"),
    ("steps_raw", "documents"),
    ("runs_raw", "findings"),
    ("alerts_raw", "user_id"),
    ("deliveries_raw", "reason"),
    ("rollup_1h", "max_duration_us"),
)
ALERT = (
    "INSERT INTO alert_events_raw (alert_id, seq, user_id, opened_at, updated_at) "
    "VALUES ('{alert_id}', 1, 'ada', now64(6), now64(6))"
)
STEP = (
    "INSERT INTO steps_raw (trace_id, step_id, kind, start_time, end_time, append_time) "
    "VALUES ('{trace_id}', 'a', 'tool', now64(6), now64(6), now64(3))"
)


@pytest.fixture
def settings(clickhouse_url: str, clickhouse_database: str) -> Settings:
    """A store that is up to date."""
    settings = Settings(clickhouse_url=clickhouse_url, clickhouse_database=clickhouse_database)
    migrate(settings)
    assert status(settings).current
    return settings


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A client of it."""
    client = connect(settings)
    yield client
    client.close()


def test_every_table_and_materialized_view_is_made_again_as_it_was(
    settings: Settings, client: Client
) -> None:
    """One after the other is dropped: listed by name, made again, and the schema is what it was."""
    whole = dump(settings)
    for name in OBJECTS:
        client.command(f"DROP TABLE {name}")
        before = status(settings)
        assert not before.current
        assert [str(lack).split()[-3] for lack in before.lacks] == [name]
        with pytest.raises(StoreMissing, match=rf"{name} is missing.*stepstream store migrate"):
            require_current(settings)
        report = migrate(settings)
        assert [text.split()[-1] for text in report.repaired] == [name]
        assert status(settings).current
        # The same text, not only the same columns: codecs, keys and TTL are part of it.
        assert dump(settings) == whole, name
    assert not migrate(settings).changed


def test_all_that_is_dropped_at_once_comes_back_at_once(settings: Settings, client: Client) -> None:
    """Tables, materialized views and views together."""
    whole = dump(settings)
    for name in (*OBJECTS, *VIEW_NAMES):
        client.command(f"DROP TABLE IF EXISTS {name}")
    assert migrate(settings).changed
    assert status(settings).current
    assert dump(settings) == whole


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_column_that_was_dropped_is_added_again_in_its_place(
    settings: Settings, client: Client, table: str, column: str
) -> None:
    """With its type, default, compression and comment, whichever migration made it."""
    whole = dump(settings)
    if table == "alerts_raw":
        client.command("DROP TABLE alert_events_to_alerts")
    client.command(f"ALTER TABLE {table} DROP COLUMN {column}")
    assert f"column {column} of {table} is missing" in map(str, status(settings).lacks)
    migrate(settings)
    assert status(settings).current
    assert dump(settings) == whole


def test_an_index_that_was_dropped_is_added_again(settings: Settings, client: Client) -> None:
    """And filled for the rows that are there."""
    whole = dump(settings)["runs_raw"]
    client.command("ALTER TABLE runs_raw DROP INDEX ix_trace")
    assert list(map(str, status(settings).lacks)) == ["index ix_trace of runs_raw is missing"]
    migrate(settings)
    assert status(settings).current
    assert dump(settings)["runs_raw"] == whole


def test_rows_flow_again_after_a_repair(settings: Settings, client: Client) -> None:
    """Alerts reach the table of alerts whichever part was gone, with those that came meanwhile;
    steps reach the rollups.
    """
    for number, name in enumerate(("alerts_raw", "alert_events_to_alerts", "alert_events_raw")):
        client.command(f"DROP TABLE {name}")
        # Rows that arrive while the view is gone are in its source only; a repair has to copy them.
        if name == "alert_events_to_alerts":
            client.command(ALERT.format(alert_id="meanwhile"))
        migrate(settings)
        client.command(ALERT.format(alert_id=f"after-{number}"))
    found = client.query("SELECT alert_id, user_id FROM alerts ORDER BY alert_id").result_rows
    assert found == [
        ("after-0", "ada"),
        ("after-1", "ada"),
        ("after-2", "ada"),
        ("meanwhile", "ada"),
    ]
    for number, name in enumerate(("rollup_1m", "steps_to_rollup_1h", "steps_raw")):
        client.command(f"DROP TABLE {name}")
        migrate(settings)
        client.command(STEP.format(trace_id=str(number)))
    assert client.command("SELECT sum(steps) FROM metrics_1m") == 3
    assert client.command("SELECT sum(steps) FROM metrics_1h") == 3


def test_what_a_repair_cannot_bring_back_is_reported(settings: Settings, client: Client) -> None:
    """Dropped rows are gone, rollups can be built from steps."""
    client.command("DROP TABLE steps_raw")
    client.command("DROP TABLE rollup_1m")
    notes = migrate(settings).notes
    assert any("steps_raw" in note and "stepstream store restore" in note for note in notes)
    assert any("rollup_1m" in note and "stepstream store reconcile" in note for note in notes)


def test_what_is_something_else_is_reported_and_left_alone(
    settings: Settings, client: Client
) -> None:
    """A column of another type, and something else under a table's name: no program may change
    these by itself.
    """
    client.command("ALTER TABLE runs_raw MODIFY COLUMN error_message LowCardinality(String)")
    client.command("RENAME TABLE deliveries_raw TO kept")
    client.command("CREATE VIEW deliveries_raw AS SELECT 1 AS one")
    found = status(settings)
    assert not found.current
    assert sorted(found.wrong) == [
        "column error_message of runs_raw is LowCardinality(String) and should be String: "
        "change it with ALTER TABLE",
        "deliveries_raw is a View and should be a table: rename or drop it",
    ]
    assert sorted(migrate(settings).wrong) == sorted(found.wrong)
    client.command("DROP TABLE deliveries_raw")
    client.command("RENAME TABLE kept TO deliveries_raw")
    client.command("ALTER TABLE runs_raw MODIFY COLUMN error_message String")
    assert status(settings).current
