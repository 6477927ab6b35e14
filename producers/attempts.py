"""Trying again, and something else instead: each try is a step of its own, and says which one it repeats or replaces.

So the trajectory shows every try, and detection knows a failure that was made good for from one that nobody minded.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from stepstream.producers.exceptions import ArgumentsRefused, RunStopped

if TYPE_CHECKING:
    from stepstream.producers.opening import Opens
    from stepstream.producers.steps import Step

LONGEST_WAIT_S: Final = 30.0
_FINAL: Final = (RunStopped, ArgumentsRefused)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is tried, how often, and what takes its place. ``wait_s`` doubles with each try, up to half a minute."""

    opener: Opens
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

    def opening(self, number: int, before: Step | None) -> Step:
        """The step of one try."""
        fields: dict[str, Any] = {"input": _shown(self.args, self.kwargs), "attempt": number}
        if self.schema is not None:
            fields["schema"] = self.schema
        if before is not None:
            fields["retry_of"] = before
        return self.opener._opening(self.kind, self.name, cast(Any, fields))

    def replacing(self, before: Step) -> Step:
        """The step of what takes its place."""
        name = getattr(self.fallback, "__name__", "") or f"{self.name} fallback"
        fields: dict[str, Any] = {"input": _shown(self.args, self.kwargs), "fallback_of": before}
        return self.opener._opening(self.kind, name, cast(Any, fields))

    def is_worth_it(self, error: Exception, number: int) -> bool:
        """Whether to try again after this failure of try ``number``; a stop, or refused arguments, would be the same again."""
        return (
            isinstance(error, self.retry_on)
            and not isinstance(error, _FINAL)
            and number <= self.retries
        )

    def replaces(self, error: Exception) -> bool:
        """Whether the fallback takes over after this failure."""
        return (
            self.fallback is not None
            and isinstance(error, self.retry_on)
            and not isinstance(error, RunStopped)
        )

    def wait_after(self, number: int) -> float:
        """Seconds before the next try, with jitter so that many agents do not come back at once."""
        return min(LONGEST_WAIT_S, self.wait_s * 2.0 ** (number - 1)) * random.uniform(0.5, 1.0)


def attempt(plan: Plan) -> Any:
    """The result of the first try that succeeds, else of the fallback, else the last error. Awaitable if the function is."""
    return _asynchronously(plan) if inspect.iscoroutinefunction(plan.function) else _plainly(plan)


def _plainly(plan: Plan) -> Any:
    before: Step | None = None
    for number in range(1, plan.retries + 2):
        step = plan.opening(number, before)
        try:
            with step:
                return _recorded(step, plan.function(*plan.args, **plan.kwargs))
        except Exception as error:
            if not plan.is_worth_it(error, number):
                if not plan.replaces(error):
                    raise
                break
        before = step
        time.sleep(plan.wait_after(number))
    with plan.replacing(step) as step:
        return _recorded(step, cast(Callable[..., Any], plan.fallback)(*plan.args, **plan.kwargs))


async def _asynchronously(plan: Plan) -> Any:
    import asyncio

    before: Step | None = None
    for number in range(1, plan.retries + 2):
        step = plan.opening(number, before)
        try:
            async with step:
                return _recorded(step, await plan.function(*plan.args, **plan.kwargs))
        except Exception as error:
            if not plan.is_worth_it(error, number):
                if not plan.replaces(error):
                    raise
                break
        before = step
        await asyncio.sleep(plan.wait_after(number))
    async with plan.replacing(step) as step:
        result = cast(Callable[..., Any], plan.fallback)(*plan.args, **plan.kwargs)
        return _recorded(step, await result if inspect.isawaitable(result) else result)


def _recorded(step: Step, result: Any) -> Any:
    from stepstream.producers.decorators import record_result

    record_result(step, result)
    return result


def _shown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    if not args:
        return kwargs or None
    return args[0] if len(args) == 1 and not kwargs else {"args": list(args), **kwargs}
