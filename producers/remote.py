"""A run over several processes: W3C trace context in and out.

``traceparent`` names the run and the step that is the parent in the other process. ``tracestate``
contains ``stepstream=1``: the parent reports to Stepstream too, so that its run waits for it
(https://www.w3.org/TR/trace-context/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stepstream.producers.scope import Scope
from stepstream.producers.steps import OPEN, Step, current
from stepstream.schemas.step import TRACE_STATE_KEY, TRACE_STATE_VALUE
from stepstream.schemas.step import Step as StepRecord

if TYPE_CHECKING:
    from stepstream.producers.engine import Engine, EngineSource

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
_KEY: Final = f"{TRACE_STATE_KEY}="
OUR_STATE: Final = f"{_KEY}{TRACE_STATE_VALUE}"
MAX_STATE_CHARS: Final = 512
MAX_HEADERS: Final = 10_000
# Version ff is forbidden; later versions may append fields, which are ignored.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)


class TraceContext(NamedTuple):
    """The parent in another process. ``reports``: it sends its steps to Stepstream."""

    trace_id: str
    step_id: str
    reports: bool


def with_parent(
    step: Step, given: Iterable[tuple[Any, Any]]
) -> tuple[list[tuple[Any, Any]], list[tuple[str, str]]]:
    """Headers without the trace context that they have, and those that name a step as the parent.

    Entries of others in a ``tracestate`` among the given headers are kept.
    """
    kept, states = [], []
    for name, value in given:
        known = _text(name).lower()
        if known == TRACESTATE:
            states.append(_text(value))
        elif known != TRACEPARENT:
            kept.append((name, value))
    parent = f"00-{step.trace_id}-{step.step_id}-01"
    state = tracestate_with_ours(",".join(states))
    return kept, [(TRACEPARENT, parent), (TRACESTATE, state)]


def tracestate_with_ours(state: str) -> str:
    """A ``tracestate`` with our entry in front, as the specification wants."""
    text = OUR_STATE
    for entry in map(str.strip, state.split(",")):
        if not entry or entry.startswith(_KEY):
            continue
        if len(text) + 1 + len(entry) > MAX_STATE_CHARS:
            break
        text = f"{text},{entry}"
    return text


def context_from(given: object) -> TraceContext | None:
    """The context in headers, in an environment, or in a ``traceparent``; None if there is none.

    Headers may be a mapping or pairs, of text or bytes, with names in any case, also in the form of
    WSGI (``HTTP_TRACEPARENT``).
    """
    if isinstance(given, str | bytes):
        return _parsed(_text(given), "")
    pairs: Iterable[Any]
    if isinstance(given, Mapping):
        pairs = given.items()
    elif isinstance(given, Iterable):
        pairs = given
    else:
        return None
    found: dict[str, str] = {}
    for number, pair in enumerate(pairs):
        if number >= MAX_HEADERS or not isinstance(pair, tuple | list) or len(pair) != 2:
            continue
        name = _text(pair[0]).lower().removeprefix("http_")
        if name in (TRACEPARENT, TRACESTATE):
            found.setdefault(name, _text(pair[1]))
    return _parsed(found.get(TRACEPARENT, ""), found.get(TRACESTATE, ""))


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _parsed(parent: str, state: str) -> TraceContext | None:
    match = _TRACEPARENT.fullmatch(parent.strip().lower())
    if match is None:
        return None
    return TraceContext(match[1], match[2], _KEY in state)


class RemoteStep(Step):
    """A step of another process, as the parent of steps in this one. It is never recorded."""

    __slots__ = ("_reports",)

    _is_remote = True

    def __init__(self, tracer: EngineSource, engine: Engine, context: TraceContext) -> None:
        super().__init__(tracer, None, "other", "remote", {})
        self._engine = engine
        self._generation = engine.sender.generation
        self._scope = Scope(context.trace_id, engine.labels, engine.run_capture(context.trace_id))
        self._record = StepRecord(
            trace_id=context.trace_id,
            step_id=context.step_id,
            kind="other",
            name="remote",
            start_time=engine.clock.now_us(),
        )
        self._began_ns = engine.clock.steady_ns()
        self._reports = context.reports
        self._state = OPEN

    def end(self, error: BaseException | None = None) -> None:
        """Nothing: the other process ends it."""


class ContinuedRun:
    """A block whose steps belong to a run of another process (``continue_run``)."""

    def __init__(self, step: RemoteStep | None) -> None:
        self._step = step
        self._before: Step | None = None

    def __enter__(self) -> ContinuedRun:
        if self._step is not None:
            self._before = current.get()
            current.set(self._step)
        return self

    def __exit__(self, *_raised: object) -> None:
        if self._step is not None and current.get() is self._step:
            current.set(self._before)

    async def __aenter__(self) -> ContinuedRun:
        return self.__enter__()

    async def __aexit__(self, *_raised: object) -> None:
        self.__exit__()
