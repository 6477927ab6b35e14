"""Functions as steps."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from stepstream.schemas.step import Document
from tests.support.sdk import Traced, traced


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced() as made:
        yield made


def test_a_function_is_a_step_each_time(made: Traced) -> None:
    """Arguments by name are the input, the returned value the output; what decorates changes
    nothing for the caller.
    """

    @made.tracer.tool
    def lookup(order: int, *rest: int, region: str = "eu") -> dict[str, int]:
        """Finds an order."""
        return {"order": order, "n": len(rest)}

    assert lookup(7, 8, 9, region="us") == {"order": 7, "n": 2}
    # Frameworks make the schema of a tool of name and docstring.
    assert (lookup.__name__, lookup.__doc__) == ("lookup", "Finds an order.")
    event = made.ended["lookup"]
    assert (event.kind, event.tool) == ("tool_call", "lookup")
    assert (event.input, event.output) == (
        '{"order":7,"args":[8,9],"region":"us"}',
        '{"order":7,"n":2}',
    )
    lookup(1)
    assert len([event for event in made.events if event.phase == "end"]) == 2


@pytest.mark.parametrize(
    ("decorate", "kind"),
    [
        (lambda tracer: tracer.tool, "tool_call"),
        (lambda tracer: tracer.tool(), "tool_call"),
        (lambda tracer: tracer.llm, "llm_call"),
        (lambda tracer: tracer.retrieval(), "retrieval"),
        (lambda tracer: tracer.agent, "agent"),
        (lambda tracer: tracer.agent(task="refund"), "agent"),
        (lambda tracer: tracer.step("plan"), "plan"),
        (lambda tracer: tracer.step, "other"),
    ],
)
def test_with_and_without_arguments(
    made: Traced, decorate: Callable[[Any], Any], kind: str
) -> None:
    """Every decorator works bare and called, and names the step after the function."""

    def work(text: str) -> str:
        return text.upper()

    assert decorate(made.tracer)(work)("x") == "X"
    assert (made.ended["work"].kind, made.ended["work"].output) == (kind, "X")


def test_given_names_and_fields(made: Traced) -> None:
    """What a decorator is given holds for every call."""

    @made.tracer.llm("ask", model="gpt-4o", provider="openai")
    def call(prompt: str) -> str:
        return "hello"

    call("hi")
    event = made.ended["ask"]
    assert (event.model, event.provider, event.input, event.output) == (
        "gpt-4o",
        "openai",
        "hi",
        "hello",
    )


def test_an_agent_is_a_run(made: Traced) -> None:
    """Steps inside a decorated agent are steps of its run; its task and its only text argument are
    the run's.
    """

    @made.tracer.tool
    def find() -> None: ...

    @made.tracer.agent(task="refund")
    def support(question: str) -> str:
        find()
        return "done"

    support("where is my parcel")
    event = made.ended["support"]
    assert (event.task, event.input, event.output) == ("refund", "where is my parcel", "done")
    assert made.parents()["find"] == "support"
    assert (made.ended["find"].task, made.ended["find"].input, made.ended["find"].output) == (
        "refund",
        "",
        "",
    )


def test_methods_of_all_kinds(made: Traced) -> None:
    """``self`` and ``cls`` are no input; class and static methods work in either order of
    decorators.
    """

    class Shop:
        @made.tracer.tool
        def plain(self, a: int) -> int:
            return a

        @made.tracer.tool
        @classmethod
        def on_class(cls, a: int) -> int:
            return a

        @classmethod
        @made.tracer.tool
        def below_class(cls, a: int) -> int:
            return a

        @made.tracer.tool
        @staticmethod
        def static(a: int) -> int:
            return a

    shop = Shop()
    assert (shop.plain(1), shop.on_class(2), Shop.below_class(3), shop.static(4)) == (1, 2, 3, 4)
    assert [made.ended[n].input for n in ("plain", "on_class", "below_class", "static")] == [
        '{"a":1}',
        '{"a":2}',
        '{"a":3}',
        '{"a":4}',
    ]


def test_callable_objects(made: Traced) -> None:
    """An object with ``__call__`` is named after its class."""

    class Lookup:
        async def __call__(self, order: int) -> int:
            return order

    async def main() -> int:
        return await made.tracer.tool(Lookup())(7)

    assert asyncio.run(main()) == 7
    assert (made.ended["Lookup"].input, made.ended["Lookup"].output) == ('{"order":7}', "7")


def test_what_it_decorates_stays_what_it_was(made: Traced) -> None:
    """Coroutine functions, generators and asynchronous generators are still recognised as such."""

    async def coroutine() -> None: ...
    def generator() -> Iterator[int]:
        yield 1

    async def asynchronous_generator() -> AsyncIterator[int]:
        yield 1

    assert inspect.iscoroutinefunction(made.tracer.tool(coroutine))
    assert inspect.isgeneratorfunction(made.tracer.tool(generator))
    assert inspect.isasyncgenfunction(made.tracer.tool(asynchronous_generator))


async def test_async_functions(made: Traced) -> None:
    """An async step lasts until its function returns, and concurrent ones do not mix."""

    @made.tracer.tool
    async def inner(n: int) -> int:
        await asyncio.sleep(0)
        return n

    @made.tracer.step("plan")
    async def outer(n: int) -> int:
        await asyncio.sleep(0)
        return await inner(n)

    async with made.tracer.run():
        assert await asyncio.gather(*(outer(n) for n in range(5))) == list(range(5))
    events = [event for event in made.events if event.phase == "end"]
    outers = {event.step_id: event.output for event in events if event.name == "outer"}
    assert len(outers) == 5
    assert all(
        outers[event.parent_step_id] == event.output for event in events if event.name == "inner"
    )


async def test_a_cancelled_task_is_recorded_as_cancelled(made: Traced) -> None:
    """Cancelling reaches the step and goes on."""

    @made.tracer.tool
    async def slow() -> None:
        await asyncio.sleep(60)

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made.ended["slow"].status == "cancelled"


def test_a_generator_lasts_until_it_is_exhausted(made: Traced) -> None:
    """Its step ends after the last item, holds what was yielded, and knows when the first item
    came.
    """

    @made.tracer.llm
    def answer(prompt: str) -> Generator[str, None, int]:
        yield "hel"
        yield "lo"
        return 7

    def consume() -> Generator[str, None, int]:
        return (yield from answer("hi"))

    stream = consume()
    assert next(stream) == "hel"
    assert [event.phase for event in made.events] == ["start"]
    assert next(stream) == "lo"
    with pytest.raises(StopIteration) as stopped:
        next(stream)
    assert stopped.value.value == 7
    event = made.ended["answer"]
    assert (event.output, event.status) == ("hello", "ok")
    assert event.first_token_time is not None
    assert event.end_time is not None
    assert event.start_time <= event.first_token_time <= event.end_time


def test_a_generator_is_current_only_inside(made: Traced) -> None:
    """Steps in the generator are its children, also after a yield within them; steps of the
    consumer are not.
    """

    @made.tracer.step("plan")
    def work() -> Iterator[int]:
        with made.tracer.tool("around"):
            yield 1
            with made.tracer.tool("inside"):
                pass
        yield 2

    with made.tracer.run():
        for number in work():
            # While the generator is suspended between two values.
            with made.tracer.tool(f"consumer{number}"):
                pass
    assert made.parents() == {
        "support": "",
        "work": "support",
        "around": "work",
        "inside": "around",
        "consumer1": "support",
        "consumer2": "support",
    }


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_generator_that_is_left_early(made: Traced, how: str) -> None:
    """Closed or dropped, the step ends as cancelled with what came until then, and the generator
    cleans up.
    """
    cleaned = []

    @made.tracer.llm
    def answer() -> Generator[str, None, None]:
        try:
            yield "hel"
            yield "lo"
        finally:
            cleaned.append(1)

    stream = answer()
    next(stream)
    if how == "close":
        stream.close()
    del stream
    gc.collect()
    assert cleaned == [1]
    assert (made.ended["answer"].status, made.ended["answer"].output) == ("cancelled", "hel")


def test_what_is_sent_and_thrown_into_a_generator_arrives(made: Traced) -> None:
    """``send`` and ``throw`` reach the function as without the decorator, and an exception it
    raises leaves it.
    """

    @made.tracer.step("plan")
    def echo() -> Generator[Any, Any, None]:
        got = None
        while True:
            try:
                got = yield got
            except KeyError as error:
                got = repr(error)

    stream = echo()
    next(stream)
    assert stream.send(5) == 5
    assert stream.throw(KeyError("k")) == "KeyError('k')"
    with pytest.raises(ValueError, match="no"):
        stream.throw(ValueError("no"))
    event = made.ended["echo"]
    assert (event.status, event.error_type, event.output) == (
        "error",
        "ValueError",
        "[null,5,\"KeyError('k')\"]",
    )


async def test_async_generators(made: Traced) -> None:
    """As generators: open until exhausted, current inside only, cancelled when left."""

    @made.tracer.llm
    async def answer(words: list[str]) -> AsyncIterator[str]:
        for word in words:
            await asyncio.sleep(0)
            with made.tracer.tool(f"tool-{word}"):
                yield word

    async with made.tracer.run():
        async for word in answer(["a", "b"]):
            with made.tracer.tool(f"consumer-{word}"):
                pass
    parents = made.parents()
    assert (parents["tool-a"], parents["tool-b"]) == ("answer", "answer")
    assert (parents["consumer-a"], parents["consumer-b"]) == ("support", "support")
    assert (made.ended["answer"].status, made.ended["answer"].output) == ("ok", "ab")


async def test_an_async_generator_that_is_left_early(made: Traced) -> None:
    """``aclose``, or the loop's own clean-up of a dropped one, ends the step as cancelled."""

    @made.tracer.llm
    async def answer() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    stream = answer()
    assert await anext(stream) == "a"
    await stream.aclose()  # type: ignore[attr-defined]
    assert (made.ended["answer"].status, made.ended["answer"].output) == ("cancelled", "a")


