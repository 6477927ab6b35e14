"""Leases, fencing numbers, and restarts of the stage."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.schemas.task_bindings import NewEpochStruct
from stepstream.schemas.task_common import epoch_of
from tests.support.task_world import TaskWorld, agent, started

RETRY = {"attempts": 3, "on": ["lost_lease"], "wait_max_us": 0}


@pytest.fixture
def world() -> TaskWorld:
    return TaskWorld()


def test_heartbeats_renew_a_lease(world: TaskWorld) -> None:
    """It ends 45 s after the last heartbeat that names the attempt."""
    world.hello("e1", agent())
    world.submit("t")
    started(world)
    world.wait(300, beats=("e1",))
    assert world.task("t").state == "running"
    world.wait(44)
    assert world.task("t").state == "running"
    world.wait(2)
    assert (world.task("t").state, world.task("t").reason) == ("dead", "lease_lost")
    assert world.executor("e1").state == "lost"


def test_nothing_is_run_again_after_it_has_started_by_default(world: TaskWorld) -> None:
    """An attempt without a claim has not started: another executor gets it."""
    world.hello("e1", agent(), slots=2)
    world.submit("started")
    started(world, "started")
    world.submit("bound")
    world.wait(60)
    world.hello("e2", agent(), slots=2)
    assert world.task("started").state == "dead"
    assert world.runs("bound")[-1].executor_id == "e2"
    assert world.task("bound").executors_lost == 0


@pytest.mark.parametrize("settings", [{"idempotent": True}, {"retry": RETRY}], ids=str)
def test_agents_that_allow_it_run_again(world: TaskWorld, settings: dict[str, Any]) -> None:
    """The result of the lost attempt is not taken; it is asked to stop."""
    world.hello("e1", agent(**settings))
    world.submit("t")
    lost = started(world)
    world.wait(50)
    world.hello("e2", agent(**settings))
    again = started(world)
    assert again.fence > lost.fence
    world.end(lost, result="of the lost one")
    assert world.task("t").state == "running"
    world.beat("e1")
    assert lost.fence in [one.fence for one in world.releases()]
    world.end(again, result="of the second")
    assert world.task("t").state == "ok"


def test_a_task_that_ends_its_executors_is_dead(world: TaskWorld) -> None:
    """After three of them: it never takes the fleet down."""
    for number in range(5):
        world.hello(f"e{number}", agent(retry={**RETRY, "attempts": 9}))
    world.submit("t")
    for _ in range(3):
        world.leave(started(world).executor_id)
    assert (world.task("t").state, world.task("t").reason) == ("dead", "kills_executors")
    assert len(world.runs("t")) == 3


def test_an_executor_that_comes_back_serves_again(world: TaskWorld) -> None:
    """A frozen one: its attempts were lost, its slots are free."""
    world.hello("e1", agent())
    world.wait(50)
    assert world.executor("e1").state == "lost"
    world.submit("t")
    assert world.task("t").state == "waiting"
    world.beat("e1")
    assert world.task("t").state == "bound"


def test_no_lease_ends_while_heartbeats_may_be_late(world: TaskWorld) -> None:
    """After a time in which nothing was read, executors get ten seconds."""
    world.hello("e1", agent())
    world.submit("t")
    started(world)
    world.wait(20, beats=("e1",))
    world.wait(60, step_s=60)  # the worker did not read for a minute
    world.wait(9)
    world.beat("e1")
    world.wait(3)
    assert world.task("t").state == "running"


def test_no_lease_ends_while_brokers_have_failed(world: TaskWorld) -> None:
    """Each tick of an outage moves the time from which silence counts."""
    world.hello("e1", agent())
    world.submit("t")
    started(world)
    for _ in range(80):
        world.wait(1)
        world.stage.delay_timers()
    world.beat("e1")
    world.wait(30, beats=("e1",))
    assert world.task("t").state == "running"


# -- restarts ------------------------------------------------------------------------------------


def test_a_new_owner_continues(world: TaskWorld) -> None:
    """With waiting, bound, running and ended tasks; fencing numbers grow."""
    world.hello("e1", agent(key_field="user_id"), slots=3)
    for name in ("ended", "running", "bound", "waiting"):
        world.submit(name, user_id=name)
    world.end(started(world, "ended"), result=1)
    running = started(world, "running")
    before = world.runs("bound")[-1]
    world.hello("e1", agent(key_field="user_id"), slots=2)
    world.restart()
    assert world.stage.epoch == 2
    # What was bound is sent once more with its number; then the new epoch begins.
    kinds = [one for one in world.bindings if one.executor_id == "e1"]
    assert isinstance(kinds[-1], NewEpochStruct)
    assert world.runs("bound")[-1].fence == before.fence
    world.end(running, result=2)
    assert world.task("running").state == "ok"
    world.end(started(world, "bound"))
    world.end(started(world, "waiting"))
    assert {name: world.task(name).state for name in ("bound", "waiting")} == {
        "bound": "ok",
        "waiting": "ok",
    }
    assert epoch_of(world.runs("waiting")[-1].fence) <= 2
    world.submit("ended")
    assert world.task("ended").event == "repeated"


def test_leases_count_from_a_restart(world: TaskWorld) -> None:
    """Heartbeats are not recorded: a new owner gives every attempt a whole lease."""
    world.hello("e1", agent())
    world.submit("t")
    started(world)
    world.wait(200, beats=("e1",))
    world.restart()
    world.wait(40)
    assert world.task("t").state == "running"
    world.wait(20)
    assert world.task("t").state == "dead"


def test_records_that_are_read_again_change_nothing(world: TaskWorld) -> None:
    """A worker that committed nothing: each task is where it was."""
    world.hello("e1", agent(retry={"attempts": 2, "on": ["exception"], "wait_max_us": 0}))
    world.submit("ok")
    world.end(started(world, "ok"), result=1)
    world.submit("again")
    world.end(started(world, "again"), "failed", error_type="E")
    started(world, "again")
    world.submit("gone")
    world.cancel("gone")
    before = {name: world.task(name) for name in ("ok", "again", "gone")}
    bound = len(world.runs("ok")) + len(world.runs("again")) + len(world.runs("gone"))
    world.restart(position=0)
    for name, task in before.items():
        now = world.task(name)
        assert (now.state, now.attempt, now.fence) == (task.state, task.attempt, task.fence), name
    assert len({run.fence for run in world.runs()}) == bound
    assert world.refusals() == []


def test_a_key_is_still_owned_after_a_restart(world: TaskWorld) -> None:
    """The running task keeps it; the next one follows."""
    world.hello("e1", agent(), slots=4)
    world.submit("a", key="k")
    run = started(world, "a")
    world.submit("b", key="k")
    world.restart()
    assert world.runs("b") == []
    world.end(run)
    assert len(world.runs("b")) == 1
