"""Retries, fallbacks and refused arguments: each try is a step, linked to the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from stepstream.producers.exceptions import ArgumentsRefused, RunStopped
from stepstream.schemas.alert import CommandStruct
from tests.support.sdk import Traced, traced


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced() as made:
        yield made


class Flaky:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.calls = 0

    def __call__(self, query: str) -> str:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise TimeoutError("too slow")
        return f"answer to {query}"

    async def later(self, query: str) -> str:
        return self(query)


def tries(made: Traced) -> list[tuple[str, str, int, str, str]]:
    ended = [event for event in made.events if event.phase == "end" and event.kind == "tool_call"]
    names = {event.step_id: f"{event.name} {event.attempt}" for event in ended}
    return [
        (e.name, e.status, e.attempt, names.get(e.retry_of, ""), names.get(e.fallback_of, ""))
        for e in ended
    ]


async def test_each_try_is_a_step_linked_to_the_one_it_repeats(made: Traced) -> None:
    """Plain and asynchronous alike; the result is the first that succeeds."""
    wanted = [
        ("search", "error", 1, "", ""),
        ("search", "error", 2, "search 1", ""),
        ("search", "ok", 3, "search 2", ""),
    ]
    with made.tracer.run() as run:
        assert run.attempt("search", Flaky(2), "x", retries=3, wait_s=0) == "answer to x"
    assert tries(made) == wanted
    made.transport.records.clear()
    async with made.tracer.run() as run:
        assert (
            await run.attempt("search", Flaky(2).later, "x", retries=3, wait_s=0) == "answer to x"
        )
    assert tries(made) == wanted


async def test_a_fallback_takes_over_when_every_try_failed(made: Traced) -> None:
    """It is a step with a name of its own, linked to the step that it replaces."""

    def cached(query: str) -> str:
        return f"old answer to {query}"

    wanted = [
        ("search", "error", 1, "", ""),
        ("search", "error", 2, "search 1", ""),
        ("cached", "ok", 1, "", "search 2"),
    ]
    with made.tracer.run() as run:
        assert (
            run.attempt("search", Flaky(9), "x", retries=1, wait_s=0, fallback=cached)
            == "old answer to x"
        )
    assert tries(made) == wanted
    made.transport.records.clear()
    async with made.tracer.run() as run:
        assert (
            await run.attempt("search", Flaky(9).later, "x", retries=1, wait_s=0, fallback=cached)
            == "old answer to x"
        )
    assert tries(made) == wanted


def test_the_last_error_is_the_one_that_is_raised(made: Traced) -> None:
    """Without a fallback, or where the error is of a kind that is not in ``retry_on``."""
    with made.tracer.run() as run:
        with pytest.raises(TimeoutError):
            run.attempt("search", Flaky(9), "x", retries=2, wait_s=0)
        other = Flaky(9)
        with pytest.raises(TimeoutError):
            run.attempt(
                "other", other, "x", retries=5, wait_s=0, retry_on=(ValueError,), fallback=str
            )
    assert other.calls == 1


def test_a_stop_is_not_tried_again(made: Traced) -> None:
    """The run is stopped between two tries: no more tries, and no fallback."""
    flaky = Flaky(9)

    def call(query: str) -> str:
        engine = made.tracer.engine()
        assert engine is not None
        engine.commands.deliver(
            CommandStruct(
                command_id="c", action="stop", time=1, project="shop", trace_id=run.trace_id
            )
        )
        return flaky(query)

    with pytest.raises(RunStopped), made.tracer.run() as run:
        run.attempt("search", call, "x", retries=5, wait_s=0, fallback=str)
    # Further tries of a stopped run would be the work that the stop was to prevent.
    assert flaky.calls == 1


class Refund(BaseModel):
    order: int
    usd: float


SCHEMA = {
    "title": "refund",
    "type": "object",
    "properties": {"order": {"type": "integer"}, "usd": {"type": "number", "maximum": 100}},
    "required": ["order", "usd"],
}


@pytest.mark.parametrize("schema", [Refund, SCHEMA])
def test_arguments_that_the_schema_does_not_allow_are_refused(made: Traced, schema: Any) -> None:
    """The tool is not called; its step failed, so that an agent that goes on as if nothing was is
    noticed.
    """
    with made.tracer.run() as run:
        with (
            pytest.raises(ArgumentsRefused, match="order") as caught,
            run.tool("refund", input={"usd": 1}, schema=schema),
        ):
            raise AssertionError("it was called")
        with run.tool("good", input={"order": 7, "usd": 1}, schema=schema):
            pass
    assert (caught.value.tool, len(caught.value.problems)) == ("refund", 1)
    refused = made.ended["refund"]
    assert (refused.status, refused.kind) == ("error", "tool_call")
    assert refused.error_type.endswith("ArgumentsRefused")
    assert refused.tool_schema in ("Refund", "refund")
    assert made.ended["good"].status == "ok"


def test_a_decorated_tool_is_guarded_too(made: Traced) -> None:
    """By the arguments of each call."""
    calls: list[int] = []

    @made.tracer.tool(schema=Refund)
    def refund(order: int, usd: float) -> str:
        calls.append(order)
        return "done"

    with made.tracer.run():
        assert refund(7, 1.5) == "done"
        with pytest.raises(ArgumentsRefused):
            refund("seven", usd=1.5)  # type: ignore[arg-type]
    assert calls == [7]


def test_what_is_no_schema_refuses_nothing(made: Traced) -> None:
    """It is logged once, and the tool is called."""
    with made.tracer.run() as run, run.tool("x", input={"a": 1}, schema=42):
        pass
    assert made.ended["x"].status == "ok"
