"""Exports of Langfuse: ``{"trace": ..., "observations": [...]}`` as spans.

The raw attributes that a span came with are preferred over what Langfuse made of them; what only
Langfuse has (type, model, usage, contents) fills the gaps under the names of its own SDK.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from stepstream.producers.gateway.importers.ids import span_id_of, trace_id_of
from stepstream.producers.gateway.importers.times import time_ns
from stepstream.producers.gateway.mapping.spans import STATUS_ERROR, STATUS_OK, Resource, Span
from stepstream.producers.gateway.mapping.texts import parsed, text_of

SOURCE: Final = "langfuse"
_OWN_METADATA: Final = frozenset({"attributes", "resourceAttributes", "scope"})
_FIELDS: Final = {
    "type": "langfuse.observation.type",
    "model": "langfuse.observation.model.name",
    "usageDetails": "langfuse.observation.usage_details",
    "input": "langfuse.observation.input",
    "output": "langfuse.observation.output",
    "level": "langfuse.observation.level",
    "statusMessage": "langfuse.observation.status_message",
    "completionStartTime": "langfuse.observation.completion_start_time",
    "version": "langfuse.version",
    "environment": "langfuse.environment",
}
_TRACE_FIELDS: Final = {
    "sessionId": "langfuse.session.id",
    "userId": "langfuse.user.id",
    "environment": "langfuse.environment",
    "version": "langfuse.version",
}


def is_trace(item: Any) -> bool:
    """Whether an object is a trace with its observations."""
    return isinstance(item, dict) and isinstance(item.get("observations"), list)


def is_observation(item: Any) -> bool:
    """Whether an object is one observation, as the table of observations exports it."""
    return isinstance(item, dict) and {"traceId", "id", "type", "startTime"} <= item.keys()


def spans(export: Any) -> Iterator[Span]:
    """The spans of one exported trace. Raises ``ValueError`` for what is no such export."""
    if not is_trace(export):
        raise ValueError('not an export of Langfuse: {"trace": {...}, "observations": [...]}')
    # The page's export has the trace apart, the API's answer is the trace.
    trace = export.get("trace")
    if not isinstance(trace, dict) or not trace:
        trace = export
    for observation in export["observations"]:
        if not isinstance(observation, dict):
            raise ValueError("an observation is not an object")
        yield span_of(observation, trace)


def _counts_before_details(observation: dict[str, Any]) -> dict[str, Any]:
    """The counts of exports that are older than ``usageDetails``."""
    usage = observation.get("usage")
    found = usage if isinstance(usage, dict) else {}
    names = (("input", "promptTokens"), ("output", "completionTokens"))
    counts = {short: found.get(short) or observation.get(long) for short, long in names}
    return {short: count for short, count in counts.items() if count}


def span_of(observation: dict[str, Any], trace: dict[str, Any]) -> Span:
    """One observation as a span."""
    metadata = parsed(observation.get("metadata")) or {}
    if not isinstance(metadata, dict):
        metadata = {}
    raw = parsed(metadata.get("attributes")) or {}
    scope = parsed(metadata.get("scope")) or {}
    attributes: dict[str, Any] = dict(raw) if isinstance(raw, dict) else {}
    # setdefault: the attributes of the original span win over what Langfuse derived from them.
    for fields, source in ((_FIELDS, observation), (_TRACE_FIELDS, trace)):
        for name, attribute in fields.items():
            value = source.get(name)
            if value not in (None, "", {}, []):
                attributes.setdefault(attribute, value)
    # An empty map would hide the token counts in the original attributes.
    if not observation.get("usageDetails"):
        attributes.pop("langfuse.observation.usage_details", None)
        counts = _counts_before_details(observation)
        if counts:
            attributes["langfuse.observation.usage_details"] = counts
    for name, value in metadata.items():
        if name not in _OWN_METADATA:
            attributes.setdefault(f"langfuse.observation.metadata.{name}", value)
    resource = parsed(metadata.get("resourceAttributes")) or {}
    trace_key = text_of(observation.get("traceId") or trace.get("id"))
    start = time_ns(observation.get("startTime"))
    end = time_ns(observation.get("endTime") or observation.get("startTime"))
    parent = observation.get("parentObservationId")
    failed = observation.get("level") == "ERROR"
    return Span(
        trace_id_of(SOURCE, trace_key),
        span_id_of(SOURCE, text_of(observation.get("id"))),
        span_id_of(SOURCE, text_of(parent)) if parent else "",
        text_of(observation.get("name")),
        start,
        max(start, end),
        attributes,
        Resource(
            resource if isinstance(resource, dict) else {},
            text_of(scope.get("name")) if isinstance(scope, dict) else "",
        ),
        STATUS_ERROR if failed else STATUS_OK if observation.get("level") else 0,
        text_of(observation.get("statusMessage")) if failed else "",
    )
