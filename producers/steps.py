"""Steps and runs: opened, filled in and ended by the program.

A ``Step`` is a context manager (``with`` and ``async with``). ``start()`` and ``end()`` do the same
by hand, without making it the current step. The parent of a step is the step that is current when
it starts. If it was opened on another step (``run.tool(...)``) and the current step is not inside
that one, as in another thread or task, its parent is the step that it was opened on.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from contextvars import ContextVar
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar, cast

from stepstream.producers import tool_arguments
from stepstream.producers.checked_fields import CHECKED_NAMES, checked, usage_from
from stepstream.producers.control.recorder import ControlStepRecorder
from stepstream.producers.control.run_control import RunControl, new_run_control
from stepstream.producers.error_guard import never_raises
from stepstream.producers.exceptions import ArgumentsRefused, RunStopped
from stepstream.producers.guardrails.switch import BLOCK, BODY, EVALUATED, guarding
from stepstream.producers.misuse import hint, misuse, shown
from stepstream.producers.opening import RunFields, StepFields, StepOpener
from stepstream.producers.recordings.boundary import outside
from stepstream.producers.responses.answer import Answer
from stepstream.producers.responses.reader import read_response
from stepstream.producers.scope import Scope
from stepstream.producers.sdk_log import internal_error, sdk_log, suppressed
from stepstream.producers.streams import ChunkRecorder, RecordedStream
from stepstream.producers.values.content import to_text
from stepstream.producers.values.documents import are_documents, to_documents
from stepstream.producers.values.failures import cancelled, message_of, type_of
from stepstream.producers.values.inspection import layout_of
from stepstream.producers.values.plain import label, nanos_of, number_of
from stepstream.producers.values.shortening import size_of
from stepstream.schemas.capture import FULL
from stepstream.schemas.ids import STEP_ID, new_step_id, new_trace_id
from stepstream.schemas.money import usd_from_nanos
from stepstream.schemas.normalise import MAX_ATTEMPT
from stepstream.schemas.step import KINDS, RELEASE_ATTRIBUTE
from stepstream.schemas.step import Step as StepRecord
from stepstream.schemas.usage import DETAILS, TOTALLED

if TYPE_CHECKING:
    from stepstream.producers.control.budget import Reservation
    from stepstream.producers.engine import Engine, EngineSource
    from stepstream.producers.guardrails.enforce import Pending
    from stepstream.schemas.release import Release

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

LABEL_CHARS: Final = 1_024
MESSAGE_CHARS: Final = 8_192
MOST_ATTRIBUTES: Final = 1_000

# The states of a step. OFF: recording is off, so nothing of the step is recorded.
NEW, OPEN, ENDED, OFF = range(4)
_STATES: Final = ("new", "open", "ended", "off")

current: Final[ContextVar[Step | None]] = ContextVar("stepstream_step", default=None)
"""The innermost step that was entered and not left, in this thread or task."""

inherited: Final[ContextVar[Step | None]] = ContextVar("stepstream_inherited", default=None)
"""The step that was current where this thread was started."""

_COUNTS: Final = (*TOTALLED, *DETAILS)
_KINDS: Final = frozenset(KINDS)
_GUARDED: Final = frozenset({"tool_call", "llm_call", "retrieval"})
_AGENT_FIELDS: Final = ("agent", "agent_version", "task", "session_id", "user_id")
_PROJECT_FIELDS: Final = ("project", "environment")
_TEXTS: Final = frozenset({"tool", "model", "provider", "tool_schema"})
_LINKS: Final = frozenset({"retry_of", "fallback_of"})
_CONTROL_FIELDS: Final = ("budget", "on_command", "cancel_on_stop")
# Fields of the opening call that are not fields of the step's record.
_NOT_RECORDED: Final = frozenset(
    {
        "capture_content",
        "release",
        "schema",
        "reserve_usd",
        "reserve_tokens",
        *_CONTROL_FIELDS,
        *_AGENT_FIELDS,
        *_PROJECT_FIELDS,
    }
)


class Step(StepOpener["Step", "Run"]):
    """One step. Nothing is recorded before it starts or after it ended.

    It raises four exceptions: ``RunStopped`` where its run was stopped, ``BudgetExceeded`` where
    the run's budget is used up, ``StepRefused`` where a guardrail of a policy refuses it, and with
    a ``schema`` ``ArgumentsRefused``. The step does not begin then.
    """

    __slots__ = (
        "__weakref__",
        "_began_ns",
        "_chunks",
        "_control",
        "_engine",
        "_fields",
        "_generation",
        "_guard",
        "_kind",
        "_limit",
        "_name",
        "_opener",
        "_outer",
        "_parent",
        "_record",
        "_reservations",
        "_scope",
        "_state",
        "_tracer",
    )

    # For a step of another process (``remote``), and whether that one reports to Stepstream.
    _is_remote = False
    _reports = True
    # Whether a step of this class has the scope of its parent, unless it sets ``capture_content``.
    _is_plain = True

    # Set when the step starts. ``_limit``: bytes of each content, 0 if contents are not sent.
    _began_ns: int
    _generation: int
    _limit: int
    _record: StepRecord
    _scope: Scope

    def __init__(
        self,
        tracer: EngineSource,
        opener: Step | None,
        kind: str,
        name: str,
        fields: StepFields | RunFields,
    ) -> None:
        self._tracer = tracer
        self._opener = opener
        self._kind = kind
        self._name = name if len(name) <= LABEL_CHARS else label(name, LABEL_CHARS)
        self._fields: Mapping[str, Any] = fields
        self._state = NEW
        self._parent: Step | None = None
        self._outer: Step | None = None
        self._engine: Engine | None = None
        self._chunks: ChunkRecorder | None = None
        self._reservations: list[Reservation] | None = None
        self._control: RunControl | None = None
        # How it may be guarded, until its guardrails were evaluated; then what they decided.
        self._guard: int | Pending = BLOCK

    # --- start and end ---

    def start(self) -> Self:
        """Start the step and publish that. Does nothing the second time.

        Raises ``RunStopped`` or ``BudgetExceeded`` if the run may not go on, ``StepRefused`` if a
        guardrail refuses the step, ``ArgumentsRefused`` if the input does not fit ``schema``.
        """
        if self._state == ENDED:
            misuse(
                "again",
                f"step {self._name!r} has ended and is not recorded again: "
                "open another one for each use",
            )
        if self._state == NEW:
            has_checked = not CHECKED_NAMES.isdisjoint(self._fields)
            if has_checked:
                self._fields = checked(self._fields)
            parent = self._opener
            if suppressed.get():
                parent = None
            elif parent is None or parent is not current.get() or parent._state != OPEN:
                parent = self._find_parent()
            if guarding.is_on and self._kind in _GUARDED and self._is_unguarded():
                self._pass_guardrails(parent)
            control = None if parent is None else parent._scope.control
            # One inside another run is checked with the runs around it.
            if control is not None and (control.active or control.parent is not None):
                # Before the try: its exceptions are meant for the program.
                self._admit(control)
            try:
                self._begin(parent)
            except Exception as error:
                self._state = OFF
                internal_error("Step.start", error)
            if has_checked and self._fields.get("schema") is not None:
                self._check_arguments()
        return self

    def end(self, error: BaseException | None = None) -> None:
        """End the step and publish it. ``error`` is the exception that ended it, if any.

        Does nothing the second time.
        """
        if self._state == OPEN:
            if self._chunks is not None:
                self._chunks.finish()
            self._state = ENDED
            try:
                self._finish(error)
            except Exception as inside:
                internal_error("Step.end", inside)

    def __enter__(self) -> Self:
        is_new = self._state == NEW
        self.start()
        # A step that is entered within itself must not become its own outer step.
        if self._state == OPEN and (is_new or not self._is_entered()):
            self._outer = current.get()
            current.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.end(error)
        self._leave()

    async def __aenter__(self) -> Self:
        await self._ready()
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """As a decorator: every call of the function is a step like this one."""
        # Not at the top: programs without decorators do not pay for it on `import stepstream`.
        from stepstream.producers.decorators import decorated

        return cast(Callable[P, R], decorated(function, self._for_call, self._kind))

    def _for_call(self, name: str, arguments: object) -> Step:
        """The step of one call of the decorated function."""
        fields = cast(StepFields, {"input": arguments, **self._fields})
        step = type(self)(self._tracer, self._opener, self._kind, self._name or name, fields)
        step._guard = BODY
        return step

    def __repr__(self) -> str:
        ids = f"{self.trace_id[:8]}/{self.step_id[:8]}"
        state = _STATES[self._state]
        return f"<{type(self).__name__} {self._kind} {self._name!r} {ids} {state}>"

    def checkpoint(self) -> None:
        """Check for commands during long work without steps.

        Raises ``RunStopped`` if the run is stopped, waits while it is paused.
        """
        if self._state == OPEN and self._scope.control is not None:
            _raise_stops_only(self._scope.control.check)

    async def acheckpoint(self) -> None:
        """As ``checkpoint``, without blocking the event loop."""
        if self._state == OPEN and self._scope.control is not None:
            await self._wait_until_ready(self._scope.control)

    @property
    def trace_id(self) -> str:
        """The run's id; empty before the step started and while recording is off."""
        return self._scope.trace_id if self._state in (OPEN, ENDED) else ""

    @property
    def step_id(self) -> str:
        """The step's id; empty before the step started and while recording is off."""
        return self._record.step_id if self._state in (OPEN, ENDED) else ""

    # --- what the program records on the open step: nothing here raises ---

    @never_raises
    def set_input(self, value: object) -> None:
        """Set the input: text, or a value that is recorded as JSON.

        The start event has only the input that was given on opening.
        """
        if self._writable("set_input"):
            self._record.input, self._record.input_bytes = self._text(value)

    @never_raises
    def set_output(self, value: object) -> None:
        """Set the output: text, or a value that is recorded as JSON."""
        # The state and the limit are read here, so that the usual call makes no further ones.
        if self._state == OPEN or self._writable("set_output"):
            record, limit = self._record, self._limit
            record.output, record.output_bytes = (
                to_text(value, limit) if limit else self._text(value)
            )

    # One keyword for each unit that providers charge, so that editors and type checkers know them.
    @never_raises
    def set_usage(  # noqa: PLR0913
        self,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_input_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        input_audio_tokens: int = 0,
        input_image_tokens: int = 0,
        input_video_tokens: int = 0,
        cached_audio_tokens: int = 0,
        cached_image_tokens: int = 0,
        output_audio_tokens: int = 0,
        output_image_tokens: int = 0,
        output_video_tokens: int = 0,
        citation_tokens: int = 0,
        input_characters: int = 0,
        audio_ms: int = 0,
        document_pages: int = 0,
        annotated_pages: int = 0,
        text_messages: int = 0,
        web_searches: int = 0,
        social_searches: int = 0,
        storage_searches: int = 0,
        code_executions: int = 0,
        rerank_searches: int = 0,
        service_tier: str = "",
    ) -> None:
        """Set the step's own token counts.

        Input tokens include cached and cache-written ones, output tokens include reasoning. The
        counts after these are units with a price of their own (see ``TokenUsage``). An impossible
        count makes the cost unknown. ``service_tier`` is the tier that the provider charged, such
        as ``batch``.
        """
        # locals(), so that the names of the counts are written once, in ``TokenUsage``; a test
        # compares this signature with it.
        given = locals()
        if self._writable("set_usage"):
            self._record.usage = usage_from({name: given[name] for name in _COUNTS})
            if service_tier:
                self.set_attribute("service_tier", service_tier)

    @never_raises
    def set_cost(self, usd: Decimal | float | str) -> None:
        """Set the step's own cost in US dollars; replaces the cost computed from prices."""
        if self._writable("set_cost"):
            nanos = nanos_of(usd)
            if nanos is None:
                misuse(
                    "set_cost",
                    f"set_cost({shown(usd)}) is ignored: it is not an amount of dollars; "
                    "write set_cost(0.0123)",
                )
                return
            self._record.cost_usd = cast(Decimal, usd_from_nanos(nanos))
            self._record.cost_source = "given"

    @never_raises
    def set_model(self, model: str, provider: str = "") -> None:
        """Set the model that answered, if it was not known on opening."""
        if self._writable("set_model"):
            named = "" if provider is None else label(provider, LABEL_CHARS)
            self._record.model = label(model, LABEL_CHARS)
            self._record.provider = named or self._record.provider

    @never_raises
    def set_documents(self, documents: Iterable[object]) -> None:
        """Set the documents that a retrieval returned, best first.

        Each is a ``Document``, a dictionary, a LangChain or LlamaIndex document, a text, or a pair
        of one of these and its score.
        """
        if self._writable("set_documents"):
            converted = to_documents(
                documents, content=self._limit > 0, max_bytes=self._limit or self._max_bytes
            )
            if converted is None:
                misuse(
                    "set_documents",
                    f"set_documents({shown(documents)}) is ignored: "
                    "write set_documents([document, ...])",
                )
            else:
                self._record.documents = converted

    @never_raises
    def set_attribute(self, key: str, value: object) -> None:
        """Set one attribute: text, or a value that is recorded as JSON."""
        self.set_attributes({key: value})

    @never_raises
    def set_attributes(self, attributes: Mapping[str, object]) -> None:
        """Add attributes to those that are set."""
        if self._writable("set_attributes"):
            if not issubclass(type(attributes), dict):
                misuse(
                    "set_attributes",
                    f"set_attributes({shown(attributes)}) is ignored: "
                    "write set_attributes({'name': value})",
                )
                return
            items = dict.items(cast(dict[object, object], attributes))
            more = {
                label(key, LABEL_CHARS): to_text(value, self._max_bytes)[0]
                for key, value in itertools.islice(items, MOST_ATTRIBUTES)
            }
            self._record.attributes = {**self._record.attributes, **more}

    @never_raises
    def set_error(self, error: BaseException | str, error_type: str = "") -> None:
        """Mark the step as failed although no exception leaves its block."""
        if self._writable("set_error"):
            self._record.status = "error"
            given = label(error_type, LABEL_CHARS)
            if issubclass(type(error), BaseException):
                self._record.error_type = given or type_of(cast(BaseException, error))
                self._record.error_message = message_of(cast(BaseException, error))
            else:
                self._record.error_type = given
                self._record.error_message = label(error, MESSAGE_CHARS)

    @never_raises
    def record_first_token(self) -> None:
        """Record that a streamed answer began to arrive. Only the first call counts."""
        if self._writable("record_first_token") and self._record.first_token_time is None:
            self._record.first_token_time = self._now_us()

    @never_raises
    def record_response(self, response: object) -> None:
        """Record text, tool calls, usage, service tier, cost and model of a model's answer.

        Known shapes: OpenAI (chat, responses, completions, embeddings, images, transcriptions),
        Anthropic, Google, Bedrock, Cohere, Mistral, Ollama, LangChain and LiteLLM, as objects or
        dictionaries. Anything else is recorded as the output.
        """
        if self._writable("record_response"):
            answer = None if layout_of(type(response)).opaque else read_response(response)
            if answer is None:
                self.set_output(response)
            else:
                self._record_answer(answer)

    def record_stream(self, chunks: Iterable[T] | AsyncIterable[T]) -> RecordedStream[T]:
        """Return the stream, to be used as before; record what it contained when it ends.

        Takes a client's stream or stream manager. The result can be iterated, entered with
        ``with`` or ``async with`` and closed, and has the stream's attributes and methods. The
        first piece is the first token. The recording ends when the stream is exhausted or closed,
        at the latest with the step.
        """
        if self._chunks is not None:
            self._chunks.finish()
        self._chunks = ChunkRecorder(self)
        return RecordedStream(chunks, self._chunks)

    @never_raises
    def _record_result(self, result: object) -> None:
        """Record what a traced function returned, by the step's kind."""
        if self._kind == "llm_call":
            self.record_response(result)
        elif self._kind == "retrieval" and are_documents(result):
            self.set_documents(result)
        elif result is not None:
            self.set_output(result)

    def _record_answer(self, answer: Answer) -> None:
        """Record a model's answer. The model that answered replaces the one on opening."""
        output = answer.output
        if output is not None:
            self.set_output(output)
        record = self._record
        if answer.usage is not None:
            record.usage = answer.usage
        if answer.model and answer.model != record.model:
            if record.model:
                self.set_attribute("request_model", record.model)
            record.model = answer.model
        record.provider = record.provider or answer.provider
        if answer.finish_reason:
            self.set_attribute("finish_reason", answer.finish_reason)
        if answer.service_tier:
            self.set_attribute("service_tier", answer.service_tier)
        if answer.charged_usd is not None and record.cost_usd is None:
            self.set_cost(answer.charged_usd)

    def _writable(self, what: str) -> bool:
        if self._state == OPEN:
            return True
        if self._state == NEW:
            when, instead = "before it started", "call it inside `with`, or after start()"
        else:
            when, instead = "after it ended", "call it before the step ends, or open another step"
        if self._state != OFF:
            misuse(f"{what} {when}", f"{what} on step {self._name!r} {when} is ignored: {instead}")
        return False

    def _text(self, value: object) -> tuple[str, int | None]:
        if self._limit:
            return to_text(value, self._limit)
        text, size = to_text(value, self._max_bytes)
        return "", (size if size is not None or value is None else size_of(text))

    @property
    def _max_bytes(self) -> int:
        assert self._engine is not None
        return self._engine.content_bytes[self._record.kind]

    def _now_us(self) -> int:
        # By the steady clock since the start, so that a step never ends before it began.
        assert self._engine is not None
        return self._record.start_time + (self._engine.clock.steady_ns() - self._began_ns) // 1_000

    # --- opening of steps inside this one ---

    def _opening(self, kind: str, name: str, fields: StepFields) -> Step:
        return Step(self._tracer, self, kind, name, fields)

    def _opening_run(self, name: str, fields: RunFields) -> Run:
        return Run(self._tracer, self, "agent", name, fields)

    # --- admission: stops, pauses and budgets ---

    @staticmethod
    def _active_control(innermost: RunControl | None) -> RunControl | None:
        """The control of the run, if it or one around it can keep the step from beginning."""
        control = innermost
        while control is not None:
            if control.active:
                return innermost
            control = control.parent
        return None

    def _admit(self, innermost: RunControl) -> None:
        control = self._active_control(innermost)
        if control is not None:
            _raise_stops_only(control.check)
            _raise_stops_only(lambda: self._reserve(control))

    def _reserve(self, control: RunControl) -> None:
        model = self._fields.get("model") if self._kind == "llm_call" else None
        called = self._name if model is None else label(model, LABEL_CHARS)
        self._reservations = control.reserve(self._kind, called, self._fields)

    async def _ready(self) -> None:
        """Wait while the run is paused, and while a guardrail suspends the step.

        Raises what ``start`` raises.
        """
        if self._state != NEW or suppressed.get():
            return
        parent = self._find_parent()
        if guarding.is_on and self._kind in _GUARDED and self._is_unguarded():
            await self._apass_guardrails(parent)
        control = None if parent is None else self._active_control(parent._scope.control)
        if control is not None:
            await self._wait_until_ready(control)

    async def _wait_until_ready(self, control: RunControl) -> None:
        try:
            await control.ready()
        except RunStopped:
            raise
        except Exception as error:
            internal_error("Step.ready", error)

    # --- guardrails ---

    def _is_unguarded(self) -> bool:
        """Whether its guardrails have not been evaluated."""
        return type(self._guard) is int and self._guard != EVALUATED

    def _pass_guardrails(
        self, parent: Step | None, given: Any = None, passed: frozenset[str] = frozenset()
    ) -> None:
        """Let guardrails decide about the step, except those that it has ``passed``.

        ``given`` are the arguments of the call that a client makes; None: the step's input. Raises
        ``StepRefused`` and ``RunStopped``.
        """
        made = self._guarded(parent, given, passed)
        if made is not None:
            from stepstream.producers.guardrails.enforce import enforce

            enforce(made)

    async def _apass_guardrails(
        self, parent: Step | None, given: Any = None, passed: frozenset[str] = frozenset()
    ) -> None:
        """As ``_pass_guardrails``, without blocking the event loop."""
        made = self._guarded(parent, given, passed)
        if made is not None:
            from stepstream.producers.guardrails.enforce import aenforce

            await aenforce(made)

    def _guarded(self, parent: Step | None, given: Any, passed: frozenset[str]) -> Pending | None:
        """What guardrails decide about the step; None if they decide nothing."""
        try:
            engine = self._tracer.engine() if parent is None else parent._engine
            if engine is None or engine.guardrails.book is None or suppressed.get():
                return None
            from stepstream.producers.guardrails.enforce import pending

            # A step that is a run of its own has the labels of the settings.
            scope = self._new_scope(engine) if parent is None else parent._scope
            above = "" if parent is None else parent.step_id
            asked = self._fields.get("input") if given is None else given
            made = pending(self, engine, scope, above, asked, passed)
            self._guard = EVALUATED if made is None else made
            if made is not None and made.verdict.repairs:
                # What is recorded is what the call gets.
                better = made.repaired()
                name = "input" if given is None else "model"
                if given is None or name in better:
                    self._fields = {**self._fields, name: better if given is None else better[name]}
            return made
        except Exception as error:
            internal_error("Step.guardrails", error)
            return None

    def _repaired(self) -> dict[str, Any] | None:
        """The arguments with which guardrails let the call begin; None: those it was given."""
        made = self._guard
        if type(made) is int:
            return None
        pending = cast("Pending", made)
        return pending.repaired() if pending.verdict.repairs else None

    def _check_arguments(self) -> None:
        """End the step as failed and raise ``ArgumentsRefused`` if the input does not fit."""
        try:
            schema, given = self._fields["schema"], self._fields.get("input")
            tool_arguments.check(self._name or self._kind, schema, given)
        except ArgumentsRefused as refused:
            self.end(refused)
            raise
        except Exception as error:
            internal_error("Step.schema", error)

    # --- beginning ---

    def _begin(self, parent: Step | None) -> None:
        engine = None if suppressed.get() else self._tracer.engine()
        if engine is None:
            self._stay_off()
            return
        self._engine = engine
        # Compared at the end: after a fork in between, the step is not this process's to end.
        self._generation = engine.sender.generation
        self._parent = parent
        fields = self._fields
        self._scope = scope = (
            parent._scope
            if parent is not None and self._is_plain and "capture_content" not in fields
            else self._scoped(engine, parent)
        )
        self._record = record = scope.new_record()
        record.step_id = new_step_id()
        record.name = self._name or self._default_name()
        kind = self._kind
        # The kind on the wire is one of a fixed list; the program's own word is kept.
        if kind not in _KINDS:
            record.attributes = {"kind": kind}
            kind = "other"
        record.kind = kind
        if kind == "tool_call":
            record.tool = record.name
        if parent is not None:
            record.parent_step_id = parent._record.step_id
            if parent._is_remote:
                # A parent that reports to us too is waited for; another one may never arrive.
                record.parent_remote = not parent._reports
        record.start_time = engine.clock.now_us()
        self._began_ns = engine.clock.steady_ns()
        self._limit = engine.limits[kind]
        if scope.capture is not None:
            self._limit = engine.content_limit(kind, scope.capture, self._own_capture())
        self._state = OPEN
        if scope.release is not None:
            self._note_release(scope.release)
        if "schema" in fields and fields["schema"] is not None:
            record.tool_schema = tool_arguments.schema_name(fields["schema"])
        for name, value in fields.items():
            self._set_field(name, value)
        # A copy, because the sender's thread reads the start while the program changes the record.
        start = record.__copy__()
        engine.publish(start, None if scope.capture is None else self._limit)
        if parent is None or parent._is_remote or self._has_own_control():
            self._take_control(engine, parent)

    def _stay_off(self) -> None:
        self._state = OFF
        if self._fields.get("budget") is not None:
            sdk_log.log(
                "budget off", "stepstream: recording is off, so the run's budget is not enforced"
            )

    def _set_field(self, name: str, value: Any) -> None:
        """Set one field that was given on opening. Never raises."""
        try:
            if name == "input":
                record = self._record
                limit = self._limit
                record.input, record.input_bytes = (
                    to_text(value, limit) if limit else self._text(value)
                )
            elif value is not None and name not in _NOT_RECORDED:
                self._set_other_field(name, value)
        except Exception as error:
            internal_error(f"Step.{name}", error)

    def _set_other_field(self, name: str, value: Any) -> None:
        record = self._record
        if name == "attributes":
            self.set_attributes(value)
        elif name == "attempt":
            self._set_attempt(value)
        elif name in _TEXTS:
            setattr(record, name, label(value, LABEL_CHARS))
        elif name in _LINKS:
            self._set_link(name, value)
        else:
            known = (RunFields if issubclass(type(self), Run) else StepFields).__annotations__
            misuse(
                f"field {name}",
                f"there is no field {name!r}{hint(name, known)}; it is ignored. "
                f"Fields: {', '.join(known)}",
            )

    def _set_attempt(self, value: object) -> None:
        number = number_of(value)
        if number is None:
            misuse(
                "attempt",
                f"attempt={shown(value)} is ignored: write the number of the try, attempt=2",
            )
        else:
            self._record.attempt = int(min(max(number, 1), MAX_ATTEMPT))

    def _set_link(self, name: str, value: Any) -> None:
        if issubclass(type(value), Step):
            setattr(self._record, name, value.step_id)
        elif type(value) is str and STEP_ID.fullmatch(value):
            setattr(self._record, name, value)
        else:
            misuse(
                name,
                f"{name}={shown(value)} is ignored: write {name}=step, or the step_id of a step",
            )

    def _default_name(self) -> str:
        return self._kind or "other"

    def _find_parent(self) -> Step | None:
        opener = self._opener
        step = current.get()
        # Steps of other tracers and steps that are not recorded are no parents.
        while step is not None and (step._tracer is not self._tracer or step._state == OFF):
            step = step._outer
        if step is not None and step._state == ENDED and step is inherited.get():
            # This thread has outlived the run in which it was started.
            step = None if step._root()._state == ENDED else step
        if opener is None or opener._state not in (OPEN, ENDED):
            return step
        return step if step is not None and step._is_within(opener) else opener

    def _root(self) -> Step:
        step = self
        while step._parent is not None and not step._parent._is_remote:
            step = step._parent
        return step

    def _is_within(self, other: Step) -> bool:
        step: Step | None = self
        while step is not None:
            if step is other:
                return True
            step = step._parent
        return False

    def _scoped(self, engine: Engine, parent: Step | None) -> Scope:
        scope = self._new_scope(engine) if parent is None else parent._scope
        own = self._own_capture()
        if own is not None and own != scope.capture:
            scope = Scope(scope.trace_id, scope.labels, own, scope.control, scope.release)
        return scope

    def _new_scope(self, engine: Engine) -> Scope:
        trace_id = new_trace_id()
        return Scope(trace_id, engine.labels, engine.run_capture(trace_id))

    def _own_capture(self) -> int | None:
        """The limit that ``capture_content`` of this step sets; None if it was not given."""
        given = self._fields.get("capture_content")
        if given is None:
            return None
        return FULL if given is True else int(given)

    def _note_release(self, release: Release) -> None:
        """Record the release; only runs do."""

    def _has_own_control(self) -> bool:
        """True if commands can be addressed to this step although it is inside a run."""
        return False

    def _take_control(self, engine: Engine, parent: Step | None) -> None:
        scope = self._scope
        if parent is not None and scope is parent._scope:
            # The control is this step's own; the parent and its other children keep theirs.
            scope = self._scope = Scope(
                scope.trace_id, scope.labels, scope.capture, None, scope.release
            )
        scope.control = self._control = new_run_control(
            self._fields,
            trace_id=scope.trace_id,
            labels=scope.labels,
            started_us=self._record.start_time,
            recorder=ControlStepRecorder(engine, scope, self._record.step_id),
            parent=None if parent is None else parent._scope.control,
            pause_limit_s=engine.settings.pause_limit / 1e6,
            now_ns=engine.clock.steady_ns,
        )
        if self._fields.get("budget") is not None:
            engine.load_prices()
        engine.commands.open(self._control)
        engine.run_began(self)
        if parent is None and outside.boundary is not None:
            outside.boundary.run_began(self)
        engine.listen()

    # --- ending ---

    def _finish(self, error: BaseException | None) -> None:
        engine = self._engine
        if engine is None or engine.sender.generation != self._generation:
            return  # in a forked child: the parent process ends the steps that it began
        record = self._record
        record.phase = "end"
        passed_ns = engine.clock.steady_ns() - self._began_ns
        record.end_time = record.start_time + passed_ns // 1_000
        if error is not None:
            self._set_failure(error)
        if self._reservations:
            self._settle(engine, self._reservations)
        if self._control is not None:
            engine.commands.close(self._control)
            engine.run_ended(self)
        if self._parent is None and outside.boundary is not None:
            outside.boundary.run_ended(self, error)
        engine.publish(record, None if self._scope.capture is None else self._limit)

    @never_raises
    def _settle(self, engine: Engine, reservations: list[Reservation]) -> None:
        """Replace what was reserved for the step by what it used."""
        record = self._record
        control = self._scope.control if self._control is None else self._control.parent
        if control is None:
            return
        usage = record.usage
        # A model call without usage was not free: its reservation is kept as an estimate.
        unknown = None if record.kind == "llm_call" else 0
        tokens = unknown if usage is None else usage.input_tokens + usage.output_tokens
        if usage is None and record.cost_usd is None:
            nanos = unknown
        elif reservations[0].ledger.counts_money:
            nanos = engine.cost_of(record)
        else:
            nanos = 0
        control.settle(reservations, nanos, tokens)

    def _set_failure(self, error: BaseException) -> None:
        record = self._record
        if isinstance(error, SystemExit):
            code = error.code
            if code is None or (type(code) is int and code == 0):
                return  # sys.exit() is a normal end
        record.status = "cancelled" if cancelled(error) else "error"
        record.error_type = type_of(error)
        record.error_message = message_of(error)

    # --- the current step ---

    def _leave(self) -> None:
        """Make the outer step current again, unless another step has become current here."""
        if current.get() is self:
            outer = self._outer
            while outer is not None and outer._state == ENDED:
                outer = outer._outer
            current.set(outer)

    def _is_entered(self) -> bool:
        """Whether it is the current step here, or one around that."""
        step = current.get()
        while step is not None:
            if step is self:
                return True
            step = step._outer
        return False

    def _resuming(self) -> _Resuming:
        return _Resuming(self)


