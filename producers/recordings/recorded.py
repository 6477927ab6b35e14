"""Functions whose results are recorded and served without being steps: clocks, ids, chance."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, ParamSpec, TypeVar

from stepstream.producers.recordings.boundary import VALUE, outside
from stepstream.producers.steps import Step, current

P = ParamSpec("P")
R = TypeVar("R")


def recorded(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with its results recorded inside runs whose calls are, and served in a replay.

    For what differs each time without being a step: ``now = stepstream.recorded(time.time)``.
    """
    name = getattr(function, "__qualname__", type(function).__name__)

    @functools.wraps(function, updated=())
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        boundary = outside.boundary
        if boundary is None:
            return function(*args, **kwargs)
        made = functools.partial(function, *args, **kwargs)
        arguments = {"args": list(args), **kwargs} if args else kwargs
        result: R = boundary.call(_Value(name, current.get()), arguments, made)
        return result

    return call


_NO_FIELDS: Final[Mapping[str, Any]] = {}


class _Value:
    """Stands for the step that such a call does not have."""

    _kind = VALUE
    _fields = _NO_FIELDS
    step_id = ""

    def __init__(self, name: str, parent: Step | None) -> None:
        self._name = name
        self._parent = parent

    @property
    def trace_id(self) -> str:
        return "" if self._parent is None else self._parent.trace_id
