"""Stubs in the place of tools, with faults that are drawn by a seed: for scenarios of suites."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any, Final

from stepstream.producers.recordings.boundary import Boundary, CallStep, Pieces
from stepstream.schemas.scenario import Stub

_TOOLS: Final = frozenset({"tool_call", "retrieval"})


class ToolFault(Exception):
    """The error that a stub raises in the place of a tool."""


class StubbedTools:
    """Makes the calls of tools that have stubs; everything else goes to ``inner``, or is called."""

    def __init__(self, stubs: Sequence[Stub], seed: int, inner: Boundary | None = None) -> None:
        self._stubs = stubs
        self._seed = seed
        self._inner = inner
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()
        self._used: Counter[int] = Counter()
        self.redact: Callable[[str], str] | None = None

    def run_began(self, run: Any) -> None:
        if self._inner is not None:
            self._inner.run_began(run)

    def run_ended(self, run: Any, error: BaseException | None) -> None:
        if self._inner is not None:
            self._inner.run_ended(run, error)

    def call(self, step: CallStep, arguments: object, function: Callable[[], Any]) -> Any:
        stub = self._stub_for(step, arguments)
        made = function if stub is None else lambda: _answered(stub, function)
        return made() if self._inner is None else self._inner.call(step, arguments, made)

    async def acall(self, step: CallStep, arguments: object, function: Callable[[], Any]) -> Any:
        stub = self._stub_for(step, arguments)
        made = function if stub is None else lambda: _aanswered(stub, function)
        return (
            await made() if self._inner is None else await self._inner.acall(step, arguments, made)
        )

    def stream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> Generator[Any, Any, Any]:
        stub = self._stub_for(step, arguments)
        made = function if stub is None else lambda: _pieces(_answered(stub, _listed(function)))
        if self._inner is not None:
            return (yield from self._inner.stream(step, arguments, made))
        return (yield from made())

    async def astream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> AsyncGenerator[Any, Any]:
        # Stubs of asynchronous generators do not exist: models stream, tools answer at once.
        pieces = (
            function() if self._inner is None else self._inner.astream(step, arguments, function)
        )
        async for piece in pieces:
            yield piece

    def client_stream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> tuple[Any, Pieces | None]:
        if self._inner is None:
            return function(), None
        return self._inner.client_stream(step, arguments, function)

    def _stub_for(self, step: CallStep, arguments: object) -> Stub | None:
        if step._kind not in _TOOLS:
            return None
        with self._lock:
            number = self._calls[step._name]
            self._calls[step._name] += 1
            for place, stub in enumerate(self._stubs):
                if stub.tool != step._name or not _has(arguments, stub.when):
                    continue
                if stub.times is not None and self._used[place] >= stub.times:
                    continue
                # By the call and not by one sequence: parallel calls draw the same in any order.
                draw = random.Random(f"{self._seed}/{place}/{stub.tool}/{number}").random()
                if draw < stub.rate:
                    self._used[place] += 1
                    return stub
        return None


def _has(arguments: object, wanted: dict[str, Any]) -> bool:
    if not wanted:
        return True
    return isinstance(arguments, dict) and all(
        name in arguments and arguments[name] == value for name, value in wanted.items()
    )


def _answered(stub: Stub, function: Callable[[], Any]) -> Any:
    time.sleep(stub.seconds)
    _raise(stub)
    return changed(stub, function() if stub.calls_tool else stub.returns)


async def _aanswered(stub: Stub, function: Callable[[], Any]) -> Any:
    await asyncio.sleep(stub.seconds)
    _raise(stub)
    return changed(stub, await function() if stub.calls_tool else stub.returns)


def _listed(function: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: list(function())


def _pieces(result: Any) -> Any:
    return iter(result if isinstance(result, list | tuple) else [result])


def _raise(stub: Stub) -> None:
    if stub.fault == "error":
        raise ToolFault(stub.text or f"{stub.tool} failed")
    if stub.fault == "timeout":
        raise TimeoutError(stub.text or f"{stub.tool} did not answer")


def changed(stub: Stub, result: Any) -> Any:
    """The result with the stub's fault."""
    match stub.fault:
        case "error_as_ok":
            return {"error": stub.text or f"{stub.tool} is not available"}
        case "wrong_row":
            return _other_row(result)
        case "truncated":
            return _first_half(result)
        case "injected_text":
            return _with_text(result, stub.text)
        case _:
            return result


def _other_row(value: Any) -> Any:
    """The value with each number increased by one, as in a neighbouring row."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {name: _other_row(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_other_row(one) for one in value]
    return value


def _first_half(value: Any) -> Any:
    if isinstance(value, str | list):
        return value[: len(value) // 2]
    if isinstance(value, dict):
        return dict(list(value.items())[: len(value) // 2])
    return value


def _with_text(value: Any, text: str) -> Any:
    """The value with a text in its first text, as a document from elsewhere may have it."""
    if isinstance(value, str):
        return f"{value}\n{text}"
    if isinstance(value, dict):
        for name, one in value.items():
            if isinstance(one, str):
                return {**value, name: f"{one}\n{text}"}
        return {**value, "note": text}
    if isinstance(value, list):
        return [*value, text]
    return value
