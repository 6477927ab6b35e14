"""Windows: exact totals in any order of records and despite crashes, sealed once."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.schemas.fleet import WindowMinute
from stepstream.schemas.times import HOUR_US, MINUTE_US
from stepstream.schemas.trajectory import Progress, RunSummary, Usage
from stepstream.stream.baselines.learner import Learner
from stepstream.stream.usage.partition import WindowPartition
from stepstream.stream.usage.windows.limits import UsageLimits
from stepstream.stream.usage.windows.records import UsageLine, decode_line
from stepstream.stream.usage.windows.totals import FIELDS, USED
from tests.support.usage_world import (
    T0,
    Item,
    Kafka,
    Process,
    closed,
    play,
    progress,
    records,
    rules,
    used,
)

POLICY: Item = {
    "rules": [
        {"rule": "spend", "alert": "day", "window": "day", "limit_usd": "0.00002"},
        {
            "rule": "spend",
            "alert": "user",
            "per": "user_id",
            "window": "hour",
            "limit_usd": "0.000004",
        },
    ]
}


def make_items(
    seed: int, minutes: int = 150
) -> tuple[list[Item], dict[tuple[str, ...], int], dict[int, int]]:
    """A log of growing runs with duplicates, in random order within the lateness.

    Returned with the true cost by owner and minute, and closed runs by minute.
    """
    rng = random.Random(seed)
    timed: list[tuple[float, Item]] = []
    truth: dict[tuple[str, ...], int] = defaultdict(int)
    runs: dict[int, int] = defaultdict(int)
    for number in range(120):
        trace, agent, user = f"{number:032x}", rng.choice("ab"), rng.choice(("u1", "u2", ""))
        start, revision = rng.randrange(minutes), 0
        owner = ("shop", "", agent, "", rng.choice(("", "refund")))
        for minute in range(start, start + rng.randrange(1, 4)):
            cost = 0
            for _ in range(rng.randrange(1, 4)):
                revision += 2
                cost += rng.randrange(1_000)
                who = owner if rng.random() < 0.7 else (*owner[:4], "unknown yet")
                item = used(trace, minute, revision, cost, agent=agent, task=who[4], user_id=user)
                timed += [(minute + rng.random() * 9, item)] * rng.choice((1, 1, 2))
            revision += 2
            item = used(trace, minute, revision, cost, agent=agent, task=owner[4], user_id=user)
            timed.append((minute + rng.random() * 9, item))
            for name in {"", user}:
                truth[*owner, name, str(T0 + minute * MINUTE_US)] += cost
        end = start + rng.randrange(3)
        for late in range(rng.randrange(1, 3)):
            summary = closed(
                trace,
                end,
                revision + 1 + late,
                agent=agent,
                task=owner[4],
                user_id=user,
                reopened=late > 0,
                provisional=not late and rng.random() < 0.3,
            )
            timed += [(end + rng.random() * 9 if not late else end + 9.5, summary)] * rng.choice(
                (1, 2)
            )
        runs[end] += 1
    timed += [
        (minute, progress(minute, partition))
        for minute in range(minutes + 200)
        for partition in range(2)
    ]
    timed.sort(key=lambda pair: pair[0])
    return [item for _, item in timed], {key: cost for key, cost in truth.items() if cost}, runs


def check(kafka: Kafka, truth: dict[tuple[str, ...], int], runs: dict[int, int]) -> None:
    found = {key: cost for key, cost in kafka.sealed().items() if cost}
    assert found == truth
    counted: dict[int, int] = defaultdict(int)
    for window in kafka.windows():
        if not window.user_id and window.end - window.start == HOUR_US:
            for item in window.minutes:
                counted[(window.start - T0) // MINUTE_US + item.minute] += item.runs
                assert sum(item.latency.values()) == item.runs
    assert {minute: count for minute, count in counted.items() if count} == runs


@pytest.mark.parametrize("seed", range(2))
def test_sealed_windows_are_the_sums_of_what_was_used(seed: int) -> None:
    """Duplicates, lower revisions, changed owners, any order within the lateness: equal totals."""
    items, truth, runs = make_items(seed)
    kafka, _ = play(records(items), seed, window_rules=rules(POLICY), partitions=2)
    check(kafka, truth, runs)
    # Windows that are open keep the last offsets back.
    assert kafka.committed > len(items) * 0.9


@pytest.mark.parametrize("zombies", [False, True], ids=["crashes", "zombies"])
@pytest.mark.parametrize("seed", range(10))
def test_windows_and_findings_are_the_same_after_crashes(seed: int, zombies: bool) -> None:
    """Any crash point, also within a seal: the same windows, the same findings and ids."""
    items, truth, runs = make_items(seed)
    log = records(items)
    calm, _ = play(log, seed, window_rules=rules(POLICY), partitions=2)
    wild, crashes = play(
        log, seed, crash_rate=0.1, window_rules=rules(POLICY), partitions=2, zombies=zombies
    )
    assert crashes > 3
    check(wild, truth, runs)
    assert wild.distinct_findings() == calm.distinct_findings()
    # Two empty lists would be equal as well.
    assert len(calm.distinct_findings()) > 2


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_order_and_repetition_change_nothing(data: st.DataObject) -> None:
    """Within the lateness records may come in any order, any number of times."""
    items = [used(f"t{n % 2}", n % 3, 2 * n + 2, 10 * n + 1, task=str(n % 2)) for n in range(14)]
    items += [closed(f"t{n}", n, 99) for n in range(5)]
    shuffled = data.draw(st.permutations(items))
    extra = data.draw(st.lists(st.sampled_from(items), max_size=10))
    sealing = [progress(0), progress(80)]
    plain, _ = play(records([sealing[0], *items, sealing[1]]), 0)
    other, _ = play(records([sealing[0], *shuffled, *extra, sealing[1]]), 0)
    assert other.sealed() == plain.sealed()
    assert sum(plain.sealed().values()) > 0


def test_what_comes_after_sealing_is_counted_and_changes_nothing() -> None:
    """A record of a sealed minute is too late, unless it only repeats what was published before."""
    kafka = Kafka()
    process = Process(kafka, random.Random(0))
    items = [
        used("x", 0, 2, 5),
        progress(30),
        used("x", 0, 4, 9),
        used("x", 0, 6, 9, repeated=True),
        closed("x", 0, 7),
        progress(90),
    ]
    for record in records(items):
        process.logic.process(record)
    process.settle()
    assert sum(kafka.sealed().values()) == 5
    assert process.logic.counters.usage_too_late == 2


def test_a_partition_that_is_behind_makes_nothing_late() -> None:
    """Windows follow the slowest partition of steps, so a late worker finds them open."""
    items = [progress(0, 0), progress(0, 1), progress(300, 0), used("x", 5, 2, 7), progress(300, 1)]
    kafka, _ = play(records(items), 0, partitions=2)
    assert sum(kafka.sealed().values()) == 7


def test_a_run_that_closes_again_counts_once() -> None:
    """A late step moves a run within open windows; one that was sealed stays where it is."""
    items = [
        closed("x", 1, 5, status="error"),
        closed("x", 2, 7, reopened=True),
        progress(30),
        # Minute 2 was sealed at 30 by then: the run stays in it.
        closed("x", 31, 9, reopened=True),
        progress(200),
    ]
    kafka, _ = play(records(items), 0)
    found = [
        (item.minute, item.runs, item.failed_runs)
        for window in kafka.windows()
        for item in window.minutes
    ]
    assert found == [(2, 1, 0)]


def runs_by_agent(kafka: Kafka) -> dict[str, int]:
    """Closed runs in sealed hours."""
    counted: dict[str, int] = defaultdict(int)
    for window in kafka.windows():
        if window.end - window.start == HOUR_US:
            counted[window.agent] += sum(item.runs for item in window.minutes)
    return {agent: count for agent, count in counted.items() if count}


def test_a_run_without_its_root_counts_after_a_minute() -> None:
    """Windows and detectors do not see it before; then it counts in its own minute."""
    kafka = Kafka()
    process = Process(kafka, random.Random(1))
    log = records([progress(1), closed("t", 1, 3, provisional=True), progress(1.9), progress(2.1)])
    owners = ("shop", "", "a", "", "", "")
    process.process(log[:3])
    assert owners not in process.logic.series
    assert process.logic.pending_records == 1
    process.process(log[3:])
    assert process.logic.series[owners].rows(T0 + MINUTE_US)[0].finished == 1


def test_baselines_learn_from_a_run_without_its_root_after_a_minute() -> None:
    """With the agent of the root that came meanwhile, or else its own."""
    learner = Learner()
    stage = WindowPartition(0, 1, learner=learner)
    first = closed("t", 1, 3, agent="inner", provisional=True, first_append_time=T0)
    other = closed("u", 1, 3, agent="alone", provisional=True, first_append_time=T0)
    web = closed("t", 1, 5, agent="web", reopened=True, first_append_time=T0)
    log = records([progress(1), first, other, progress(1.5), web, progress(1.9), progress(2.1)])
    for record in log[:-1]:
        stage.process(record)
    assert {owner.agent for owner in learner.histories if owner.agent} == {"web"}
    stage.process(log[-1])
    assert {owner.agent for owner in learner.histories if owner.agent} == {"web", "alone"}


def test_a_root_that_comes_within_a_minute_brings_its_agent() -> None:
    """The run counts once, for the root's agent alone; later it is corrected."""
    soon = [
        progress(1),
        closed("t", 1, 3, agent="inner", provisional=True),
        progress(1.5),
        closed("t", 1, 5, agent="web", reopened=True),
        progress(200),
    ]
    kafka, _ = play(records(soon), 1)
    assert runs_by_agent(kafka) == {"web": 1}
    later = [*soon[:2], progress(3), soon[3], soon[4]]
    kafka, _ = play(records(later), 1)
    assert runs_by_agent(kafka) == {"web": 1}


