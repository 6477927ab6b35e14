"""Impossible records on usage, findings and alerts: refused when read, no later exception."""

from __future__ import annotations

import heapq
from typing import Any

import msgspec
import pytest

from stepstream.schemas.findings import pipeline_finding
from stepstream.schemas.times import MINUTE_US
from stepstream.sinks.batching.deadletter import MAX_REFUSED, RefusalLimit
from stepstream.sinks.batching.records import Record as SinkRecord
from stepstream.sinks.batching.records import Source
from stepstream.sinks.clickhouse.plain_rows import build_alerts
from stepstream.sinks.notify.delivery import PartitionDelivery
from stepstream.stream.alerts import partition as fleet
from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.assemble.run_records import MAX_OTHERS, usage_records
from stepstream.stream.baselines import learner as learning
from stepstream.stream.baselines.learner import Learner
from stepstream.stream.core.contained_failures import QUIET_PERIOD_US
from stepstream.stream.core.outputs import Output
from stepstream.stream.usage.partition import WindowPartition
from stepstream.stream.usage.windows.records import decode_summary
from tests.support.faulty_detector import BAD, world
from tests.support.stream_world import START_US, Rec, event, record_of

NOW_US = START_US // MINUTE_US * MINUTE_US

MINUTE = {"project": "p", "trace_id": "t", "revision": 1, "minute": NOW_US, "cost_usd": "0.5"}
RUN = {
    "kind": "run",
    "project": "p",
    "trace_id": "t",
    "revision": 3,
    "status": "ok",
    "time": NOW_US,
    "cost_usd": "1",
}
PROGRESS = {"kind": "progress", "partition": 0, "time": NOW_US}
FINDING = {"finding_id": "f", "time": NOW_US, "project": "p", "alert": "a", "rule": "r"}
ALERT = {
    "alert_id": "a", "seq": 1, "state": "firing", "severity": "error",
    "alert": "a", "rule": "r", "project": "p",
    "opened_at": NOW_US, "updated_at": NOW_US,
}  # fmt: skip

# Texts that Decimal, int or float take, and that are no amounts: exponents, digits of other
# scripts, underscores, and more digits than a nano-dollar has.
BAD_COSTS = [
    "abc",
    "",
    "-1",
    "1e3",
    "0x1",
    "NaN",
    "Infinity",
    "²",
    "٣",
    "1_0",
    " 1",
    "1.0000000001",
    "1" * 40,
    5,
    None,
    [],
    {},
]
# 2**53 is the largest whole number that JSON keeps exactly; ClickHouse has 64 bits.
BAD_COUNTS = [-1, 2**53 + 1, 2**63, 2**64, 10**30, 1.5, "1", None, [], {}]
# Before anything that is kept (10**15 is 2001), and years that no date type has.
BAD_TIMES = [-1, 0, 10**15, 10**17, 2**63, 10**30, 1.5, "1", None, []]


