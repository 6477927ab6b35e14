"""What the migrations make, as read from their text, and what is reported of a store without some
of it.
"""

from __future__ import annotations

import re

import pytest

from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse.errors import missing_table, sentence, worded
from stepstream.sinks.clickhouse.expected import Column, Findings, compare
from stepstream.sinks.clickhouse.migrated import (
    everything,
    inserted_columns,
    retention_kinds,
    shown_columns,
)
from stepstream.sinks.clickhouse.schema import migrations

SETTINGS = Settings()
CLUSTER = Settings(clickhouse_cluster="main")
MADE = everything(SETTINGS)


def compared(
    without: str = "",
    column: tuple[str, str] | None = None,
    index: str = "",
    engines: dict[str, str] | None = None,
) -> Findings:
    """A store that has all but a table, a column or an index, or has other engines."""
    found = {
        one.name: "MaterializedView" if one.is_view else "ReplacingMergeTree"
        for one in MADE.values()
    }
    found |= engines or {}
    columns = [
        Column(one.name, name, type_of(definition))
        for one in MADE.values()
        for name, definition in one.columns.items()
        if (one.name, name) != column
    ]
    indexes = [(one.name, name) for one in MADE.values() for name in one.indexes if name != index]
    found.pop(without, None)
    return compare(SETTINGS, {m.version for m in migrations()}, found, columns, indexes)


def type_of(definition: str) -> str:
    """The type in a definition, found in another way than the code does."""
    rest = re.sub(r"^`?\w+`?\s+", "", definition)
    return re.split(r"\s+(?:CODEC|DEFAULT|MATERIALIZED|EPHEMERAL)\b", rest)[0]


def test_the_files_are_read_whole() -> None:
    """Every table, materialized view, column and index of the first migrations, and what later ones
    added.
    """
    assert {
        "steps_raw",
        "steps_open",
        "runs_raw",
        "alerts_raw",
        "alert_events_to_alerts",
        "rollup_1h",
    } <= set(MADE)
    assert list(MADE["steps_raw"].columns)[:3] == ["schema_version", "trace_id", "step_id"]
    assert "documents" in MADE["steps_raw"].columns
    assert "user_id" in MADE["alerts_raw"].columns
    assert set(MADE["runs_raw"].indexes) == {"ix_trace"}
    assert "group" in MADE["deliveries_raw"].columns


def test_the_migrations_name_the_retention_of_each_table() -> None:
    """Tables whose rows never expire, and starts, which expire after two days, are left out."""
    assert retention_kinds() == {
        "steps_raw": "steps",
        "runs_raw": "runs",
        "alert_events_raw": "alerts",
        "alerts_raw": "alerts",
        "deliveries_raw": "alerts",
        "findings_raw": "alerts",
        "task_events_raw": "tasks",
        "tasks_raw": "tasks",
        "task_refusals_raw": "tasks",
        "executor_events_raw": "tasks",
        "eval_trials_raw": "runs",
        "eval_verdicts_raw": "runs",
        "rollup_1m": "metrics",
        "rollup_1h": "metrics",
        "repeated_steps": "metrics",
        "repeatable_usage": "metrics",
    }


def test_columns_come_from_the_migrations_in_their_order() -> None:
    """Computed columns are not inserted, internal ones not shown; the arrival is shown last."""
    inserted, shown = inserted_columns("steps_raw"), shown_columns("steps_raw")
    assert inserted["cost_nanos"] == "Nullable(Int64)"
    assert {"cost_usd", "ver", "duration_us", "phase"}.isdisjoint(inserted)
    # How a table removes duplicates is no part of the public view.
    assert {"ver", "cost_nanos"}.isdisjoint(shown)
    names = list(shown)
    assert names[-4:] == ["append_time", "kafka_topic_id", "kafka_partition", "kafka_offset"]
    assert names[names.index("reasoning_tokens") + 1] == "usage_details"  # added AFTER it


def test_a_whole_store_lacks_nothing() -> None:
    """Nor is anything wrong with it, whatever variant of its engine a table has."""
    assert compared() == Findings()
    assert compared(engines={"runs_raw": "ReplicatedReplacingMergeTree"}) == Findings()


