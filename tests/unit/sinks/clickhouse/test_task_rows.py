"""Rows of the taskstate topic: which tables a record becomes rows of, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from clickhouse_connect.driver.transform import NativeTransform

from stepstream.schemas.settings import Settings
from stepstream.schemas.task_state import ExecutorState, TaskState
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.insert import Inserter
from stepstream.sinks.clickhouse.task_rows import EXECUTOR_EVENTS, TASKS, build_tasks
from tests.support.task_states import Story, executor_state, refusal

SOURCE = Source("topic", 0)
INSERTER = Inserter(Settings())
# Fields that the store has as other columns, or not: the digest and offsets of the scheduler.
OTHERWISE = {
    *("kind", "state_version", "at_us", "input_digest", "agent_attempts", "lease_until_us"),
    *("source_offset", "not_before_us"),
}


def records(*values: dict[str, Any] | bytes) -> list[Record]:
    found = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in values]
    return [Record(at, 1_790_000_000_000, b"k", value, None) for at, value in enumerate(found)]


def rows(*values: dict[str, Any] | bytes) -> dict[str, list[dict[str, Any]]]:
    """The rows by table, encoded once as an insert would send them."""
    built = build_tasks(records(*values), SOURCE)
    assert not built.refused, built.refused
    found = {}
    for block in built.blocks:
        context = INSERTER._context(block, "token")
        assert b"".join(NativeTransform.build_insert(context))
        assert context.insert_exception is None
        names = list(block.columns)
        values_of = zip(*block.columns.values(), strict=True)
        found[block.name] = [dict(zip(names, row, strict=True)) for row in values_of]
    return found


def test_every_change_is_a_row_and_the_newest_is_the_task() -> None:
    story = Story("order-7").bind("ex-1")
    story.end_attempt(
        "failed", "retrying", state="waiting", waiting_for="retry", error_type="Timeout"
    )
    story.bind("ex-2").end("ok", "ok", result={"refunded": True})
    other = Story("order-8", "exchange")
    refused = refusal("order-7", "submit", "other_input")
    found = rows(*story.records, *other.records, executor_state("ex-1"), refused)
    events = found["task_events_raw"]
    assert [row["event"] for row in events if row["task_id"] == "order-7"] == [
        *("submitted", "bound", "started", "retrying", "bound", "started", "ended")
    ]
    refund, exchange = found["tasks_raw"]
    assert (refund["state"], refund["result"], refund["attempt"]) == ("ok", '{"refunded": true}', 2)
    assert [one[9] for one in refund["attempts"]] == ["failed", "ok"]
    assert (exchange["state"], exchange["input"]) == ("waiting", '{"order": 7}')
    assert exchange["started_at"] is None
    assert found["task_refusals_raw"][0]["reason"] == "other_input"
    (executor,) = found["executor_events_raw"]
    assert (executor["slots"], executor["agents"][0][0]) == (4, "refund")


def test_of_two_workers_the_one_with_the_higher_epoch_is_newer() -> None:
    """Whatever the sequence in which the records arrive."""
    story = Story("order-7").bind("ex-1")
    late = {**story.records[-1], "revision": 9, "state": "dead"}
    taken_over = {**story.records[-1], "epoch": 2, "revision": 3, "state": "ok"}
    for sequence in ((late, taken_over), (taken_over, late)):
        (task,) = rows(*story.records, *sequence)["tasks_raw"]
        assert task["state"] == "ok"


def test_tables_have_a_column_for_every_field() -> None:
    """A field added to a model is a column, or this fails."""
    for model, table in ((TaskState, TASKS), (ExecutorState, EXECUTOR_EVENTS)):
        left = set(model.model_fields) - OTHERWISE - set(table.types)
        renamed = {f"{name.removesuffix('_us')}" for name in left}
        assert {name for name in renamed if name not in table.types} == set()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (b"{", "truncated"),
        (b"[]", "Expected"),
        ({"kind": "slot"}, "slot"),
        (Story("a").records[0] | {"at_us": 2**62}, "at_us is no time"),
        (Story("a").records[0] | {"epoch": 2**40}, "epoch is no count"),
        (Story("a").records[0] | {"detail": "x" * 70_000}, "detail is longer"),
        (Story("a").records[0] | {"state": "asleep"}, "asleep"),
        (executor_state("e") | {"pid": 2**40}, "pid is no count"),
    ],
)
def test_what_is_no_state_is_refused_with_the_reason(
    wrong: dict[str, Any] | bytes, why: str
) -> None:
    built = build_tasks(records(wrong, Story("fine").records[0]), SOURCE)
    (refused,) = built.refused
    assert why in refused.detail
    assert [block.rows for block in built.blocks] == [1, 1]


def test_bytes_that_are_no_text_do_not_stop_the_sink() -> None:
    """A decoder skips over inputs and results, so they may contain anything."""
    value = json.dumps(Story("a").records[0]).encode().replace(b'"order"', b'"\xed\xa0"')
    assert "\N{REPLACEMENT CHARACTER}" in rows(value)["tasks_raw"][0]["input"]
