"""Samplers: every run is seen, while exporters keep their sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState

from stepstream.schemas.step import TRACE_STATE_KEY, TRACE_STATE_VALUE

# Descriptions of samplers that drop no root span. ParentBased still drops a span whose remote
# parent was not sampled.
_DROP_NOTHING: Final = (
    "AlwaysOnSampler",
    "AlwaysRecordSampler",
    "ParentBased{root:AlwaysOnSampler",
    "ParentBased{root:AlwaysRecordSampler",
    "StepstreamSampler",
    "TraceIdRatioBased{1.0}",
    "ParentBased{root:TraceIdRatioBased{1.0}",
)


class RecordingSampler(Sampler):
    """Records the spans that ``existing`` drops, without sampling them.

    Span processors that export only sampled spans, as those of OpenTelemetry do, still see what
    ``existing`` samples. Every trace gets the trace state ``stepstream=1``.
    """

    def __init__(self, existing: Sampler = ALWAYS_ON) -> None:
        self.existing = existing

    def should_sample(  # noqa: PLR0917 - the signature is OpenTelemetry's
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        result = self.existing.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )
        decision = result.decision
        if decision is Decision.DROP:
            decision = Decision.RECORD_ONLY
        return SamplingResult(decision, result.attributes, marked(result.trace_state))

    def get_description(self) -> str:
        return f"StepstreamSampler{{{self.existing.get_description()}}}"


def marked(state: TraceState | None) -> TraceState:
    """The trace state with ``stepstream=1``, by which a process further on knows that its remote
    parent will come.
    """
    if state is None:
        return TraceState([(TRACE_STATE_KEY, TRACE_STATE_VALUE)])
    if TRACE_STATE_KEY in state:
        return state
    return state.add(TRACE_STATE_KEY, TRACE_STATE_VALUE)


def may_drop(sampler: Sampler) -> bool:
    """Whether a sampler may drop spans that no parent has decided about."""
    return not sampler.get_description().startswith(_DROP_NOTHING)
