"""Memory of runs is counted incrementally: the sums equal those of a walk over all runs."""

from __future__ import annotations

import random

import pytest

from stepstream.stream.assemble import memory_accounting
from stepstream.stream.assemble.memory_accounting import MemoryAccounting, run_bytes
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.run.limits import AssembleLimits
from tests.support.stream_world import START_US, Kafka, Process, Rec, event, record_of


def walked(logic: AssemblePartition) -> tuple[int, int, int]:
    """Open runs, their bytes and the bytes of all runs, by counting each."""
    runs = [active.run for active in logic.runs.values()]
    still_open = [run for run in runs if not run.closed]
    return len(still_open), sum(map(run_bytes, still_open)), sum(map(run_bytes, runs))


def counted(logic: AssemblePartition) -> tuple[int, int, int]:
    """The same, as it was counted."""
    return logic._memory.open, logic._memory.open_bytes, logic._memory.size_bytes


@pytest.mark.parametrize("seed", range(10))
def test_what_is_counted_is_what_is_in_memory(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through growth, ends, late steps, closing by force, given-up runs and crashes."""
    monkeypatch.setattr(memory_accounting, "SPARE", 5)
    rng, kafka = random.Random(seed), Kafka()
    limits = AssembleLimits(
        max_open_runs=25, max_closed_runs=10, max_held_bytes=90_000, replay_records=40
    )
    process = Process(kafka, random.Random(seed), limits)
    log: list[Rec] = []
    forced_closed = 0
    for turn in range(150):
        for _ in range(rng.randrange(1, 6)):
            trace_id, step_id = f"{rng.randrange(1, 60):032x}", f"{rng.randrange(1, 6):016x}"
            parent = "" if step_id.endswith("1") else f"{1:016x}"
            item = event(
                trace_id, step_id, parent, rng.choice(["start", "end"]), START_US + turn * 300_000
            )
            log.append(record_of(len(log), item))
            log[-1].timestamp = (START_US + turn * 300_000) // 1000
        process.batch([record for record in log if record.offset >= process.logic.offsets.position])
        if process.logic.runs and rng.random() < 0.05:
            process.logic._fail_run(
                rng.choice(list(process.logic.runs.values())), ValueError("for the test")
            )
        for _ in range(rng.randrange(4)):
            process.pump()
        assert counted(process.logic) == walked(process.logic)
        assert process.logic._memory.open <= limits.max_open_runs
        assert len(process.logic._memory._idle) <= 2 * process.logic._memory.open + len(log)
        if rng.random() < 0.05:
            forced_closed += process.logic.counters.forced_closed
            process.crash()
            process = Process(kafka, random.Random(turn), limits)
            assert counted(process.logic) == walked(process.logic)
    assert forced_closed


def test_the_idlest_are_those_that_were_silent_for_longest() -> None:
    """In any order of opening; a run with a record since then is not one of them."""
    process = Process(Kafka(), random.Random(1), AssembleLimits())
    # All forty open in order, then 25 of them go on in another order.
    order = [*range(1, 41), *random.Random(5).sample(range(1, 41), 25)]
    for offset, number in enumerate(order):
        item = event(f"{number:032x}", f"{offset + 1:016x}", "f" * 16, "start", START_US)
        record = record_of(offset, item)
        record.timestamp = START_US // 1000 + offset
        process.logic.process(record)
    sizes: MemoryAccounting = process.logic._memory
    by_silence = sorted(process.logic.runs.values(), key=lambda active: active.run.last_append_us)
    assert sizes.idlest(12) == by_silence[:12]
    assert sizes.idlest(40) == by_silence
    assert sizes.idlest(0, 3 * by_silence[0].size_bytes) == by_silence[:3]
    assert sizes.idlest(-5, -5) == []


def test_a_batch_closes_by_force_no_more_runs_than_it_opens() -> None:
    """With very many open, a turn does the batch's own share only, and no run waits for more."""
    process = Process(Kafka(), random.Random(1), AssembleLimits(max_open_runs=100))
    closed = []
    for first in range(0, 1_000, 50):
        before = process.logic.counters.forced_closed
        process.batch(
            [
                record_of(n, event(f"{n + 1:032x}", "a" * 16, "", "start", START_US))
                for n in range(first, first + 50)
            ]
        )
        closed.append(process.logic.counters.forced_closed - before)
        process.pump()
    assert closed == [0, 0] + [50] * 18
