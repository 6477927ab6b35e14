"""Usage records: running totals whose newest values sum to the steps, for any owner of a run."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.times import MINUTE_US
from stepstream.stream.run.limits import AssembleLimits
from tests.support.stream_world import START_US, Kafka, Process, event, record_of

TRACE, ROOT = "a" * 32, "1" * 16
Key = tuple[str, str, int]


def newest(kafka: Kafka) -> dict[Key, dict[str, Any]]:
    """As a reader keeps them: the highest revision by agent, version and minute; empty are zero."""
    found: dict[Key, dict[str, Any]] = {}
    for value in kafka.values("usage"):
        if "kind" in value:
            continue
        key = (value.get("agent", ""), value.get("agent_version", ""), value["minute"])
        if value["revision"] >= found.get(key, {"revision": -1})["revision"]:
            found[key] = value
    return {key: value for key, value in found.items() if value.get("steps", 0)}


def summed(kafka: Kafka) -> dict[Key, tuple[int, int, int]]:
    """Steps, cost and input tokens by key."""
    return {
        key: (
            value["steps"],
            nanos_from_usd(value.get("cost_usd", "0")),
            value.get("input_tokens", 0),
        )
        for key, value in newest(kafka).items()
    }


def step(number: int, agent: str, *, minute: int = 0, version: str = "") -> dict[str, Any]:
    """A step that cost ``number`` nano-dollars and used as many tokens."""
    at = START_US - START_US % MINUTE_US + minute * MINUTE_US + 1_000
    return event(
        TRACE,
        f"{number:016x}",
        ROOT,
        "end",
        at,
        cost_usd=f"{number / 1e9:.9f}",
        usage={"input_tokens": number},
        agent=agent,
        agent_version=version,
    )


def root(phase: str = "end", agent: str = "boss") -> dict[str, Any]:
    at = START_US - START_US % MINUTE_US
    return event(TRACE, ROOT, "", phase, at, at + 500, agent=agent)


def play(batches: list[list[dict[str, Any]]], *, restart_after: int | None = None) -> Kafka:
    """Process batch by batch, all acknowledged between them; optionally crash after one."""
    kafka, offset = Kafka(), 0
    limits = AssembleLimits(replay_records=0)
    process = Process(kafka, random.Random(0), limits)
    log = []
    for index, batch in enumerate(batches):
        records = [record_of(offset + place * 60, item) for place, item in enumerate(batch)]
        offset += 60 * len(batch)
        log += records
        process.batch(records)
        for _ in range(12):
            process.logic.tick(records[-1].timestamp * 1000 + 1_200_000)
            process.logic.flush()
            process.pump()
        if index == restart_after:
            process = Process(kafka, random.Random(1), limits)
            process.batch([record for record in log if record.offset >= kafka.committed])
    process.settle(log[-1].timestamp * 1000 + 1_200_000)
    return kafka


FIRST = START_US - START_US % MINUTE_US


def test_steps_count_for_their_own_agent_version_and_minute() -> None:
    """A step keeps its own agent; one usage record stands for each agent, version and minute."""
    kafka = play(
        # Costs of 5, 7 and 9: each sum shows which steps are in it.
        [[root("start"), step(5, "a"), step(7, "a", version="2"), step(9, "b", minute=1), root()]]
    )
    assert summed(kafka) == {
        ("boss", "", FIRST): (1, 0, 0),
        ("a", "", FIRST): (1, 5, 5),
        ("a", "2", FIRST): (1, 7, 7),
        ("b", "", FIRST + MINUTE_US): (1, 9, 9),
    }


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_steps_without_an_agent_count_once_for_their_run_whenever_the_root_comes(
    order: tuple[int, ...],
) -> None:
    """Usage under a previous owner is withdrawn: a total must not count a step twice."""
    # A step without an agent counts for the root's agent, and the root may come last.
    items = [root(), step(5, ""), step(7, "helper"), step(9, "", minute=1)]
    kafka = play([[items[index]] for index in order])
    assert summed(kafka) == {
        ("boss", "", FIRST): (2, 5, 5),
        ("helper", "", FIRST): (1, 7, 7),
        ("boss", "", FIRST + MINUTE_US): (1, 9, 9),
    }


@pytest.mark.parametrize("crash", range(4))
def test_a_restart_in_between_leaves_no_double_count(crash: int) -> None:
    """Whose the run seemed to be before a restart is taken back after it."""
    batches = [[step(5, "")], [step(7, "helper")], [root("start")], [root()]]
    kafka = play(batches, restart_after=crash)
    assert summed(kafka) == {("boss", "", FIRST): (2, 5, 5), ("helper", "", FIRST): (1, 7, 7)}


def test_totals_are_right_while_the_run_is_still_open() -> None:
    """Running totals, never deltas, and not only at the end."""
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits())
    for offset, item in enumerate([root("start"), step(5, ""), step(7, "a")]):
        process.batch([record_of(offset, item)])
    for turn in range(1, 16):
        process.logic.tick(START_US + turn * 500_000)
        process.logic.flush()
        process.pump()
    assert kafka.final()[TRACE]["status"] == "running"
    assert summed(kafka) == {("boss", "", FIRST): (1, 5, 5), ("a", "", FIRST): (1, 7, 7)}


def test_only_changed_minutes_are_published_again() -> None:
    """A long run does not send all its minutes with every revision."""
    kafka = Kafka()
    process = Process(kafka, random.Random(0), AssembleLimits())
    items = [root("start"), *(step(number, "a", minute=number) for number in range(1, 6))]
    for place, item in enumerate(items):
        process.batch([record_of(place * 300, item)])  # six seconds apart
        for _ in range(8):
            process.pump()
    minutes = [value["minute"] for value in kafka.values("usage")]
    assert minutes == [FIRST + number * MINUTE_US for number in range(1, 6)]
