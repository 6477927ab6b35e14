"""Traces as eight agent frameworks emitted them through OpenTelemetry, as Langfuse exported
them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks.cases import content, data_folder
from benchmarks.cases.spans import (
    AGENT_KEYS,
    COST_KEYS,
    INPUT_KEYS,
    KINDS,
    MODEL_KEYS,
    OUTPUT_KEYS,
    PROVIDER_KEYS,
    SESSION_KEYS,
    TOOL_KEYS,
    first_text,
    kind_of,
    time_us,
    usage_of,
)
from stepstream.schemas.step import StepEvent


def runs() -> Iterator[list[StepEvent]]:
    """One run a framework, by file name. Raises ``MissingData``."""
    for path in files():
        yield steps_of(path)


def files() -> list[Path]:
    return sorted(data_folder("otel_framework_traces").glob("*.trace.json"))


def steps_of(path: Path) -> list[StepEvent]:
    """The steps of one exported trace.

    Usage stays with the innermost model call: those around it repeat it.
    """
    exported = json.loads(path.read_text())
    seen = [(observation, _attributes(observation)) for observation in exported["observations"]]
    kinds = {observation["id"]: _kind(observation, attributes) for observation, attributes in seen}
    around = {o.get("parentObservationId") for o, _ in seen if kinds[o["id"]] == "llm_call"}
    return [_step(o, a, exported["trace"], kinds[o["id"]], o["id"] not in around) for o, a in seen]


def _metadata(observation: dict[str, Any]) -> dict[str, Any]:
    metadata = observation.get("metadata") or {}
    return dict(json.loads(metadata) if isinstance(metadata, str) else metadata)


def _attributes(observation: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a span: its own, then those that its exporter derived."""
    metadata = _metadata(observation)
    own = metadata.get("attributes") or {}
    own = dict(json.loads(own) if isinstance(own, str) else own)
    exported = (observation.get("usageDetails") or {}) | {"model": observation.get("model")}
    return dict(exported | metadata.get("resourceAttributes", {}) | own)


def _kind(observation: dict[str, Any], attributes: dict[str, Any]) -> str:
    if _metadata(observation).get("langgraph_node") == observation["name"]:
        return "state_update"
    kind = kind_of(attributes, KINDS.get(observation["type"].lower(), "other"))
    runs_an_agent = "gen_ai.agent.name" in attributes or not observation.get("parentObservationId")
    return "agent" if kind == "other" and runs_an_agent else kind


def _step(
    o: dict[str, Any], attributes: dict[str, Any], trace: dict[str, Any], kind: str, innermost: bool
) -> StepEvent:
    given = content(first_text(attributes, INPUT_KEYS) or first_text(o, ("input",)))
    taken = content(first_text(attributes, OUTPUT_KEYS) or first_text(o, ("output",)))
    failed = o["level"] == "ERROR"
    cost = first_text(attributes, COST_KEYS) if kind == "llm_call" and innermost else ""
    return StepEvent(
        trace_id=o["traceId"],
        step_id=o["id"],
        parent_step_id=o.get("parentObservationId") or "",
        kind=kind,
        name=o["name"],
        tool=first_text(attributes, TOOL_KEYS) or (o["name"] if kind == "tool_call" else ""),
        model=first_text(attributes, MODEL_KEYS) if kind == "llm_call" else "",
        provider=first_text(attributes, PROVIDER_KEYS).lower() if kind == "llm_call" else "",
        project="frameworks",
        agent=first_text(attributes, AGENT_KEYS),
        session_id=first_text(attributes, SESSION_KEYS) or trace.get("sessionId") or "",
        user_id=trace.get("userId") or "",
        start_time=time_us(o["startTime"]),
        end_time=time_us(o.get("endTime") or o["startTime"]),
        status="error" if failed else "ok",
        error_message=(o.get("statusMessage") or "") if failed else "",
        usage=usage_of(attributes) if kind == "llm_call" and innermost else None,
        cost_usd=Decimal(cost) if cost else None,
        cost_source="given" if cost else "",
        input=given[0],
        input_bytes=given[1],
        output=taken[0],
        output_bytes=taken[1],
    )
