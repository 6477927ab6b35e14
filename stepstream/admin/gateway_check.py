"""``stepstream gateway check``: one span to a gateway, and the variables by which each framework
sends there.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass

from stepstream.common.gateway_requests import post, refusal


@dataclass(frozen=True)
class Outcome:
    """What became of the span."""

    trace_id: str
    taken: bool
    sentence: str = ""


def send_span(url: str, key: str) -> Outcome:
    """Send one span by OTLP/JSON. Never raises: the outcome has the reason."""
    trace_id, now_ns = os.urandom(16).hex(), time.time_ns()
    span = {
        "traceId": trace_id,
        "spanId": os.urandom(8).hex(),
        "name": "gateway check",
        "kind": 1,
        "startTimeUnixNano": str(now_ns - 1_000_000),
        "endTimeUnixNano": str(now_ns),
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "invoke_agent"}},
            {"key": "gen_ai.agent.name", "value": {"stringValue": "gateway-check"}},
        ],
    }
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    try:
        content = json.loads(post(f"{url}/v1/traces", key, body) or b"{}")
    except urllib.error.HTTPError as error:
        hint = ""
        if error.code == 401:
            hint = "; give --key, or make one with `stepstream keys create PROJECT`"
        return Outcome(trace_id, False, f"{refusal(error)}{hint}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Outcome(trace_id, False, f"{reason}; is the gateway running there?")
    partial = content.get("partialSuccess", {}) if isinstance(content, dict) else {}
    return Outcome(trace_id, not partial, str(partial.get("errorMessage", "")))


def variables(url: str, key: str) -> Iterator[str]:
    """Lines that show how each framework is set up."""
    shown = key or "KEY"
    with_key = not url.startswith(("http://127.0.0.1", "http://localhost", "http://[::1]")) or key
    header = f"OTEL_EXPORTER_OTLP_HEADERS=x-api-key={shown}"
    yield "# every OpenTelemetry SDK and collector (Python, Node, Java, Go, .NET ...)"
    yield f"export OTEL_EXPORTER_OTLP_ENDPOINT={url}"
    yield "export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    if with_key:
        yield f"export {header}"
    yield ""
    yield "# Pydantic AI: Agent.instrument_all(), with the variables above"
    yield "# OpenInference, OpenLLMetry: their instrumentors, with the variables above"
    yield f"#   Traceloop.init() reads: export TRACELOOP_BASE_URL={url}"
    if with_key:
        yield f"#   and: export TRACELOOP_HEADERS=x-api-key={shown}"
    yield "# LangGraph, LangChain: the variables above, and"
    yield "export LANGSMITH_OTEL_ENABLED=true LANGSMITH_OTEL_ONLY=true LANGSMITH_TRACING=true"
    yield "# OpenAI Agents SDK: openinference-instrumentation-openai-agents"
    yield "# smolagents: openinference-instrumentation-smolagents"
    yield "# Microsoft's Agent Framework: enable_instrumentation(), with the variables above"
    yield "# Vercel AI SDK: experimental_telemetry: { isEnabled: true }, with @vercel/otel"
    yield "# Claude Code: the variables above, and"
    yield "export CLAUDE_CODE_ENABLE_TELEMETRY=1 CLAUDE_CODE_ENHANCED_TELEMETRY_BETA=1"
    yield "export OTEL_TRACES_EXPORTER=otlp OTEL_LOGS_EXPORTER=otlp"
    yield "# Langfuse's SDK sends here too:"
    yield f"export LANGFUSE_HOST={url} LANGFUSE_BASE_URL={url}"
    yield f"export LANGFUSE_PUBLIC_KEY=any LANGFUSE_SECRET_KEY={shown}"
    yield ""
    yield "# without OpenTelemetry: steps as JSON (schemas/README.md)"
    more = f" -H 'x-api-key: {shown}'" if with_key else ""
    yield f"#   curl {url}/v1/steps -H 'Content-Type: application/json'{more} -d @steps.json"
