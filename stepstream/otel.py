"""Stepstream for programs that trace with OpenTelemetry already.

    import stepstream.otel

    provider = TracerProvider(sampler=stepstream.otel.sampler(existing_sampler))
    provider.add_span_processor(stepstream.otel.SpanProcessor())

Every span of the provider is published as a step, its start as well as its end, with the same
trace and span ids, through the settings of ``stepstream.configure``. Nothing else of the program
changes: other exporters see what they saw before.
"""

from __future__ import annotations

try:
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
except ImportError as error:
    raise ImportError(
        "stepstream.otel needs OpenTelemetry's SDK: pip install 'stepstream[otel]'"
    ) from error

import stepstream
from stepstream.producers.otel import processor as _processor
from stepstream.producers.otel.sampling import RecordingSampler
from stepstream.producers.tracer import Tracer

__all__ = ["SpanProcessor", "sampler"]


class SpanProcessor(_processor.SpanProcessor):
    """A span processor that publishes to Stepstream; for ``TracerProvider.add_span_processor``.

    With ``stop=True`` commands act on the runs: in a run that was stopped the start of a span
    raises ``RunStopped``, in a paused one it waits. ``other_spans`` is what happens to spans that
    no convention for agents knows, such as HTTP and SQL: ``bare`` (their place in the tree is
    kept), ``keep`` or ``drop``. ``tracer`` replaces the tracer of ``stepstream.configure``.
    """

    def __init__(
        self, *, stop: bool = False, other_spans: str = "bare", tracer: Tracer | None = None
    ) -> None:
        chosen = stepstream._tracer if tracer is None else tracer
        super().__init__(chosen, stop=stop, other_spans=other_spans)


def sampler(existing: Sampler = ALWAYS_ON) -> Sampler:
    """A sampler that shows Stepstream every run, while other exporters see what ``existing``
    samples.

    Spans that ``existing`` drops are recorded and not sampled.
    """
    return RecordingSampler(existing)
