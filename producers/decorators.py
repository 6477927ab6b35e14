"""Functions as steps: plain and async ones, generators of both.

Arguments are the step's input, what is returned or yielded is its output. A generator's step stays open until the generator is
exhausted, closed or dropped, and is current only while the generator itself runs, never in the code that consumes it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from stepstream.producers.error_guard import never_raises
from stepstream.producers.misuse import misuse, shown
from stepstream.producers.streams import Chunks
from stepstream.producers.values.documents import are_documents
from stepstream.producers.values.failures import message_of

if TYPE_CHECKING:
    from stepstream.producers.steps import Step

OpenStep = Callable[[str, object], "Step"]
"""Opens the step of one call, by the function's name and its arguments."""

_TEXT_KINDS: Final = frozenset({"agent", "llm_call", "retrieval"})
"""Kinds whose only argument, if it is text, is the input itself: a question, a prompt, a query."""


def decorated(function: Any, open_step: OpenStep, kind: str) -> Any:
    """The function, each of whose calls is a step. It keeps its name, its documentation and its kind."""
    if issubclass(type(function), staticmethod | classmethod):
        return type(function)(decorated(function.__func__, open_step, kind))
    if not callable(function):
        raise TypeError(f"a step decorates functions, not {type(function).__name__}")
    try:
        return _decorated(function, open_step, kind)
    except Exception as error:
        misuse(
            "decorated",
            f"{shown(function)} is no function that can be traced: {message_of(error)}; decorate a function",
        )
        return function


def _decorated(function: Any, open_step: OpenStep, kind: str) -> Any:
    name = getattr(function, "__name__", None) or type(function).__name__
    arguments = _Arguments(function, kind in _TEXT_KINDS)
    open_call = functools.partial(_open, open_step, name, arguments)
    target = (
        function
        if inspect.isroutine(function) or isinstance(function, functools.partial)
        else type(function).__call__
    )
    for recognised, wrap in (
        (inspect.isasyncgenfunction, _asynchronous_generator),
        (inspect.iscoroutinefunction, _asynchronous),
        (inspect.isgeneratorfunction, _generator),
    ):
        if recognised(target):
            return wrap(function, open_call)
    return _plain(function, open_call)


def _open(
    open_step: OpenStep,
    name: str,
    arguments: _Arguments,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Step:
    return open_step(name, arguments.of(args, kwargs))


def _plain(function: Callable[..., Any], open_call: Callable[..., Step]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with open_call(args, kwargs) as step:
            result = function(*args, **kwargs)
            record_result(step, result)
            return result

    return call


def _asynchronous(
    function: Callable[..., Any], open_call: Callable[..., Step]
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        async with open_call(args, kwargs) as step:
            result = await function(*args, **kwargs)
            record_result(step, result)
            return result

    return call


def _generator(function: Callable[..., Any], open_call: Callable[..., Step]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        return (yield from _driven(function(*args, **kwargs), open_call(args, kwargs)))

    return call


def _asynchronous_generator(
    function: Callable[..., Any], open_call: Callable[..., Step]
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator, step = function(*args, **kwargs), open_call(args, kwargs)
        await step._ready()
        within, chunks = _Within(step.start()), Chunks(step)
        resume: Callable[[], Any] = generator.__anext__
        try:
            while True:
                with within:
                    item = await resume()
                chunks.add(item)
                try:
                    sent = yield item
                    resume = functools.partial(generator.asend, sent)
                except GeneratorExit:
                    with within:
                        await generator.aclose()
                    raise
                except BaseException as thrown:
                    resume = functools.partial(generator.athrow, thrown)
        except StopAsyncIteration:
            chunks.finish()
            step.end()
        except BaseException as error:
            chunks.finish()
            step.end(error)
            raise

    return call


@never_raises
def record_result(step: Step, result: object) -> None:
    """What a function returned, as its step's kind has it."""
    if step._kind == "llm_call":
        step.record_response(result)
    elif step._kind == "retrieval" and are_documents(result):
        step.set_documents(result)
    elif result is not None:
        step.set_output(result)


class _Within:
    """Makes a step current while its generator runs, and what was current inside again at the next time."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._inside: Step | None = step

    def __enter__(self) -> None:
        self._outside = self._step._switch(self._inside)

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._inside = self._step._switch(self._outside)


def _driven(generator: Generator[Any, Any, Any], step: Step) -> Generator[Any, Any, Any]:
    within, chunks = _Within(step.start()), Chunks(step)
    resume: Callable[[], Any] = functools.partial(next, generator)
    try:
        while True:
            with within:
                item = resume()
            chunks.add(item)
            try:
                sent = yield item
                resume = functools.partial(generator.send, sent)
            except GeneratorExit:
                with within:
                    generator.close()
                raise
            except BaseException as thrown:
                resume = functools.partial(generator.throw, thrown)
    except StopIteration as stop:
        chunks.finish()
        step.end()
        return stop.value
    except BaseException as error:
        chunks.finish()
        step.end(error)
        raise


class _Arguments:
    """Names a call's arguments, quickly: by the function's parameters, without what it is bound to."""

    def __init__(self, function: Callable[..., Any], single_text: bool) -> None:
        self._single_text = single_text
        self._names: tuple[str, ...] = ()
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._names = tuple(
            parameter.name for parameter in parameters if parameter.kind in positional
        )

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """The arguments by name; None where there are none."""
        names = self._names
        if names and names[0] in ("self", "cls") and args:
            names, args = names[1:], args[1:]
        named = dict(zip(names, args, strict=False))
        if len(args) > len(names):
            named["args"] = args[len(names) :]
        named.update(kwargs)
        if self._single_text and len(named) == 1:
            only = next(iter(named.values()))
            if issubclass(type(only), str):
                return only
        return named or None
