"""Which errors pass and which do not, how long is waited, what goes to the dead letter, how a
schema file is read.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from stepstream.schemas.deadletter import letter_headers
from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.deadletter import RefusalLimit
from stepstream.sinks.clickhouse.client import explained
from stepstream.sinks.clickhouse.errors import StoreDenied, StoreMissing, StoreUnreachable
from stepstream.sinks.clickhouse.insert import ROW_ERRORS
from stepstream.sinks.clickhouse.migrated import everything
from stepstream.sinks.clickhouse.public_views import fingerprint_of, views, without_fingerprint
from stepstream.sinks.clickhouse.schema import migrations, split


@pytest.mark.parametrize("code", [159, 202, 209, 241, 242, 243, 252, 319, 60, 16, 516, 999, 0])
def test_errors_of_the_store_are_no_errors_of_rows(code: int) -> None:
    """Timeouts, too many queries or parts, no memory, a full disk, a missing table, a wrong
    password: never the rows' fault.
    """
    assert code not in ROW_ERRORS


def test_the_limit_of_refused_records_is_reached_and_passes_with_time() -> None:
    """A defect that refuses every row must not empty the topic into the dead letter."""
    limit = RefusalLimit(records=3, seconds=10)
    assert [limit.allows(1, now) for now in (0.0, 1.0, 2.0, 3.0, 10.5, 10.6)] == [
        True,
        True,
        True,
        False,
        True,
        False,
    ]
    assert not limit.allows(4, 100.0)
    assert limit.allows(3, 100.0)


def test_a_dead_letter_keeps_its_headers_and_names_where_it_came_from() -> None:
    """Headers that an earlier dead letter left are replaced."""
    before = [("a", b"1"), ("stepstream-offset", b"old")]
    headers = letter_headers(before, ("steps", 3, 7), "store_refused", "Code: 70 ...", "sink")
    assert headers[0] == ("a", b"1")
    assert dict(headers) == {
        "a": b"1",
        "stepstream-topic": b"steps",
        "stepstream-partition": b"3",
        "stepstream-offset": b"7",
        "stepstream-reason": b"store_refused",
        "stepstream-detail": b"Code: 70 ...",
        "stepstream-by": b"sink",
    }
    assert len(headers) == 7


def test_a_user_can_act_on_each_error() -> None:
    """By ClickHouse's code; an error without one means that no server answers."""
    settings = Settings(clickhouse_url="http://there:8123", clickhouse_database="db")
    kinds = {516: StoreDenied, 497: StoreDenied, 81: StoreMissing, None: StoreUnreachable}
    for code, kind in kinds.items():
        message = explained(DatabaseError("words", code=code), settings)
        assert type(message) is kind
        assert "http://there:8123" in str(message)


def test_statements_end_with_a_semicolon_at_the_end_of_a_line() -> None:
    """Semicolons in texts and comments end nothing."""
    sql = "-- a; comment;\nSELECT ';' AS x\n;\n\n  -- more\nSELECT 2;\n"
    assert split(sql) == ["SELECT ';' AS x", "SELECT 2"]


def test_no_migration_modifies_a_view_that_adds_up_rows() -> None:
    """After MODIFY QUERY the server derives other tokens for what the view inserts, until it starts
    again: a batch repeated after that would count twice in its rollup.
    """
    views = [one for one in everything(Settings()).values() if one.is_view]
    adding = [view for view in views if "GROUP BY" in view.statements[0]]
    assert {view.fills for view in adding} >= {"rollup_1m", "rollup_1h"}
    assert [view.name for view in adding if len(view.statements) > 1] == []


def test_every_migration_can_be_repeated_and_keeps_tokens() -> None:
    """Each statement is harmless a second time, and each table that is made remembers insert
    tokens.
    """
    assert [migration.version for migration in migrations()] == list(
        range(1, len(migrations()) + 1)
    )
    for migration in migrations():
        for statement in migration.statements(Settings()):
            assert "IF NOT EXISTS" in statement or re.match(
                r"ALTER TABLE \S+\s+MODIFY (COLUMN|QUERY|SETTING|TTL)\b", statement
            )
            assert (
                "CREATE TABLE" not in statement
                or "non_replicated_deduplication_window = " in statement
            )
            assert "$" not in statement


def test_on_a_cluster_tables_are_replicated_everywhere() -> None:
    """One source for both: a setting adds ON CLUSTER and replicated engines."""
    settings = Settings(clickhouse_cluster="c1")
    for migration in migrations():
        for statement in migration.statements(settings):
            assert "ON CLUSTER 'c1'" in statement
            assert "CREATE TABLE" not in statement or "ENGINE = Replicated" in statement


def test_a_view_carries_the_fingerprint_of_its_definition() -> None:
    """So that one that was changed, or is of another version, is known."""
    for view in views():
        comment = f"{view.description} [{view.fingerprint}]"
        assert (
            f"COMMENT '{comment}'".replace("\\", "\\\\") in view.statement(Settings())
            or "'" in view.description
        )
        assert fingerprint_of(comment) == view.fingerprint
        assert without_fingerprint(comment) == view.description
    assert fingerprint_of("a view of mine [not ours]") == ""


def test_a_sink_s_process_imports_no_data_frames() -> None:
    """pandas and pyarrow, where they are installed, are 60 MB that no sink has a use for."""
    script = (
        "import sys\n"
        "from clickhouse_connect.driver.insert import InsertContext\n"
        "from clickhouse_connect.datatypes.registry import get_from_name\n"
        "from stepstream.sinks.clickhouse import memory\n"
        "memory.tune()\n"
        "InsertContext('t', ['a'], [get_from_name('Int64')], [[1, 2]], column_oriented=True)\n"
        "print(sorted({'numpy', 'pandas', 'pyarrow', 'polars'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
