"""Which attempts an executor begins, and when it stops them."""

from __future__ import annotations

from typing import Any

import stepstream
from stepstream.producers.executor.app import Executor
from stepstream.producers.executor.attempts import Attempt, Attempts, Refused, State
from stepstream.producers.executor.outcome import Stop, raised, returned
from stepstream.schemas.task_bindings import RunAttemptStruct
from stepstream.schemas.task_common import MAX_JSON_BYTES, fence_of


def app() -> Executor:
    made = stepstream.Executor()
    for name, more in (("a", {"timeout": "10s", "grace": "2s"}), ("b", {"slots": 1})):
        made.agent(name, **more)(lambda task: None)
    return made


APP = app()


def binding(task_id: str, *, agent: str = "a", epoch: int = 1, fence: int = 1, **more: Any) -> Any:
    return RunAttemptStruct(
        executor_id="x",
        project="shop",
        task_id=task_id,
        attempt=1,
        fence=fence_of(epoch, fence),
        trace_id="0" * 32,
        agent=agent,
        lease_us=45_000_000,
        **more,
    )


def offered(attempts: Attempts, given: Any) -> Attempt | Refused | None:
    return attempts.offer(given, APP.find(given.agent, given.version))


def begun(attempts: Attempts, given: Any, now_s: float = 0.0) -> Attempt:
    attempt = offered(attempts, given)
    assert isinstance(attempt, Attempt)
    attempts.started(attempt, now_s)
    return attempt


def test_slots_of_the_executor_and_of_an_agent_are_never_exceeded() -> None:
    attempts = Attempts(2)
    first = begun(attempts, binding("1", agent="b"))
    assert offered(attempts, binding("2", agent="b")) == Refused("all 1 slots of b are taken")
    begun(attempts, binding("3"))
    assert offered(attempts, binding("4")) == Refused("all 2 slots of the executor are taken")
    # The scheduler may use the slot as soon as it has read the end, which is sent now.
    first.state = State.ENDING
    assert isinstance(offered(attempts, binding("5", agent="b")), Attempt)
    assert len(attempts.keys) == 3


def test_what_arrives_twice_or_from_a_replaced_worker_is_ignored() -> None:
    attempts = Attempts(9)
    first = begun(attempts, binding("1", epoch=2))
    assert offered(attempts, binding("1", epoch=2)) is None
    attempts.ended(first)
    assert offered(attempts, binding("1", epoch=2)) is None
    assert offered(attempts, binding("2", epoch=1)) is None
    attempts.new_epoch(4)
    assert offered(attempts, binding("3", epoch=3)) is None
    assert isinstance(offered(attempts, binding("3", epoch=4)), Attempt)


def test_unknown_agents_and_a_draining_executor_are_refused() -> None:
    attempts = Attempts(9)
    assert offered(attempts, binding("1", agent="z", version="v2")) == Refused(
        "this executor has no agent z@v2"
    )
    attempts.draining = True
    assert offered(attempts, binding("1")) == Refused("the executor is draining")


def test_a_time_out_stops_and_the_end_of_the_grace_kills_once() -> None:
    attempts = Attempts(9)
    attempt = begun(attempts, binding("1"), 100.0)
    shorter = begun(attempts, binding("2", timeout_us=3_000_000), 100.0)
    assert attempts.timed_out(103.0) == [shorter]
    attempts.extend(shorter.binding, 20_000_000)
    assert attempts.timed_out(109.9) == []
    assert attempts.timed_out(110.0) == [attempt]
    assert attempts.stop(attempt, Stop("timed_out", "too long"), 110.0)
    assert not attempts.stop(attempt, Stop("cancelled", "later"), 110.5)
    assert attempts.timed_out(111.0) == []
    assert attempts.overdue(111.9) == []
    assert attempts.overdue(112.0) == [attempt]
    assert attempts.overdue(113.0) == []


def test_outcomes() -> None:
    assert returned({"a": (1, 2)}).result == b'{"a":[1,2]}'
    assert returned(object()).error_type == "NotJson"
    large = returned("x" * MAX_JSON_BYTES)
    assert (large.status, large.error_type) == ("failed", "NotJson")
    assert "store it elsewhere" in large.error_message
    stop = Stop("timed_out", "it took longer than 10 s")
    stopped = raised(stepstream.RunStopped("x"), stop)
    assert (stopped.status, stopped.reason) == ("timed_out", "it took longer than 10 s")
    # A person or policy stopped the run: it is not repeated, as a failure could be.
    assert raised(stepstream.RunStopped("by hand"), None).status == "cancelled"
    assert raised(stepstream.BudgetExceeded("usd", "1", "2"), None).status == "failed"
    assert raised(SystemExit(3), None).error_type == "SystemExit"


def test_an_error_is_reported_by_the_class_that_retry_names() -> None:
    error = ConnectionResetError("gone")
    assert raised(error, None).error_type == "ConnectionResetError"
    named = raised(error, None, ["OSError"])
    assert (named.error_type, named.error_message) == ("OSError", "ConnectionResetError: gone")
