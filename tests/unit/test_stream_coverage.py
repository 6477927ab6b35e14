"""What a run holds of the floor and when its state is written: nothing is kept for ever, and nothing is lost at a crash."""

from __future__ import annotations

import random
from typing import Any

from stepstream.stream.limits import AssembleLimits
from stepstream.stream.state import RunState, decode_state
from tests.unit.stream_world import START_US, Kafka, Process, Rec, event, record_of

TRACE, ROOT = "a" * 32, "1" * 16
DAY_US = 86_400_000_000


def states_of(kafka: Kafka, trace_id: str = TRACE) -> list[RunState]:
    states = [decode_state(output.value or b"") for output in kafka.topics.get("state", [])]
    return [state for state in states if state.trace_id == trace_id]


def start_and_fillers(count: int = 30) -> list[Rec]:
    """An open run's start, then runs that push it below the bound on replay."""
    records = [record_of(0, event(TRACE, ROOT, "", "start", START_US))]
    return records + [record_of(i, event(f"{i:032x}", f"{i:016x}", "", "end", START_US + i)) for i in range(1, count)]


def test_a_run_that_closes_by_time_after_its_checkpoint_is_written_as_closed_and_put_away() -> None:
    """A run whose every record is covered still gets its closed state: else it stays in memory, and reopens at a restart."""
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits(replay_records=5))
    for record in start_and_fillers():
        process.batch([record])
    process.settle(START_US + 60_000_000)
    assert [state.closed for state in states_of(kafka)] == [False]
    process.settle(START_US + 2 * DAY_US)
    process.settle(START_US + 3 * DAY_US)
    assert [state.closed for state in states_of(kafka)] == [False, False, True]  # one more for the silence it reported
    assert not process.logic.runs
    assert kafka.floor == 30


def test_a_run_that_closes_while_its_checkpoint_is_under_way_is_written_again() -> None:
    """A state sent before the close does not pass for the closed state."""
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits(replay_records=5))
    logic = process.logic
    for record in [*start_and_fillers(10), record_of(10, event(TRACE, ROOT, "", "end", START_US, START_US + 9))]:
        logic.feed(record)
    logic.flush()
    checkpoint = acknowledge_until_state(logic)
    for second in range(1, 10):
        logic.tick(START_US + second * 1_000_000)
        logic.flush()
    outputs = [output for output in logic.drain() if output.holder.run.trace_id == TRACE]
    for output in outputs:
        logic.acknowledged(output)
    assert not decode_state(checkpoint.value or b"").closed
    logic.acknowledged(checkpoint)
    (again,) = [o for o in logic.drain() if o.topic == "state" and o.holder.run.trace_id == TRACE]
    assert decode_state(again.value or b"").closed
    assert TRACE in logic.runs
    logic.acknowledged(again)
    assert TRACE not in logic.runs
    assert TRACE in logic.closed


def acknowledge_until_state(logic: Any) -> Any:
    """Acknowledge all but the first state record of the run, which is returned unacknowledged."""
    found = None
    while outputs := logic.drain():
        for output in outputs:
            if output.topic == "state" and output.holder.run.trace_id == TRACE:
                found = output
            else:
                logic.acknowledged(output)
    assert found is not None
    return found


def test_everything_is_put_away_in_the_end() -> None:
    """After the last run has closed nothing is open, nothing holds the floor, and no timer is left that leads anywhere."""
    kafka = Kafka()
    process = Process(kafka, random.Random(1), AssembleLimits(replay_records=4))
    for record in start_and_fillers(200):
        process.batch([record])
    process.settle(START_US + 2 * DAY_US)
    process.settle(START_US + 3 * DAY_US)
    logic = process.logic
    assert (len(logic.runs), logic.floor.oldest(), logic.floor.value) == (0, None, 200)