@pytest.mark.parametrize("name", sorted(MADE))
def test_each_missing_part_is_reported_and_made_by_its_own_statements(name: str) -> None:
    """By name; with the cluster where there is one."""
    (lack,) = compared(without=name).lacks
    assert str(lack).endswith(f"{name} is missing")
    assert f".{name}" in lack.statements[0]
    assert "ON CLUSTER 'main'" in everything(CLUSTER)[name].create()[0]


def test_a_column_that_is_gone_is_added_in_its_place_with_what_later_migrations_made_of_it() -> (
    None
):
    """The definition first, then the changes."""
    (lack,) = compared(column=("steps_raw", "output")).lacks
    assert lack.statements[0].startswith(
        "ALTER TABLE stepstream.steps_raw ADD COLUMN IF NOT EXISTS output "
    )
    assert lack.statements[0].endswith("AFTER `input`")
    assert "MODIFY COLUMN output CODEC(ZSTD(5, 23))" in " ".join(lack.statements)


def test_a_materialized_view_is_made_with_its_newest_query() -> None:
    """No row is copied by an older one in between."""
    (lack,) = compared(without="alert_events_to_alerts").lacks
    assert "user_id" in lack.statements[0]
    assert lack.statements[1].startswith("INSERT INTO stepstream.alerts_raw (")


def test_rows_are_copied_into_named_columns_not_into_expressions() -> None:
    """The list of an INSERT takes names; a query may have aliases and functions."""
    copied = {
        name: re.search(r"INSERT INTO \w+\.\w+ \((.*?)\) SELECT", lack.statements[-1], re.DOTALL)
        for name in ("runs_to_repeated_steps", "steps_to_repeatable_usage")
        for lack in compared(without=name).lacks
    }
    for name, found in copied.items():
        assert found is not None, name
        assert found[1].split(", ") == list(MADE[MADE[name].fills].columns)


def test_the_table_of_alerts_has_every_field_of_their_events() -> None:
    """The newest query of a view replaces those of earlier migrations as a whole."""
    query = MADE["alert_events_to_alerts"].create()[0].split("SELECT", 1)[1].split("FROM", 1)[0]
    selected = {name.strip() for name in query.split(",")}
    wanted = set(MADE["alerts_raw"].columns) & set(MADE["alert_events_raw"].columns)
    assert wanted - selected == set()


@pytest.mark.parametrize(
    ("engines", "words"),
    [
        ({"runs_raw": "View"}, "runs_raw is a View and should be a table"),
        ({"runs_raw": "Log"}, "runs_raw is a Log and should be a table"),
        ({"alert_events_to_alerts": "ReplacingMergeTree"}, "and should be a materialized view"),
    ],
)
def test_something_else_under_a_name_of_ours_is_reported(
    engines: dict[str, str], words: str
) -> None:
    """And not changed: it may belong to another program."""
    found = compared(engines=engines)
    assert not found.lacks
    assert words in found.wrong[0]


class Refusal(Exception):
    """An error as the client raises it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(
            f"Received ClickHouse exception, code: {code}, server response: Code: {code}. "
            f"DB::Exception: {text}"
        )
        self.code = code


@pytest.mark.parametrize(
    ("error", "table", "words"),
    [
        (
            Refusal(
                60,
                "Table stepstream.steps_raw does not exist. (UNKNOWN_TABLE) (for url http://h:1)",
            ),
            "steps_raw",
            "Table stepstream.steps_raw does not exist",
        ),
        (
            Refusal(
                60,
                "Unknown table expression identifier 'stepstream.runs_raw'. "
                "In scope SELECT a FROM b. "
                "(UNKNOWN_TABLE)",
            ),
            "runs_raw",
            "Unknown table expression identifier 'stepstream.runs_raw'",
        ),
        (
            Refusal(
                16,
                "No such column x in table stepstream.runs_raw (76d0). (NO_SUCH_COLUMN_IN_TABLE) "
                "(version 25.8)",
            ),
            "",
            "No such column x in table stepstream.runs_raw (76d0)",
        ),
    ],
)
def test_what_the_store_complains_about_is_one_sentence_with_the_command(
    error: Refusal, table: str, words: str
) -> None:
    """No code, no version, no statement; and what helps where the schema is not what it should
    be.
    """
    assert missing_table(error) == table
    assert sentence(error) == words
    assert worded(error) == f"{words}: run `stepstream store migrate`"
