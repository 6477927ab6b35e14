"""Commands to a running agent take effect at its next step and are recorded as steps of the run."""
# The error comes out of a step in the middle of a run, so pytest.raises is around the whole run.
# ruff: noqa: PT012

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import stepstream
from stepstream.producers.control.listener import CommandListener
from stepstream.producers.exceptions import RunStopped
from stepstream.schemas.alert import Command, CommandStruct
from stepstream.schemas.control import control_step_id, dated_by
from tests.support.sdk import Traced, logged, traced


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced() as made:
        yield made


def command(action: str, number: int = 1, **more: Any) -> Command:
    fields = {
        "command_id": f"c{number}",
        "action": action,
        "time": number,
        "project": "shop",
        "by": "ada",
        "reason": "why",
    }
    return CommandStruct(**(fields | more))


def deliver(made: Traced, given: Command) -> int:
    engine = made.tracer.engine()
    assert engine is not None
    return engine.commands.deliver(given)


def control_steps(made: Traced) -> list[tuple[str, str, str]]:
    assert made.tracer.flush(10)
    events = [event for event in made.transport.events if event.kind == "control"]
    return [
        (event.name, event.phase, event.status if event.phase == "end" else "") for event in events
    ]


def test_a_stop_makes_the_next_step_raise_and_every_one_after_it(made: Traced) -> None:
    """A framework may swallow one exception: every later step raises too. The stop is one step."""
    with (
        pytest.raises(RunStopped, match="stopped by ada: too expensive") as caught,
        made.tracer.run() as run,
    ):
        with run.tool("first"):
            assert (
                deliver(made, command("stop", trace_id=run.trace_id, reason="too expensive")) == 1
            )
        for _ in range(2):
            with pytest.raises(RunStopped), run.tool("second"):
                raise AssertionError("it began")
        run.tool("third").start()
    assert (caught.value.reason, caught.value.by, caught.value.command_id) == (
        "too expensive",
        "ada",
        "c1",
    )
    assert control_steps(made) == [("stop", "start", ""), ("stop", "end", "ok")]
    ended = made.ended
    assert set(ended) == {"support", "first", "stop"}
    assert ended["stop"].step_id == control_step_id(run.trace_id, "c1")
    assert ended["stop"].parent_step_id == run.step_id
    assert ended["stop"].attributes == {
        "command_id": "c1",
        "action": "stop",
        "by": "ada",
        "reason": "too expensive",
    }
    assert ended["support"].error_type.endswith("RunStopped")


def test_a_command_counts_once_and_not_after_an_approval(made: Traced) -> None:
    """A command takes effect once, and one from before the last approval never."""
    with made.tracer.run() as run:
        stop = command("stop", 1, trace_id=run.trace_id)
        assert [deliver(made, stop), deliver(made, stop)] == [1, 0]
        with pytest.raises(RunStopped), run.tool("x"):
            pass
        assert deliver(made, command("resume", 5, trace_id=run.trace_id, budget_usd="5")) == 1
        with run.tool("y"):
            pass
        assert deliver(made, command("stop", 4, trace_id=run.trace_id)) == 0
        assert deliver(made, stop) == 0
        with run.tool("z"):
            pass
    assert control_steps(made) == [
        ("stop", "start", ""),
        ("stop", "end", "ok"),
        ("approve $5", "end", "ok"),
    ]
    assert made.ended["approve $5"].attributes["budget_usd"] == "5"


def test_a_stop_that_no_step_met_is_recorded_as_cancelled(made: Traced) -> None:
    """The run ended by itself: the stop's step ends as cancelled, before the root does."""
    with made.tracer.run() as run:
        deliver(made, command("stop", trace_id=run.trace_id))
    assert control_steps(made) == [("stop", "start", ""), ("stop", "end", "cancelled")]
    assert [event.name for event in made.events if event.phase == "end"] == ["stop", "support"]
    # The run is over: the command concerns none of this process.
    assert deliver(made, command("stop", 2, trace_id=run.trace_id)) == 0


