"""Steps of a run, as a program holds them: opened, filled in, ended.

A ``Step`` is a context manager (``with`` and ``async with``); ``start()`` and ``end()`` do the same by hand, without becoming
the current step. Its parent is the step that is current where it starts. Where it was opened by a handle, ``run.tool(...)``,
and the current step is not inside that handle (another thread, another task), its parent is the handle.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextvars import ContextVar
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar, cast

from stepstream.producers.content import size_of, to_text
from stepstream.producers.documents import to_documents
from stepstream.producers.failures import cancelled, message_of, type_of
from stepstream.producers.guard import complaints, internal_error, never_raises, suppressed
from stepstream.producers.opening import Opens, RunFields, StepFields
from stepstream.producers.streams import Chunks, Watched
from stepstream.schemas.ids import new_step_id, new_trace_id
from stepstream.schemas.money import nanos_from_usd, usd_from_nanos
from stepstream.schemas.step import Step as StepRecord
from stepstream.schemas.step import TokenUsageStruct

if TYPE_CHECKING:
    from stepstream.producers.engine import Engine
    from stepstream.producers.tracer import Tracer

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

current: Final[ContextVar[Step | None]] = ContextVar("stepstream_step", default=None)
"""The innermost step that was entered and not left, in this thread or task."""

_NEW, _OPEN, _ENDED, _OFF = range(4)
_OWNERS: Final = ("agent", "agent_version", "task", "session_id", "user_id")
_PLACES: Final = ("project", "environment")


class Scope:
    """What the steps of a run, or of an agent inside it, have in common."""

    __slots__ = ("capture", "trace_id", "whose")

    def __init__(self, trace_id: str, whose: dict[str, str], capture: bool) -> None:
        self.trace_id = trace_id
        self.whose = whose
        self.capture = capture


class Step(Opens):
    """One step. Nothing it does raises into the program, and nothing is recorded before it starts or after it ended."""

    __slots__ = (
        "_began_ns", "_chunks", "_engine", "_fields", "_generation", "_kind", "_name", "_opener", "_outer", "_parent",
        "_record", "_scope", "_state", "_tracer",
    )  # fmt: skip

    def __init__(self, tracer: Tracer, opener: Step | None, kind: str, name: str, fields: StepFields | RunFields) -> None:
        self._tracer = tracer
        self._opener = opener
        self._kind = kind
        self._name = name
        self._fields: Mapping[str, Any] = fields
        self._state = _NEW
        self._parent: Step | None = None
        self._outer: Step | None = None
        self._engine: Engine | None = None
        self._chunks: Chunks | None = None

    # --- life ---

    def start(self) -> Self:
        """Begin, and publish that it began. Does nothing the second time."""
        if self._state == _NEW:
            try:
                self._begin()
            except Exception as error:
                self._state = _OFF
                internal_error("Step.start", error)
        return self

    def end(self, error: BaseException | None = None) -> None:
        """End, with the exception that ended it if there was one, and publish the complete step. Ends once."""
        if self._state == _OPEN:
            if self._chunks is not None:
                self._chunks.finish()
            self._state = _ENDED
            self._finish(error)

    def __enter__(self) -> Self:
        self.start()
        if self._state == _OPEN:
            self._outer = current.get()
            current.set(self)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.end(error)
        self._leave()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(type_, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """As a decorator: every call of the function is a step like this one."""
        from stepstream.producers.decorators import decorated

        return cast(Callable[P, R], decorated(function, self._again, self._kind))

    def _again(self, name: str, arguments: object) -> Step:
        fields = {"input": arguments, **self._fields}
        return type(self)(self._tracer, self._opener, self._kind, self._name or name, cast(StepFields, fields))

    def __repr__(self) -> str:
        state = ("new", "open", "ended", "off")[self._state]
        return f"<{type(self).__name__} {self._kind} {self._name!r} {self.trace_id[:8]}/{self.step_id[:8]} {state}>"

    # --- identity ---

    @property
    def trace_id(self) -> str:
        """The run's id; empty before the step started and while nothing is recorded."""
        return self._scope.trace_id if self._state in (_OPEN, _ENDED) else ""

    @property
    def step_id(self) -> str:
        """The step's id; empty before the step started and while nothing is recorded."""
        return self._record.step_id if self._state in (_OPEN, _ENDED) else ""

    # --- what it did ---

    @never_raises
    def set_input(self, value: object) -> None:
        """What the step works on: text, or anything that becomes JSON. The start event has only what was given on opening."""
        if self._writable("set_input"):
            self._record.input, self._record.input_bytes = self._text(value)

    @never_raises
    def set_output(self, value: object) -> None:
        """What came out: text, or anything that becomes JSON."""
        if self._writable("set_output"):
            self._record.output, self._record.output_bytes = self._text(value)

    @never_raises
    def set_usage(
        self,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_input_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
    ) -> None:
        """The step's own tokens. Input includes cached and cache-written ones, output includes reasoning."""
        if self._writable("set_usage"):
            self._record.usage = TokenUsageStruct(
                input_tokens=_count(input_tokens),
                output_tokens=_count(output_tokens),
                cached_input_tokens=_count(cached_input_tokens),
                cache_write_tokens=_count(cache_write_tokens),
                reasoning_tokens=_count(reasoning_tokens),
            )

    @never_raises
    def set_cost(self, usd: Decimal | float | str) -> None:
        """The step's own cost in dollars, where it is known better than from tokens and prices."""
        if self._writable("set_cost"):
            try:
                self._record.cost_usd = cast(Decimal, usd_from_nanos(nanos_from_usd(usd)))
                self._record.cost_source = "given"
            except (TypeError, ValueError) as error:
                complaints.say("set_cost", f"stepstream: set_cost is ignored: {error}")

    @never_raises
    def set_model(self, model: str, provider: str = "") -> None:
        """The model that answered, where it was not known on opening."""
        if self._writable("set_model"):
            self._record.model = str(model)
            if provider:
                self._record.provider = str(provider)

    @never_raises
    def set_documents(self, documents: Iterable[object]) -> None:
        """What a retrieval returned, best first: ``Document``s, dictionaries, LangChain documents, (document, score), texts."""
        if self._writable("set_documents"):
            self._record.documents = to_documents(documents, content=self._scope.capture, max_bytes=self._max_bytes)

    @never_raises
    def set_attribute(self, key: str, value: object) -> None:
        """One attribute: text, or anything that becomes JSON."""
        self.set_attributes({key: value})

    @never_raises
    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        """Attributes, added to those there are."""
        if self._writable("set_attributes"):
            more = {str(key): to_text(value, self._max_bytes)[0] for key, value in attributes.items()}
            self._record.attributes = {**self._record.attributes, **more}

    @never_raises
    def set_error(self, error: BaseException | str, error_type: str = "") -> None:
        """Mark the step as failed although no exception leaves it."""
        if self._writable("set_error"):
            self._record.status = "error"
            if isinstance(error, BaseException):
                self._record.error_type = error_type or type_of(error)
                self._record.error_message = message_of(error)
            else:
                self._record.error_type = str(error_type)
                self._record.error_message = str(error)

    @never_raises
    def record_first_token(self) -> None:
        """A streamed answer has begun to arrive. Counts once."""
        if self._writable("record_first_token") and self._record.first_token_time is None:
            self._record.first_token_time = self._now_us()

    @never_raises
    def record_response(self, response: object) -> None:
        """Take text, tool calls, tokens and model from a model's answer, in any of the usual shapes.

        OpenAI (chat completions and responses), Anthropic, Google, Bedrock, Ollama, LangChain and LiteLLM answers, as objects
        or as dictionaries. Anything else becomes the output as it is.
        """
        if self._writable("record_response"):
            from stepstream.producers.responses import read_response

            answer = read_response(response)
            if answer is None:
                self.set_output(response)
            else:
                answer.record_on(self)

    def record_stream(self, chunks: Iterable[T] | AsyncIterable[T]) -> Watched[T]:
        """The same pieces, to be iterated over as before; when they end, what they made is recorded as by ``record_response``.

        The first piece is the first token. Break off early, and what came until then is recorded.
        """
        self._chunks = Chunks(self)
        return Watched(chunks, self._chunks)

    # --- inside ---

    def _opening(self, kind: str, name: str, fields: StepFields) -> Step:
        return Step(self._tracer, self, kind, name, fields)

    def _opening_run(self, name: str, fields: RunFields) -> Run:
        return Run(self._tracer, self, "agent", name, fields)

    def _begin(self) -> None:
        engine = None if suppressed.get() else self._tracer.engine()
        if engine is None:
            self._state = _OFF
            return
        self._engine = engine
        self._generation = engine.publisher.generation
        self._parent = parent = self._find_parent()
        self._scope = scope = self._scoped(engine, parent)
        self._record: StepRecord = StepRecord(
            trace_id=scope.trace_id,
            step_id=new_step_id(),
            parent_step_id="" if parent is None else parent._record.step_id,
            phase="start",
            kind=self._kind,
            name=self._name or self._default_name(),
            start_time=engine.clock.now_us(),
            **cast(Any, scope.whose),
        )
        self._began_ns = engine.clock.steady_ns()
        self._state = _OPEN
        if self._kind == "tool_call":
            self._record.tool = self._record.name
        self._fill(self._fields)
        engine.publish(_copy(self._record))

    def _default_name(self) -> str:
        return self._kind

    def _find_parent(self) -> Step | None:
        step = current.get()
        while step is not None and (step._tracer is not self._tracer or step._state == _OFF):
            step = step._outer
        opener = self._opener
        if opener is None or opener._state not in (_OPEN, _ENDED) or (step is not None and step._is_within(opener)):
            return step
        return opener

    def _is_within(self, other: Step) -> bool:
        step: Step | None = self
        while step is not None:
            if step is other:
                return True
            step = step._parent
        return False

    def _scoped(self, engine: Engine, parent: Step | None) -> Scope:
        scope = Scope(new_trace_id(), engine.whose, engine.settings.capture_content) if parent is None else parent._scope
        capture = self._fields.get("capture_content")
        if capture is not None and bool(capture) != scope.capture:
            scope = Scope(scope.trace_id, scope.whose, bool(capture))
        return scope

    def _fill(self, fields: Mapping[str, Any]) -> None:
        """The fields given on opening."""
        if not fields:
            return
        record = self._record
        for name, value in fields.items():
            if value is None or name == "capture_content" or name in _OWNERS or name in _PLACES:
                continue
            if name == "input":
                record.input, record.input_bytes = self._text(value)
            elif name == "attributes":
                self.set_attributes(value)
            elif name == "attempt":
                record.attempt = min(max(int(value), 1), 1_000_000)
            elif name in _LINKS:
                setattr(record, name, value.step_id if isinstance(value, Step) else str(value))
            elif name in _TEXTS:
                setattr(record, name, str(value))
            else:
                complaints.say(f"field {name}", f"stepstream: steps have no field {name!r}, it is ignored")

    @never_raises
    def _finish(self, error: BaseException | None) -> None:
        engine = self._engine
        if engine is None or engine.publisher.generation != self._generation:
            return  # a fork: the parent process ends the steps it began
        record = self._record
        record.phase = "end"
        record.end_time = self._now_us()
        if error is not None:
            self._set_failure(error)
        engine.publish(record)

    def _set_failure(self, error: BaseException) -> None:
        record = self._record
        if isinstance(error, SystemExit) and not error.code:
            return
        record.status = "cancelled" if cancelled(error) else "error"
        record.error_type = type_of(error)
        record.error_message = message_of(error)

    def _leave(self) -> None:
        """Make the step outside current again, unless something else is current here by now."""
        if current.get() is self:
            outer = self._outer
            while outer is not None and outer._state == _ENDED:
                outer = outer._outer
            current.set(outer)

    def _switch(self, other: Step | None) -> Step | None:
        """Make another step current, and say which one was; nothing changes where nothing is recorded."""
        before = current.get()
        if self._state != _OFF:
            if self._outer is None and other is self:
                self._outer = before
            current.set(other)
        return before

    def _now_us(self) -> int:
        assert self._engine is not None
        return self._record.start_time + (self._engine.clock.steady_ns() - self._began_ns) // 1_000

    @property
    def _max_bytes(self) -> int:
        assert self._engine is not None
        return self._engine.settings.max_content_bytes

    def _text(self, value: object) -> tuple[str, int | None]:
        text, size = to_text(value, self._max_bytes)
        if self._scope.capture:
            return text, size
        return "", (size if size is not None or value is None else size_of(text))

    def _writable(self, what: str) -> bool:
        if self._state == _OPEN:
            return True
        if self._state != _OFF:
            when = "before it started" if self._state == _NEW else "after it ended"
            complaints.say(f"late {what}", f"stepstream: {what} on step {self._name!r} {when} is ignored")
        return False


class Run(Step):
    """A run: the root step of a trace. Inside another run it is a step of that run, done by an agent of its own."""

    __slots__ = ()

    def _default_name(self) -> str:
        return self._scope.whose["agent"] or "run"

    def _scoped(self, engine: Engine, parent: Step | None) -> Scope:
        scope = super()._scoped(engine, parent)
        names = _OWNERS if parent is not None else _OWNERS + _PLACES
        own = {name: str(self._fields[name]) for name in names if self._fields.get(name)}
        if self._name and "agent" not in own and (parent is not None or not engine.settings.agent):
            own["agent"] = self._name
        return Scope(scope.trace_id, {**scope.whose, **own}, scope.capture) if own else scope


_TEXTS: Final = frozenset({"tool", "model", "provider", "tool_schema"})
_LINKS: Final = frozenset({"retry_of", "fallback_of"})


def _count(value: object) -> int:
    return min(max(int(cast(int, value) or 0), 0), 2**53)


def _copy(record: StepRecord) -> StepRecord:
    return cast(StepRecord, cast(Any, record).__copy__())
