"""What waits and runs of each agent, as metrics show it."""

from __future__ import annotations

import pytest

from stepstream.common.observe import Observer
from stepstream.schemas import metrics
from stepstream.stream.core.counters import Counters
from stepstream.stream.shell.observation import WorkerObservation
from stepstream.stream.tasks import backlog
from stepstream.stream.tasks.backlog import backlogs, largest
from tests.support.task_world import SECOND, START_US, TaskWorld, agent, started


def busy_world() -> TaskWorld:
    """One task runs, two wait for its slot, one for an executor, one for its delay."""
    world = TaskWorld()
    world.hello("e1", agent(), agent("idle"))
    world.submit("t1")
    started(world, "t1")
    world.wait(2, beats=("e1",))
    world.submit("t2")
    world.wait(3, beats=("e1",))
    world.submit("t3")
    world.submit("t4", "unserved")
    world.submit("t5", delay_us=60 * SECOND)
    return world


def test_tasks_are_counted_by_agent_and_what_they_wait_for() -> None:
    found = busy_world().stage.backlogs()
    refund = found["shop", "refund"]
    assert refund.tasks == {"running": 1, "slot": 2, "delay": 1}
    # Of those that could run: not since the end of the delay, which is in the future.
    assert refund.oldest_us == START_US + 2 * SECOND
    assert found["shop", "unserved"].tasks == {"executor": 1}
    assert (found["shop", "idle"].tasks, found["shop", "idle"].oldest_us) == ({}, 0)


def test_a_task_that_fell_back_counts_for_the_agent_that_is_to_run_it() -> None:
    world = TaskWorld()
    world.hello("e1", agent(fallback="lite@v2"))
    world.submit("t")
    world.end(started(world), "failed", error_type="ValueError")
    assert world.stage.backlogs()["shop", "lite"].tasks == {"executor": 1}


def test_the_largest_queues_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = backlogs(busy_world().stage.projects["shop"].tasks.values())
    assert len(largest(found)) == 2
    monkeypatch.setattr(backlog, "MAX_QUEUES", 1)
    assert list(largest(found)) == [("shop", "refund")]


def test_metrics_state_the_backlog_of_each_agent() -> None:
    """What a partition no longer has is not shown."""
    observer = Observer()
    seen = WorkerObservation(observer, Counters())
    world = busy_world()
    seen._show_tasks(world.stage, "0")

    def value(metric: metrics.Metric, **labels: str) -> float | None:
        return observer.registry.get_sample_value(metric.name, {"project": "shop", **labels})

    assert value(metrics.QUEUE_TASKS, agent="refund", state="slot") == 2
    assert value(metrics.QUEUE_TASKS, agent="refund", state="running") == 1
    assert value(metrics.QUEUE_TASKS, agent="idle", state="slot") == 0
    assert value(metrics.QUEUE_OLDEST_WAIT, agent="refund") == 3
    assert value(metrics.QUEUE_OLDEST_WAIT, agent="idle") == 0
    open_tasks = observer.registry.get_sample_value(
        metrics.TASKS_OPEN.name, {"partition": "0", "state": "slot"}
    )
    assert open_tasks == 2