def test_returned_documents(made: Traced) -> None:
    """A retrieval's list of documents is recorded as documents; anything else as output."""

    @made.tracer.retrieval
    def found(query: str) -> list[Any]:
        return [Document(id="a", score=0.5, content="x"), ({"id": "b", "text": "y"}, 0.25)]

    @made.tracer.retrieval
    def counted(query: str) -> int:
        return 3

    found("q")
    counted("q")
    assert [(d.id, d.score, d.content) for d in made.ended["found"].documents] == [
        ("a", 0.5, "x"),
        ("b", 0.25, "y"),
    ]
    assert (made.ended["counted"].documents, made.ended["counted"].output) == ([], "3")


def test_returned_answers(made: Traced) -> None:
    """A model's answer that a decorated function returns is read: text, tokens and model."""

    @made.tracer.llm
    def ask(prompt: str) -> dict[str, Any]:
        return {
            "model": "gpt-4o-2024-08-06",
            "choices": [{"message": {"content": "hi"}}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1},
        }

    ask("hello")
    event = made.ended["ask"]
    assert event.usage is not None
    assert (event.output, event.model, event.usage.input_tokens) == ("hi", "gpt-4o-2024-08-06", 3)


def test_decorated_before_it_is_configured(made: Traced) -> None:
    """Decorating opens nothing: a module can be imported before the tracer knows its settings."""

    @made.tracer.tool
    def find() -> None: ...

    # The engine reads the settings, which a program may set after its imports.
    assert made.tracer._engine is None
    find()
    assert made.tracer._engine is not None


def test_decorating_what_is_no_function(made: Traced) -> None:
    """Decorating something else raises at once."""
    with pytest.raises(TypeError, match="decorates functions"):
        made.tracer.tool("name")(5)  # type: ignore[arg-type]
