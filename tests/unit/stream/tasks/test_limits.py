"""Queues: concurrency, rate, pause and the circuit breaker."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.schemas.documents import WrongDocument, document_of
from stepstream.schemas.task_queue import Queue
from tests.support.task_world import SECOND, TaskWorld, agent, started


def queue(name: str = "q", **fields: Any) -> Queue:
    made = document_of({"kind": "Queue", "name": name, **fields})
    assert isinstance(made, Queue)
    return made


def a_world(*queues: Queue) -> TaskWorld:
    world = TaskWorld()
    world.change_queues(*queues)
    world.hello("e1", agent("refund"), agent("search"), slots=50)
    return world


def running(world: TaskWorld) -> list[str]:
    return sorted(task.task_id for task in world.live().values() if task.state != "waiting")


def test_concurrency_of_a_queue_and_of_each_agent() -> None:
    world = a_world(queue(concurrency=3, per_agent=2))
    for number in range(3):
        world.submit(f"r{number}")
        world.submit(f"s{number}", agent="search")
    assert running(world) == ["r0", "r1", "s0"]
    assert world.task("s2").waiting_for == "limit"
    assert "queue q runs 3 attempts" in world.task("s2").detail
    world.end(started(world, "r0"))
    assert len(running(world)) == 3


def test_a_restart_and_a_change_keep_the_limits() -> None:
    """What runs counts; a queue that is deleted limits nothing."""
    limit = queue(concurrency=1, match={"agent": "refund"})
    world = a_world(limit)
    world.submit("a")
    world.submit("b")
    world.restart()
    assert running(world) == ["a"]
    world.submit("c", agent="search")
    assert running(world) == ["a", "c"]
    world.change_queues()
    assert running(world) == ["a", "b", "c"]


def test_a_rate_is_a_burst_and_then_spread() -> None:
    world = a_world(queue(rate={"attempts": 2, "per": "10s"}))
    for number in range(5):
        world.submit(f"t{number}")
    assert running(world) == ["t0", "t1"]
    world.wait(4, beats=("e1",))
    assert running(world) == ["t0", "t1"]
    world.wait(2, beats=("e1",))
    assert running(world) == ["t0", "t1", "t2"]
    world.wait(10, beats=("e1",))
    assert len(running(world)) == 5


def test_a_paused_queue_binds_nothing() -> None:
    world = a_world(queue(paused=True))
    world.submit("t")
    assert (world.task("t").waiting_for, world.task("t").detail) == ("limit", "queue q is paused")
    world.change_queues()
    assert running(world) == ["t"]


def test_failures_pause_a_queue_and_one_success_opens_it() -> None:
    world = a_world(queue(breaker={"failures": 0.5, "at_least": 4, "pause": "30s"}))
    for number in range(4):
        world.submit(f"t{number}")
        world.end(started(world, f"t{number}"), "failed" if number else "ok", error_type="E")
    assert [(one.alert, one.state) for one in world.findings] == [("queue-paused", "firing")]
    for number in range(3):
        world.submit(f"u{number}")
    assert running(world) == []
    assert world.task("u0").waiting_until_us == world.now_us + 30 * SECOND
    world.wait(31, beats=("e1",))
    assert running(world) == ["u0"]
    world.end(started(world, "u0"))
    assert [one.state for one in world.findings] == ["firing", "resolved"]
    assert running(world) == ["u1", "u2"]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "without a limit"),
        ({"concurrency": 0}, "greater than 0|more than 0"),
        ({"concurrency": 1, "per_agent": 2}, "has no effect"),
        ({"rate": {"attempts": 0}}, "greater than 0|more than 0"),
        ({"concurency": 1}, "concurrency"),
        ({"concurrency": 1, "match": {"agents": "a"}}, "agent"),
    ],
    ids=str,
)
def test_limits_that_cannot_be_meant_are_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(WrongDocument, match=why):
        queue(**fields)
