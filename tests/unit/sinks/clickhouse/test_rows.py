"""Rows made from records: whatever is accepted can be written, and what cannot is recognised before
anything is sent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from clickhouse_connect.driver.transform import NativeTransform
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.schemas.alert import Alert
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.retention import Retention
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import FIELDS, StepEvent
from stepstream.schemas.trajectory import Trajectory
from stepstream.schemas.usage import TOTALLED, TokenUsage
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.insert import Inserter
from stepstream.sinks.clickhouse.plain_rows import ALERTS, build_alerts
from stepstream.sinks.clickhouse.rows import Block, Blocks
from stepstream.sinks.clickhouse.run_rows import RUNS, build_runs
from stepstream.sinks.clickhouse.step_columns import OPEN, STEPS
from stepstream.sinks.clickhouse.step_rows import CHUNK, STARTS_AS, build_steps
from stepstream.sinks.clickhouse.window import SeenWindow, step_keys

NOW_US = 1_790_000_000_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SOURCE = Source("topic", 0)
INSERTER = Inserter(Settings())


def record(value: dict[str, Any] | bytes, offset: int = 0, key: str = TRACE) -> Record:
    """A record of the log."""
    data = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Record(offset, NOW_US // 1_000, key.encode(), data, None)


def step(**fields: Any) -> dict[str, Any]:
    """An ended step."""
    plain = {"trace_id": TRACE, "step_id": "00f067aa0ba902b7", "kind": "plan", "name": "n"}
    return plain | {"start_time": NOW_US, "end_time": NOW_US} | fields


def written(block: Block) -> bytes:
    """The block as it goes over the wire. Raises what a value that does not fit raises."""
    context = INSERTER._context(block, "token")
    data = b"".join(NativeTransform.build_insert(context))
    if context.insert_exception is not None:
        raise context.insert_exception
    return data


def check(built: Blocks) -> None:
    """All columns are there, equally long, and can be written."""
    for block in built.blocks:
        assert set(block.columns) == set(block.table.types)
        assert {len(column) for column in block.columns.values()} == {block.rows}
        assert written(block)


TEXT = st.text(max_size=20) | st.sampled_from(["", "\0", "Größe ☃ 𝄞", "'\\\n\t"])
COUNT = st.integers(0, 2**53) | st.sampled_from([0, 1, 2**53])
STEP = st.fixed_dictionaries(
    {
        "phase": st.sampled_from(["start", "end"]),
        "kind": st.sampled_from(["llm_call", "odd"]),
        "name": TEXT,
    },
    optional={
        **dict.fromkeys(
            ("model", "tool", "agent", "task", "session_id", "input", "output", "error_message"),
            TEXT,
        ),
        "attempt": st.integers(-1, 2_000_000),
        "first_token_time": st.integers(NOW_US - 10, NOW_US + 10),
        "end_time": st.integers(-5, NOW_US + 200_000_000_000),
        "usage": st.none()
        | st.fixed_dictionaries({}, optional=dict.fromkeys(TokenUsage.model_fields, COUNT)),
        "cost_usd": st.sampled_from(["0", "1000000", "0.0000000001", "-1", "x"])
        | st.floats(0, 1e9).map(str),
        "input_bytes": COUNT,
        "documents": st.lists(
            st.fixed_dictionaries({"id": TEXT, "score": st.none() | st.floats(allow_nan=False)}),
            max_size=3,
        ),
        "attributes": st.dictionaries(TEXT, TEXT, max_size=3),
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEP, max_size=8))
def test_whatever_step_is_accepted_can_be_written(steps: list[dict[str, Any]]) -> None:
    """No record of a producer can make the store refuse a batch."""
    check(
        build_steps(
            [record(step(step_id=f"{n + 1:016x}") | s, n) for n, s in enumerate(steps)],
            SOURCE,
            set(),
        )
    )


@pytest.mark.parametrize("tokens", [0, 2**53])
def test_a_price_beyond_all_money_is_no_price(tokens: int) -> None:
    """Nine quadrillion tokens of a known model: the cost is unknown, not an error, and not a number
    that overflows.
    """
    usage = {
        "usage": {"input_tokens": tokens, "output_tokens": tokens},
        "model": "gpt-4o",
        "provider": "openai",
    }
    built = build_steps([record(step(**usage))], SOURCE, set())
    (block,) = built.blocks
    check(built)
    assert (block.columns["cost_nanos"][0], block.columns["cost_source"][0]) == (
        None,
        "unpriced" if tokens else "",
    )


def test_tables_have_a_column_for_every_field() -> None:
    """A field added to a model is a column, or this fails."""
    step_fields = set(StepEvent.model_fields) - {"usage", "cost_usd", "schema_version", "phase"}
    step_fields |= {*TOTALLED, "usage_details"}
    assert step_fields <= set(STEPS.types)
    assert set(OPEN.types) <= set(STEPS.types)
    assert set(Trajectory.model_fields) <= set(RUNS.types)
    assert set(Alert.model_fields) <= set(ALERTS.types)


def test_the_schema_of_steps_and_the_migrations_agree() -> None:
    """A field that is stored has a column of a type for it, and is in the table of starts if it is
    in starts.
    """
    kinds = {
        "label": "LowCardinality(String)",
        "text": "String",
        "time": "DateTime64(6, 'UTC')",
        "optional time": "Nullable(DateTime64(6, 'UTC'))",
        "number": "UInt32",
        "size": "Nullable(UInt64)",
        "map": "Map(LowCardinality(String), String)",
        "flag": "Bool",
    }
    stored = {name: field for name, field in FIELDS.items() if field.column}
    assert {name: STEPS.types[name] for name in stored} == {
        name: kinds[field.column] for name, field in stored.items()
    }
    in_start = {name for name, field in stored.items() if field.in_start}
    assert in_start == set(OPEN.types) & set(stored)


def test_the_lowest_offset_of_a_step_is_its_row() -> None:
    """Repeats within a batch, and of what was stored before, are left out and counted."""
    first, again = step(output="first"), step(output="again")
    built = build_steps([record(first, 3), record(again, 4)], SOURCE, set())
    (block,) = built.blocks
    assert (block.columns["output"], block.columns["kafka_offset"]) == (["first"], [3])
    assert built.skipped == {"duplicate": 1}
    assert build_steps([record(again, 9)], SOURCE, built.keys).blocks == []


def test_a_start_is_kept_only_while_its_end_is_unknown() -> None:
    """In any order within a batch, and after the end was stored."""
    start, end = step(phase="start"), step()
    for order in ([start, end], [end, start]):
        built = build_steps([record(value, n) for n, value in enumerate(order)], SOURCE, set())
        assert [block.table.name for block in built.blocks] == ["steps_raw"]
        assert built.skipped == {"ended": 1}
    alone = build_steps([record(start, 0), record(start, 1)], SOURCE, set())
    assert [(block.table.name, block.rows) for block in alone.blocks] == [("steps_open", 1)]
    assert (
        build_steps([record(start)], SOURCE, set(step_keys([f"{TRACE}00f067aa0ba902b7"]))).blocks
        == []
    )


def test_repeats_are_recognised_however_long_the_batch_is() -> None:
    """Steps of the batches before, of the batch's beginning and of its end: one row each, and the
    first one's.
    """
    # Rows are built in chunks: repeats lie in the same one, in another, and in no chunk.
    before, count = 40, 3 * CHUNK
    values = [step(step_id=f"{n % (2 * CHUNK) + 1:016x}", output=str(n)) for n in range(count)]
    window = SeenWindow(0)
    window.update(step_keys(f"{TRACE}{n + 1:016x}" for n in range(before)))
    built = build_steps([record(value, n) for n, value in enumerate(values)], SOURCE, window)
    (block,) = built.blocks
    check(built)
    assert block.columns["kafka_offset"] == list(range(before, 2 * CHUNK))
    assert block.columns["output"] == [str(n) for n in range(before, 2 * CHUNK)]
    assert built.skipped == {"duplicate": count - 2 * CHUNK + before}
    assert len(built.keys) == 2 * CHUNK - before


def test_a_step_on_the_wrong_partition_is_the_workers_business() -> None:
    """It is sent on by the worker; stored here it would count twice."""
    right = partition_for(TRACE, 4)
    sources = [Source("topic", partition, 4) for partition in range(4)]
    rows = [
        sum(block.rows for block in build_steps([record(step())], source, set()).blocks)
        for source in sources
    ]
    assert rows == [int(partition == right) for partition in range(4)]


def test_building_twice_makes_the_same_rows() -> None:
    """A batch that is repeated after a crash is built from the same records: nothing comes from the
    clock.
    """
    records = [
        record(step(step_id=f"{n + 1:016x}", attributes={"b": "1", "a": "2"}), n) for n in range(20)
    ]
    one, other = (build_steps(records, SOURCE, set()).blocks[0] for _ in range(2))
    assert written(one) == written(other)


RUN: dict[str, Any] = {
    "trace_id": TRACE,
    "revision": 3,
    "status": "ok",
    "first_append_time": NOW_US,
    "cost_usd": "1.5",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"cost_usd": "NaN"},
        {"cost_usd": "-1"},
        {"cost_usd": "x"},
        {"cost_usd": "1e30"},
        {"revision": -1},
        {"status": "odd"},
        {"start_time": -1},
        {"end_time": 2**63},
        {"first_append_time": 2**61},
        {"steps": -1},
        {"path": [{}]},
    ],
)
def test_what_is_no_trajectory_is_refused_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    """One bad record must not have its whole batch refused."""
    built = build_runs([record(RUN | wrong, 0), record(RUN, 1)], SOURCE)
    check(built)
    assert [(refused.record.offset, refused.reason) for refused in built.refused] == [
        (0, "invalid_field")
    ]
    assert [block.rows for block in built.blocks] == [1]


def test_of_a_run_the_highest_revision_in_a_batch_is_inserted() -> None:
    """The others would only be merged away."""
    built = build_runs(
        [record(RUN | {"revision": revision}, n) for n, revision in enumerate((4, 9, 5))], SOURCE
    )
    (block,) = built.blocks
    assert (block.columns["revision"], block.columns["kafka_offset"]) == ([9], [1])
    assert built.skipped == {"superseded": 2}


ALERT: dict[str, Any] = {
    "alert_id": "a",
    "seq": 1,
    "state": "firing",
    "severity": "error",
    "alert": "x",
    "rule": "y",
    "project": "p",
    "opened_at": NOW_US,
    "updated_at": NOW_US,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"seq": -1},
        {"seq": 2**64 - 1},
        {"opened_at": -1},
        {"silenced_until": 2**62},
        {"source_offset": 2**63},
        {"source_partition": 2**31},
        {"state": "odd"},
        {"findings": -1},
        {"value": "much"},
    ],
)
def test_what_is_no_alert_is_refused_before_anything_is_sent(wrong: dict[str, Any]) -> None:
    """One bad record must not have its whole batch refused."""
    built = build_alerts([record(ALERT | wrong, 0), record(ALERT, 1)], SOURCE)
    check(built)
    assert [refused.record.offset for refused in built.refused] == [0]
    assert [block.rows for block in built.blocks] == [1]


def test_a_start_with_the_text_of_an_end_and_the_reverse_are_read_as_what_they_are() -> None:
    """What a record's text contains is a hint only: an end whose attributes speak of a start is an
    end.
    """
    end = step(attributes={"phase": "start"}, output="text")
    # Some bytes near the beginning decide whether a record is read as a start at all.
    value = msgspec.json.encode({"attributes": {"phase": "start"}} | end)
    assert value.find(STARTS_AS, 0, 64) > 0
    built = build_steps([record(value, 3), record(step(output="again"), 4)], SOURCE, set())
    (block,) = built.blocks
    assert (block.columns["output"], block.columns["kafka_offset"]) == (["text"], [3])
    spaced = record(b'{ "phase" : "start", ' + msgspec.json.encode(step())[1:], 5)
    assert [block.table.name for block in build_steps([spaced], SOURCE, set()).blocks] == [
        "steps_open"
    ]


@pytest.mark.parametrize(
    "fields", [{"step_id": "xyz"}, {"trace_id": "0" * 32}, {"kind": None}, {"start_time": 1}]
)
def test_a_start_that_is_none_is_left_out_with_its_reason(fields: dict[str, Any]) -> None:
    """Starts are checked like ends before they are stored."""
    built = build_steps(
        [record({"phase": "start"} | step() | {"phase": "start"} | fields)], SOURCE, set()
    )
    assert built.blocks == []
    assert sum(built.skipped.values()) == 1
    assert "ended" not in built.skipped


def test_what_would_expire_at_once_is_for_the_dead_letter() -> None:
    """A record that lay in Kafka for longer than its project's steps are kept would vanish from the
    table, not from rollups.
    """
    kept = Retention(30, (("dev", 2),))
    later = replace(SOURCE, retention=kept, now_ms=NOW_US // 1_000 + 3 * 86_400_000)
    records = [
        record(step(project=name, step_id=f"{n + 1:016x}"), n)
        for n, name in enumerate(("dev", "shop", "dev"))
    ]
    built = build_steps(records, later, set())
    (block,) = built.blocks
    assert block.columns["project"] == ["shop"]
    assert [(refused.record.offset, refused.reason) for refused in built.refused] == [
        (0, "expired"),
        (2, "expired"),
    ]
    assert (
        build_steps(records, replace(later, now_ms=NOW_US // 1_000 + 86_400_000), set()).refused
        == []
    )


def test_counts_other_than_the_totalled_ones_are_a_map_without_zeros() -> None:
    """Most steps have none and share one empty map."""
    plain = step(step_id="1" * 16, usage={"input_tokens": 5})
    rich = step(
        step_id="2" * 16, usage={"input_tokens": 5, "input_audio_tokens": 3, "web_searches": 2}
    )
    (block,) = build_steps(
        [record(plain, 1), record(step(step_id="3" * 16), 2), record(rich, 3)], SOURCE, set()
    ).blocks
    check(build_steps([record(rich, 3)], SOURCE, set()))
    assert block.columns["usage_details"] == [{}, {}, {"input_audio_tokens": 3, "web_searches": 2}]
    assert block.columns["input_tokens"] == [5, 0, 5]


def test_a_start_and_an_end_that_write_their_ids_differently_are_one_step() -> None:
    """The end's row has everything; no open step is left."""
    # Ids are hex in any case; the window of known steps compares them as bytes.
    upper = step(trace_id=TRACE.upper(), step_id="A" * 16)
    start = {"phase": "start"} | upper | {"phase": "start", "end_time": None}
    built = build_steps(
        [record(start, 1), record(upper | {"trace_id": TRACE, "step_id": "a" * 16}, 2)],
        SOURCE,
        set(),
    )
    assert [block.table.name for block in built.blocks] == ["steps_raw"]
    assert built.skipped["ended"] == 1


def test_an_amended_step_has_a_row_of_its_own_that_replaces_the_first() -> None:
    """Whether its step came in this batch or an earlier one; it is no step of its own."""
    first, amended = record(step(), 4), record(step(amends=True, output="x"), 9)
    key = step_keys([TRACE + "00f067aa0ba902b7"])[0]
    together = build_steps([first, amended], SOURCE, SeenWindow(0))
    (block,) = together.blocks
    assert block.columns["kafka_offset"] == [4, 9]
    assert block.columns["amends"] == [False, True]
    assert together.keys == {key}
    seen = SeenWindow(0)
    seen.update(together.keys)
    later = build_steps([amended], SOURCE, seen)
    assert later.blocks[0].columns["output"] == ["x"]
    assert (later.keys, later.skipped) == (set(), Counter())