def rejected(item: dict[str, Any]) -> list[Output]:
    """The usage stage's answer to a record; it must not raise."""
    logic = WindowPartition(0, 1, learner=Learner())
    logic.process(record(item))
    # A good record after it: the stage goes on.
    logic.process(
        Rec(1, NOW_US // 1000, b"p", msgspec.json.encode(MINUTE | {"trace_id": "good"}), ())
    )
    assert logic.counters.usage_records >= 1
    assert logic.offsets.position == 2
    return [output for output in logic.take_outputs() if output.topic == "deadletter"]


def record(item: dict[str, Any], offset: int = 0) -> Rec:
    return Rec(offset, NOW_US // 1000, b"p", msgspec.json.encode(item), ())


@pytest.mark.parametrize("cost", BAD_COSTS)
@pytest.mark.parametrize("base", [MINUTE, RUN])
def test_a_cost_that_is_no_number_is_dead_lettered(base: dict[str, Any], cost: Any) -> None:
    assert len(rejected(base | {"cost_usd": cost})) == 1


@pytest.mark.parametrize("count", BAD_COUNTS)
@pytest.mark.parametrize(
    "field", ["steps", "input_tokens", "reasoning_tokens", "unpriced_steps", "revision"]
)
def test_a_count_that_is_none_is_dead_lettered(field: str, count: Any) -> None:
    assert len(rejected(MINUTE | {field: count})) == 1


@pytest.mark.parametrize("time", BAD_TIMES)
@pytest.mark.parametrize(("base", "field"), [(MINUTE, "minute"), (RUN, "time"), (PROGRESS, "time")])
def test_a_time_that_cannot_be_is_dead_lettered(
    base: dict[str, Any], field: str, time: Any
) -> None:
    assert len(rejected(base | {field: time})) == 1


@pytest.mark.parametrize("field", ["start_time", "end_time", "first_append_time"])
@pytest.mark.parametrize("time", [-1, 10**17, 2**63, "x"])
def test_a_run_that_began_at_no_time_is_dead_lettered(field: str, time: Any) -> None:
    assert len(rejected(RUN | {field: time})) == 1


@pytest.mark.parametrize("agent", ["a" * 4_097, 5, None, ["a"]])
def test_a_name_of_any_size_is_dead_lettered(agent: Any) -> None:
    assert len(rejected(MINUTE | {"agent": agent})) == 1


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        # Deeper than the stack of a recursive decoder.
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"minute":1e400}',
    ],
)
def test_what_is_no_record_is_dead_lettered(value: bytes) -> None:
    for logic in (WindowPartition(0, 1), AlertPartition(0)):
        logic.process(Rec(0, NOW_US // 1000, b"p", value, ()))
        assert [output.topic for output in logic.take_outputs()] == ["deadletter"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("time", time) for time in (-1, 10**17, 2**63, 10**30, "x", None)]
    + [("until", time) for time in (-1, 10**17, 2**63)]
    + [("baseline_runs", count) for count in (-1, 2**54, 2**64)]
    + [("step_ids", ["a"] * 1_001), ("step_ids", ["a" * 257]), ("step_ids", [1]), ("step_ids", "a")]
    + [
        ("finding_id", "f" * 257),
        ("subject", "s" * 4_097),
        ("message", "m" * 65_537),
        ("agent", None),
        ("severity", "worst"),
    ]
    + [("value", "1"), ("value", []), ("state", "gone"), ("unit", "miles")],
)
def test_a_finding_that_cannot_be_is_dead_lettered(field: str, value: Any) -> None:
    logic = AlertPartition(0)
    logic.process(record(FINDING | {field: value}))
    logic.process(record(FINDING | {"trace_id": "good"}, 1))
    assert [output.topic for output in logic.take_outputs()] == ["deadletter", "alerts"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (name, time)
        for name in ("opened_at", "updated_at", "resolved_at", "silenced_until")
        for time in (-1, 10**17, 2**63)
    ]
    + [
        ("seq", -1),
        ("seq", 2**64),
        ("runs", -1),
        ("source_partition", 2**31),
        ("source_offset", -2),
        ("message", "m" * 65_537),
    ]
    + [("trace_ids", ["t"] * 1_001), ("alert_id", 5)],
)
def test_an_alert_that_cannot_be_is_skipped_by_the_notifier_and_refused_by_the_sink(
    field: str, value: Any
) -> None:
    bad, good = msgspec.json.encode(ALERT | {field: value}), msgspec.json.encode(ALERT)
    core = PartitionDelivery(0, {})
    assert core.read(0, bad, NOW_US, NOW_US) is None
    assert core.read(1, good, NOW_US, NOW_US) is not None
    built = build_alerts(
        [SinkRecord(0, 1, b"k", bad, None), SinkRecord(1, 1, b"k", good, None)], Source("topic", 0)
    )
    assert [(refused.record.offset, refused.reason) for refused in built.refused] == [
        (0, "invalid_field")
    ]
    assert built.blocks[0].rows == 1


