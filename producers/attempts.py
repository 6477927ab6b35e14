"""Retries and fallbacks: each try is a step, linked by ``retry_of`` and ``fallback_of``.

So the trajectory shows every try, and detection can separate a failure that a later try repaired
from one that nothing followed.
"""

from __future__ import annotations

import functools
import inspect
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from stepstream.producers.exceptions import ArgumentsRefused, RunStopped, StepRefused
from stepstream.producers.guardrails.switch import BODY
from stepstream.producers.recordings.boundary import outside
from stepstream.producers.step_protocol import OpenAttempt, TracedStep

LONGEST_WAIT_S: Final = 30.0
# A retry would end the same way: the run stays stopped, the arguments stay wrong or forbidden.
_FINAL: Final = (RunStopped, ArgumentsRefused, StepRefused)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is called, how often, and the fallback. ``wait_s`` doubles with each try, up to 30 s."""

    open_step: OpenAttempt
    kind: str
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    retries: int = 0
    fallback: Callable[..., Any] | None = None
    retry_on: tuple[type[Exception], ...] = (Exception,)
    wait_s: float = 0.1
    schema: Any = None

    def open_try(self, number: int, previous: TracedStep | None) -> TracedStep:
        """The step of one try."""
        fields: dict[str, Any] = {"input": _input(self.args, self.kwargs), "attempt": number}
        if self.schema is not None:
            fields["schema"] = self.schema
        if previous is not None:
            fields["retry_of"] = previous
        return self._opened(self.name, fields)

    def open_fallback(self, failed: TracedStep) -> TracedStep:
        """The step of the fallback."""
        name = getattr(self.fallback, "__name__", "") or f"{self.name} fallback"
        # No schema: the fallback may be another tool with other arguments.
        fields: dict[str, Any] = {"input": _input(self.args, self.kwargs), "fallback_of": failed}
        return self._opened(name, fields)

    def _opened(self, name: str, fields: dict[str, Any]) -> TracedStep:
        step = self.open_step(self.kind, name, fields)
        step._guard = BODY
        return step

    def arguments(self, step: TracedStep) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call after its guardrails: repaired, or as they are."""
        better = step._repaired()
        if better is None:
            return self.args, self.kwargs
        if not self.args:
            return (), better
        if len(self.args) == 1 and not self.kwargs:
            return (better,), {}
        return tuple(better.pop("args", ())), better

    def retries_after(self, error: Exception, number: int) -> bool:
        """True if try ``number``, which failed with this error, is followed by another."""
        return (
            number <= self.retries
            and isinstance(error, self.retry_on)
            and not isinstance(error, _FINAL)
        )

    def falls_back_after(self, error: Exception) -> bool:
        """True if the fallback follows this failure."""
        return (
            self.fallback is not None
            and isinstance(error, self.retry_on)
            and not isinstance(error, RunStopped)
        )

    def wait_after(self, number: int) -> float:
        """Seconds before the next try, with jitter so that many agents do not retry at once."""
        return min(LONGEST_WAIT_S, self.wait_s * 2.0 ** (number - 1)) * random.uniform(0.5, 1.0)


def attempt(plan: Plan) -> Any:
    """Run the plan. Returns the first result, or an awaitable of it for an async function."""
    return _run_async(plan) if inspect.iscoroutinefunction(plan.function) else _run(plan)


def _run(plan: Plan) -> Any:
    previous: TracedStep | None = None
    for number in range(1, plan.retries + 2):
        step = plan.open_try(number, previous)
        try:
            with step:
                return _recorded(step, _called(plan, step, plan.function))
        except Exception as error:
            if not plan.retries_after(error, number):
                if not plan.falls_back_after(error):
                    raise
                break
        previous = step
        time.sleep(plan.wait_after(number))
    # Outside of the try's step, so that the fallback is its sibling and not its child.
    with plan.open_fallback(step) as step:
        return _recorded(step, _called(plan, step, cast(Callable[..., Any], plan.fallback)))


async def _run_async(plan: Plan) -> Any:
    import asyncio

    previous: TracedStep | None = None
    for number in range(1, plan.retries + 2):
        step = plan.open_try(number, previous)
        try:
            async with step:
                return _recorded(step, await _acalled(plan, step, plan.function))
        except Exception as error:
            if not plan.retries_after(error, number):
                if not plan.falls_back_after(error):
                    raise
                break
        previous = step
        await asyncio.sleep(plan.wait_after(number))
    async with plan.open_fallback(step) as step:
        return _recorded(step, await _acalled(plan, step, cast(Callable[..., Any], plan.fallback)))


def _called(plan: Plan, step: TracedStep, function: Callable[..., Any]) -> Any:
    args, kwargs = plan.arguments(step)
    boundary = outside.of(step)
    if boundary is None:
        return function(*args, **kwargs)
    made = functools.partial(function, *args, **kwargs)
    return boundary.call(step, step._fields.get("input"), made)


async def _acalled(plan: Plan, step: TracedStep, function: Callable[..., Any]) -> Any:
    args, kwargs = plan.arguments(step)

    async def made() -> Any:
        result = function(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    boundary = outside.of(step)
    if boundary is None:
        return await made()
    return await boundary.acall(step, step._fields.get("input"), made)


def _recorded(step: TracedStep, result: Any) -> Any:
    step._record_result(result)
    return result


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    if not args:
        return kwargs or None
    return args[0] if len(args) == 1 and not kwargs else {"args": list(args), **kwargs}
