"""Steps across threads: what ``await`` and tasks do by themselves, threads need to be told."""

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
    """The function, bound to what is current here and now: its steps belong to this run, wherever it is called.

    For threads and pools: ``pool.submit(propagate(search), query)``. It may be called many times, at the same time too.
    """
    if inspect.iscoroutinefunction(function):
        return cast(Callable[P, R], _asynchronous(function))
    context = copy_context()

    @functools.wraps(function)
    def bound(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(
            function, *args, **kwargs
        )  # a copy each: a context cannot be entered twice at a time

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
