"""The scheduler of tasks: what runs next, and what follows the end of an attempt."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.schemas.task_common import json_value, task_trace_id
from stepstream.schemas.task_messages import (
    ExtendStruct,
    NotReadyStruct,
    OnceStruct,
    ReadyStruct,
    RetryStruct,
)
from tests.support.task_world import SECOND, TaskWorld, agent, started

RETRY = {"attempts": 3, "on": ["exception", "timeout", "lost_lease"], "wait_max_us": 0}


@pytest.fixture
def world() -> TaskWorld:
    return TaskWorld()


# -- the whole way -------------------------------------------------------------------------------


def test_a_task_is_bound_started_and_ended(world: TaskWorld) -> None:
    """Each change is a record; the result is the executor's."""
    world.hello("e1", agent(version="v13", timeout_us=60 * SECOND))
    world.submit("t", input={"order": 7}, user_id="u-9", budget_usd="0.5")
    run = started(world)
    assert (run.executor_id, run.agent, run.version, run.attempt) == ("e1", "refund", "v13", 1)
    assert (json_value(run.input), run.user_id, run.budget_usd) == ({"order": 7}, "u-9", "0.5")
    assert run.trace_id == task_trace_id("shop", "t", 1)
    assert run.timeout_us == 60 * SECOND
    world.end(run, result="refunded")
    story = [(one.event, one.state) for one in world.story("t")]
    assert story == [("bound", "bound"), ("started", "running"), ("ended", "ok")]
    assert json_value(world.task("t").result) == "refunded"
    assert [one.status for one in world.task("t").attempts] == ["ok"]
    assert world.stage.offsets.safe == len(world.log)


def test_a_binding_is_sent_after_the_state_is_acknowledged(world: TaskWorld) -> None:
    """And the submit is needed until the binding is acknowledged, too."""
    world.hello("e1", agent())
    world.acks = False
    offset = world.submit("t")
    assert world.runs() == []
    assert world.stage.offsets.safe == offset
    state, *_ = world.unacknowledged
    world.stage.acknowledged(state)
    world.drain()
    assert [run.task_id for run in world.runs()] == ["t"]
    assert world.stage.offsets.safe == offset
    world.acknowledge()
    assert world.stage.offsets.safe == offset + 1


# -- the same id ---------------------------------------------------------------------------------


def test_the_same_id_is_the_same_task(world: TaskWorld) -> None:
    """However its JSON is written; it is published again for the second sender."""
    world.hello("e1", agent())
    world.submit("t", input={"a": 1, "b": 2})
    world.end(started(world), result=1)
    world.submit("t", input={"b": 2, "a": 1})
    assert len(world.runs()) == 1
    assert (world.task("t").event, json_value(world.task("t").result)) == ("repeated", 1)
    assert world.refusals() == []


def test_the_same_id_with_other_input_is_refused(world: TaskWorld) -> None:
    """The first task stays as it is; the refusal names the offset of the second submit."""
    world.submit("t", input=1)
    offset = world.submit("t", input=2)
    (refusal,) = world.refusals()
    assert (refusal.task_id, refusal.reason, refusal.source_offset) == ("t", "other_input", offset)
    assert json_value(world.task("t").input) == 1


def test_an_id_is_known_for_a_week(world: TaskWorld) -> None:
    """After that it may be used again."""
    world.hello("e1", agent())
    world.submit("t")
    world.end(started(world))
    world.wait(8 * 86_400, step_s=86_400)
    world.hello("e2", agent())
    world.submit("t", input="other")
    assert world.refusals() == []
    assert len(world.runs("t")) == 2


# -- sequence ------------------------------------------------------------------------------------


def order_of(world: TaskWorld) -> list[str]:
    """Run everything with one slot; the sequence in which tasks were bound."""
    while world.live():
        world.end(started(world, world.runs()[-1].task_id))
    return [run.task_id for run in world.runs()]


def test_higher_priorities_run_first(world: TaskWorld) -> None:
    """Within one the first submit is the first."""
    for number, priority in enumerate((0, 5, 9, 5)):
        world.submit(f"t{number}", priority=priority)
    world.hello("e1", agent())
    assert order_of(world) == ["t2", "t1", "t3", "t0"]


def test_a_waiting_task_rises(world: TaskWorld) -> None:
    """One class a minute, so that it runs before newer ones of a higher priority."""
    world.submit("old", priority=0)
    world.wait(6 * 60, step_s=60)
    world.submit("new", priority=5)
    world.hello("e1", agent())
    assert order_of(world) == ["old", "new"]


def test_users_take_turns(world: TaskWorld) -> None:
    """One with many tasks does not keep the others waiting."""
    for number in range(3):
        world.submit(f"a{number}", user_id="a")
    world.submit("b0", user_id="b")
    world.hello("e1", agent())
    assert order_of(world) == ["a0", "b0", "a1", "a2"]


