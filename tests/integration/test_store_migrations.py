"""The schema: made once by however many processes, continued after a kill at any statement,
documented, and kept.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client

from stepstream.common.settings import to_environment
from stepstream.schemas.alert import Alert
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import StepEvent
from stepstream.schemas.trajectory import Trajectory
from stepstream.schemas.usage import TOTALLED
from stepstream.sinks.clickhouse import StoreError, connect, migrate, require_current, status
from stepstream.sinks.clickhouse.client import connect_server
from stepstream.sinks.clickhouse.dictionary import dictionary
from stepstream.sinks.clickhouse.errors import (
    StoreDenied,
    StoreMissing,
    StoreNewer,
    StoreUnreachable,
)
from stepstream.sinks.clickhouse.public_views import VIEW_NAMES
from stepstream.sinks.clickhouse.schema import migrations
from tests.support.paths import DOCS
from tests.support.processes import wait_until
from tests.support.sink import dump

MIGRATE = """
import json, os, sys
from stepstream.common.settings import load
from stepstream.sinks.clickhouse import migrate
from tests.support.paths import DOCS
left = int(sys.argv[1])
def count(_statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
print(json.dumps(migrate(load(), before_statement=count).applied))
"""

# Each starts several processes and databases, which on a busy machine takes minutes.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def settings(clickhouse_url: str, clickhouse_database: str) -> Settings:
    """A database that has no tables yet."""
    return Settings(clickhouse_url=clickhouse_url, clickhouse_database=clickhouse_database)


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """A client of it."""
    client = connect(settings)
    yield client
    client.close()


def in_process(settings: Settings, die_before: int = 0) -> subprocess.Popen[str]:
    """``migrate`` in a process that kills itself before the given statement."""
    environment = {**os.environ, **to_environment(settings)}
    return subprocess.Popen(
        [sys.executable, "-c", MIGRATE, str(die_before)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_store_is_made_once_and_then_left_alone(settings: Settings) -> None:
    """The first call makes everything, the second finds nothing to do, and status lists what is
    missing before.
    """
    before = status(settings)
    assert (before.current, before.version, len(before.pending)) == (False, 0, len(migrations()))
    with pytest.raises(StoreMissing, match="stepstream store migrate"):
        require_current(settings)
    assert migrate(settings).applied == before.pending
    assert status(settings).current
    require_current(settings)
    again: list[str] = []
    assert not migrate(settings, before_statement=again.append).changed
    assert again == []


def test_a_database_that_is_not_there_is_made(settings: Settings) -> None:
    """``migrate`` needs nothing but a server."""
    other = settings.model_copy(
        update={"clickhouse_database": f"{settings.clickhouse_database}_new"}
    )
    assert not status(other).exists
    with pytest.raises(StoreMissing, match="stepstream store migrate"):
        connect(other)
    migrate(other)
    assert status(other).current
    server = connect_server(other)
    server.command(f"DROP DATABASE {other.clickhouse_database}")
    server.close()


def test_processes_that_migrate_at_once_do_not_disturb_each_other(
    settings: Settings, client: Client
) -> None:
    """Three processes at the same moment all succeed, and what they made is what one makes."""
    processes = [in_process(settings) for _ in range(3)]
    assert [process.wait(240) for process in processes] == [0, 0, 0]
    for process in processes:
        process.communicate()
    assert status(settings).current
    assert client.command("SELECT count() FROM steps") == 0


def test_a_migration_killed_before_any_statement_is_continued(settings: Settings) -> None:
    """Killed before every statement in turn, each start goes on, and what comes out is what one run
    makes.
    """
    number, version, deaths = 1, 0, 0
    while dies(settings, number):
        deaths += 1
        now = status(settings).version
        # Within a migration one statement further each time; after the last one every statement
        # done is done.
        number = 2 if now == len(migrations()) else 1 if now != version else number + 1
        version = now
    assert status(settings).current
    reference = settings.model_copy(
        update={"clickhouse_database": f"{settings.clickhouse_database}_whole"}
    )
    statements: list[str] = []
    migrate(reference, before_statement=statements.append)
    assert deaths >= len(statements)
    assert dump(settings) == dump(reference)
    drop(reference)


class Killed(BaseException):
    """Ends a migration where a kill would."""


def dies(settings: Settings, number: int) -> bool:
    """Migrate as far as the statement before ``number``; False when there was no such statement any
    more.
    """
    left = number

    def count(_statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed

    try:
        migrate(settings, before_statement=count)
    except Killed:
        return True
    return False


def test_a_process_killed_while_it_migrates_leaves_nothing_that_the_next_cannot_continue(
    settings: Settings,
) -> None:
    """The same with a real SIGKILL, while another process migrates too."""
    first, second = in_process(settings, die_before=7), in_process(settings, die_before=12)
    assert (first.wait(240), second.wait(240)) == (-9, -9)
    for process in (first, second):
        process.communicate()
    migrate(settings)
    assert status(settings).current


def drop(settings: Settings) -> None:
    """Remove a database made on the way."""
    server = connect_server(settings)
    server.command(f"DROP DATABASE {settings.clickhouse_database}")
    server.close()


def test_retention_is_a_setting_that_migrate_applies(settings: Settings, client: Client) -> None:
    """A changed number of days changes the tables at the next migrate, and status lists the
    difference before.
    """
    migrate(settings)
    shorter = settings.model_copy(update={"steps_retention_days": 7, "metrics_retention_days": 90})
    assert sorted(map(str, status(shorter).differences)) == [
        "retention of repeatable_usage: 365 days, wanted 90 days",
        "retention of repeated_steps: 365 days, wanted 90 days",
        "retention of rollup_1h: 365 days, wanted 90 days",
        "retention of rollup_1m: 365 days, wanted 90 days",
        "retention of steps_raw: 30 days, wanted 7 days",
    ]
    assert len(migrate(shorter).changes) == 5
    assert status(shorter).current
    changed = str(client.command("SHOW CREATE TABLE steps_raw"))
    assert "toIntervalDay(7)" in changed
    assert "toIntervalDay(1) RECOMPRESS CODEC(ZSTD(5, 23))" in changed


def test_texts_are_compressed_strongly_when_they_are_a_day_old(
    settings: Settings, client: Client
) -> None:
    """Also after the retention was changed, in the background, and nothing is lost by it."""
    migrate(settings)
    migrate(settings.model_copy(update={"retention_by_project": "dev.steps=20"}))
    client.command(
        "INSERT INTO steps_raw (trace_id, step_id, start_time, append_time, output) "
        "SELECT hex(number), 'a', now() - INTERVAL number % 2 * 3 DAY AS time, time, "
        "repeat(hex(number), 50) FROM numbers(2000)"
    )
    question = (
        "SELECT toDate(partition) < today() - 1, default_compression_codec FROM system.parts "
        "WHERE active AND database = currentDatabase() AND table = 'steps_raw' ORDER BY 1"
    )
    wanted = [(0, "ZSTD(1)"), (1, "ZSTD(5, 23)")]

    def found() -> object:
        return client.query(question).result_rows

    wait_until(lambda: found() == wanted, 60, "recompressed texts", every_s=0.5, instead=found)
    rows = client.query("SELECT uniqExact(output), count() FROM steps").result_rows
    assert rows == [(2000, 2000)]


def test_a_project_may_be_kept_for_fewer_or_more_days(settings: Settings, client: Client) -> None:
    """Rows go by their own project's days though they share parts with others; taken back, the
    usual days hold again.
    """
    migrate(settings)
    own = settings.model_copy(
        update={"retention_by_project": "dev.steps=2,shop.steps=60,dev.runs=9"}
    )
    assert sorted(migrate(own).changes) == [
        "retention of eval_trials_raw is 180 days (dev 9)",
        "retention of eval_verdicts_raw is 180 days (dev 9)",
        "retention of runs_raw is 180 days (dev 9)",
        "retention of steps_raw is 30 days (dev 2, shop 60)",
    ]
    assert status(own).current
    client.command(
        "INSERT INTO steps_raw (trace_id, step_id, project, start_time, append_time) SELECT "
        "hex(number), 'a', "
        "['dev', 'shop', 'other'][number % 3 + 1], now() - INTERVAL 5 DAY, now() - INTERVAL "
        "if(number < 30, 5, 40) DAY "
        "FROM numbers(60)"
    )
    # The TTL is applied by merges; without this the test would wait for the engine's own time.
    client.command("OPTIMIZE TABLE steps_raw FINAL")
    left = client.query(
        "SELECT project, count() FROM steps GROUP BY project ORDER BY project"
    ).result_rows
    assert left == [("other", 10), ("shop", 20)]
    assert len(migrate(settings).changes) == 4
    assert status(settings).current
    assert "ttl_only_drop_parts = 1" in str(client.command("SHOW CREATE TABLE steps_raw"))


def test_rollups_are_kept_at_least_as_long_as_their_rows(settings: Settings) -> None:
    """Otherwise rollups would expire before their rows: refused, and the error names what to
    change.
    """
    for other in ({"metrics_retention_days": 29}, {"retention_by_project": "shop.steps=400"}):
        with pytest.raises(StoreError, match="metrics_retention_days"):
            migrate(settings.model_copy(update=other))


def test_text_search_is_an_option_of_the_same_tables(settings: Settings, client: Client) -> None:
    """Switched on, words are found by an index, in the view, also in rows that were there before;
    switched off, it is gone.
    """
    migrate(settings)
    searching = settings.model_copy(update={"text_search": True})
    client.command(
        "INSERT INTO steps_raw (trace_id, step_id, start_time, append_time, output) "
        "SELECT hex(number), 'a', now() - number, now(), concat('all is well ', if(number = 77, "
        "'Refund!', 'order')) "
        "FROM numbers(50000)"
    )
    assert migrate(searching).changes == ["text search of steps_raw is on"]
    assert status(searching).current
    client.command("OPTIMIZE TABLE steps_raw FINAL SETTINGS mutations_sync = 1, alter_sync = 1")
    question = "SELECT count() FROM steps WHERE hasToken(lower(output), 'refund')"
    assert client.command(question) == 1
    plan = "\n".join(row[0] for row in client.query(f"EXPLAIN indexes = 1 {question}").result_rows)
    # An answer could come from a scan: the plan shows that the index is used.
    assert "ft_output" in plan
    assert migrate(settings).changes == ["text search of steps_raw is off"]
    assert client.command(question) == 1
    assert "ft_output" not in str(client.command("SHOW CREATE TABLE steps_raw"))


def test_a_store_of_a_newer_program_is_left_alone(settings: Settings, client: Client) -> None:
    """An older program does not touch what a newer one has made."""
    migrate(settings)
    client.command(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'future', '')"
    )
    for use in (migrate, require_current):
        with pytest.raises(StoreNewer, match="9999_future"):
            use(settings)
    assert status(settings).newer == ["9999_future"]


def test_a_view_changed_by_hand_is_put_right(settings: Settings, client: Client) -> None:
    """Views hold no data: one that is not ours, or of an older version, is replaced."""
    migrate(settings)
    client.command("CREATE OR REPLACE VIEW steps AS SELECT 1 AS one")
    assert status(settings).outdated_views == ["steps"]
    assert migrate(settings).views == ["steps"]
    assert "trace_id" in [row[0] for row in client.query("DESCRIBE steps").result_rows]


def columns(client: Client, view: str) -> list[str]:
    """A view's columns, in order."""
    source = f"(SELECT * FROM {view}(id = ''))" if view == "trace" else view
    return [row[0] for row in client.query(f"DESCRIBE {source}").result_rows]


def test_every_field_is_a_column_under_its_own_name(settings: Settings, client: Client) -> None:
    """Every field of the models is a column; tokens are columns of their own."""
    migrate(settings)
    step = set(StepEvent.model_fields) - {"usage"}
    step |= {*TOTALLED, "usage_details"}
    assert step <= set(columns(client, "steps"))
    assert step <= set(columns(client, "trace"))
    assert set(Trajectory.model_fields) <= set(columns(client, "runs"))
    for view in ("alerts", "alert_events"):
        assert set(Alert.model_fields) <= set(columns(client, view))


def test_views_only_ever_gain_columns(settings: Settings, client: Client) -> None:
    """The views are a public contract: the columns of the last release are all there, in the same
    order.
    """
    migrate(settings)
    contract = json.loads(Path(__file__).with_name("store_contract.json").read_text())
    assert sorted(contract) == sorted(VIEW_NAMES)
    for view, released in contract.items():
        found = columns(client, view)
        # In the same order: clients that read by position keep working.
        assert [name for name in found if name in released] == released


def test_describe_teaches_the_schema(settings: Settings, client: Client) -> None:
    """Every column of every table and view has a comment."""
    migrate(settings)
    silent = client.query(
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND comment = "
        "'' "
        "AND table != 'schema_migrations' AND table NOT LIKE '%_to_%'"
    ).result_rows
    undescribed = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND comment = '' AND "
        "name NOT LIKE '%_to_%'"
    ).result_rows
    assert (silent, undescribed) == ([], [])


