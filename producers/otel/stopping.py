"""Commands for runs that OpenTelemetry records: each local root span has a control."""

from __future__ import annotations

import threading
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan

from stepstream.producers.control.recorder import ControlStepRecorder
from stepstream.producers.control.run_control import RunControl
from stepstream.producers.engine import Engine
from stepstream.producers.forks import call_after_fork
from stepstream.producers.scope import Scope

# Local roots that are open at a time. A root that a program never ends is forgotten in the end.
MOST_ROOTS: Final = 10_000


class SpanControls:
    """The controls of the traces that have an open local root span in this process."""

    def __init__(self) -> None:
        self._clear()
        call_after_fork(self)

    def _clear(self) -> None:
        self._lock = threading.RLock()
        # By trace id: the span id of the local root, its control, and where it is registered.
        self._roots: dict[int, tuple[int, RunControl, Engine]] = {}

    def after_fork(self) -> None:
        """Forget the parent's runs in the child."""
        self._clear()

    def started(self, span: ReadableSpan, engine: Engine) -> None:
        """Register a local root; raise ``RunStopped`` if the span's trace is stopped, wait while it
        is paused.
        """
        context, parent = span.get_span_context(), span.parent
        assert context is not None
        with self._lock:
            if (parent is None or parent.is_remote) and context.trace_id not in self._roots:
                control = _new_control(span, engine)
                self._roots[context.trace_id] = (context.span_id, control, engine)
                if len(self._roots) > MOST_ROOTS:
                    del self._roots[next(iter(self._roots))]
        self.check(context.trace_id)

    def check(self, trace_id: int) -> None:
        """Raise ``RunStopped`` if the trace is stopped; wait while it is paused."""
        found = self._roots.get(trace_id)
        if found is not None and found[1].active:
            found[1].check()

    def ended(self, span: ReadableSpan) -> None:
        """Forget a local root that has ended."""
        context = span.get_span_context()
        assert context is not None
        found = self._roots.get(context.trace_id)
        if found is None or found[0] != context.span_id:
            return
        with self._lock:
            self._roots.pop(context.trace_id, None)
        found[2].commands.close(found[1])


def _new_control(span: ReadableSpan, engine: Engine) -> RunControl:
    context = span.get_span_context()
    assert context is not None
    trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    attributes = span.attributes or {}
    named = attributes.get("gen_ai.agent.name") or attributes.get("agent.name")
    labels = {**engine.labels, **({"agent": str(named)} if named else {})}
    scope = Scope(trace_id, labels, None)
    control = RunControl(
        trace_id,
        labels,
        (span.start_time or 0) // 1_000,
        ControlStepRecorder(engine, scope, span_id),
        pause_limit_s=engine.settings.pause_limit / 1e6,
    )
    engine.commands.open(control)
    engine.listen()
    return control
