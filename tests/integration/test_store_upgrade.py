"""A data folder that an older version wrote is brought up to date with all that is in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from clickhouse_connect.driver.client import Client

from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect, migrate, status
from stepstream.sinks.clickhouse.client import connect_server
from stepstream.sinks.clickhouse.insert import NEWER_SETTINGS, SETTINGS
from stepstream.sinks.clickhouse.public_views import View
from stepstream.sinks.clickhouse.reconcile import reconcile
from stepstream.sinks.clickhouse.schema import Migration, migrations
from tests.support.paths import GOLDEN

# The schema as version 0.1.0 released it.
OLD = GOLDEN / "store-v4"

ROWS = (
    "INSERT INTO steps_raw (trace_id, step_id, kind, name, project, start_time, end_time, "
    "append_time, cost_nanos, output, "
    "kafka_topic_id, kafka_offset) SELECT hex(intDiv(number, 10)), hex(number), 'plan', 'n', "
    "'shop', now() - INTERVAL 3 DAY, "
    "now() - INTERVAL 3 DAY, now() - INTERVAL 3 DAY, 7, repeat('text ', 20), 't', number FROM "
    "numbers(5000)",
    "INSERT INTO runs_raw (run_day, trace_id, revision, status, cost_usd) "
    "SELECT today(), hex(number), 3, 'ok', 0.00000007 "
    "FROM numbers(500)",
    "INSERT INTO alert_events_raw (alert_id, seq, state, alert, updated_at) "
    "SELECT 'a1', number, 'firing', 'too-expensive', "
    "now() FROM numbers(1, 3)",
)


def old_migrations() -> list[Migration]:
    """As they were, oldest first."""
    found = []
    for path in sorted((OLD / "migrations").glob("*.sql")):
        number, _, name = path.stem.partition("_")
        found.append(Migration(int(number), name, path.read_text()))
    return found


def write_old(settings: Settings) -> None:
    """A store as the older version made and filled it."""
    server = connect_server(settings)
    database = settings.clickhouse_database
    server.command(f"CREATE DATABASE {database}")
    server.command(
        f"CREATE TABLE {database}.schema_migrations (version UInt32, name String, checksum String, "
        "applied_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY version"
    )
    for migration in old_migrations():
        for statement in migration.statements(settings):
            server.command(statement)
        values = f"({migration.version}, '{migration.name}', '{migration.checksum}')"
        server.command(
            f"INSERT INTO {database}.schema_migrations (version, name, checksum) VALUES {values}"
        )
    for path in (OLD / "views").glob("*.sql"):
        first, _, sql = path.read_text().partition("\n")
        server.command(View(path.stem, first.removeprefix("-- "), sql.strip()).statement(settings))
    server.close()
    with connect(settings) as client:
        for statement in ROWS:
            client.command(statement)


def insert_batch(settings: Settings) -> None:
    """A hundred steps of three days ago, always the same and under the same token."""
    when = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=3)
    names = ("trace_id", "step_id", "kind", "project", "start_time", "end_time", "append_time")
    rows = [[f"b{n}", f"{n}", "plan", "shop", when, when, when] for n in range(100)]
    token = {"insert_deduplication_token": "batch"}
    with connect(settings) as client:
        client.insert("steps_raw", rows, names, settings=SETTINGS | NEWER_SETTINGS | token)


def contents(client: Client) -> list[object]:
    """What a user sees of it."""
    questions = (
        "SELECT count(), uniqExact(trace_id, step_id), sum(cost_usd), sum(length(output)) FROM "
        "steps",
        "SELECT sum(steps), sum(cost_usd) FROM metrics_1m",
        "SELECT sum(steps), sum(cost_usd) FROM metrics_1h",
        "SELECT count(), sum(cost_usd), sum(revision) FROM runs",
        "SELECT count(), max(seq) FROM alert_events",
        "SELECT count(), max(seq) FROM alerts",
        "SELECT count() FROM trace(id = '1')",
    )
    return [client.query(question).result_rows[0] for question in questions]


def test_a_folder_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """Written by the older schema, opened by this one: nothing is lost, everything new is there,
    and rows may come.
    """
    with EmbeddedClickHouse(tmp_path) as server:
        settings = Settings(clickhouse_url=server.writer_url)
        write_old(settings)
        insert_batch(settings)
        with connect(settings) as client:
            before = contents(client)
    with EmbeddedClickHouse(tmp_path) as server:
        settings = Settings(clickhouse_url=server.writer_url)
        older = status(settings)
        assert (older.version, older.current) == (len(old_migrations()), False)
        assert migrate(settings).applied == older.pending
        assert status(settings).current
        # A sink that was killed before the upgrade repeats its last batch after it.
        insert_batch(settings)
        # Rollups of the old version agree with its rows, and the migrations have counted none
        # again.
        assert reconcile(settings).differences == []
        with connect(settings) as client:
            assert contents(client) == before
            for statement in ROWS:
                client.command(
                    statement.replace("hex(number), 'plan'", "hex(number + 5000), 'plan'").replace(
                        "'a1'", "'a2'"
                    )
                )
            after = contents(client)
            assert client.command("SELECT count() FROM deliveries") == 0
            assert client.query(
                "SELECT change, reopened FROM alerts WHERE alert_id = 'a2'"
            ).result_rows == [("", 0)]
        assert [row[0] for row in after[:3]] == [10_100] * 3  # type: ignore[index]


def test_a_batch_counts_once_when_the_server_restarts_after_the_migrations(tmp_path: Path) -> None:
    """What the views insert keeps its tokens, which depend on how the views were made."""
    with EmbeddedClickHouse(tmp_path) as server:
        settings = Settings(clickhouse_url=server.writer_url)
        migrate(settings)
        insert_batch(settings)
        server.kill()
        server.restart()
        insert_batch(settings)
        with connect(settings) as client:
            counted = [
                client.command(f"SELECT {what}")
                for what in (
                    "count() FROM steps",
                    "sum(steps) FROM metrics_1m",
                    "sum(steps) FROM metrics_1h",
                )
            ]
            assert counted == [100, 100, 100]


def test_released_migrations_are_never_edited() -> None:
    """What some store has applied cannot be changed any more: a new migration changes it."""
    now = {migration.version: migration for migration in migrations()}
    for migration in old_migrations():
        assert now[migration.version] == migration
