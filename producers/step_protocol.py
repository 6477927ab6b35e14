"""What decorators, attempts and streams use of a step.

``steps.Step`` is the only implementation. The protocol keeps the imports in one direction: steps
imports those modules, and none of them imports steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from stepstream.producers.responses.answer import Answer


class TracedStep(Protocol):
    """A step, as its helper modules see it. Members with an underscore are internal to the SDK."""

    _guard: Any
    _kind: str
    _name: str
    _fields: Mapping[str, Any]

    @property
    def _parent(self) -> Any:
        """The step that it is in."""
        ...

    @property
    def trace_id(self) -> str: ...

    def start(self) -> Self: ...
    def end(self, error: BaseException | None = None) -> None: ...
    def set_output(self, value: object) -> None: ...
    def set_attribute(self, key: str, value: object) -> None: ...
    def record_first_token(self) -> None: ...

    @property
    def step_id(self) -> str: ...

    @property
    def _max_bytes(self) -> int:
        """The limit of one input or output."""
        ...

    def _writable(self, what: str) -> bool:
        """True while the step is open; logs a misuse of ``what`` otherwise."""
        ...

    def _record_answer(self, answer: Answer) -> None:
        """Record a model's answer."""
        ...

    def _record_result(self, result: object) -> None:
        """Record what a traced function returned."""
        ...

    async def _ready(self) -> None:
        """Wait while the run is paused."""
        ...

    def _repaired(self) -> dict[str, Any] | None:
        """The arguments that guardrails have repaired; None: the call has those it was given."""
        ...

    def _resuming(self) -> AbstractContextManager[None]:
        """A reusable context manager in which the step is the current one."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None: ...


OpenCall = Callable[[str, object], TracedStep]
"""Makes the step of one call of a function, from the function's name and its arguments."""

OpenAttempt = Callable[[str, str, dict[str, Any]], TracedStep]
"""Makes the step of one attempt, from its kind, name and fields."""
