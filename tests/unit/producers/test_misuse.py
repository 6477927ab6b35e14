"""A wrong call is logged with its place and the correct call; it raises nothing."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import MagicMock

import pytest

import stepstream
from stepstream.producers.forks import fork_lock
from stepstream.producers.sdk_log import RateLimitedLog
from stepstream.producers.steps import Run, Step
from tests.support.sdk import Traced, logged, traced


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced(sound=False) as made:
        yield made


def _of_step(call: Callable[[Any], object]) -> Callable[[Any], None]:
    def wrong(run: Any) -> None:
        with run.tool("t") as step:
            call(step)

    return wrong


def _opened(call: Callable[[Any], Any]) -> Callable[[Any], None]:
    def wrong(run: Any) -> None:
        with call(run):
            pass

    return wrong


def _ended(run: Any) -> Any:
    with run.tool("ended") as step:
        pass
    return step


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "by position": (
        _of_step(lambda step: step.set_usage(900, 40)),
        "set_usage(900, 40) is ignored: write set_usage(input_tokens=900, output_tokens=40)",
    ),
    "another library's name": (
        _of_step(lambda step: step.set_usage(prompt_tokens=900)),
        "there is no 'prompt_tokens': did you mean 'input_tokens'?; "
        "write set_usage(input_tokens=900)",
    ),
    "a slip": (
        _of_step(lambda step: step.set_usage(input_token=9)),
        "did you mean 'input_tokens'?",
    ),
    "no number": (
        _of_step(lambda step: step.set_usage(input_tokens="many")),
        "set_usage(input_tokens='many') is left out: write a number of tokens, input_tokens=900",
    ),
    "a negative number": (
        _of_step(lambda step: step.set_usage(output_tokens=-4)),
        "set_usage(output_tokens=-4) is left out",
    ),
    "half a token": (
        _of_step(lambda step: step.set_usage(output_tokens=0.5)),
        "set_usage(output_tokens=0.5) is left out",
    ),
    "no amount": (
        _of_step(lambda step: step.set_cost("lots")),
        "set_cost('lots') is ignored: it is not an amount of dollars; write set_cost(0.0123)",
    ),
    "cost by a wrong name": (
        _of_step(lambda step: step.set_cost(cost=1)),
        "there is no 'cost': did you mean 'usd'?; write set_cost(usd=1)",
    ),
    "nothing": (_of_step(lambda step: step.set_output()), "write set_output(value=...)"),
    "too much": (
        _of_step(lambda step: step.set_output(1, 2)),
        "set_output(1, 2) is ignored: write set_output(value)",
    ),
    "one attribute": (
        _of_step(lambda step: step.set_attributes("a", 1)),
        "set_attributes('a', 1) is ignored: write set_attributes(attributes)",
    ),
    "attributes that are none": (
        _of_step(lambda step: step.set_attributes([1])),
        "set_attributes([1]) is ignored: write set_attributes({'name': value})",
    ),
    "documents that fail": (
        _of_step(lambda step: step.set_documents(1 / (1 - n) for n in range(3))),
        "only 1 of the documents could be read: division by zero",
    ),
    "documents that are none": (
        _of_step(lambda step: step.set_documents(5)),
        "write set_documents([document, ...])",
    ),
    "an unknown field": (
        _opened(lambda run: run.tool("t", prompt="x")),
        "there is no field 'prompt': did you mean 'input'?; it is ignored",
    ),
    "an unknown field of a run": (
        _opened(lambda run: run.run("r", conversation_id="x")),
        "there is no field 'conversation_id': did you mean 'session_id'?",
    ),
    "input by position": (
        _opened(lambda run: run.tool("search", {"q": 1})),
        "is ignored: write tool('search', input={\"q\":1})",
    ),
    "a name that is none": (
        _opened(lambda run: run.tool(name=5)),
        "the name of a step must be a string, and 5 is not: write tool('search')",
    ),
    "a budget that is none": (
        _opened(lambda run: run.run("r", budget=5)),
        "budget=5 is ignored: write budget=Budget(usd=0.50)",
    ),
    "no function": (
        _opened(lambda run: run.run("r", on_command="f")),
        "on_command='f' is ignored: write on_command=function",
    ),
    "no truth": (
        _opened(lambda run: run.run("r", cancel_on_stop="yes")),
        "cancel_on_stop='yes' is ignored: write cancel_on_stop=True",
    ),
    "no reserve": (
        _opened(lambda run: run.llm("m", reserve_usd="x")),
        "reserve_usd='x' is ignored: write reserve_usd=0.05",
    ),
    "no attempt": (
        _opened(lambda run: run.tool("t", attempt="second")),
        "attempt='second' is ignored: write the number of the try, attempt=2",
    ),
    "no step": (
        _opened(lambda run: run.tool("t", retry_of=5)),
        "retry_of=5 is ignored: write retry_of=step, or the step_id of a step",
    ),
    "no schema": (
        _opened(lambda run: run.tool("t", schema=5)),
        "schema=5 is ignored: write schema=Model, a type or a JSON Schema",
    ),
    "a function for a name": (
        _opened(lambda run: run.tool(_ended, input={"order": 7})),
        "the name of a step must be a string, and <function _ended> is not: write tool('_ended')",
    ),
    "a mock for a name": (
        _opened(lambda run: run.llm(MagicMock(), input="hello")),
        "the name of a step must be a string, and <unittest.mock.MagicMock> is not: "
        "write tool('search')",
    ),
    "a function for a kind": (
        _opened(lambda run: run.step(_ended, input=1)),
        "the name of a step must be a string, and <function _ended> is not: write tool('_ended')",
    ),
    "after the end": (
        lambda run: _ended(run).set_output(1),
        "set_output on step 'ended' after it ended is ignored: call it before the step ends",
    ),
    "before the start": (
        lambda run: run.tool("t").set_output(1),
        "set_output on step 't' before it started is ignored",
    ),
    "again": (
        lambda run: _ended(run).start(),
        "step 'ended' has ended and is not recorded again: open another one for each use",
    ),
}


@pytest.mark.parametrize("kind", list(WRONG))
def test_wrong_calls_are_logged(kind: str, made: Traced) -> None:
    """One line with the place in this file and what to write; no traceback, nothing raised, the run
    is recorded.
    """
    wrong, expected = WRONG[kind]
    with logged() as records, made.tracer.run("run") as run:
        wrong(run)
    messages = [record.getMessage() for record in records]
    assert len(messages) == 1
    assert expected in messages[0]
    assert f"(at {__file__}:" in messages[0]
    assert "internal error" not in messages[0]
    assert records[0].exc_info is None
    assert "run" in {event.name for event in made.events if event.phase == "end"}


def test_each_place_is_logged_and_not_too_often(made: Traced) -> None:
    """The same mistake in two places:

    two lines. In a loop: one line a minute, with how many it stands for.
    """
    with logged() as records, made.tracer.run() as run, run.llm("m") as step:
        step.set_usage(900, 40)  # type: ignore[call-arg]
        step.set_usage(900, 40)  # type: ignore[call-arg]
        for _ in range(50):
            step.set_usage(1, 1)  # type: ignore[call-arg]
    # Three places in the file; the loop's fifty calls are one of them.
    assert len(records) == 3


def test_the_number_of_messages_left_out_is_logged() -> None:
    """After a minute the next message has the number of those left out."""
    now = [0.0]
    with logged() as records:
        sdk_log = RateLimitedLog(clock=lambda: now[0])
        for _ in range(5):
            sdk_log.log("kind", "wrong")
        now[0] = 61.0
        sdk_log.log("kind", "wrong")
    assert [record.getMessage() for record in records] == ["wrong", "wrong (4 more like it since)"]


def test_a_message_does_not_wait_for_an_import_in_another_thread() -> None:
    """Only the first message may: it loads the rules that hide secrets."""
    with logged() as records:
        sdk_log = RateLimitedLog()
        sdk_log.log("first", "first")
        with fork_lock.importing():
            thread = threading.Thread(target=sdk_log.log, args=("second", "second"), daemon=True)
            thread.start()
            thread.join(30)
            assert [record.getMessage() for record in records] == ["first", "second"]


def test_configuring_wrongly(capfd: pytest.CaptureFixture[str]) -> None:
    """An unknown setting, or one by position, is logged; nothing is raised."""
    with logged() as records:
        stepstream.configure("kafka://x")  # type: ignore[call-arg]
    assert (
        "configure('kafka://x') is ignored: write configure(project='kafka://x')"
        in records[0].getMessage()
    )


@pytest.mark.parametrize(
    "function",
    [stepstream.tool, stepstream.run, stepstream.llm, stepstream.agent, Run.tool, Step.llm],
)
def test_help_shows_every_field(function: Any) -> None:
    """The signature names what may be given."""
    names = list(inspect.signature(function).parameters)
    assert {"input", "attributes", "capture_content"} <= set(names)
    assert ("budget" in names) == (function in (stepstream.run, stepstream.agent))


def test_errors_inside_are_still_internal(made: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``TypeError`` of our own is not taken for a wrong call."""

    def broken(*_: Any) -> Any:
        raise TypeError("ours")

    monkeypatch.setattr("stepstream.producers.steps.to_text", broken)
    with logged() as records, made.tracer.run() as run, run.tool("t") as step:
        step.set_output(1)
    assert [record.levelno for record in records] == [logging.ERROR]
    assert "internal error in Step.set_output" in records[0].getMessage()
