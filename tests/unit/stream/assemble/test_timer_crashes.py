"""Findings of timers survive every crash: a replay has the records, but not the silence."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import msgspec
import pytest

from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import RuleBook
from tests.support.stream_bench import policy, root, step, us
from tests.support.stream_world import Kafka, Process, Rec, record_of

POLICIES = (
    policy(
        {"rule": "hung_step", "after": "3s"},
        {"rule": "stuck_run", "after": "6s"},
        {"rule": "run_duration", "limit": "5s", "action": "stop"},
        {"rule": "step_duration", "limit": "4s"},
        mode="enforce",
    ),
)

# A moment in seconds, and the record appended then; without one, a fetch that found no more.
Action = tuple[float, dict[str, Any] | None]


def story() -> list[Action]:
    """A tool call that takes long with nothing else; by its own clock all was within the limits."""
    records: list[Action] = [
        (0.0, root("start", 0.0)),
        (0.2, step(2, "start", 0.2, kind="tool_call", tool="fetch")),
        (8.0, step(2, "end", 0.2, 0.9, kind="tool_call", tool="fetch")),
        (8.2, root("end", 0.0, 1.0)),
    ]
    ticks: list[Action] = [(at / 2, None) for at in range(1, 24)]
    return sorted(records + ticks, key=lambda action: action[0])


def play(seed: int, crash_after: int | None, rng: random.Random) -> Kafka:
    """Play the story with a crash after one of its moments; then replay the log in one batch."""
    kafka = Kafka()
    limits = AssembleLimits(replay_records=10_000)
    rules = RuleBook(POLICIES, make_detector)
    process = Process(kafka, random.Random(seed), limits, rules)
    log: list[Rec] = []
    for index, (at_s, item) in enumerate(story()):
        if item is not None:
            record = record_of(len(log), item)
            record.timestamp = us(at_s) // 1000
            log.append(record)
            process.batch([record])
        else:
            process.logic.tick(us(at_s))
            process.logic.flush()
            for _ in range(rng.randrange(1, 5)):
                process.pump()
        if index == crash_after:
            process.crash()
            process = Process(kafka, random.Random(seed + 1), limits, rules)
            process.batch(log[kafka.committed :] if kafka.committed < len(log) else [])
    process.settle(us(12))
    process.settle(us(212))
    return kafka


def problems(kafka: Kafka) -> dict[tuple[str, str], tuple[int, int]]:
    """Distinct firing and resolving findings by alert and subject."""
    ids: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for value in kafka.values("findings"):
        ids[value["alert"], value.get("subject", ""), value.get("state", "firing")].add(
            value["finding_id"]
        )
    return {
        (alert, subject): (len(ids[alert, subject, "firing"]), len(ids[alert, subject, "resolved"]))
        for alert, subject, _ in list(ids)
    }


def test_the_story_without_a_crash() -> None:
    """Four limits of time are passed, and all four problems end."""
    found = problems(play(1, None, random.Random(1)))
    assert set(found.values()) == {(1, 1)}
    assert {alert for alert, _ in found} == {
        "hung-step",
        "stuck-run",
        "run-duration",
        "step-duration",
    }


@pytest.mark.parametrize("crash_after", range(len(story())))
@pytest.mark.parametrize("seed", range(6))
def test_what_was_reported_is_resolved_whenever_the_crash_comes(
    crash_after: int, seed: int
) -> None:
    """A problem that was published once is known to later owners of the run, and ends with it."""
    kafka = play(seed, crash_after, random.Random(seed))
    assert {
        pair for pair, counts in problems(kafka).items() if counts[0] and not counts[1]
    } == set()
    final = kafka.final()
    assert [(value["steps"], value["closed"]) for value in final.values()] == [(2, True)]


@pytest.mark.parametrize("seed", range(20))
def test_an_order_is_given_with_each_finding_that_asks_for_it(seed: int) -> None:
    """A finding that survived and an order that did not would be a limit without force."""
    rng = random.Random(seed)
    kafka = play(seed, rng.randrange(12, 24), rng)
    asked = {value["finding_id"] for value in kafka.values("findings") if value.get("action")}
    assert asked == {value["finding_id"] for value in kafka.values("control")}


SPENT = (policy({"rule": "run_cost", "limit_usd": "1", "warn_usd": "0.5"}),)


def spend_late(seed: int, crash_after: int | None) -> Kafka:
    """A run warns, closes, and passes its limit late; replays see all before the close."""
    kafka, rng = Kafka(), random.Random(seed)
    limits = AssembleLimits(replay_records=10_000)
    rules = RuleBook(SPENT, make_detector)
    process = Process(kafka, random.Random(seed), limits, rules)
    records = [
        (0.0, root("start", 0.0)),
        (0.2, step(2, "end", 0.1, 0.2, cost_usd="0.6")),
        (0.4, root("end", 0.0, 0.4)),
        (4.0, step(3, "end", 0.2, 0.3, cost_usd="0.6")),
    ]
    moments: list[Action] = sorted(
        [*records, *((at / 4, None) for at in range(1, 24))], key=lambda action: action[0]
    )
    log: list[Rec] = []
    for index, (at_s, item) in enumerate(moments):
        if item is not None:
            record = record_of(len(log), item)
            record.timestamp = us(at_s) // 1000
            log.append(record)
            process.batch([record])
        else:
            process.logic.tick(us(at_s))
            process.logic.flush()
            for _ in range(rng.randrange(1, 4)):
                process.pump()
        if index == crash_after:
            process.crash()
            process = Process(kafka, random.Random(seed + 1), limits, rules)
            # the late step is in the log before the successor has read it
            log = [*log, record_of(3, records[3][1])] if len(log) == 3 else log
            moments[index + 1 :] = [action for action in moments[index + 1 :] if action[1] is None]
            process.batch(log[kafka.committed :])
    process.settle(us(8))
    process.settle(us(208))
    return kafka


@pytest.mark.parametrize("crash_after", [None, *range(4, 26)])
@pytest.mark.parametrize("seed", range(8))
def test_no_alert_stays_open_when_a_run_closes_anew(crash_after: int | None, seed: int) -> None:
    """Closed once with one level passed and once with two: the second's alert ends with it."""
    kafka = spend_late(seed, crash_after)
    fleet = AlertPartition(0)
    alerts: dict[str, Any] = {}
    # Through the alert stage: whether an alert stays open is decided there.
    for offset, output in enumerate(kafka.topics["findings"]):
        fleet.process(Rec(offset, 0, b"", output.value, ()))
        for made in fleet.take_outputs():
            value = msgspec.json.decode(made.value or b"")
            alerts[value["alert_id"]] = value
            fleet.acknowledged(made)
    assert alerts
    assert [value["state"] for value in alerts.values() if value["state"] == "firing"] == []
