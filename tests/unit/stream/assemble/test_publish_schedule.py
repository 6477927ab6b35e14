"""When runs are published: growth in turn within a budget; begins, ends and usage at once."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from stepstream.schemas.times import SECOND_US
from stepstream.stream.assemble import publish_schedule as publisher
from stepstream.stream.assemble.progress import MARGIN_US, ProgressReporter
from stepstream.stream.assemble.publish_schedule import (
    EACH_SECOND,
    LONGEST_USAGE_US,
    RECORDS_EACH,
    RUNS_AT_FULL_RATE,
    Budget,
    usage_every_us,
)
from stepstream.stream.run.limits import AssembleLimits
from tests.support.stream_world import START_US, Kafka, Process, event, record_of

OFFSETS_A_SECOND = 10_000
RUNS = [f"{number:032x}" for number in range(1, 2_001)]


def test_a_budget_is_earned_by_records_and_by_time() -> None:
    """A share of the records and this many a second, and no more saved up than two seconds earn."""
    budget = Budget()
    budget.refill(10**9, START_US)
    spent = 0
    while not budget.is_spent:
        budget.spend()
        spent += 1
    assert spent == 2 * EACH_SECOND
    budget.refill(10**9 + 10 * RECORDS_EACH, START_US)
    budget.refill(10**9 + 10 * RECORDS_EACH, START_US + SECOND_US // 10)
    while not budget.is_spent:
        budget.spend()
        spent += 1
    assert spent == 2 * EACH_SECOND + 10 + EACH_SECOND // 10


def published(kafka: Kafka, name: str) -> Counter[str]:
    return Counter(value["trace_id"] for value in kafka.values(name))


def process_all(process: Process, at: int, items: list[dict[str, Any]]) -> None:
    """All appended in the same moment."""
    records = [record_of(at * OFFSETS_A_SECOND + number, item) for number, item in enumerate(items)]
    for record in records:
        record.timestamp = (START_US + at * SECOND_US) // 1000
    process.batch(records)
    for _ in range(60):
        process.pump()


def test_growing_runs_take_turns_and_nothing_else_waits() -> None:
    """2,000 runs grow each second: begins, usage and ends go at once, growth within the budget."""
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits(usage_interval_us=2 * SECOND_US))
    process_all(process, 0, [event(trace, "1" * 16, "", "start", START_US) for trace in RUNS])
    # The first trajectory of each run is never delayed.
    assert set(published(kafka, "trajectories").values()) == {1}
    for second in (1, 2, 3, 4):
        steps = [
            event(trace, f"{second + 1:016x}", "1" * 16, "end", START_US, cost_usd="0.1")
            for trace in RUNS
        ]
        process_all(process, second, steps)
    growth = published(kafka, "trajectories")
    earned = 4 * (EACH_SECOND + OFFSETS_A_SECOND // RECORDS_EACH)
    assert (
        0.8 * earned < sum(growth.values()) - len(RUNS) < earned + 2 * EACH_SECOND < 4 * len(RUNS)
    )
    # Turns are fair: no run is published twice before another one once.
    assert max(growth.values()) - min(growth.values()) <= 1
    assert process.logic.counters.trajectories_delayed > 0
    published_usage: dict[str, str] = {}
    for value in kafka.values("usage"):
        published_usage[value["trace_id"]] = value["cost_usd"]
    assert set(published_usage) == set(RUNS)
    assert set(published_usage.values()) <= {"0.2", "0.3", "0.4"}  # at most two seconds behind
    process_all(process, 5, [event(trace, "1" * 16, "", "end", START_US) for trace in RUNS])
    process.settle(START_US + 30 * SECOND_US)
    assert {value["closed"] for value in kafka.final().values()} == {True}


def test_the_usage_of_very_many_runs_is_published_less_often_and_progress_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With four times the runs, each one's usage is published every fourth interval.

    Progress reports no time before all usage until then is published.
    """
    assert usage_every_us(SECOND_US, RUNS_AT_FULL_RATE) == SECOND_US
    assert usage_every_us(SECOND_US, 3 * RUNS_AT_FULL_RATE) == 3 * SECOND_US
    assert usage_every_us(SECOND_US, 10**9) == LONGEST_USAGE_US
    monkeypatch.setattr(publisher, "RUNS_AT_FULL_RATE", len(RUNS) // 4)
    kafka, limits = Kafka(), AssembleLimits(usage_interval_us=2 * SECOND_US)
    process, reporter = Process(kafka, random.Random(0), limits), ProgressReporter(1, limits)
    used_at: dict[int, float] = {}
    for second in range(20):
        steps = [
            event(trace, f"{second + 1:016x}", "1" * 16, "end", START_US, cost_usd="0.1")
            for trace in RUNS
        ]
        process_all(process, second, steps)
        used_at[START_US + second * SECOND_US] = 0.1 * (second + 1)
        published_usage = {
            value["trace_id"]: float(value["cost_usd"]) for value in kafka.values("usage")
        }
        for output in reporter.due(process.logic):
            until_us = msgspec.json.decode(output.value or b"")["time"]
            known = max((usd for at_us, usd in used_at.items() if at_us <= until_us), default=0.0)
            assert min(published_usage.values(), default=0.0) >= known - 1e-9
            assert until_us >= START_US + (second - 8) * SECOND_US - MARGIN_US
    times = Counter(value["trace_id"] for value in kafka.values("usage"))
    assert set(times.values()) == {2}  # every eight seconds
