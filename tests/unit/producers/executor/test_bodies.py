"""Bodies of attempts in this process: what a task offers them, and how they are stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from typing import Any

import msgspec
import pytest

import stepstream
from stepstream.producers.executor import bodies, readiness
from stepstream.producers.executor.app import Executor
from stepstream.producers.executor.bodies import Loop, LoopBody, ThreadBody
from stepstream.producers.executor.execution import Execution
from stepstream.producers.executor.heartbeat import Lines
from stepstream.producers.executor.outcome import Outcome, Stop
from stepstream.producers.executor.readiness import Readiness
from stepstream.producers.executor.steady import steady_s
from stepstream.producers.executor.task import AttemptStopped
from stepstream.producers.executor.threads import Threads
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import TASK_ATTRIBUTE
from stepstream.schemas.task_bindings import RunAttemptStruct
from stepstream.schemas.task_common import task_trace_id
from tests.support.processes import wait_until

TRACE = task_trace_id("shop", "t1", 2)


class Host:
    """Keeps what it gets, unless the attempt counts as lost."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.lost = False

    def keep(self, binding: Any, key: str, value: bytes) -> None:
        if self.lost:
            raise AttemptStopped("attempt 2 of t1: it has ended")
        self.kept[key] = value

    def extend(self, binding: Any, by_us: int) -> None:
        self.kept["extended"] = b"%d" % by_us


class Bench:
    """Runs one agent, and keeps its outcome and its steps."""

    def __init__(self, function: Any, **settings: Any) -> None:
        self.transport = stepstream.MemoryTransport()
        self.tracer = stepstream.Tracer(
            Settings(project="other", quiet=True), transport=self.transport
        )
        self.app = Executor("shop", tracer=self.tracer)
        self.app.agent("a", version="v2", **settings)(function)
        self.host = Host()
        self.outcomes: list[Outcome] = []
        self.threads = Threads()
        self.loop: Loop | None = None

    def start(self, **more: Any) -> Execution:
        binding = RunAttemptStruct(
            executor_id="x", project="shop", task_id="t1", attempt=2, fence=7, trace_id=TRACE,
            agent="a", lease_us=45_000_000, user_id="u-9", **more,
        )  # fmt: skip
        agent = self.app.agents[0]
        execution = Execution(agent, binding, self.host, self.tracer)
        if agent.is_async:
            self.loop = self.loop or Loop()
            LoopBody(self.loop, execution, self.outcomes.append).start()
        else:
            ThreadBody(self.threads, execution, self.outcomes.append).start()
        return execution

    def outcome(self) -> Outcome:
        wait_until(lambda: self.outcomes, 20, "the end of the body")
        if self.loop is not None:
            self.loop.close()
        assert self.tracer.close(10)
        return self.outcomes[-1]


def test_the_run_of_an_attempt_names_its_task() -> None:
    def agent(task: stepstream.Task) -> Any:
        with tool_of(task, "lookup"):
            return [task.input, task.id, task.attempt, task.fence, task.user_id]

    bench = Bench(agent, task="refunds")
    bench.start(input=msgspec.Raw(b'{"order":7}'))
    assert msgspec.json.decode(bench.outcome().result or b"") == [
        {"order": 7}, "t1", 2, 7, "u-9",
    ]  # fmt: skip
    tool, root = bench.transport.ended
    assert (tool.name, tool.parent_step_id) == ("lookup", root.step_id)
    assert (root.trace_id, root.agent, root.agent_version, root.task) == (
        TRACE, "a", "v2", "refunds",
    )  # fmt: skip
    assert (root.project, root.user_id, root.attempt) == ("shop", "u-9", 2)
    assert root.attributes[TASK_ATTRIBUTE] == "t1"
    assert (root.input, root.status) == ('{"order":7}', "ok")


def tool_of(task: stepstream.Task, name: str) -> Any:
    return task.run.tool(name)


@pytest.mark.parametrize("is_async", [False, True])
def test_once_keeps_a_value_over_attempts(is_async: bool) -> None:
    calls = []

    def effect(order: int) -> tuple[int, ...]:
        calls.append(order)
        return (order, 1)

    def agent(task: stepstream.Task) -> Any:
        return [task.once("new", effect, 7), task.once("new", effect, 7), task.once("old", effect)]

    async def async_agent(task: stepstream.Task) -> Any:
        return [
            await task.once("new", effect, 7),
            await task.once("new", effect, 7),
            await task.once("old", effect),
        ]

    bench = Bench(async_agent if is_async else agent)
    bench.start(once={"old": msgspec.Raw(b'"kept"')})
    # As a later attempt gets it: JSON has no tuples.
    assert msgspec.json.decode(bench.outcome().result or b"") == [[7, 1], [7, 1], "kept"]
    assert calls == [7]
    assert bench.host.kept == {"new": b"[7,1]"}


def test_a_value_is_not_kept_for_an_attempt_that_is_lost() -> None:
    def agent(task: stepstream.Task) -> Any:
        return task.once("key", lambda: 1)

    bench = Bench(agent)
    bench.host.lost = True
    bench.start()
    assert bench.outcome().error_type.endswith("AttemptStopped")
    with pytest.raises(ValueError, match="1 to 512 characters"):
        bench.start().task.once("", int)