def test_a_pause_keeps_the_next_step_waiting(made: Traced) -> None:
    """The step begins after the resume, which another thread sends."""
    happened: list[str] = []
    with made.tracer.run() as run:
        deliver(made, command("pause", 1, trace_id=run.trace_id))

        def resume() -> None:
            happened.append("resume")
            deliver(made, command("resume", 2, trace_id=run.trace_id))

        timer = threading.Timer(0.05, resume)
        timer.start()
        with run.tool("x"):
            happened.append("step")
        timer.join()
    assert happened == ["resume", "step"]
    assert control_steps(made) == [
        ("pause", "start", ""),
        ("pause", "end", "ok"),
        ("resume", "end", "ok"),
    ]


async def test_a_pause_does_not_block_the_event_loop(made: Traced) -> None:
    """``async with``, decorated functions and ``acheckpoint`` wait while other tasks run."""
    happened: list[str] = []

    @made.tracer.tool
    async def decorated() -> None:
        happened.append("decorated")

    async with made.tracer.run() as run:

        async def resume_later(time: int) -> None:
            # Three turns of the loop, which it could not take if it were blocked.
            for _ in range(3):
                await asyncio.sleep(0)
            happened.append("resume")
            deliver(made, command("resume", time, trace_id=run.trace_id))

        deliver(made, command("pause", 1, trace_id=run.trace_id))
        resuming = asyncio.create_task(resume_later(2))
        async with run.tool("x"):
            happened.append("async with")
        await resuming
        deliver(made, command("pause", 3, trace_id=run.trace_id))
        resuming = asyncio.create_task(resume_later(4))
        await decorated()
        await resuming
        deliver(made, command("pause", 5, trace_id=run.trace_id))
        resuming = asyncio.create_task(resume_later(6))
        await run.acheckpoint()
        happened.append("acheckpoint")
        await resuming
    assert happened == ["resume", "async with", "resume", "decorated", "resume", "acheckpoint"]


async def test_a_plain_with_in_an_event_loop_does_not_wait(made: Traced) -> None:
    """It would block the loop, so the step begins although the run is paused; that is logged."""
    async with made.tracer.run() as run:
        deliver(made, command("pause", 1, trace_id=run.trace_id))
        with logged() as records, run.tool("x"):
            pass
        deliver(made, command("resume", 2, trace_id=run.trace_id))
    assert ["write `async with" in record.getMessage() for record in records] == [True]


async def test_acheckpoint_raises_the_stop(made: Traced) -> None:
    """As ``checkpoint``, in asynchronous work without steps; before the stop it does nothing."""
    with pytest.raises(RunStopped, match="why"):
        async with made.tracer.run() as run:
            await run.acheckpoint()
            deliver(made, command("stop", trace_id=run.trace_id))
            await run.acheckpoint()
    assert control_steps(made) == [("stop", "start", ""), ("stop", "end", "ok")]


async def test_acheckpoint_without_a_run_or_recording_does_nothing() -> None:
    """On a step that has not started, has ended, or is not recorded."""
    with traced(enabled=False) as off:
        step = off.tracer.tool("x")
        await step.acheckpoint()
        with step:
            await step.acheckpoint()
        await step.acheckpoint()


def test_a_pause_without_a_resume_becomes_a_stop() -> None:
    """After ``pause_limit`` the run is stopped: without an approval it does not go on."""
    with (
        traced(pause_limit="200ms") as made,
        pytest.raises(RunStopped, match="not resumed within"),
        made.tracer.run() as run,
    ):
        deliver(made, command("pause", trace_id=run.trace_id))
        run.tool("x").start()
    assert control_steps(made) == [
        ("pause", "start", ""),
        ("pause", "end", "cancelled"),
        ("stop", "start", ""),
        ("stop", "end", "ok"),
    ]