def test_too_many_runs_without_a_root_are_sealed_early() -> None:
    """They are bounded like other records."""
    items = [progress(1), *(closed(f"t{n}", 1, 3, provisional=True) for n in range(30))]
    kafka, _ = play(records([*items, progress(200)]), 1, limits=UsageLimits(max_records=20))
    assert sum(runs_by_agent(kafka).values()) <= 30
    assert runs_by_agent(kafka)["a"] >= 20


def test_an_hour_replaces_its_parts() -> None:
    """Parts of an hour are readable while it lasts, and gone when it is sealed as a whole."""
    items = [used("x", 1, 2, 5), progress(20), used("y", 21, 2, 7), progress(40)]
    kafka, _ = play(records(items), 0)
    assert [(w.end - w.start) // MINUTE_US for w in kafka.windows()] == [10, 20]
    kafka, _ = play(records([*items, progress(75)]), 0)
    assert [(w.start, w.end, w.cost_usd) for w in kafka.windows()] == [
        (T0, T0 + HOUR_US, "0.000000012")
    ]


def test_too_much_pending_is_sealed_early_and_counted() -> None:
    """When partitions of steps stop reporting progress, memory stays bounded."""
    process = Process(Kafka(), random.Random(0), limits=UsageLimits(max_records=50))
    for record in records([used(f"{n}", n // 4, 2, 1) for n in range(400)]):
        process.logic.process(record)
    process.settle()
    assert process.logic.counters.usage_forced_seals > 5
    assert process.logic.offsets.safe > 300
    assert sum(process.kafka.sealed().values()) + 51 >= 400


def test_owners_are_bounded() -> None:
    """Beyond the limit owners of a project are counted together, so no total is lost."""
    process = Process(Kafka(), random.Random(0), limits=UsageLimits(max_owners=10))
    items = [used(f"{n}", 0, 2, 1, task=f"task {n}") for n in range(100)]
    for record in records([*items, progress(80)]):
        process.logic.process(record)
    process.settle()
    owners = {key[2:5] for key in process.kafka.sealed()}
    assert len(owners) == 11
    assert ("(others)", "", "") in owners
    assert sum(process.kafka.sealed().values()) == 100
    assert process.logic.counters.usage_over_limit == 90


def test_what_is_no_usage_record_is_dead_lettered() -> None:
    """Bytes that do not decode stop nothing."""
    process = Process(Kafka(), random.Random(0))
    log = records([used("x", 0, 2, 5), {"kind": "of tomorrow"}, progress(80)])
    log[0].value = b"{"
    for record in log:
        process.logic.process(record)
    assert next(output.topic for output in process.logic.take_outputs()) == "deadletter"
    assert process.logic.counters.usage_unknown == 1


def test_lines_match_the_contracts() -> None:
    """Windows read records of all kinds by one struct, whose fields are the contracts' own."""
    named = set(Usage.model_fields) | set(RunSummary.model_fields) | set(Progress.model_fields)
    assert set(UsageLine.__struct_fields__) <= named
    usage, summary = (
        Usage(project="p", trace_id="t", revision=1, minute=5),
        RunSummary(kind="run", project="p", trace_id="t", revision=1, status="ok", time=7),
    )
    assert (
        decode_line(usage.model_dump_json()).kind,
        decode_line(usage.model_dump_json()).minute,
    ) == ("minute", 5)
    assert (
        decode_line(summary.model_dump_json()).kind,
        decode_line(summary.model_dump_json()).time,
    ) == ("run", 7)
    assert tuple(name for name in WindowMinute.model_fields if name in FIELDS) == FIELDS
    assert set(USED) - {"cost_nanos"} <= set(Usage.model_fields)
