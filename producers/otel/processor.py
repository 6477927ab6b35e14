"""The span processor: every span of a ``TracerProvider`` becomes a step, from its start on."""

from __future__ import annotations

from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.trace import SpanContext, get_current_span

from stepstream.producers.exceptions import BudgetExceeded, RunStopped
from stepstream.producers.gateway.mapping.options import BARE, OTHER_SPANS
from stepstream.producers.otel.inside_calls import InsideCalls
from stepstream.producers.otel.publisher import START_DELAY_S, SpanPublisher
from stepstream.producers.otel.sampling import marked, may_drop
from stepstream.producers.otel.stopping import SpanControls
from stepstream.producers.sdk_log import internal_error, sdk_log, suppressed
from stepstream.producers.tracer import Tracer

SAMPLER_DROPS: Final = (
    "stepstream: the sampler {} drops spans, which no span processor sees: runs are missing, and "
    "budgets and baselines count too little. "
    "Write TracerProvider(sampler=stepstream.otel.sampler(...)) around it: "
    "other exporters keep their sample"
)


class SpanProcessor(sdk.SpanProcessor):
    """Publishes the spans of a tracer provider as steps with the same ids, while they are open.

    ``stop=True`` lets commands act: in a run that was stopped, the start of a span raises
    ``RunStopped``; in a paused one it waits. ``other_spans`` is what happens to spans that no
    convention for agents knows (HTTP, SQL): ``bare`` keeps their place in the tree only, ``keep``
    all of them, ``drop`` nothing.
    """

    def __init__(
        self,
        tracer: Tracer,
        *,
        stop: bool = False,
        other_spans: str = BARE,
        start_delay_s: float = START_DELAY_S,
    ) -> None:
        if other_spans not in OTHER_SPANS:
            raise ValueError(f"other_spans must be one of {', '.join(OTHER_SPANS)}")
        self._tracer = tracer
        self._publisher = SpanPublisher(
            tracer, other_spans=other_spans, start_delay_s=start_delay_s
        )
        self._controls = SpanControls() if stop else None
        self._sampler_checked = False
        # Clients make spans by themselves, as Anthropic's does: such a call is a step of the SDK,
        # and would count twice.
        self._inside_calls = InsideCalls(tracer)

    @property
    def dropped(self) -> int:
        """Starts and ends of spans that were dropped, because the queue was full."""
        return self._publisher.dropped

    def on_start(self, span: sdk.Span, parent_context: Context | None = None) -> None:
        """Called by the SDK in the program's thread."""
        try:
            engine = self._tracer.engine()
            if engine is None or suppressed.get():
                return
            parent = span.parent
            if parent is None or parent.is_remote:
                self._local_root(span)
            if not self._inside_calls.publishes_start(span):
                return
            if self._controls is not None:
                self._controls.started(span, engine)
            self._publisher.started(span, engine)
        except (RunStopped, BudgetExceeded):
            raise
        except Exception as error:
            internal_error("SpanProcessor.on_start", error)

    def on_end(self, span: sdk.ReadableSpan) -> None:
        """Called by the SDK in the program's thread."""
        try:
            engine = self._tracer.engine()
            if engine is None or suppressed.get():
                return
            if self._controls is not None:
                self._controls.ended(span)
            if self._inside_calls.publishes_end(span):
                self._publisher.ended(span, engine)
        except Exception as error:
            internal_error("SpanProcessor.on_end", error)

    def checkpoint(self) -> None:
        """Raise ``RunStopped`` if the run of the current span was stopped; wait while it is paused.

        For programs whose instrumentation ignores exceptions of span processors.
        """
        if self._controls is not None:
            self._controls.check(get_current_span().get_span_context().trace_id)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until every span that has ended is acknowledged. False after the timeout."""
        return self._tracer.flush(timeout_millis / 1_000)

    def shutdown(self) -> None:
        """Publish what is queued and wait for its acknowledgement, for some seconds at most."""
        try:
            self._publisher.publish_all()
            self._tracer.flush(5.0)
        except Exception as error:
            internal_error("SpanProcessor.shutdown", error)

    def _local_root(self, span: sdk.Span) -> None:
        if not self._sampler_checked:
            self._sampler_checked = True
            _warn_of_sampler(span)
        context = span.get_span_context()
        # OpenTelemetry lets only samplers set the trace state, and not every program has ours.
        # Children take it over from the root, so it is set once a trace.
        if "stepstream" not in context.trace_state:
            span._context = SpanContext(
                context.trace_id,
                context.span_id,
                context.is_remote,
                context.trace_flags,
                marked(context.trace_state),
            )


def _warn_of_sampler(span: sdk.Span) -> None:
    # The SDK passes the provider's sampler to each span and offers no public way to it.
    sampler = getattr(span, "_sampler", None)
    if sampler is not None and may_drop(sampler):
        sdk_log.log("sampler", SAMPLER_DROPS.format(sampler.get_description()))