def test_a_key_runs_one_task_at_a_time_in_sequence(world: TaskWorld) -> None:
    """Also while slots are free, and through a retry."""
    world.hello("e1", agent(retry=RETRY, key_field="session_id"), slots=4)
    for number in range(3):
        world.submit(f"t{number}", session_id="s")
    assert [run.task_id for run in world.runs()] == ["t0"]
    assert (world.task("t1").waiting_for, world.task("t1").detail) == (
        "key",
        "t0 has the same key",
    )
    world.end(started(world, "t0"), "failed", error_type="ValueError")
    assert [run.task_id for run in world.runs()] == ["t0", "t0"]
    world.end(started(world, "t0"))
    world.end(started(world, "t1"))
    world.end(started(world, "t2"))
    assert world.live() == {}


@pytest.mark.parametrize(
    ("on_busy", "states"),
    [
        ("enqueue", {"a": "running", "b": "waiting", "c": "waiting"}),
        ("reject", {"a": "running", "b": "refused", "c": "refused"}),
        ("replace", {"a": "running", "b": "cancelled", "c": "waiting"}),
        ("interrupt", {"a": "running", "b": "cancelled", "c": "waiting"}),
    ],
)
def test_what_a_task_does_while_its_key_is_busy(
    world: TaskWorld, on_busy: Any, states: dict[str, str]
) -> None:
    """``a`` runs; ``b`` and then ``c`` come."""
    world.hello("e1", agent(on_busy=on_busy), slots=4)
    world.submit("a", key="k")
    started(world, "a")
    world.submit("b", key="k")
    world.submit("c", key="k")
    assert {name: world.task(name).state for name in states} == states
    assert world.task("a").stopping == ("cancel" if on_busy == "interrupt" else "")


def test_delays_and_deadlines_are_log_time(world: TaskWorld) -> None:
    """A delayed task waits; one whose deadline comes first expires, also when it runs."""
    world.hello("e1", agent(), slots=3)
    world.submit("later", delay_us=30 * SECOND)
    world.submit("never", delay_us=30 * SECOND, deadline_us=20 * SECOND)
    world.submit("long", deadline_us=25 * SECOND)
    run = started(world, "long")
    assert world.task("later").waiting_for == "delay"
    world.wait(20, beats=("e1",))
    assert (world.task("never").state, world.task("never").reason) == ("expired", "deadline")
    world.wait(10, beats=("e1",))
    assert world.task("later").state == "bound"
    assert world.task("long").stopping == "deadline"
    world.end(run, "cancelled")
    assert world.task("long").state == "expired"


def test_tasks_after_others(world: TaskWorld) -> None:
    """They wait for all of them to end ok; another end cancels them."""
    world.hello("e1", agent(), slots=4)
    world.submit("a")
    world.submit("b")
    world.submit("c", after=["a", "b"])
    world.submit("d", after=["c"])
    assert world.task("c").waiting_for == "after"
    world.end(started(world, "a"))
    assert world.runs("c") == []
    world.end(started(world, "b"))
    world.end(started(world, "c"), "failed", error_type="ValueError")
    assert (world.task("d").state, world.task("d").reason) == ("cancelled", "after_failed")


def test_a_cycle_of_after_is_refused(world: TaskWorld) -> None:
    """The chain is named, and the id is free again."""
    world.submit("a", after=["b"])
    world.submit("b", after=["a"])
    assert (world.task("b").state, world.task("b").detail) == ("refused", "b -> a -> b leads back")
    world.submit("b")
    assert world.task("b").state == "waiting"


def test_a_long_chain_ends_without_a_deep_recursion(world: TaskWorld) -> None:
    """Thousands of tasks after each other are cancelled at once."""
    for number in range(3_000):
        world.submit(f"t{number}", after=[f"t{number - 1}"] if number else [])
    world.cancel("t0")
    assert world.live() == {}


# -- executors -----------------------------------------------------------------------------------


def test_an_unknown_agent_waits_with_the_nearest_name(world: TaskWorld) -> None:
    """After a minute there is a finding; an executor that offers it resolves it."""
    world.hello("e1", agent("refund", version="v12"))
    world.submit("typo", agent="refnud")
    world.submit("drift", version="v13")
    assert world.task("typo").detail == "no executor for refnud: did you mean refund?"
    assert world.task("drift").detail == "no executor for refund@v13: did you mean v12?"
    world.wait(61, beats=("e1",))
    assert {one.subject for one in world.findings} == {"refnud", "refund@v13"}
    assert {one.state for one in world.findings} == {"firing"}
    world.hello("e2", agent("refund", version="v13"))
    assert world.task("drift").state == "bound"
    assert [one.state for one in world.findings if one.subject == "refund@v13"][-1] == "resolved"


