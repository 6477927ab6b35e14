"""Rollups that differ from the rows are found and built anew, a day at a time; days that must be
left alone are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from clickhouse_connect.driver.client import Client

from stepstream.cli.app import run
from stepstream.schemas.ids import new_trace_id
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_US
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse import connect, migrate
from stepstream.sinks.clickhouse.insert import Inserter
from stepstream.sinks.clickhouse.reconcile import ROLLUPS, reconcile
from stepstream.sinks.clickhouse.step_rows import build_steps
from tests.support.sink import encoded

TODAY = datetime.now(UTC)


@pytest.fixture
def settings(clickhouse_url: str, clickhouse_database: str) -> Settings:
    """A store with its schema."""
    settings = Settings(clickhouse_url=clickhouse_url, clickhouse_database=clickhouse_database)
    migrate(settings)
    return settings


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A client of it."""
    client = connect(settings)
    yield client
    client.close()


def insert(
    settings: Settings,
    days_ago: int,
    steps: int = 20,
    *,
    appended_days_ago: float | None = None,
    project: str = "default",
    trace_id: str = "",
    amends: bool = False,
) -> date:
    """Steps of a day, as the sink would insert them, which arrived then or later."""
    # The beginning of the day: two batches of the same steps have the same times.
    start_us = (time.time_ns() // 1_000 // DAY_US - days_ago) * DAY_US
    appended = days_ago if appended_days_ago is None else appended_days_ago
    append_ms = int(time.time() * 1_000 - appended * 86_400_000)
    trace_id = trace_id or new_trace_id()
    records = [
        Record(
            number + amends * steps,
            append_ms,
            trace_id.encode(),
            encoded(
                {
                    "trace_id": trace_id,
                    "step_id": f"{number + 1:016x}",
                    "kind": "plan",
                    "project": project,
                    "name": "n",
                    "cost_usd": "0.000000001",
                    "start_time": start_us,
                    "end_time": start_us + number,
                    "status": "error" if number % 3 == 0 else "ok",
                    "amends": amends,
                }
            ),
            None,
        )
        for number in range(steps)
    ]
    source = replace(Source("topic", 0))
    (block,) = build_steps(records, source, set()).blocks
    Inserter(settings).insert(block, f"{trace_id} {amends}")
    return datetime.fromtimestamp(start_us / 1_000_000, UTC).date()


def metrics(client: Client, view: str, day: date) -> tuple[int, Decimal]:
    """Steps and cost of a day."""
    steps, cost = client.query(
        f"SELECT sum(steps), sum(cost_usd) FROM {view} WHERE toDate(time) = {{day:Date}}",
        parameters={"day": day},
    ).result_rows[0]
    return steps, cost


def test_a_planted_difference_is_found_and_repaired(settings: Settings, client: Client) -> None:
    """A step counted twice and one counted never: both days are built anew from their rows, the
    others stay.
    """
    # Days before yesterday: newer ones are not compared, because steps may still come.
    days = [insert(settings, days_ago) for days_ago in (3, 4, 5)]
    assert reconcile(settings).differences == []
    client.command(
        "INSERT INTO rollup_1m (time, project, kind, steps, cost_usd) "
        f"VALUES ('{days[0]} 00:00:00', 'default', 'plan', 1, 5), ('{days[1]} 00:00:00', "
        "'default', 'plan', 0, 1)"
    )
    # As after a disk that lost a part: the rollup of minutes is whole, that of hours is not.
    client.command(f"ALTER TABLE rollup_1h DROP PARTITION '{days[1]}'")
    found = reconcile(settings, repair=False)
    places = [
        (difference.day, difference.rollup, difference.repaired) for difference in found.differences
    ]
    assert places == [
        (days[1], "rollup_1m", False),
        (days[0], "rollup_1m", False),
        (days[1], "rollup_1h", False),
    ]
    assert not found.exact
    repaired = reconcile(settings)
    assert repaired.exact
    assert len(repaired.differences) == 3
    assert reconcile(settings).differences == []
    for day in days:
        for view in ("metrics_1m", "metrics_1h"):
            assert metrics(client, view, day) == (20, Decimal("0.00000002"))
    assert client.command("SELECT sum(error_steps) FROM metrics_1h") == 21
    assert (
        client.command(
            "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name LIKE "
            "'rebuilt%'"
        )
        == 0
    )


def test_steps_that_were_sent_again_with_their_contents_count_once(
    settings: Settings, client: Client
) -> None:
    """In the rollups as in the rows: their numbers, cost and latencies."""

    def rollups() -> list[object]:
        sums = "sum(steps), sum(error_steps), sum(cost_usd), sum(duration_us), sumMap(latency)"
        longest = "max(max_duration_us), max(p50_duration_us), max(p99_duration_us)"
        return [
            client.query(f"SELECT {what} FROM {name}").result_rows
            for what, names in ((sums, ROLLUPS), (longest, ("metrics_1m", "metrics_1h")))
            for name in names
        ]

    trace_id = new_trace_id()
    day = insert(settings, 3, trace_id=trace_id)
    before = rollups()
    insert(settings, 3, trace_id=trace_id, amends=True)
    assert rollups() == before
    assert client.command("SELECT count() FROM steps") == 20
    # As after a merge: the sums themselves are what is stored.
    for name in ROLLUPS:
        client.command(f"OPTIMIZE TABLE {name} FINAL")
    assert rollups() == before
    assert client.query("SELECT max(steps) FROM rollup_1h").result_rows[0][0] <= 20
    for view in ("metrics_1m", "metrics_1h"):
        assert metrics(client, view, day) == (20, Decimal("0.00000002"))
    assert reconcile(settings).differences == []
    client.command(f"ALTER TABLE rollup_1h DROP PARTITION '{day}'")
    assert reconcile(settings).exact
    assert rollups() == before


def test_rows_that_came_twice_count_once_after_the_repair(
    settings: Settings, client: Client
) -> None:
    """A repeat that the sink could not know is one row in the view, and one in the rollups once
    they are reconciled.
    """
    day = insert(settings, 3)
    client.command(
        "INSERT INTO steps_raw (* EXCEPT cost_nanos) SELECT * FROM steps_raw SETTINGS "
        "insert_deduplicate = 0"
    )
    assert metrics(client, "metrics_1m", day)[0] == 40
    reconcile(settings)
    assert metrics(client, "metrics_1m", day) == (20, Decimal("0.00000002"))
    assert metrics(client, "metrics_1h", day) == (20, Decimal("0.00000002"))


def test_days_that_are_open_busy_or_expiring_are_left_alone(
    settings: Settings, client: Client
) -> None:
    """Today and yesterday, days to which steps are being added, and days whose rows have begun to
    expire.
    """
    expiring = insert(settings, 29, appended_days_ago=28)
    busy = insert(settings, 6, appended_days_ago=0.0)
    today = insert(settings, 0)
    for day in (expiring, busy, today):
        client.command(f"ALTER TABLE rollup_1m DROP PARTITION '{day}'")
    report = reconcile(settings)
    assert report.differences == []
    assert report.busy == [busy]
    assert report.first > expiring
    later = reconcile(settings, now=TODAY + timedelta(hours=1))
    assert [difference.day for difference in later.differences] == [busy]


def test_a_project_whose_rows_expire_keeps_its_rollup(settings: Settings, client: Client) -> None:
    """On a day that is repaired for one project, another one, whose rows have begun to expire, is
    left as it is.
    """
    own = settings.model_copy(update={"retention_by_project": "dev.steps=4"})
    migrate(own)
    day = insert(own, 3, project="shop")
    assert insert(own, 3, 7, project="dev") == day
    client.command("ALTER TABLE steps_raw DELETE WHERE project = 'dev' SETTINGS mutations_sync = 1")
    client.command(
        f"INSERT INTO rollup_1m (time, project, kind, steps) VALUES ('{day} 00:00:00', 'shop', "
        "'plan', 1)"
    )
    found = reconcile(own).differences
    assert [(difference.project, difference.repaired) for difference in found] == [("shop", True)]
    by_project = client.query(
        "SELECT project, sum(steps) FROM metrics_1m GROUP BY project ORDER BY project"
    ).result_rows
    assert by_project == [("dev", 7), ("shop", 20)]


def test_the_command_compares_and_repairs(
    settings: Settings,
    client: Client,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``stepstream store reconcile`` prints what differs with exit code 1 when it only compares,
    and 0 once it is repaired.
    """
    monkeypatch.setenv("STEPSTREAM_CLICKHOUSE_URL", settings.clickhouse_url)
    monkeypatch.setenv(
        "STEPSTREAM_CLICKHOUSE_PASSWORD", settings.clickhouse_password.get_secret_value()
    )
    monkeypatch.setenv("STEPSTREAM_CLICKHOUSE_DATABASE", settings.clickhouse_database)
    day = insert(settings, 3)
    client.command(
        f"INSERT INTO rollup_1h (time, project, kind, steps) VALUES ('{day} 00:00:00', 'default', "
        "'plan', 1)"
    )
    assert run(["store", "reconcile", "--dry-run"]) == 1
    printed = capsys.readouterr().out
    assert f"{day}  rollup_1h  default  20     21               False" in printed
    assert "1 difference\n" in printed
    assert run(["store", "reconcile", "--format", "json"]) == 0
    assert '"repaired": true' in capsys.readouterr().out
    assert run(["store", "reconcile"]) == 0
    assert "0 differences" in capsys.readouterr().out
