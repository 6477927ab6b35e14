"""What guardrails do to a step before it begins: refuse, repair, or suspend for an approval.

Each decision is recorded as a step of kind ``guardrail`` next to the step that it is about. Errors
of this code are counted and logged, and the step begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from stepstream.producers.exceptions import RunStopped, StepRefused
from stepstream.producers.guardrails.switch import BODY, WATCHED
from stepstream.producers.values.content import to_text
from stepstream.producers.values.plain import label, number_of
from stepstream.schemas.guardrail_check import (
    Bound,
    Call,
    Made,
    Unreadable,
    Verdict,
    evaluate,
    refused_by_failure,
)
from stepstream.schemas.guardrails import GUARDRAIL_ATTRIBUTE, GUARDRAIL_KIND
from stepstream.schemas.ids import new_step_id

if TYPE_CHECKING:
    from stepstream.producers.control.run_control import RunControl
    from stepstream.producers.engine import Engine
    from stepstream.producers.scope import Scope

MAX_ARGUMENT_BYTES: Final = 256_000
"""Arguments that are larger cannot be evaluated."""
_LABEL_CHARS: Final = 1_024
_decode: Final = msgspec.json.Decoder().decode
_NO_REPAIR: Final = (
    "the arguments have to be repaired, and the program itself makes the call: use those in "
    "StepRefused.repaired, or decorate the function"
)
_NO_WAIT: Final = (
    "it needs an approval, and a plain `with` in an event loop cannot wait for one: write `async "
    "with run.tool(...)`, or decorate the asynchronous function"
)
_NO_RUN: Final = "it needs an approval, which is only possible inside a run"


class Pending:
    """The decisions about one call, before they take effect.

    ``given`` are the arguments as the program has them.
    """

    __slots__ = ("_engine", "_given", "_guard", "_scope", "_step", "verdict")

    def __init__(
        self, step: Any, engine: Engine, scope: Scope, given: Any, verdict: Verdict
    ) -> None:
        self._step = step
        self._engine = engine
        self._scope = scope
        self._given = given
        self._guard = step._guard
        self.verdict = verdict

    @property
    def control(self) -> RunControl | None:
        """What a call waits on; None outside a run."""
        return self._scope.control

    @property
    def titles(self) -> frozenset[str]:
        """The guardrails that decided something."""
        return frozenset(made.bound.title for made in self.verdict.made)

    @property
    def _called(self) -> str:
        """The tool or model."""
        fields, name = self._step._fields, self._step._name
        given = fields.get("model" if self._step._kind == "llm_call" else "tool")
        return label(given, _LABEL_CHARS) if given else name or self._step._kind

    def record(self, parent_id: str) -> None:
        """Count the decisions, and record each as a step."""
        counts = self._engine.guardrails.counts
        for made in self.verdict.made:
            setattr(counts, made.decision, getattr(counts, made.decision) + 1)
            self._record(made, parent_id)

    def _record(self, made: Made, parent_id: str) -> None:
        engine, scope, step = self._engine, self._scope, self._step
        record = scope.new_record()
        record.step_id = new_step_id()
        record.parent_step_id = parent_id
        record.phase = "end"
        record.kind = GUARDRAIL_KIND
        record.name = made.bound.title
        record.start_time = record.end_time = engine.clock.now_us()
        limit = engine.content_limit(step._kind, scope.capture, step._own_capture())
        record.input, record.input_bytes = to_text(self._given, limit) if limit else ("", None)
        if made.decision == "refused":
            record.status = "error"
            record.error_type = "StepRefused"
            record.error_message = f"{self._called}: {made.reason}"
        detail = made.detail if limit else ""
        attributes = {
            "action": made.decision,
            "would": made.would if made.decision == "observed" else "",
            "check": made.bound.guardrail.check,
            # Not the step's own field: a call that was refused does not count as one of the tool.
            "tool": "" if step._kind == "llm_call" else self._called,
            "model": self._called if step._kind == "llm_call" else "",
            GUARDRAIL_ATTRIBUTE: made.bound.guardrail.name,
            "policy": made.bound.policy,
            "policy_revision": str(made.bound.revision or ""),
            "reason": made.reason,
            "detail": detail,
            "repaired": self._shown_repair(limit) if made.decision == "repaired" else "",
        }
        record.attributes = {name: text for name, text in attributes.items() if text}
        engine.publish(record, None if scope.capture is None else limit)

    def _shown_repair(self, limit: int) -> str:
        verdict = self.verdict
        # Without contents only the names are sent.
        if not limit:
            return ", ".join(sorted({*verdict.changes, *verdict.dropped}))
        return to_text({**verdict.changes, **dict.fromkeys(verdict.dropped)}, limit)[0]

    def refusal(self) -> StepRefused | None:
        """The exception that refuses the call; None if no guardrail refuses it."""
        made = self.verdict.refused
        if made is not None:
            return self._refused(made, made.detail)
        is_named = self._given is None or issubclass(type(self._given), Mapping)
        if self.verdict.repairs and not (self._guard == BODY and is_named):
            made = next(one for one in self.verdict.made if one.decision == "repaired")
            return self._refused(made, _NO_REPAIR, self.repaired())
        return None

    def failed(self, error: Exception) -> None:
        """Note that the decisions could not take effect: the call is made.

        Raises ``StepRefused`` if a guardrail that decided something wants that then.
        """
        self._engine.guardrails.failed("guardrail", error)
        for made in self.verdict.made:
            if made.bound.enforces and made.bound.guardrail.on_failure == "refuse":
                raise self._refused(made, f"{type(error).__name__} in the SDK")

    def repaired(self) -> dict[str, Any]:
        """The arguments with the repairs."""
        given = self._given if issubclass(type(self._given), Mapping) else {}
        kept = {name: value for name, value in given.items() if name not in self.verdict.dropped}
        return {**kept, **self.verdict.changes}

    def not_approved(self, why: str) -> StepRefused:
        """The exception for a call that waits for an approval in vain."""
        return self._refused(self.verdict.suspended[0], why)

    def reason(self) -> str:
        """Why the call is suspended, for the person who approves it."""
        reasons = "; ".join(f"{made.bound.title}: {made.reason}" for made in self.verdict.suspended)
        return f"{self._called} waits for an approval ({reasons})"

    def by(self) -> str:
        return f"policy:{self.verdict.suspended[0].bound.policy}"

    def _refused(
        self, made: Made, detail: str, repaired: dict[str, Any] | None = None
    ) -> StepRefused:
        return StepRefused(
            self._called,
            made.reason,
            detail=detail,
            guardrail=made.bound.guardrail.name,
            policy=made.bound.policy,
            repaired=repaired,
        )

    def wait(self) -> None:
        """Wait for the approval of what is suspended. Raises ``StepRefused`` and ``RunStopped``."""
        control = self.control
        if control is None:
            raise self.not_approved(_NO_RUN)
        if not control.can_wait():
            raise self.not_approved(_NO_WAIT)
        if not control.suspend(self.reason(), self.by()):
            raise self.not_approved(_late(control))

    async def await_approval(self) -> None:
        """As ``wait``, without blocking the event loop."""
        control = self.control
        if control is None:
            raise self.not_approved(_NO_RUN)
        if not await control.asuspend(self.reason(), self.by()):
            raise self.not_approved(_late(control))


def _late(control: RunControl) -> str:
    return f"it was not approved within {control.pause_limit_s:.0f} s"


def pending(
    step: Any,
    engine: Engine,
    scope: Scope,
    parent_id: str,
    given: Any,
    passed: frozenset[str] = frozenset(),
) -> Pending | None:
    """What the guardrails decide about a step that begins; None if they decide nothing.

    ``scope`` is that of its run, ``passed`` the guardrails that have decided about it already. The
    decisions are recorded. Never raises an ``Exception``.
    """
    guardrails = engine.guardrails
    book = guardrails.book
    if book is None:
        return None
    bounds: Sequence[Bound] = ()
    try:
        fields = step._fields
        kind, name = step._kind, step._name
        model = ""
        if kind == "llm_call":
            model = label(fields.get("model") or name, _LABEL_CHARS)
        else:
            name = label(fields.get("tool") or name, _LABEL_CHARS)
        selection = scope.guardrails
        if selection is None or selection.book is not book:
            selection = scope.guardrails = book.selection(scope.labels)
        bounds = selection.of(kind, model or name)
        if passed:
            bounds = [bound for bound in bounds if bound.title not in passed]
        if not bounds:
            return None
        call = Call(
            kind,
            name,
            model,
            int(number_of(fields.get("attempt")) or 1),
            scope.labels,
            lambda: json_value(given),
            lambda: {} if scope.control is None else scope.control.budget_left(),
        )
        verdict = evaluate(bounds, call)
        if not verdict.made:
            return None
        if step._guard == WATCHED:
            _only_observe(verdict)
        made = Pending(step, engine, scope, given, verdict)
    except Exception as error:
        guardrails.failed("guardrails", error)
        refusing = refused_by_failure(bounds, error)
        return None if refusing is None else Pending(step, engine, scope, given, refusing)
    try:
        made.record(parent_id)
    except Exception as error:
        # The decision is made: that it could not be recorded does not change it.
        guardrails.failed("guardrail step", error)
    return made


def _only_observe(verdict: Verdict) -> None:
    """Report what would have been done: the framework makes the call whatever is raised."""
    verdict.made = [
        Made(one.bound, "observed", one.would, one.reason, one.detail) if one.would else one
        for one in verdict.made
    ]
    verdict.refused = None
    verdict.suspended.clear()
    verdict.changes.clear()
    verdict.dropped.clear()


def json_value(given: Any) -> Any:
    """The arguments as a JSON value. Raises ``Unreadable``.

    No code of the arguments runs. A text with a JSON object or list, as frameworks report
    arguments, is read as that.
    """
    if given is None:
        return None
    text, cut = to_text(given, MAX_ARGUMENT_BYTES)
    if cut is not None:
        raise Unreadable(f"the arguments have more than {MAX_ARGUMENT_BYTES:,} bytes")
    if issubclass(type(given), str) and text[:1] not in ("{", "["):
        return text
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def enforce(made: Pending) -> None:
    """Let the decisions take effect in the thread of the step.

    Raises ``StepRefused``, and ``RunStopped`` where the run is stopped while the call waits.
    """
    try:
        refusal = made.refusal()
        if refusal is not None:
            raise refusal
        if made.verdict.suspended:
            made.wait()
    except (RunStopped, StepRefused):
        raise
    except Exception as error:
        made.failed(error)


async def aenforce(made: Pending) -> None:
    """As ``enforce``, without blocking the event loop."""
    try:
        refusal = made.refusal()
        if refusal is not None:
            raise refusal
        if made.verdict.suspended:
            await made.await_approval()
    except (RunStopped, StepRefused):
        raise
    except Exception as error:
        made.failed(error)
