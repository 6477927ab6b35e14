"""A backup comes back, with everything that came since it was taken, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from stepstream.cli.app import run
from stepstream.local.embedded.access import prepare
from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import StoreError, connect, migrate
from stepstream.sinks.clickhouse.backup import backup, restore
from stepstream.sinks.clickhouse.client import connect_server
from tests.support.processes import wait_until
from tests.support.sink import (
    SinkThread,
    Steps,
    assert_stored,
    create_topics,
    running,
    send,
    small_batches,
    wait_stored,
)


@pytest.fixture
def settings(
    kafka_bootstrap: str, clickhouse_url: str, topic_prefix: str, clickhouse_database: str
) -> Settings:
    """Small batches and small steps back."""
    return small_batches(
        kafka_bootstrap, clickhouse_url, topic_prefix, clickhouse_database, sink_batch_rows=100
    )


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A client of the server."""
    client = connect_server(settings)
    yield client
    client.close()


def test_a_restored_store_gets_what_came_since_the_backup(
    settings: Settings, client: Client
) -> None:
    """Backed up while a sink works, restored after the offsets went on: every step is there once,
    in the rollups too.
    """
    create_topics(settings)
    steps = Steps()
    send(settings, [record for _ in range(30) for record in steps.run(20)])
    with SinkThread(settings):
        wait_stored(settings, steps.sent)
        send(settings, [record for _ in range(30) for record in steps.run(20)])
        assert backup(settings, settings.topic_prefix).files > 0
        wait_stored(settings, steps.sent)
    later = steps.run(20)
    send(settings, later)
    with SinkThread(settings):
        wait_stored(settings, steps.sent)
    # The rollups of the backup may know more than its rows: as if a batch had come between one
    # table and the next.
    with pytest.raises(StoreError, match="--replace"):
        restore(settings, settings.topic_prefix)
    report = restore(settings, settings.topic_prefix, replace=True)
    assert 600 <= report.steps < steps.sent.steps
    assert report.rewound["steps", 0] > 0
    with SinkThread(settings):
        wait_stored(settings, steps.sent)
    assert_stored(settings, steps.sent)


def test_rollups_of_another_moment_are_put_right(settings: Settings, client: Client) -> None:
    """What the rollups of a backup know more, or less, than its rows is repaired while nothing
    writes.
    """
    create_topics(settings)
    steps = Steps()
    send(settings, steps.run(50))
    with SinkThread(settings):
        wait_stored(settings, steps.sent)
    with connect(settings) as own:
        own.command(
            "INSERT INTO rollup_1m (time, project, kind, steps) SELECT now() - 60, 'shop', "
            "'plan', 3"
        )
    backup(settings, settings.topic_prefix)
    assert restore(settings, settings.topic_prefix, replace=True).repaired > 0
    assert_stored(settings, steps.sent)


def test_nothing_is_dropped_for_a_backup_that_is_not_there(
    settings: Settings, client: Client
) -> None:
    """Whether there is such a backup is known before the database is touched; a working sink is not
    disturbed.
    """
    migrate(settings)
    client.command(
        f"INSERT INTO {settings.clickhouse_database}.steps_raw (trace_id, start_time, "
        "append_time) VALUES ('a', now(), now())"
    )
    # `replace` drops the database: a misspelt name must not cost it.
    with pytest.raises(StoreError, match="has no backup 'never'"):
        restore(settings, "never", replace=True)
    assert client.command(f"SELECT count() FROM {settings.clickhouse_database}.steps") == 1
    create_topics(settings)
    backup(settings, settings.topic_prefix)
    with pytest.raises(StoreError, match="--base"):
        backup(settings, settings.topic_prefix)
    steps = Steps()
    send(settings, steps.run(1))
    with running(settings):
        wait_until(
            lambda: (
                client.command(f"SELECT count() FROM {settings.clickhouse_database}.steps") == 2
            ),
            60,
            "stored",
        )
        with pytest.raises(StoreError, match="stop them first"):
            restore(settings, settings.topic_prefix, replace=True)


def test_the_commands_write_and_restore_into_another_database(
    settings: Settings,
    client: Client,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``store backup`` and ``store restore``: incremental, and under another name, whose views read
    its own tables.
    """
    migrate(settings)
    database, other = settings.clickhouse_database, f"{settings.clickhouse_database}_other"
    place = ["--clickhouse-url", settings.clickhouse_url]
    monkeypatch.setenv(
        "STEPSTREAM_CLICKHOUSE_PASSWORD", settings.clickhouse_password.get_secret_value()
    )
    add = (
        f"INSERT INTO {database}.steps_raw (trace_id, step_id, project, start_time, append_time) "
        "SELECT hex(number), '{}', 'p', now(), now() FROM numbers(100)"
    )
    client.command(add.format("a"))
    assert run(["store", "backup", f"{database}-1", *place, "--clickhouse-database", database]) == 0
    client.command(add.format("b"))
    more = ["--base", f"{database}-1", "--clickhouse-database", database]
    assert run(["store", "backup", f"{database}-2", *place, *more]) == 0
    # What is found afterwards can only come from the two backups.
    client.command(f"TRUNCATE TABLE {database}.steps_raw")
    assert (
        run(
            [
                "store",
                "restore",
                f"{database}-2",
                *place,
                "--clickhouse-database",
                other,
                "--from-database",
                database,
            ]
        )
        == 0
    )
    assert "200 steps" in capsys.readouterr().out
    assert client.command(f"SELECT sum(steps) FROM {other}.metrics_1h") == 200
    assert run(["store", "status", *place, "--clickhouse-database", other]) == 0
    assert run(["store", "backup", "/etc/passwd", *place, "--clickhouse-database", database]) != 0
    client.command(f"DROP DATABASE {other}")


@pytest.mark.long
def test_on_one_machine_the_engines_run_for_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``up`` stopped, ``store restore`` starts Kafka and ClickHouse of the data folder, and
    stops them again.
    """
    for name in ("STATE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"STEPSTREAM_{name}", str(tmp_path / name.lower()))
    assert run(["store", "restore", "monday"]) != 0
    access = prepare(tmp_path / "data_dir")
    with EmbeddedClickHouse(tmp_path / "data_dir" / "clickhouse", access=access) as server:
        settings = Settings(clickhouse_url=server.writer_url)
        migrate(settings)
        with connect(settings) as own:
            own.command(
                "INSERT INTO steps_raw (trace_id, start_time, append_time) VALUES ('a', now(), "
                "now())"
            )
            backup(settings, "monday")
            own.command("TRUNCATE TABLE steps_raw")
    assert run(["store", "restore", "monday", "--replace"]) == 0
    assert "1 steps" in capsys.readouterr().out
    with (
        EmbeddedClickHouse(tmp_path / "data_dir" / "clickhouse", access=access) as server,
        connect(Settings(clickhouse_url=server.writer_url)) as own,
    ):
        assert own.command("SELECT count() FROM steps") == 1
