"""Context of threads: ``propagate`` binds a function to the current step.

Tasks and ``await`` keep the current step by themselves; threads start without one.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar, cast

from stepstream.producers.steps import current

P = ParamSpec("P")
R = TypeVar("R")


def propagate(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function bound to the current step: its steps belong to this run in any thread.

    For threads and pools: ``pool.submit(propagate(search), query)``. The result may be called many
    times, also in parallel.
    """
    if inspect.iscoroutinefunction(function):
        return cast(Callable[P, R], _asynchronous(function))
    context = copy_context()

    @functools.wraps(function)
    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        # A copy for each call, because a context cannot be entered twice at the same time.
        return context.copy().run(function, *args, **kwargs)

    return bound


def _asynchronous(function: Callable[..., Any]) -> Callable[..., Any]:
    step = current.get()

    @functools.wraps(function)
    async def bound(*args: Any, **kwargs: Any) -> Any:
        token = current.set(step)
        try:
            return await function(*args, **kwargs)
        finally:
            current.reset(token)

    return bound