async def test_a_stop_cancels_the_awaiting_task_if_asked_to(made: Traced) -> None:
    """The run is left as stopped, not as cancelled, and the task is not cancelled afterwards."""
    with pytest.raises(RunStopped, match="why"):
        async with made.tracer.run(cancel_on_stop=True) as run:
            asyncio.get_running_loop().call_later(
                0.05, lambda: deliver(made, command("stop", trace_id=run.trace_id))
            )
            async with run.tool("slow"):
                await asyncio.sleep(30)
    await asyncio.sleep(0)
    assert made.ended["slow"].status == "cancelled"
    assert made.ended["support"].error_type.endswith("RunStopped")
    assert ("stop", "end", "ok") in control_steps(made)


async def test_a_cancellation_without_a_stop_stays_one(made: Traced) -> None:
    """``cancel_on_stop`` changes only cancellations that a stop caused."""

    async def work() -> None:
        async with made.tracer.run(cancel_on_stop=True):
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_hook_is_called_with_every_command_and_may_fail(made: Traced) -> None:
    """A warning only calls the hook and is recorded. An exception of the hook is logged."""
    actions: list[str] = []

    def hook(given: Command) -> None:
        actions.append(given.action)
        raise ValueError("a bad hook")

    with made.tracer.run(on_command=hook) as run:
        for number, action in enumerate(("warn", "pause", "resume"), 1):
            deliver(made, command(action, number, trace_id=run.trace_id))
        with run.tool("x"):
            pass
    assert actions == ["warn", "pause", "resume"]
    assert control_steps(made)[0] == ("warn", "end", "ok")


def test_a_command_to_an_agent_applies_to_later_runs_until_it_expires(made: Traced) -> None:
    """To runs of that project, agent and environment; a resume ends it for later runs."""
    now = time.time_ns() // 1_000
    with made.tracer.run() as early:
        stop = command("stop", 1, time=now, agent="support", expires=now + 60_000_000)
        assert deliver(made, stop) == 1
        with pytest.raises(RunStopped), early.tool("x"):
            pass
    with made.tracer.run() as late, pytest.raises(RunStopped), late.tool("x"):
        pass
    with made.tracer.run(agent="other") as other, other.tool("x"):
        pass
    deliver(made, command("resume", 2, time=now + 1, agent="support", expires=now + 60_000_000))
    before = len(control_steps(made))
    with made.tracer.run() as freed, freed.tool("x"):
        pass
    # Neither stop nor resume is a step of a run that began after both.
    assert len(control_steps(made)) == before, "a stop that was resumed before the run began"
    expired = command("stop", 3, time=now - 9_000_000, agent="support", expires=now - 1)
    assert deliver(made, expired) == 0
    with made.tracer.run() as after, after.tool("x"):
        pass


def test_a_stop_to_an_agent_inside_a_run_leaves_the_run_alone(made: Traced) -> None:
    """The run around it gets the exception of that part, and may go on."""
    now = time.time_ns() // 1_000
    with made.tracer.run() as run:
        with pytest.raises(RunStopped), run.run("helper") as helper:
            deliver(made, command("stop", time=now, agent="helper", expires=now + 60_000_000))
            helper.tool("x").start()
        with run.tool("y"):
            pass
    assert made.ended["support"].status == "ok"


def test_long_work_without_steps_can_check(made: Traced) -> None:
    """``checkpoint`` raises the stop in a loop without steps."""
    with pytest.raises(RunStopped), made.tracer.run() as run:
        run.checkpoint()
        deliver(made, command("stop", trace_id=run.trace_id))
        run.checkpoint()


