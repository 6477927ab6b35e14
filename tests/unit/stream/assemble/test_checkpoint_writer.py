"""Which offsets a run needs and when its state is written: bounded, and crash-safe."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest

from stepstream.schemas.times import DAY_US
from stepstream.stream.assemble.state import RunState, decode_state
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.limits import SMALL_RUN_STEPS, AssembleLimits
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.run.run import MAX_FINDINGS, Run
from tests.support.stream_bench import Bench, policy
from tests.support.stream_world import START_US, Kafka, Process, Rec, event, record_of

TRACE, ROOT = "a" * 32, "1" * 16


def states_of(kafka: Kafka, trace_id: str = TRACE) -> list[RunState]:
    states = [decode_state(output.value or b"") for output in kafka.topics.get("state", [])]
    return [state for state in states if state.trace_id == trace_id]


def start_and_fillers(count: int = 30) -> list[Rec]:
    """An open run's start, then runs that push it below the bound on replay."""
    records = [record_of(0, event(TRACE, ROOT, "", "start", START_US))]
    return records + [
        record_of(i, event(f"{i:032x}", f"{i:016x}", "", "end", START_US + i))
        for i in range(1, count)
    ]


def _pass(process: Process, to_us: int) -> None:
    for _ in range(40):
        process.logic.tick(to_us)
        process.logic.flush()
        process.pump()


def test_a_small_run_is_checkpointed_after_ten_seconds_and_a_large_one_is_not() -> None:
    """Few records are read again at a low rate; the state of many steps is not written so often."""
    process = Process(Kafka(), random.Random(0), AssembleLimits())
    large, small = "e" * 32, "f" * 32
    process.batch([record_of(0, event(small, "1" * 16, "", "start", START_US))])
    process.batch(
        [
            record_of(n, event(large, f"{n:016x}", "", "start", START_US + 1))
            for n in range(1, SMALL_RUN_STEPS + 2)
        ]
    )
    _pass(process, START_US + 9_000_000)
    assert process.logic.offsets.safe == 0
    _pass(process, START_US + 12_000_000)
    assert process.logic.offsets.safe == 1


def test_a_run_that_closes_by_time_after_its_checkpoint_is_written_as_closed_and_removed() -> None:
    """A run with all records checkpointed still gets a closed state, or a restart reopens it."""
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits(replay_records=5))
    for record in start_and_fillers():
        process.batch([record])
    process.settle(START_US + 60_000_000)
    assert [state.closed for state in states_of(kafka)] == [False]
    process.settle(START_US + 2 * DAY_US)
    process.settle(START_US + 3 * DAY_US)
    # One more for the silence it reported.
    assert [state.closed for state in states_of(kafka)] == [
        False,
        False,
        True,
    ]
    assert not process.logic.runs
    assert kafka.committed == 30


def test_a_run_that_closes_while_its_checkpoint_is_under_way_is_written_again() -> None:
    """A state sent before the close does not pass for the closed state."""
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits(replay_records=5))
    logic = process.logic
    for record in [
        *start_and_fillers(10),
        record_of(10, event(TRACE, ROOT, "", "end", START_US, START_US + 9)),
    ]:
        logic.process(record)
    logic.flush()
    checkpoint = acknowledge_until_state(logic)
    for second in range(1, 10):
        logic.tick(START_US + second * 1_000_000)
        logic.flush()
    outputs = [output for output in logic.take_outputs() if output.owner.run.trace_id == TRACE]
    for output in outputs:
        logic.acknowledged(output)
    assert not decode_state(checkpoint.value or b"").closed
    logic.acknowledged(checkpoint)
    (again,) = [
        o for o in logic.take_outputs() if o.topic == "state" and o.owner.run.trace_id == TRACE
    ]
    assert decode_state(again.value or b"").closed
    assert TRACE in logic.runs
    logic.acknowledged(again)
    assert TRACE not in logic.runs
    assert TRACE in logic.closed


def acknowledge_until_state(logic: Any) -> Any:
    """Acknowledge all but the first state record of the run, which is returned unacknowledged."""
    found = None
    while outputs := logic.take_outputs():
        for output in outputs:
            if output.topic == "state" and output.owner.run.trace_id == TRACE:
                found = output
            else:
                logic.acknowledged(output)
    assert found is not None
    return found