class Run(Step):
    """A run: the root step of a trace. Inside another run: the part that another agent does."""

    __slots__ = ()

    _is_plain = False

    def _default_name(self) -> str:
        return self._scope.labels["agent"] or "run"

    def _scoped(self, engine: Engine, parent: Step | None) -> Scope:
        scope = super()._scoped(engine, parent)
        # A run inside a run stays in its project and environment: a trace has one of each.
        names = _AGENT_FIELDS if parent is not None else _AGENT_FIELDS + _PROJECT_FIELDS
        own = {
            name: text
            for name in names
            if self._fields.get(name) is not None
            and (text := label(self._fields[name], LABEL_CHARS))
        }
        if self._name and "agent" not in own and (parent is not None or not engine.settings.agent):
            own["agent"] = self._name
        release = self._release(engine, own, scope)
        if release is not None:
            own.setdefault("agent_version", release.version)
        if not own and release is scope.release:
            return scope
        return Scope(scope.trace_id, {**scope.labels, **own}, scope.capture, scope.control, release)

    def _release(self, engine: Engine, own: dict[str, str], scope: Scope) -> Release | None:
        """The release that this run uses: the given one, else that of its agent."""
        given = self._fields.get("release")
        try:
            if given is not None:
                own.setdefault("agent", given.agent)
                return cast("Release", given.document)
            agent = own.get("agent") or scope.labels["agent"]
            # A run of the same agent inside a run goes on with the release of that one.
            if scope.release is not None and scope.release.agent == agent:
                return scope.release
            return engine.release_of(agent)
        except Exception as error:
            internal_error("Run.release", error)
            return None

    def _note_release(self, release: Release) -> None:
        self._record.attributes = {**self._record.attributes, RELEASE_ATTRIBUTE: release.hash}

    def _has_own_control(self) -> bool:
        parent = self._parent
        if parent is not None and parent._scope.labels["agent"] != self._scope.labels["agent"]:
            return True
        return any(self._fields.get(name) is not None for name in _CONTROL_FIELDS)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        stopped = None
        if self._control is not None and isinstance(error, BaseException):
            stopped = self._control.stopped_task()
        super().__exit__(kind, stopped or error, traceback)
        if stopped is not None:
            raise stopped from error


class _Resuming:
    """Makes a generator's step current while the generator runs; reusable.

    On leaving it remembers which step was current inside, because the generator may have yielded
    within a step of its own, and makes that one current on the next entry.
    """

    __slots__ = ("_inside", "_outside", "_step")

    def __init__(self, step: Step) -> None:
        self._step = step
        self._inside: Step | None = step
        self._outside: Step | None = None

    def __enter__(self) -> None:
        self._outside = self._switch(self._inside)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self._inside = self._switch(self._outside)

    def _switch(self, other: Step | None) -> Step | None:
        """Make another step current. Returns the one that was."""
        step = self._step
        before = current.get()
        if step._state != OFF:
            if step._outer is None and other is step:
                step._outer = before
            current.set(other)
        return before


def _raise_stops_only(check: Callable[[], object]) -> None:
    """Run ``check``; re-raise ``RunStopped``, log any other error."""
    try:
        check()
    except RunStopped:
        raise
    except Exception as error:
        internal_error("Step.admit", error)
