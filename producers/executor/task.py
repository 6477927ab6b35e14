"""What an agent gets: its task."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from stepstream.producers.tasks.json_values import to_json
from stepstream.schemas.task_common import MAX_NAME_CHARS

if TYPE_CHECKING:
    from stepstream.producers.steps import Run
    from stepstream.schemas.task_bindings import RunAttempt

_UNDECODED: Final = object()


class AttemptStopped(Exception):
    """The attempt is no longer this executor's: what it does now counts for nothing."""


class Host(Protocol):
    """What a task needs of the process that received its attempt."""

    def keep(self, binding: RunAttempt, key: str, value: bytes) -> None:
        """Record a value of ``once``; returns when Kafka has it. Raises ``AttemptStopped``."""

    def extend(self, binding: RunAttempt, by_us: int) -> None:
        """Move the time-out of the attempt."""


class Task:
    """One attempt at a task, as its agent sees it.

    ``fence`` grows with every attempt that is given to an executor, over all tasks of a project: a
    target that refuses a lower number than it has seen is never changed by an attempt that lost its
    lease. ``run`` is the run that records the attempt.
    """

    def __init__(self, binding: RunAttempt, host: Host, *, is_async: bool) -> None:
        self.id: str = binding.task_id
        self.attempt: int = binding.attempt
        self.fence: int = binding.fence
        self.project: str = binding.project
        self.agent: str = binding.agent
        self.version: str = binding.version
        self.input_ref: str = binding.input_ref
        self.key: str = binding.key
        self.priority: int = binding.priority
        self.user_id: str = binding.user_id
        self.session_id: str = binding.session_id
        self.parent_id: str = binding.parent_task_id
        self.is_last_attempt: bool = binding.attempt >= binding.attempts
        # Set when the run has begun, before the agent gets the task.
        self.run: Run = cast("Run", None)
        self._binding = binding
        self._host = host
        self._is_async = is_async
        self._pid = os.getpid()
        self._input: Any = _UNDECODED
        self._kept = dict(binding.once)

    @property
    def input(self) -> Any:
        """The input, decoded from JSON; None where the task has none."""
        if self._input is _UNDECODED:
            self._input = msgspec.json.decode(self._binding.input or b"null")
        return self._input

    def once(self, key: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What ``function(*args, **kwargs)`` returned in the first attempt that got this far.

        In an asynchronous agent: an awaitable; a function that is not asynchronous runs in a
        thread. The value must be JSON. A crash between the effect of the function and the record of
        its value repeats the effect: pass ``task.id`` and the key on as the target's idempotency
        key.
        """
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_NAME_CHARS:
            raise ValueError(
                f"once({key!r}): the key is a text of 1 to {MAX_NAME_CHARS} characters"
            )
        if self._is_async:
            return self._once_async(key, function, args, kwargs)
        if key in self._kept:
            return msgspec.json.decode(self._kept[key])
        return self._keep(key, function(*args, **kwargs))

    async def _once_async(
        self, key: str, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        if key in self._kept:
            return msgspec.json.decode(self._kept[key])
        if inspect.iscoroutinefunction(function):
            value = await function(*args, **kwargs)
        else:
            value = await asyncio.to_thread(function, *args, **kwargs)
            if isinstance(value, Awaitable):
                value = await value
        # It waits for Kafka, which must not block the event loop.
        return await asyncio.to_thread(self._keep, key, value)

    def _keep(self, key: str, value: Any) -> Any:
        if os.getpid() != self._pid:
            raise RuntimeError("task.once in a forked process: call it in the agent's own process")
        data = to_json(value, f"the value of once({key!r})")
        self._host.keep(self._binding, key, data)
        self._kept[key] = msgspec.Raw(data)
        # As a later attempt gets it: a tuple becomes a list in both.
        return msgspec.json.decode(data)

    def extend(self, by: str | float) -> None:
        """Give the attempt more time: its time-out is moved by a duration such as ``5m``."""
        from stepstream.producers.executor.declared import duration_us

        self._host.extend(self._binding, duration_us("by", by))

    def __repr__(self) -> str:
        return f"<Task {self.id!r} {self.agent} attempt {self.attempt}>"