def test_slots_and_limits_are_never_exceeded(world: TaskWorld) -> None:
    """Those of the executor, of the agent there, and of the agent over all executors."""
    world.hello("e1", agent("a", slots=1, max_running=2), agent("b"), slots=3)
    world.hello("e2", agent("a", max_running=2), slots=3)
    for number in range(4):
        world.submit(f"a{number}", agent="a")
        world.submit(f"b{number}", agent="b")
    placed = [(run.executor_id, run.agent) for run in world.runs()]
    assert placed.count(("e1", "a")) <= 1
    assert sum(name == "a" for _, name in placed) == 2
    assert sum(executor_id == "e1" for executor_id, _ in placed) == 3


def test_executors_that_are_not_ready_or_drain_get_nothing(world: TaskWorld) -> None:
    """Running attempts go on; at the deadline of a drain they are handed over."""
    world.hello("e1", agent(idempotent=True, retry={"wait_max_us": 0}))
    world.send(NotReadyStruct(project="shop", executor_id="e1", reason="warming up"))
    world.submit("t")
    assert world.runs() == []
    assert (world.executor("e1").state, world.executor("e1").reason) == ("not_ready", "warming up")
    world.send(ReadyStruct(project="shop", executor_id="e1"))
    started(world)
    world.drain_executor("e1", deadline_s=10)
    world.submit("u")
    world.wait(9, beats=("e1",))
    assert world.task("t").state == "running"
    world.hello("e2", agent(idempotent=True, retry={"wait_max_us": 0}), slots=2)
    world.wait(2, beats=("e1", "e2"))
    assert world.runs("t")[-1].executor_id == world.runs("u")[-1].executor_id == "e2"


def test_other_settings_of_one_agent_are_reported(world: TaskWorld) -> None:
    """The newest settings count."""
    world.hello("e1", agent(timeout_us=SECOND))
    world.hello("e2", agent(timeout_us=2 * SECOND))
    assert "refund differs from executor e1 in timeout_us" in world.executor("e2").reason


def test_fallbacks_that_lead_back_are_refused(world: TaskWorld) -> None:
    """The chain is named, and the agents run without them."""
    world.hello("e1", agent("a", fallback="b"), agent("b", fallback="a"))
    assert "a -> b -> a" in world.executor("e1").reason
    world.submit("t", agent="a")
    world.end(started(world), "failed", error_type="ValueError")
    assert (world.task("t").state, len(world.runs())) == ("failed", 1)


# -- the end of an attempt -----------------------------------------------------------------------


def test_failures_are_retried_and_then_dead(world: TaskWorld) -> None:
    """Each attempt is another run; what was kept is passed on."""
    world.hello("e1", agent(retry=RETRY))
    world.submit("t")
    first = started(world)
    place: dict[str, Any] = {
        "project": "shop",
        "executor_id": "e1",
        "task_id": "t",
        "attempt": 1,
    }
    kept = OnceStruct(**place, fence=first.fence, key="order", value=None)
    world.send(kept)
    world.end(first, "failed", error_type="ValueError", error_message="no such order")
    second = started(world)
    assert second.trace_id != first.trace_id
    assert second.fence > first.fence
    assert list(second.once) == ["order"]
    world.end(second, "timed_out")
    world.end(started(world), "failed", error_type="ValueError")
    task = world.task("t")
    assert (task.state, task.reason, task.detail) == ("dead", "retries_used", "3 of 3 attempts")
    assert [one.status for one in task.attempts] == ["failed", "timed_out", "failed"]


def test_only_the_listed_causes_are_retried(world: TaskWorld) -> None:
    """A class of exception may be named; without a retry the first failure is the end."""
    world.hello("e1", agent(retry={"attempts": 2, "on": ["Busy"], "wait_max_us": 0}))
    world.submit("t")
    world.end(started(world), "failed", error_type="Busy")
    world.end(started(world), "failed", error_type="ValueError", error_message="no")
    task = world.task("t")
    assert (task.state, task.reason, task.detail) == ("failed", "exception", "no")


def test_waits_between_attempts_grow(world: TaskWorld) -> None:
    """Full jitter: between 0 and a limit that doubles; never above the largest."""
    retry = {"attempts": 6, "on": ["exception"], "wait_min_us": SECOND, "wait_max_us": 4 * SECOND}
    world.hello("e1", agent(retry=retry), slots=50)
    waits: dict[int, list[int]] = {}
    for number in range(5):
        world.submit(f"t{number}")
    for attempt in range(1, 6):
        for number in range(5):
            world.end(started(world, f"t{number}"), "failed", error_type="E")
            task = world.task(f"t{number}")
            waits.setdefault(attempt, []).append(max(0, task.not_before_us - world.now_us))
        if attempt < 2:
            world.wait(4, beats=("e1",))
        else:
            break
    assert max(waits[1]) <= SECOND
    assert len(set(waits[1])) > 3
    assert SECOND < max(waits[2]) <= 2 * SECOND