def test_errors_of_connecting_name_what_to_do(settings: Settings) -> None:
    """No server, a wrong address, no address: a user can act on each message."""
    # Port 9 (discard) refuses connections where nothing listens.
    with pytest.raises(StoreUnreachable, match="is it running"):
        connect(settings.model_copy(update={"clickhouse_url": "http://127.0.0.1:9"}))
    with pytest.raises(StoreUnreachable, match="clickhouse_url"):
        connect(settings.model_copy(update={"clickhouse_url": ""}))
    with pytest.raises(StoreError, match="http"):
        connect(settings.model_copy(update={"clickhouse_url": "localhost:8123"}))
    with pytest.raises(StoreDenied, match="clickhouse_user"):
        connect(settings.model_copy(update={"clickhouse_user": "stranger"}))


def test_a_reader_cannot_write(settings: Settings) -> None:
    """A read-only connection refuses to change anything."""
    migrate(settings)
    client = connect(settings, readonly=True)
    assert client.command("SELECT count() FROM steps") == 0
    with pytest.raises(Exception, match="readonly"):
        client.command("INSERT INTO schema_migrations (version) VALUES (1)")
    client.close()


def test_many_readers_use_one_client(settings: Settings, client: Client) -> None:
    """A connection may be shared by threads."""
    migrate(settings)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: client.command("SELECT count() FROM runs"), range(40))) == {0}


def test_the_data_dictionary_is_current(settings: Settings, client: Client) -> None:
    """docs/data-dictionary.md agrees with DESCRIBE; ``python -m
    stepstream.sinks.clickhouse.dictionary`` writes it.
    """
    migrate(settings)
    written = dictionary(client)
    assert (DOCS / "data-dictionary.md").read_text() == written
    assert "|  |" not in written, "every column is explained"
