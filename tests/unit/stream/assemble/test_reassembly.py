"""The assemble stage without a broker: equal trajectories in any order, with any crashes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.times import HOUR_US
from stepstream.stream.assemble.state import decode_state
from stepstream.stream.run.limits import AssembleLimits
from tests.support.stream_world import (
    START_US,
    Kafka,
    Process,
    Rec,
    Truth,
    event,
    make_log,
    play,
    record_of,
)

ORDER_DEPENDENT = (
    "revision",
    "duplicates",
    "late_steps",
    "first_append_time",
    "last_append_time",
    "findings",
)


def check(kafka: Kafka, truth: dict[str, Truth]) -> None:
    final = kafka.final()
    assert set(final) == set(truth)
    for trace_id, expected in truth.items():
        got = final[trace_id]
        assert got["closed"]
        assert got["steps"] == expected.steps, trace_id
        assert nanos_from_usd(got.get("cost_usd", "0")) == expected.cost_nanos
        assert {s["step_id"]: s.get("parent_step_id", "") for s in got["path"]} == expected.parents
        usage = [u for u in kafka.values("usage") if u["trace_id"] == trace_id and "kind" not in u]
        newest: dict[tuple[str, int], dict[str, Any]] = {}
        for record in usage:
            key = (record.get("agent", ""), record["minute"])
            if record["revision"] >= newest.get(key, {"revision": -1})["revision"]:
                newest[key] = record
        assert (
            sum(nanos_from_usd(u.get("cost_usd", "0")) for u in newest.values())
            == expected.cost_nanos
        )
        assert sum(u.get("steps", 0) for u in newest.values()) == expected.steps


@pytest.mark.parametrize("seed", range(6))
def test_every_run_is_whole_without_crashes(seed: int) -> None:
    """Late, duplicate and unordered records: same trajectories; the safe offset advances."""
    log, truth = make_log(seed)
    kafka, _ = play(log, seed)
    check(kafka, truth)
    assert kafka.committed == len(log)


@pytest.mark.parametrize("seed", range(30))
def test_a_crash_at_any_record_changes_nothing(seed: int) -> None:
    """State is the log plus one record per run: crashes leave trajectories and findings equal."""
    # Enough runs that a crash finds some of them in each state of their checkpoint.
    log, truth = make_log(seed, runs=150)
    calm, _ = play(log, seed)
    kafka, crashes = play(log, seed + 1_000, crash_rate=0.1)
    assert crashes > 0
    check(kafka, truth)
    assert kafka.committed == len(log)
    assert {f["finding_id"] for f in kafka.values("findings")} == {
        f["finding_id"] for f in calm.values("findings")
    }


@pytest.mark.parametrize("seed", range(10))
def test_long_open_runs_do_not_pin_the_safe_offset(seed: int) -> None:
    """Runs that keep the safe offset back are checkpointed: replay is bounded, without loss."""
    log, truth = make_log(seed, runs=80, concurrent=40)
    # With forty runs open at a time this is reached again and again.
    limits = AssembleLimits(replay_records=60)
    kafka, crashes = play(log, seed, crash_rate=0.15, limits=limits)
    assert crashes > 0
    check(kafka, truth)


@pytest.mark.parametrize("seed", range(5))
def test_order_and_duplicates_do_not_matter(seed: int) -> None:
    """Any order of a run's records, with any of them doubled, gives the same trajectory."""
    rng = random.Random(seed)
    log, _ = make_log(seed, runs=3, concurrent=3)
    outcomes = []
    for _ in range(8):
        items = [record.value for record in log] + [rng.choice(log).value for _ in range(10)]
        rng.shuffle(items)
        shuffled = [
            Rec(i, START_US // 1000 + i, _trace(value), value) for i, value in enumerate(items)
        ]
        kafka, _ = play(shuffled, seed)
        outcomes.append(
            {
                trace: {k: v for k, v in t.items() if k not in ORDER_DEPENDENT}
                for trace, t in kafka.final().items()
            }
        )
    assert all(outcome == outcomes[0] for outcome in outcomes)


def _trace(value: bytes | None) -> bytes:
    import msgspec

    return str(msgspec.json.decode(value or b"")["trace_id"]).encode()


def test_a_state_is_never_sent_before_the_outputs_it_contains() -> None:
    """A crash between the two would leave a state that knows what was never published."""
    log, _ = make_log(3)
    kafka = Kafka()
    process = Process(kafka, random.Random(3), AssembleLimits(replay_records=50))
    for start in range(0, len(log), 20):
        process.batch(log[start : start + 20])
        in_flight = {
            o.owner.run.trace_id
            for _, o in process.flight
            if o.topic in ("trajectories", "findings", "usage")
        }
        for output in [o for _, o in process.flight if o.topic == "state"]:
            state = decode_state(output.value or b"")
            if state.closed and state.trace_id in in_flight:
                # Only for what came after the state was written.
                assert output.owner.last_offset > state.through


def test_late_steps_make_a_new_revision_of_the_closed_run() -> None:
    """A step within the horizon joins its trajectory, never a fragment; the run stays closed."""
    trace, root, child = "a" * 32, "1" * 16, "2" * 16
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits())
    at = START_US
    process.batch(
        [
            record_of(0, event(trace, root, "", "start", at)),
            record_of(1, event(trace, root, "", "end", at, at + 10)),
        ]
    )
    process.settle(at)
    assert kafka.final()[trace]["closed"]
    assert not process.logic.runs, "a closed run whose state is written is no longer in memory"
    late = record_of(2, event(trace, child, root, "end", at + 5, at + 9))
    # A minute later: the run is closed, and its state is all that is left of it.
    late.timestamp = at // 1000 + 60_000
    process.batch([late])
    process.settle(at + 61_000_000)
    final = kafka.final()[trace]
    assert (final["steps"], final["late_steps"], final["revision"], final["closed"]) == (
        2,
        1,
        7,
        True,
    )


