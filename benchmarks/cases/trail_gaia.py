"""Multi-step agents that answer questions with tools (TRAIL on GAIA): OpenInference spans, with
times, tokens and errors.

Agent spans repeat the sum of their children's tokens: only the spans of model calls carry usage
here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from benchmarks.cases import case_files, content, data_folder, read_json
from benchmarks.cases.spans import (
    INPUT_KEYS,
    MODEL_KEYS,
    OUTPUT_KEYS,
    TOOL_KEYS,
    first_text,
    kind_of,
    time_us,
    usage_of,
)
from stepstream.schemas.step import StepEvent

_DURATION: Final = re.compile(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")


def runs() -> Iterator[list[StepEvent]]:
    """Every run, by file name. Raises ``MissingData``."""
    for path in case_files(data_folder("trail_gaia") / "traces"):
        trace = read_json(path)
        yield [_step(span) for root in trace["spans"] for span in _walk(root)]


def annotated_errors() -> dict[str, list[dict[str, Any]]]:
    """What people found wrong with each run, by trace id; runs that were not annotated are not in
    it."""
    found = case_files(data_folder("trail_gaia") / "annotations")
    return {path.name.partition(".")[0]: read_json(path)["errors"] for path in found}


def _walk(span: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield span
    for child in span["child_spans"]:
        yield from _walk(child)


def _step(span: dict[str, Any]) -> StepEvent:
    attributes = span["span_attributes"]
    parent = span["parent_span_id"] or ""
    kind = kind_of(attributes, "agent" if parent in ("", "None") else "other")
    start = time_us(span["timestamp"])
    error = _error(span) if span["status_code"] == "Error" else ("", "")
    given, taken = (
        content(first_text(attributes, INPUT_KEYS)),
        content(first_text(attributes, OUTPUT_KEYS)),
    )
    return StepEvent(
        trace_id=span["trace_id"],
        step_id=span["span_id"],
        parent_step_id="" if parent == "None" else parent,
        kind=kind,
        name=span["span_name"],
        tool=first_text(attributes, TOOL_KEYS),
        model=first_text(attributes, MODEL_KEYS),
        project="gaia",
        agent=span["service_name"],
        task="question",
        start_time=start,
        end_time=start + duration_us(span["duration"]),
        status="error" if span["status_code"] == "Error" else "ok",
        error_type=error[0],
        error_message=error[1],
        usage=usage_of(attributes) if kind == "llm_call" else None,
        input=given[0],
        input_bytes=given[1],
        output=taken[0],
        output_bytes=taken[1],
    )


def _error(span: dict[str, Any]) -> tuple[str, str]:
    """Type and message of the exception that ended a span, and the span's own message where
    there was none."""
    for event in span["events"]:
        if event["Name"] == "exception":
            output = event["Attributes"]
            return output.get("exception.type", ""), output.get("exception.message", "")[:4_096]
    return "", span["status_message"][:4_096]


def duration_us(text: str) -> int:
    """Microseconds of an ISO 8601 duration such as ``PT1M48.75533S``."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a duration: {text!r}")
    hours, minutes, seconds = (Decimal(part or 0) for part in match.groups())
    return int((hours * 3_600 + minutes * 60 + seconds) * 1_000_000)
