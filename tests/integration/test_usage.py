"""Windows over real Kafka, through crashes: sealed totals are exact, a budget is reported once."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepstream.common.kafka import read_to_end
from stepstream.schemas.times import MINUTE_US
from stepstream.schemas.topics import topic
from tests.support.processes import wait_until
from tests.support.worker_world import World, now_us, step, trace

PART_US = 5 * MINUTE_US
POLICY = {
    "name": "daily",
    "rules": [{"rule": "spend", "alert": "day", "limit_usd": "0.0001", "warn_at": None}],
}


Make = Callable[[str], World]


@pytest.fixture
def made(kafka_bootstrap: str, tmp_path: Path) -> Iterator[Make]:
    """Makes installations whose windows are sealed after a lateness; always ends their workers."""
    worlds: list[World] = []

    def make(lateness: str) -> World:
        worlds.append(World(kafka_bootstrap, tmp_path, window_lateness=lateness))
        return worlds[-1]

    yield make
    for world in worlds:
        world.process.kill()
        world.collected.close()


def fleet(world: World) -> dict[bytes, set[bytes]]:
    """Every value that each key of the fleet topic ever had."""
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for message in read_to_end(world.settings, topic(world.settings.topic_prefix, "fleet")):
        if value := message.value():
            found[message.key() or b""].add(value)
    return found


def ready_at(world: World) -> list[int]:
    """The offsets that the worker went on from, of each partition of usage."""
    log = world.process.tail(200).splitlines()
    return [
        int(line.rsplit(" ", 1)[1])
        for line in log
        if "ready: " in line and ".usage partition" in line
    ]


def windows(world: World, before_us: int) -> list[dict[str, Any]]:
    """The sealed windows of the steps that were sent."""
    found = [
        msgspec.json.decode(next(iter(values)))
        for key, values in fleet(world).items()
        if b"|window|" in key
    ]
    return [
        window for window in found if window["start"] < before_us and window["agent"] == "tester"
    ]


def test_sealed_windows_are_exact_after_crashes(made: Make) -> None:
    """Steps, cost, runs and failures of a sealed window are those sent, despite crashes."""
    end_us = now_us() // PART_US * PART_US
    # So that the part of the hour before now is sealed in a moment.
    lateness_s = (now_us() - end_us) // 1_000_000 + 20
    world = made(f"{lateness_s}s")
    world.apply(POLICY)
    rng = random.Random(1)
    sent, cost_nanos, failed = [], 0, 0
    for number in range(40):
        run, at = trace(), end_us - rng.randrange(1, PART_US)
        cost = rng.randrange(10**6)
        status = "error" if number % 8 == 0 else "ok"
        times: dict[str, Any] = {"start_time": at - 5, "end_time": at}
        sent += [
            step(run, 2, cost_usd=f"{cost / 1e9:.9f}", **times),
            step(run, 1, status=status, **times),
        ]
        cost_nanos, failed = cost_nanos + cost, failed + (status == "error")
    world.send(*sent, *sent[:20])
    world.start()
    world.wait_for("usage", lambda value: value.get("kind") == "run", 30)
    world.process.kill()
    world.start()
    world.wait_for("usage", lambda value: value.get("kind") == "progress", 30)
    world.process.kill()
    world.start()
    wait_until(
        lambda: windows(world, end_us),
        60,
        "sealed windows",
        every_s=0.5,
        instead=world.process.tail,
    )
    minutes = [minute for window in windows(world, end_us) for minute in window["minutes"]]
    assert sum(minute["cost_nanos"] for minute in minutes) == cost_nanos
    assert sum(minute["steps"] for minute in minutes) == len(sent)
    assert (sum(m["runs"] for m in minutes), sum(m.get("failed_runs", 0) for m in minutes)) == (
        40,
        failed,
    )

    alert = world.wait_for("alerts", lambda value: value["alert"] == "day")
    assert (alert["rule"], alert["state"], alert["policy"], alert["seq"]) == (
        "spend",
        "firing",
        "daily",
        1,
    )
    assert (
        len(
            {
                f.value["finding_id"]
                for f in world.collected.records["findings"]
                if f.value["alert"] == "day"
            }
        )
        == 1
    )
    sealed = {key: values for key, values in fleet(world).items() if b"|window|" in key}
    assert [key for key, values in sealed.items() if len(values) > 1] == [], (
        "a window was sealed twice, differently"
    )


def test_the_next_worker_goes_on_from_the_checkpoint(made: Make) -> None:
    """The safe offset of usage moves with seals, and the fleet topic stores where to continue."""
    world = made("1s")
    world.start()
    run, at = trace(), now_us() - 20 * MINUTE_US
    world.send(step(run, 1, start_time=at, end_time=at))
    wait_until(
        lambda: any(key.startswith(b"!windows|") for key in fleet(world)),
        60,
        "a checkpoint of windows",
        every_s=0.5,
        instead=world.process.tail,
    )
    assert world.process.terminate() == 0
    world.start()
    wait_until(lambda: len(ready_at(world)) == 2, 20, "both partitions of usage")
    assert max(ready_at(world)) > 0