def test_a_stop_reaches_the_next_step() -> None:
    begun = threading.Event()

    def agent(task: stepstream.Task) -> None:
        task.extend("5m")
        begun.set()
        while True:
            with tool_of(task, "work"):
                time.sleep(0.001)

    bench = Bench(agent)
    execution = bench.start()
    assert begun.wait(20)
    execution.stop(Stop("timed_out", "it took longer than 1 s"))
    execution.stop(Stop("cancelled", "later"))  # the first one counts
    outcome = bench.outcome()
    assert (outcome.status, outcome.reason) == ("timed_out", "it took longer than 1 s")
    assert bench.host.kept["extended"] == b"300000000"
    control = next(step for step in bench.transport.ended if step.kind == "control")
    assert control.attributes["reason"] == "it took longer than 1 s"


@pytest.mark.parametrize("enabled", [True, False])
def test_a_stop_cancels_what_awaits(enabled: bool) -> None:
    """Also while recording is off, when the run takes no commands."""
    begun = threading.Event()

    async def agent(task: stepstream.Task) -> None:
        begun.set()
        await asyncio.sleep(600)

    bench = Bench(agent)
    if not enabled:
        bench.tracer.configure(Settings(enabled=False))
    execution = bench.start()
    assert begun.wait(20)
    execution.stop(Stop("cancelled", "enough"))
    assert bench.outcome().status == "cancelled"


@pytest.mark.parametrize("declared", [None, stepstream.Budget(usd=5, steps=9)])
def test_the_budget_of_the_task_replaces_that_of_the_agent(declared: Any) -> None:
    def agent(task: stepstream.Task) -> None:
        with tool_of(task, "search") as step:
            step.set_cost(0.3)
        with task.run.llm("think", reserve_usd=0.3):
            pass

    bench = Bench(agent, budget=declared)
    bench.start(budget_usd="0.5")
    outcome = bench.outcome()
    assert (outcome.status, outcome.error_type.rpartition(".")[2]) == ("failed", "BudgetExceeded")


def test_a_stop_before_the_start_is_not_forgotten() -> None:
    def agent(task: stepstream.Task) -> str:
        return "ran"

    bench = Bench(agent)
    agents = bench.app.agents[0]
    binding = RunAttemptStruct(
        executor_id="x", project="shop", task_id="t1", attempt=2, fence=7, trace_id=TRACE,
        agent="a", lease_us=45_000_000,
    )  # fmt: skip
    execution = Execution(agents, binding, bench.host, bench.tracer)
    execution.stop(Stop("cancelled", "early"))
    assert execution.execute().status == "cancelled"
    bench.tracer.close(10)


def test_a_body_that_exits_or_is_cancelled_does_not_end_the_executor() -> None:
    async def agent(task: stepstream.Task) -> None:
        raise asyncio.CancelledError

    bench = Bench(agent)
    bench.start()
    assert bench.outcome().error_message == "the agent cancelled itself"


def test_a_blocked_loop_is_reported_with_its_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bodies, "BLOCKED_S", 0.05)
    released = threading.Event()

    async def agent(task: stepstream.Task) -> None:
        released.wait(60)

    bench = Bench(agent)
    bench.start()
    loop = bench.loop
    assert loop is not None

    def is_reported() -> bool:
        loop.check(steady_s())
        return "released.wait" in caplog.text

    with caplog.at_level(logging.WARNING, "stepstream.executor"):
        wait_until(is_reported, 20, "a warning")
    assert "the event loop has been blocked" in caplog.text
    released.set()
    assert bench.outcome().status == "ok"


def test_threads_are_used_again_and_survive_errors(caplog: pytest.LogCaptureFixture) -> None:
    threads, seen = Threads(), []
    for number in range(3):
        ended = threading.Event()

        def work(number: int = number, ended: threading.Event = ended) -> None:
            seen.append(threading.get_ident())
            ended.set()
            if number == 0:
                raise ValueError("an error of the executor's own")

        threads.run(work)
        assert ended.wait(10)
        time.sleep(0.02)
    assert len(seen) == 3
    assert "an error of the executor's own" in caplog.text


def test_readiness_follows_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [False]

    async def check() -> Any:
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    found = Readiness([check], Threads())
    clock = [0.0]

    def reason() -> str:
        clock[0] += readiness.EVERY_S
        before = found.reason(clock[0])
        time.sleep(0.01)
        return before

    wait_until(lambda: reason() == "check returned False", 10, "not ready")
    answers[0] = OSError("no database")
    wait_until(lambda: reason() == "check raised OSError: no database", 10, "the error")
    answers[0] = None
    wait_until(lambda: not reason(), 10, "ready")
    assert Readiness([], Threads()).reason(0.0) == ""


def test_a_check_that_does_not_return_counts_as_not_ready() -> None:
    released = threading.Event()
    found = Readiness([lambda: released.wait(60)], Threads())
    found.reason(0.0)
    assert found.reason(11.0) == "a check has not ended for 11 s"
    released.set()


def test_lines_of_a_pipe_arrive_whole() -> None:
    read_end, write_end = os.pipe()
    lines = Lines(read_end)
    assert lines.wait(0.0) == []
    os.write(write_end, b'{"begin": 1.5}\n{"runn')
    assert lines.wait(1.0) == [{"begin": 1.5}]
    os.write(write_end, b'ing": []}\n')
    assert lines.wait(1.0) == [{"running": []}]
    os.close(write_end)
    assert lines.wait(1.0) == []
    assert lines.closed
    os.close(read_end)