def test_a_run_that_has_ended_is_published_so_before_it_is_closed() -> None:
    """Its root's end is published at once with the final status; an open step keeps it running."""
    trace, root, child = "c" * 32, "1" * 16, "2" * 16
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits())
    at = START_US
    process.batch(
        [
            record_of(0, event(trace, root, "", "start", at)),
            record_of(1, event(trace, child, root, "start", at)),
        ]
    )
    while process.flight:
        process.pump()
    assert kafka.final()[trace]["status"] == "running"
    process.batch([record_of(2, event(trace, child, root, "end", at, at + 9))])
    process.batch([record_of(3, event(trace, root, "", "end", at, at + 10))])
    while process.flight:
        process.pump()
    final = kafka.final()[trace]
    assert (final["status"], final.get("closed", False), final.get("open_steps", 0)) == (
        "ok",
        False,
        0,
    )


def test_a_step_after_the_horizon_changes_no_trajectory() -> None:
    """Too late is counted, and neither a revision nor a fragment appears."""
    trace, root, child = "b" * 32, "1" * 16, "2" * 16
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits(late_horizon_us=60_000_000))
    at = START_US
    process.batch([record_of(0, event(trace, root, "", "end", at, at + 10))])
    process.settle(at)
    process.logic.tick(at + 70_000_000)
    process.logic.flush()
    before = kafka.final()[trace]
    late = record_of(1, event(trace, child, root, "end", at + 5, at + 9))
    late.timestamp = at // 1000 + 90_000
    process.batch([late])
    process.settle(at + 300_000_000)
    assert kafka.final()[trace] == before
    assert process.logic.counters.too_late == 1
    assert kafka.committed == 2


def test_a_second_late_fragment_of_a_forgotten_run_keeps_no_offset() -> None:
    """Nothing is published of either one, and the committed offset passes both."""
    trace, root, at = "b" * 32, "1" * 16, START_US
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits())
    for offset in range(2):
        late = record_of(offset, event(trace, f"{offset + 2:016x}", root, "end", at, at + 9))
        late.timestamp = (at + 2 * HOUR_US) // 1000 + offset * 300_000
        process.batch([late])
        process.settle(late.timestamp * 1000)
        assert not process.logic.runs
        assert kafka.committed == offset + 1
    assert not kafka.values("trajectories")


def test_rejected_records_keep_the_safe_offset_until_their_copy_is_acknowledged() -> None:
    """Poison goes to the dead letter, and an offset is not passed before it has arrived there."""
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits())
    process.logic.process(Rec(0, START_US // 1000, b"x", b"garbage"))
    process.logic.flush()
    (output,) = process.logic.take_outputs()
    assert output.topic == "deadletter"
    assert process.logic.offsets.safe == 0
    process.logic.acknowledged(output)
    assert process.logic.offsets.safe == 1


def test_a_step_on_a_wrong_partition_is_sent_to_the_right_one() -> None:
    """A producer with another partitioner costs a detour, not a run in two halves."""
    from stepstream.schemas.partitioner import partition_for
    from stepstream.schemas.prices import PriceBook
    from stepstream.stream.assemble.partition import AssemblePartition
    from stepstream.stream.detectors import make_detector
    from stepstream.stream.run.rules import RuleBook

    trace = "c" * 32
    right = partition_for(trace, 4)
    logic = AssemblePartition(
        (right + 1) % 4, 4, rules=RuleBook((), make_detector), prices=PriceBook()
    )
    logic.process(record_of(0, event(trace, "1" * 16, "", "end", START_US)))
    (output,) = logic.take_outputs()
    assert (output.topic, output.partition, logic.counters.misrouted) == ("steps", right, 1)
    assert not logic.runs


def test_a_run_of_fifty_thousand_steps_is_bounded_and_counted() -> None:
    """Beyond the limit steps are counted, not merged; the run still closes."""
    trace = "d" * 32
    limits = AssembleLimits(max_steps_per_run=2_000)
    kafka = Kafka()
    process = Process(kafka, random.Random(0), limits)
    log = [record_of(0, event(trace, "f" * 16, "", "start", START_US))]
    log += [
        record_of(i, event(trace, f"{i:016x}", "f" * 16, "end", START_US)) for i in range(1, 50_000)
    ]
    log.append(record_of(50_000, event(trace, "f" * 16, "", "end", START_US, START_US + 5)))
    # In batches, as a worker reads them; one record at a time takes much longer.
    for start in range(0, len(log), 5_000):
        process.batch(log[start : start + 5_000])
    process.settle(log[-1].timestamp * 1000)
    final = kafka.final()[trace]
    assert (final["steps"], final["steps_over_limit"], final["status"]) == (2_000, 48_000, "ok")
    assert kafka.committed == len(log)


def test_cycles_and_second_roots_are_kept_and_counted() -> None:
    """A cycle of parents and a second root neither crash nor hide a step."""
    trace, a, b, r1, r2 = "e" * 32, "a" * 16, "b" * 16, "1" * 16, "2" * 16
    items = [
        event(trace, r1, "", "end", START_US, START_US + 50),
        event(trace, a, b, "end", START_US + 1),
        event(trace, b, a, "end", START_US + 2),
        event(trace, r2, "", "end", START_US + 3),
        event(trace, "9" * 16, "8" * 16, "end", START_US + 4),
    ]
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits())
    process.batch([record_of(i, item) for i, item in enumerate(items)])
    process.settle(START_US)
    final = kafka.final()[trace]
    assert (final["steps"], final["extra_roots"], final["orphan_steps"], final["root_step_id"]) == (
        5,
        1,
        1,
        r1,
    )
