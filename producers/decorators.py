"""Traced functions: plain and async functions, and generators of both.

The arguments become the step's input, what is returned or yielded its output. A generator's step
is open until the generator is exhausted, closed or dropped. It is the current step only while the
generator itself runs, never in the code that consumes it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final

from stepstream.producers.guardrails.switch import guarding
from stepstream.producers.misuse import misuse, shown
from stepstream.producers.recordings.boundary import outside
from stepstream.producers.step_protocol import OpenCall, TracedStep
from stepstream.producers.streams import ChunkRecorder
from stepstream.producers.values.failures import message_of

OpenStep = Callable[[tuple[Any, ...], dict[str, Any]], TracedStep]

# With one text argument (a question, a prompt, a query), that text itself is the input.
_TEXT_KINDS: Final = frozenset({"agent", "llm_call", "retrieval"})


def decorated(function: Any, open_call: OpenCall, kind: str) -> Any:
    """Return the function with each call traced. Name, docstring and kind of function are kept.

    Raises ``TypeError`` for what is not callable.
    """
    if issubclass(type(function), staticmethod | classmethod):
        return type(function)(decorated(function.__func__, open_call, kind))
    if not callable(function):
        raise TypeError(f"a step decorates functions, not {type(function).__name__}")
    try:
        return _decorated(function, open_call, kind)
    except Exception as error:
        misuse(
            "decorated",
            f"{shown(function)} cannot be traced: {message_of(error)}; decorate a function",
        )
        return function


def _decorated(function: Any, open_call: OpenCall, kind: str) -> Any:
    name = getattr(function, "__name__", None) or type(function).__name__
    arguments = _Arguments(function, kind in _TEXT_KINDS)

    def open_step(args: tuple[Any, ...], kwargs: dict[str, Any]) -> TracedStep:
        return open_call(name, arguments.of(args, kwargs))

    is_function = inspect.isroutine(function) or isinstance(function, functools.partial)
    target = function if is_function else type(function).__call__
    if inspect.isasyncgenfunction(target):
        return _async_generator(function, open_step, arguments)
    if inspect.iscoroutinefunction(target):
        return _async(function, open_step, arguments)
    if inspect.isgeneratorfunction(target):
        return _generator(function, open_step, arguments)
    return _plain(function, open_step, arguments)


def _plain(
    function: Callable[..., Any], open_step: OpenStep, arguments: _Arguments
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with open_step(args, kwargs) as step:
            if guarding.is_on:
                args, kwargs = arguments.allowed(step, args, kwargs)
            if outside.boundary is None:
                result = function(*args, **kwargs)
            else:
                result = _crossed(step, functools.partial(function, *args, **kwargs))
            step._record_result(result)
            return result

    return call


def _async(
    function: Callable[..., Any], open_step: OpenStep, arguments: _Arguments
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        async with open_step(args, kwargs) as step:
            if guarding.is_on:
                args, kwargs = arguments.allowed(step, args, kwargs)
            boundary = outside.of(step)
            made = functools.partial(function, *args, **kwargs)
            if boundary is None:
                result = await made()
            else:
                result = await boundary.acall(step, step._fields.get("input"), made)
            step._record_result(result)
            return result

    return call


def _generator(
    function: Callable[..., Any], open_step: OpenStep, arguments: _Arguments
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        step = open_step(args, kwargs).start()
        if guarding.is_on:
            args, kwargs = arguments.allowed(step, args, kwargs)
        boundary = outside.of(step)
        made = functools.partial(function, *args, **kwargs)
        pieces = (
            made() if boundary is None else boundary.stream(step, step._fields.get("input"), made)
        )
        return (yield from _driven(pieces, step))

    return call


def _driven(generator: Generator[Any, Any, Any], step: TracedStep) -> Generator[Any, Any, Any]:
    """Run a generator inside its step. Values sent and exceptions thrown in are passed on."""
    resuming, chunks = step.start()._resuming(), ChunkRecorder(step)
    resume: Callable[[], Any] = functools.partial(next, generator)
    try:
        while True:
            with resuming:
                item = resume()
            chunks.add(item)
            try:
                sent = yield item
                resume = functools.partial(generator.send, sent)
            except GeneratorExit:
                with resuming:
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


def _async_generator(
    function: Callable[..., Any], open_step: OpenStep, arguments: _Arguments
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        step = open_step(args, kwargs)
        await step._ready()
        step.start()
        if guarding.is_on:
            args, kwargs = arguments.allowed(step, args, kwargs)
        boundary = outside.of(step)
        generator: AsyncGenerator[Any, Any]
        if boundary is None:
            generator = function(*args, **kwargs)
        else:
            made = functools.partial(function, *args, **kwargs)
            generator = boundary.astream(step, step._fields.get("input"), made)
        resuming, chunks = step._resuming(), ChunkRecorder(step)
        resume: Callable[[], Any] = generator.__anext__
        try:
            while True:
                with resuming:
                    item = await resume()
                chunks.add(item)
                try:
                    sent = yield item
                    resume = functools.partial(generator.asend, sent)
                except GeneratorExit:
                    with resuming:
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


def _crossed(step: TracedStep, function: Callable[[], Any]) -> Any:
    """The result of a function that is recorded or served, if it is of a kind that is."""
    boundary = outside.of(step)
    return (
        function() if boundary is None else boundary.call(step, step._fields.get("input"), function)
    )


class _Arguments:
    """Names the arguments of calls by the function's parameters, without ``self`` and ``cls``.

    The signature is read once, at decoration, because ``Signature.bind`` is slow.
    """

    def __init__(self, function: Callable[..., Any], single_text: bool) -> None:
        self._single_text = single_text
        self._names: tuple[str, ...] = ()
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._names = tuple(one.name for one in parameters if one.kind in positional)

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """The arguments by name; None if there are none."""
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

    def allowed(
        self, step: TracedStep, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call after its guardrails: repaired, or as they are."""
        better = step._repaired()
        if better is None:
            return args, kwargs
        skipped = 1 if self._names and self._names[0] in ("self", "cls") and args else 0
        made = list(args[:skipped])
        for name in self._names[skipped : len(args)]:
            # Behind an argument that is left out, the others are passed by name.
            if name not in better:
                break
            made.append(better.pop(name))
        if len(args) > len(self._names) and len(made) == len(self._names):
            made.extend(better.pop("args", ()))
        return tuple(made), better