def test_everything_is_removed_in_the_end() -> None:
    """After the last run has closed nothing is open, no offset is needed, no timer is left."""
    kafka = Kafka()
    process = Process(kafka, random.Random(1), AssembleLimits(replay_records=4))
    for record in start_and_fillers(200):
        process.batch([record])
    process.settle(START_US + 2 * DAY_US)
    process.settle(START_US + 3 * DAY_US)
    logic = process.logic
    assert (len(logic.runs), logic.offsets.oldest(), logic.offsets.safe) == (0, None, 200)


def monstrous(number: int, **more: Any) -> dict[str, Any]:
    """A step that is called by the longest names there are."""
    long = {
        name: f"{number:06d}{name}"[:10] + "x" * 500
        for name in ("name", "tool", "model", "agent", "agent_version")
    }
    item = event(
        TRACE,
        f"{number:016x}",
        ROOT,
        "end",
        START_US,
        START_US + 5,
        cost_usd="0.000000001",
        **long,
        **more,
    )
    return item | {"status": "error", "error_type": "E" * 500, "error_message": "m" * 4_000}


def test_the_state_of_the_largest_run_fits_into_a_record() -> None:
    """State stays below Kafka's limit for any step names: a refused one would stop the worker."""
    kafka = Kafka()
    rules = RuleBook((policy({"rule": "step_duration", "limit": "1us"}),), make_detector)
    process = Process(kafka, random.Random(0), AssembleLimits(), rules)
    # More steps than a run may have (20,000), each with the longest names.
    count = 21_000
    log = [record_of(0, event(TRACE, ROOT, "", "start", START_US))]
    log += [
        record_of(number, monstrous(number, input=f"{number % 3_000}"))
        for number in range(1, count)
    ]
    log.append(record_of(count, event(TRACE, ROOT, "", "end", START_US, START_US + 5)))
    for start in range(0, len(log), 1_000):
        for record in log[start : start + 1_000]:
            record.timestamp = START_US // 1000
        process.batch(log[start : start + 1_000])
    process.settle(START_US)
    largest = max(
        len(output.value or b"") for outputs in kafka.topics.values() for output in outputs
    )
    # The limit of the topic `state`, max.message.bytes.
    assert largest < 8 * 1_048_576
    final = kafka.final()[TRACE]
    assert (final["steps"], final["cost_usd"], final["closed"]) == (20_000, "0.000019999", True)
    usage = {(u.get("agent", ""), u["minute"]): u for u in kafka.values("usage") if "kind" not in u}
    assert sum(u.get("steps", 0) for u in usage.values()) == 20_000


def test_findings_about_one_run_are_bounded_and_counted() -> None:
    """The thousandth slow step of a run is no news."""
    kafka = Kafka()
    rules = RuleBook((policy({"rule": "step_duration", "limit": "1us"}),), make_detector)
    process = Process(kafka, random.Random(0), AssembleLimits(), rules)
    process.batch([record_of(number, monstrous(number)) for number in range(1, 1_000)])
    process.settle(START_US)
    slow = {
        value["subject"] for value in kafka.values("findings") if value["alert"] == "step-duration"
    }
    assert len(slow) == MAX_FINDINGS
    assert process.logic.counters.findings_over_limit > 0


@pytest.mark.parametrize("restart_at", [100, 300, 700, 1_200])
def test_a_restart_drops_the_same_texts(restart_at: int) -> None:
    """Which steps lose their names depends on the log alone, or usage would count twice."""
    outcomes = []
    for crash in (False, True):
        bench = Bench()
        bench.process(event(TRACE, ROOT, "", "start", START_US), 0.0)
        for number in range(1, 1_500):
            bench.process(monstrous(number), 0.0)
            if crash and number == restart_at:
                bench.swap()
        outcomes.append(
            {info.step_id: (info.name, info.agent) for info in bench.run.steps.values()}
        )
    assert outcomes[0] == outcomes[1]
    assert any(not name for name, _ in outcomes[0].values())


def test_a_run_that_is_removed_is_freed_although_an_older_one_is_open() -> None:
    """Its offsets are remembered while an older run is open, but not its steps."""
    # The older run is not checkpointed while the other one closes.
    limits = AssembleLimits(checkpoint_small_after_us=DAY_US)
    process = Process(Kafka(), random.Random(2), limits)
    process.batch([record_of(0, event("f" * 32, "1" * 16, "", "start", START_US))])
    closed = f"{1:032x}"
    process.batch([record_of(1, event(closed, "1" * 16, "", "end", START_US))])
    process.settle(START_US)
    assert closed not in process.logic.runs
    assert process.logic.offsets.safe == 0
    process.kafka.topics.clear()
    gc.collect()
    in_memory = {found.trace_id for found in gc.get_objects() if type(found) is Run}
    assert closed not in in_memory