def test_parallel_branches_all_stop(made: Traced) -> None:
    """Every thread of the run gets the stop; it is recorded once."""
    stopped: list[str] = []
    # Eight threads and this one: the stop comes when all of them work.
    started = threading.Barrier(9)

    def branch(number: int) -> None:
        started.wait(30)
        try:
            while True:
                with run.tool(f"t{number}"):
                    time.sleep(0.001)
        except RunStopped as error:
            stopped.append(error.command_id)

    with made.tracer.run() as run:
        threads = [threading.Thread(target=branch, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        started.wait(30)
        deliver(made, command("stop", trace_id=run.trace_id))
        for thread in threads:
            thread.join(30)
    assert stopped == ["c1"] * 8
    assert control_steps(made) == [("stop", "start", ""), ("stop", "end", "ok")]


def test_the_stops_are_public() -> None:
    """A program can name the exceptions that it may catch."""
    assert issubclass(stepstream.BudgetExceeded, stepstream.RunStopped)
    assert not issubclass(stepstream.RunStopped, stepstream.ArgumentsRefused)


def test_a_run_that_is_dropped_without_an_end_is_forgotten(made: Traced) -> None:
    """Runs that a program starts and never ends do not accumulate in memory."""
    for _ in range(10):
        made.tracer.run().start()
    gc.collect()
    engine = made.tracer.engine()
    assert engine is not None
    assert (len(engine.commands._open), len(engine.commands._roots)) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_process_leaves_the_runs_of_its_parent_alone(made: Traced) -> None:
    """Forked while another thread delivers a command, it neither blocks nor acts for the parent."""
    with made.tracer.run() as run:
        engine = made.tracer.engine()
        assert engine is not None
        control = run._control
        assert control is not None
        with control._changed:  # as a listener that is delivering would own it
            child = os.fork()
            if not child:
                with run.tool("x"):
                    pass
                os._exit(0 if not engine.commands._open else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_record_that_is_not_a_command_is_counted_and_ignored(made: Traced) -> None:
    """The next command is delivered."""
    engine = made.tracer.engine()
    assert engine is not None
    listener = CommandListener(engine.settings, engine.commands)
    with made.tracer.run() as run:
        stop = {
            "command_id": "c",
            "action": "stop",
            "time": 1,
            "trace_id": run.trace_id,
            "new_field": 1,
        }
        for value in (
            b"",
            None,
            b"junk",
            b"[]",
            b'{"action": "dance"}',
            b"\xff",
            msgspec.json.encode(stop),
        ):
            listener._deliver(value)
        with pytest.raises(RunStopped), run.tool("x"):
            pass
    assert (engine.commands.received, engine.commands.malformed) == (1, 4)


@pytest.mark.parametrize("ahead_s", [3_600, 70 * 365 * 86_400])
@pytest.mark.parametrize("scope", [False, True])
def test_a_resume_dated_in_the_future_voids_no_later_stop(
    made: Traced, ahead_s: int, scope: bool
) -> None:
    """A command is not newer than its record: a sender's fast clock cannot void later stops."""
    engine = made.tracer.engine()
    assert engine is not None
    now_s = time.time()
    listener = CommandListener(engine.settings, engine.commands, now_s=lambda: now_s)
    with made.tracer.run() as run:
        assert run._control is not None
        whom = {"project": run._control.project} if scope else {"trace_id": run.trace_id}

        def send(action: str, time_s: float, timestamp_s: float) -> None:
            more = {"expires": round((time_s + 600) * 1e6)} if scope else {}
            given = command(
                action, 1 if action == "resume" else 2, time=round(time_s * 1e6), **whom, **more
            )
            listener._deliver(msgspec.json.encode(given), round(timestamp_s * 1e3))

        # The first time is the sender's clock, the second one Kafka's: only the latter counts.
        send("resume", now_s + ahead_s, now_s - 5)
        with run.tool("goes on"):
            pass
        send("stop", now_s - 3, now_s - 3)
        with pytest.raises(RunStopped), run.tool("x"):
            raise AssertionError("it began")
    assert dated_by(command("stop", time=5), 9).time == 5