def test_retries_are_at_most_a_fifth_of_the_traffic(world: TaskWorld) -> None:
    """A storm waits: it is not given up."""
    world.hello("e1", agent(retry={"attempts": 9, "on": ["exception"], "wait_max_us": 0}), slots=99)
    for number in range(50):
        world.submit(f"t{number}")
    for number in range(50):
        world.end(started(world, f"t{number}"), "failed", error_type="E")
    retried = [run for run in world.runs() if run.attempt == 2]
    assert len(retried) == 20  # a reserve of 10, and a fifth of 50
    waiting = [task for task in world.live().values() if task.waiting_for == "retry"]
    assert len(waiting) == 30
    assert all("retry budget" in task.detail for task in waiting)


def test_a_fallback_runs_when_no_attempt_is_left(world: TaskWorld) -> None:
    """Another agent, or another version; its attempts are counted anew."""
    world.hello("e1", agent("refund", fallback="lite@v1"), agent("lite", version="v1"), slots=2)
    world.submit("t")
    world.end(started(world), "failed", error_type="E")
    run = started(world)
    assert (run.agent, run.version, run.attempt) == ("lite", "v1", 2)
    world.end(run)
    assert (world.task("t").state, world.task("t").fallbacks) == ("ok", ["refund"])


def test_a_refused_attempt_does_not_count(world: TaskWorld) -> None:
    """It is given to an executor again, later each time."""
    world.hello("e1", agent())
    world.submit("t")
    for _ in range(5):
        world.end(world.runs("t")[-1], "refused", reason="no slot")
        world.wait(60, beats=("e1",))
    world.end(started(world))
    assert world.task("t").state == "ok"


def test_a_timeout_stops_the_attempt_by_the_control_topic(world: TaskWorld) -> None:
    """Five seconds after its executor should have ended it; an extension moves that."""
    world.hello("e1", agent(timeout_us=10 * SECOND))
    world.submit("t")
    run = started(world)
    place: dict[str, Any] = {
        "project": "shop",
        "executor_id": "e1",
        "task_id": "t",
        "attempt": 1,
    }
    world.send(ExtendStruct(**place, fence=run.fence, by_us=10 * SECOND))
    world.wait(24, beats=("e1",))
    assert world.commands == []
    world.wait(2, beats=("e1",))
    (command,) = world.commands
    assert (command.action, command.trace_id) == ("stop", run.trace_id)
    world.end(run, "cancelled")
    assert (world.task("t").state, world.task("t").reason) == ("failed", "timed_out")


# -- cancel, retry -------------------------------------------------------------------------------


def test_cancel(world: TaskWorld) -> None:
    """A waiting task ends at once; a running one is stopped, and so are its children."""
    world.hello("e1", agent())
    world.submit("t")
    run = started(world)
    world.submit("child", parent_task_id="t")
    world.cancel("t", reason="not needed", by="ada")
    assert world.task("t").cancelling
    assert [one.fence for one in world.releases()] == [run.fence]
    assert world.commands[-1].trace_id == run.trace_id
    world.end(run, "cancelled")
    task = world.task("t")
    assert (task.state, task.detail, task.by) == ("cancelled", "not needed", "ada")
    assert world.task("child").state == "cancelled"
    world.cancel("nothing")
    assert world.refusals()[-1].reason == "unknown_task"


def test_an_attempt_that_does_not_stop_loses_its_task(world: TaskWorld) -> None:
    """Thirty seconds after the request; what it reports later is not taken."""
    world.hello("e1", agent())
    world.submit("t")
    run = started(world)
    world.cancel("t")
    world.wait(31, beats=("e1",))
    assert world.task("t").state == "cancelled"
    world.end(run, result="late")
    assert world.task("t").state == "cancelled"


def test_a_person_runs_an_ended_task_again(world: TaskWorld) -> None:
    """Anything but an ok end; its attempts go on counting."""
    world.hello("e1", agent())
    world.submit("t", input=7)
    world.end(started(world), "failed", error_type="E")
    world.send(RetryStruct(project="shop", task_id="t", by="ada"))
    run = started(world)
    assert (run.attempt, json_value(run.input)) == (2, 7)
    world.end(run)
    for task_id, reason in (("t", "is_ok"), ("x", "unknown_task")):
        world.send(RetryStruct(project="shop", task_id=task_id))
        assert world.refusals()[-1].reason == reason
