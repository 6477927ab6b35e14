"""The place where traced functions and clients call the outside: recorded, served, or neither."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, Final, Protocol

KINDS: Final = frozenset({"tool_call", "llm_call", "retrieval"})
"""The kinds of steps whose functions reach outside."""
VALUE: Final = "value"
"""The kind of a function of ``stepstream.recorded``, which is no step."""


class CallStep(Protocol):
    """A step around a call, as a boundary needs it."""

    _kind: str
    _name: str
    _fields: Mapping[str, Any]

    @property
    def _parent(self) -> Any: ...

    @property
    def trace_id(self) -> str: ...

    @property
    def step_id(self) -> str: ...


class Pieces(Protocol):
    """A stream of a client that is recorded piece by piece."""

    def piece(self, piece: object) -> None:
        """Record a piece."""

    def returned(self, result: object) -> None:
        """Record the end of the stream."""

    def failed(self, error: BaseException) -> None:
        """Record the exception that the stream raised."""


class Boundary(Protocol):
    """What makes calls in the program's place.

    ``arguments`` identify the call; ``function`` makes it.
    """

    redact: Callable[[str], str] | None
    """The program's own redaction of texts."""

    def call(self, step: CallStep, arguments: object, function: Callable[[], Any]) -> Any:
        """The result of a plain function, or its exception."""

    async def acall(self, step: CallStep, arguments: object, function: Callable[[], Any]) -> Any:
        """As ``call``, of a function whose result is awaited."""

    def stream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> Generator[Any, Any, Any]:
        """The pieces of a generator or of an iterable."""

    def astream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> AsyncGenerator[Any, Any]:
        """As ``stream``, asynchronous."""

    def client_stream(
        self, step: CallStep, arguments: object, function: Callable[[], Any]
    ) -> tuple[Any, Pieces | None]:
        """The stream of a client (where it is made with ``await``: an awaitable), and what its
        pieces are to be reported to."""

    def run_began(self, run: Any) -> None:
        """A root step has started."""

    def run_ended(self, run: Any, error: BaseException | None) -> None:
        """A root step has ended."""


class _Place:
    """Holds the boundary in force. An attribute, because a module's name is copied by imports."""

    __slots__ = ("boundary",)

    def __init__(self) -> None:
        self.boundary: Boundary | None = None

    def of(self, step: CallStep) -> Boundary | None:
        """The boundary that makes the calls of a step; None: the program makes them itself."""
        boundary = self.boundary
        return boundary if boundary is not None and step._kind in KINDS else None


outside: Final = _Place()


def enclosing(step: Any, open_calls: Mapping[str, int]) -> int:
    """The number of the innermost open call that a step is in; 0 if it is in none.

    By the steps and not by a context variable: threads of a tool have the step of the tool.
    """
    while step is not None:
        if number := open_calls.get(step.step_id, 0):
            return number
        step = step._parent
    return 0
