"""Steps of a run, as a program holds them: opened, filled in, ended.

A ``Step`` is a context manager (``with`` and ``async with``); ``start()`` and ``end()`` do the same by hand, without becoming
the current step. Its parent is the step that is current where it starts. Where it was opened by a handle, ``run.tool(...)``,
and the current step is not inside that handle (another thread, another task), its parent is the handle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar, cast

from stepstream.producers.checked_fields import CHECKED, checked
from stepstream.producers.error_guard import internal_error, never_raises, sdk_log, suppressed
from stepstream.producers.exceptions import ArgumentsRefused, RunStopped
from stepstream.producers.filling import ENDED, LABEL_CHARS, NEW, OFF, OPEN, Fills
from stepstream.producers.misuse import hint, misuse, shown
from stepstream.producers.opening import RunFields, StepFields
from stepstream.producers.scope import Scope
from stepstream.producers.values.failures import cancelled, message_of, type_of
from stepstream.producers.values.plain import label, number_of
from stepstream.schemas.ids import STEP_ID, new_step_id, new_trace_id
from stepstream.schemas.normalise import MAX_ATTEMPT
from stepstream.schemas.step import KINDS
from stepstream.schemas.step import Step as StepRecord

if TYPE_CHECKING:
    from stepstream.producers.control.budget import Reservation
    from stepstream.producers.control.run_control import RunControl
    from stepstream.producers.engine import Engine
    from stepstream.producers.tracer import Tracer

P = ParamSpec("P")
R = TypeVar("R")

current: Final[ContextVar[Step | None]] = ContextVar("stepstream_step", default=None)
"""The innermost step that was entered and not left, in this thread or task."""

_OWNERS: Final = ("agent", "agent_version", "task", "session_id", "user_id")
_PLACES: Final = ("project", "environment")


class Step(Fills):
    """One step. Nothing is recorded before it starts or after it ended.

    Nothing it does raises into the program, but for what people asked for: where its run was stopped, or the run's budget is
    used up, it does not begin and raises ``RunStopped`` or ``BudgetExceeded``; with a ``schema`` it may refuse its arguments.
    """

    __slots__ = (
        "_fields",
        "_generation",
        "_held",
        "_opener",
        "_outer",
        "_owned",
        "_parent",
        "_tracer",
    )

    def __init__(
        self,
        tracer: Tracer,
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
        self._chunks = None
        self._held: list[Reservation] | None = None
        self._owned: RunControl | None = None

    # --- life ---

    def start(self) -> Self:
        """Begin, and publish that it began. Does nothing the second time. Raises ``RunStopped`` where the run is stopped."""
        if self._state == ENDED:
            misuse(
                "again",
                f"step {self._name!r} has ended and is not recorded again: open another one for each use",
            )
        if self._state == NEW:
            if not self._fields.keys().isdisjoint(CHECKED):
                self._fields = checked(self._fields)
            self._admit()
            try:
                self._begin()
            except Exception as error:
                self._state = OFF
                internal_error("Step.start", error)
            if self._fields.get("schema") is not None:
                self._refuse()
        return self

    def _refuse(self) -> None:
        """End at once, as failed, where the arguments do not fit the tool's schema. Raises ``ArgumentsRefused``."""
        from stepstream.producers.tool_arguments import refuse

        try:
            refuse(self._name or self._kind, self._fields["schema"], self._fields.get("input"))
        except ArgumentsRefused as refused:
            self.end(refused)
            raise
        except Exception as error:
            internal_error("Step.schema", error)

    def end(self, error: BaseException | None = None) -> None:
        """End, with the exception that ended it if there was one, and publish the complete step. Ends once."""
        if self._state == OPEN:
            if self._chunks is not None:
                self._chunks.finish()
            self._state = ENDED
            self._finish(error)

    def __enter__(self) -> Self:
        self.start()
        if self._state == OPEN:
            self._outer = current.get()
            current.set(self)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.end(error)
        self._leave()

    async def __aenter__(self) -> Self:
        await self._ready()
        return self.__enter__()

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(type_, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """As a decorator: every call of the function is a step like this one."""
        from stepstream.producers.decorators import decorated

        return cast(Callable[P, R], decorated(function, self._again, self._kind))

    def _again(self, name: str, arguments: object) -> Step:
        fields = {"input": arguments, **self._fields}
        return type(self)(
            self._tracer, self._opener, self._kind, self._name or name, cast(StepFields, fields)
        )

    def __repr__(self) -> str:
        state = ("new", "open", "ended", "off")[self._state]
        return f"<{type(self).__name__} {self._kind} {self._name!r} {self.trace_id[:8]}/{self.step_id[:8]} {state}>"

    # --- orders ---

    def checkpoint(self) -> None:
        """For long work without steps: raise ``RunStopped`` where the run is stopped, wait while it is paused."""
        if self._state == OPEN and self._scope.control is not None:
            _let_through(self._scope.control.check)

    async def acheckpoint(self) -> None:
        """As ``checkpoint``, without blocking the event loop."""
        if self._state == OPEN and self._scope.control is not None:
            await self._scope.control.ready()

    # --- identity ---

    @property
    def trace_id(self) -> str:
        """The run's id; empty before the step started and while nothing is recorded."""
        return self._scope.trace_id if self._state in (OPEN, ENDED) else ""

    @property
    def step_id(self) -> str:
        """The step's id; empty before the step started and while nothing is recorded."""
        return self._record.step_id if self._state in (OPEN, ENDED) else ""

    # --- inside ---

    def _opening(self, kind: str, name: str, fields: StepFields) -> Step:
        return Step(self._tracer, self, kind, name, fields)

    def _opening_run(self, name: str, fields: RunFields) -> Run:
        return Run(self._tracer, self, "agent", name, fields)

    def _gate(self) -> RunControl | None:
        """What may keep this step from beginning; None where nothing does."""
        if suppressed.get():
            return None
        parent = self._find_parent()
        inner = control = None if parent is None else parent._scope.control
        while control is not None:
            if control.active:
                return inner
            control = control.parent
        return None

    def _admit(self) -> None:
        gate = self._gate()
        if gate is not None:
            _let_through(gate.check)
            _let_through(lambda: self._reserve(gate))

    def _reserve(self, gate: RunControl) -> None:
        model = self._fields.get("model") if self._kind == "llm_call" else None
        called = self._name if model is None else label(model, LABEL_CHARS)
        self._held = gate.reserve(self._kind, called, self._fields)

    async def _ready(self) -> None:
        """Wait while the run is paused."""
        gate = self._gate() if self._state == NEW else None
        if gate is not None:
            try:
                await gate.ready()
            except RunStopped:
                raise
            except Exception as error:
                internal_error("Step.ready", error)

    def _begin(self) -> None:
        engine = None if suppressed.get() else self._tracer.engine()
        if engine is None:
            self._state = OFF
            if self._fields.get("budget") is not None:
                sdk_log.log(
                    "budget off",
                    "stepstream: nothing is recorded, so the budget of a run is not kept",
                )
            return
        self._engine = engine
        self._generation = engine.sender.generation
        self._parent = parent = self._find_parent()
        self._scope = scope = self._scoped(engine, parent)
        self._record: StepRecord = StepRecord(
            trace_id=scope.trace_id,
            step_id=new_step_id(),
            parent_step_id="" if parent is None else parent._record.step_id,
            phase="start",
            kind=self._kind if self._kind in _KINDS else "other",
            name=self._name or self._default_name(),
            start_time=engine.clock.now_us(),
            **cast(Any, scope.whose),
        )
        self._began_ns = engine.clock.steady_ns()
        self._state = OPEN
        if self._kind == "tool_call":
            self._record.tool = self._record.name
        elif self._kind not in _KINDS:
            self._record.attributes = {"kind": self._kind}
        if self._fields.get("schema") is not None:
            from stepstream.producers.tool_arguments import schema_name

            self._record.tool_schema = schema_name(self._fields["schema"])
        self._fill(self._fields)
        engine.publish(_copy(self._record))
        if parent is None or self._wants_control():
            self._take_control(engine, parent)

    def _wants_control(self) -> bool:
        """Whether orders are to find it although it is inside a run."""
        return False

    def _take_control(self, engine: Engine, parent: Step | None) -> None:
        from stepstream.producers.control.control_steps import ControlSteps
        from stepstream.producers.control.factory import control_of

        scope = self._scope
        if parent is not None and scope is parent._scope:
            scope = self._scope = Scope(scope.trace_id, scope.whose, scope.capture)
        around = None if parent is None else parent._scope.control
        record = ControlSteps(engine, scope, self._record.step_id)
        scope.control = self._owned = control_of(
            scope, self._record.start_time, record, around, self._fields, engine
        )
        if self._fields.get("budget") is not None:
            engine.load_prices()
        engine.commands.open(self._owned)
        engine.listen()

    def _default_name(self) -> str:
        return self._kind or "other"

    def _find_parent(self) -> Step | None:
        step = current.get()
        while step is not None and (step._tracer is not self._tracer or step._state == OFF):
            step = step._outer
        opener = self._opener
        if (
            opener is None
            or opener._state not in (OPEN, ENDED)
            or (step is not None and step._is_within(opener))
        ):
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
        scope = (
            Scope(new_trace_id(), engine.whose, engine.settings.capture_content)
            if parent is None
            else parent._scope
        )
        capture = self._fields.get("capture_content")
        if capture is not None and bool(capture) != scope.capture:
            scope = Scope(scope.trace_id, scope.whose, bool(capture), scope.control)
        return scope

    def _fill(self, fields: Mapping[str, Any]) -> None:
        """The fields given on opening."""
        for name, value in fields.items():
            if value is not None and name not in _NOT_OF_THE_STEP:
                self._give(name, value)

    @never_raises
    def _give(self, name: str, value: Any) -> None:
        record = self._record
        if name == "input":
            record.input, record.input_bytes = self._text(value)
        elif name == "attributes":
            self.set_attributes(value)
        elif name == "attempt":
            number = number_of(value)
            if number is None:
                misuse(
                    name,
                    f"attempt={shown(value)} is ignored: write the number of the try, attempt=2",
                )
            else:
                record.attempt = int(min(max(number, 1), MAX_ATTEMPT))
        elif name in _TEXTS:
            setattr(record, name, label(value, LABEL_CHARS))
        elif name not in _LINKS:
            known = (RunFields if issubclass(type(self), Run) else StepFields).__annotations__
            misuse(
                f"field {name}",
                f"there is no field {name!r}{hint(name, known)}; it is ignored. Fields: {', '.join(known)}",
            )
        elif issubclass(type(value), Step) or (type(value) is str and STEP_ID.fullmatch(value)):
            setattr(record, name, value.step_id if issubclass(type(value), Step) else value)
        else:
            misuse(
                name,
                f"{name}={shown(value)} is ignored: write {name}=step, or the step_id of a step",
            )

    @never_raises
    def _finish(self, error: BaseException | None) -> None:
        engine = self._engine
        if engine is None or engine.sender.generation != self._generation:
            return  # a fork: the parent process ends the steps it began
        record = self._record
        record.phase = "end"
        record.end_time = self._now_us()
        if error is not None:
            self._set_failure(error)
        if self._held:
            self._settle(engine, self._held)
        if self._owned is not None:
            engine.commands.close(self._owned)
        engine.publish(record)

    @never_raises
    def _settle(self, engine: Engine, held: list[Reservation]) -> None:
        record, control = (
            self._record,
            self._scope.control if self._owned is None else self._owned.parent,
        )
        usage, is_call = record.usage, record.kind == "llm_call"
        unknown = (
            None if is_call else 0
        )  # a model's call that says nothing was not free: what was set aside stays
        tokens = unknown if usage is None else usage.input_tokens + usage.output_tokens
        nanos = unknown if usage is None and record.cost_usd is None else 0
        if held[0].ledger.counts_money and (usage is not None or record.cost_usd is not None):
            nanos = engine.cost_of(record)
        if control is not None:
            control.settle(held, nanos, tokens)

    def _set_failure(self, error: BaseException) -> None:
        record = self._record
        if isinstance(error, SystemExit) and (
            error.code is None or (type(error.code) is int and error.code == 0)
        ):
            return
        record.status = "cancelled" if cancelled(error) else "error"
        record.error_type = type_of(error)
        record.error_message = message_of(error)

    def _leave(self) -> None:
        """Make the step outside current again, unless something else is current here by now."""
        if current.get() is self:
            outer = self._outer
            while outer is not None and outer._state == ENDED:
                outer = outer._outer
            current.set(outer)

    def _switch(self, other: Step | None) -> Step | None:
        """Make another step current, and say which one was; nothing changes where nothing is recorded."""
        before = current.get()
        if self._state != OFF:
            if self._outer is None and other is self:
                self._outer = before
            current.set(other)
        return before


class Run(Step):
    """A run: the root step of a trace. Inside another run it is a step of that run, done by an agent of its own."""

    __slots__ = ()

    def _default_name(self) -> str:
        return self._scope.whose["agent"] or "run"

    def _scoped(self, engine: Engine, parent: Step | None) -> Scope:
        scope = super()._scoped(engine, parent)
        names = _OWNERS if parent is not None else _OWNERS + _PLACES
        own = {
            name: label(self._fields[name], LABEL_CHARS)
            for name in names
            if self._fields.get(name) is not None
        }
        own = {name: text for name, text in own.items() if text}
        if self._name and "agent" not in own and (parent is not None or not engine.settings.agent):
            own["agent"] = self._name
        return (
            Scope(scope.trace_id, {**scope.whose, **own}, scope.capture, scope.control)
            if own
            else scope
        )

    def _wants_control(self) -> bool:
        parent = self._parent
        own_agent = (
            parent is not None and parent._scope.whose["agent"] != self._scope.whose["agent"]
        )
        return own_agent or any(
            self._fields.get(name) is not None
            for name in ("budget", "on_command", "cancel_on_stop")
        )

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        stopped = (
            self._owned.stopped_task()
            if self._owned is not None and isinstance(error, BaseException)
            else None
        )
        super().__exit__(_type, stopped or error, _traceback)
        if stopped is not None:
            raise stopped from error


_KINDS: Final = frozenset(KINDS)
_NOT_OF_THE_STEP: Final = frozenset(
    {
        "capture_content",
        "schema",
        "reserve_usd",
        "reserve_tokens",
        "budget",
        "on_command",
        "cancel_on_stop",
        *_OWNERS,
        *_PLACES,
    }
)
_TEXTS: Final = frozenset({"tool", "model", "provider", "tool_schema"})
_LINKS: Final = frozenset({"retry_of", "fallback_of"})


def _let_through(check: Callable[[], object]) -> None:
    """Of all that may go wrong where orders are looked at, the program hears of the stops that were asked for alone."""
    try:
        check()
    except RunStopped:
        raise
    except Exception as error:
        internal_error("Step.admit", error)


def _copy(record: StepRecord) -> StepRecord:
    return cast(StepRecord, cast(Any, record).__copy__())