def test_an_alert_of_the_pipeline_itself_ends_after_a_quiet_hour() -> None:
    opened = pipeline_finding(
        "detector-failed", "detector_failed", "loop", "it fails", NOW_US, names=(1,)
    )
    logic = AlertPartition(0)
    logic.process(Rec(0, NOW_US // 1000, b"", msgspec.json.encode(opened), ()))
    logic.tick(NOW_US + QUIET_PERIOD_US - 1)
    assert [output.topic for output in logic.take_outputs()] == ["alerts"]
    # Alerts are checked once a second of log time.
    logic.tick(NOW_US + QUIET_PERIOD_US + 2_000_000)
    (quiet,) = logic.take_outputs()
    logic.process(Rec(1, (NOW_US + QUIET_PERIOD_US) // 1000, b"", quiet.value, ()))
    (alert,) = logic.take_outputs()
    assert msgspec.json.decode(alert.value or b"")["state"] == "resolved"


def test_alerts_that_all_fire_are_bounded_and_not_scanned_for_each_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The real limit would take a test of minutes; what is counted does not depend on it.
    monkeypatch.setattr(fleet, "KEEP_RESOLVED", 50)
    scanned = 0
    real = heapq.nsmallest

    def counting(*args: Any) -> Any:
        nonlocal scanned
        scanned += 1
        return real(*args)

    monkeypatch.setattr(fleet, "nsmallest", counting)
    logic = AlertPartition(0)
    for number in range(2_000):
        logic.process(
            record(
                FINDING
                | {
                    "finding_id": str(number),
                    "trace_id": f"{number:032x}",
                    "time": NOW_US + number,
                },
                number,
            )
        )
    assert len(logic._alerts) <= 200 + 51
    # One scan for each 50 findings, not one for each finding.
    assert scanned <= 2_000 // 50


def test_what_we_refuse_ourselves_blows_no_fuse() -> None:
    fuse = RefusalLimit()
    assert fuse.allows(0, 0.0)
    # The limit is on refusals within a time: at it, one more is too many.
    assert fuse.allows(MAX_REFUSED, 1.0)
    assert not fuse.allows(1, 2.0)


def test_owners_that_are_ids_give_way_to_those_with_many_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning, "MAX_OWNERS", 100)
    logic = Learner()
    names = [("zebra", number) for number in range(20)] + [
        (f"id-{number}", 0) for number in range(1_000)
    ]
    for agent, number in names:
        logic.closed(
            decode_summary(
                msgspec.json.encode(RUN | {"agent": agent, "trace_id": f"{agent}-{number}"})
            ),
            NOW_US,
        )
    assert len(logic.histories) <= 200
    assert logic.counters.owners_not_learnt > 700
    # Agents with one run each are dropped first: names with ids in them have one each.
    logic.settle(NOW_US + 1)
    assert len(logic.histories) == 100
    assert "zebra" in {owner.agent for owner in logic.histories}


def test_settling_very_many_owners_takes_no_time_for_each_pair_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """30,000 owners at once; scanning all others for each of them takes most of a minute."""
    monkeypatch.setattr(learning, "MAX_OWNERS", 15_000)
    logic = Learner()
    # More than MAX_OWNERS, so that settling has to choose which ones to keep.
    for number in range(20_000):
        agent = f"id-{number}"
        logic.closed(
            decode_summary(
                msgspec.json.encode(RUN | {"agent": agent, "trace_id": agent, "project": agent})
            ),
            NOW_US,
        )
    logic.settle(NOW_US + 1)
    assert len(logic.histories) == 15_000


def test_steps_of_many_agents_in_many_minutes_make_no_record_for_each_pair() -> None:
    process = world()
    events = [event(BAD, "f" * 16, "", "start", START_US)]
    for number in range(1, 400):
        end_us = START_US - number * MINUTE_US
        events.append(event(BAD, f"{number:016x}", "f" * 16, "end", end_us, end_us, agent=""))
        events.append(
            event(
                BAD,
                f"{number + 1_000:016x}",
                "f" * 16,
                "end",
                end_us,
                end_us,
                agent=f"agent-{number}",
            )
        )
    for offset, item in enumerate(events):
        process.logic.process(record_of(offset, item))
    run = process.logic.runs[BAD].run
    records = list(usage_records(run, everything=True))
    assert len(records) <= MAX_OTHERS
    assert sum(one.steps for one in records) == 798
