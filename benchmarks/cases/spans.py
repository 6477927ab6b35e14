"""OpenTelemetry attributes as step fields: the GenAI conventions, OpenInference, and what
frameworks add."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from stepstream.schemas.usage import TokenUsage

Attributes = Mapping[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

KIND_KEYS: Final = (
    "gen_ai.operation.name",
    "openinference.span.kind",
    "traceloop.span.kind",
    "langsmith.span.kind",
)
KINDS: Final = {
    "chat": "llm_call",
    "generate_content": "llm_call",
    "text_completion": "llm_call",
    "llm": "llm_call",
    "generation": "llm_call",
    "execute_tool": "tool_call",
    "tool": "tool_call",
    "retrieval": "retrieval",
    "retriever": "retrieval",
    "invoke_agent": "agent",
    "invoke_workflow": "agent",
    "agent": "agent",
    "plan": "plan",
    "guardrail": "guardrail",
    "evaluator": "evaluation",
}
USAGE_KEYS: Final = {
    "input_tokens": ("gen_ai.usage.input_tokens", "llm.token_count.prompt", "input"),
    "output_tokens": ("gen_ai.usage.output_tokens", "llm.token_count.completion", "output"),
    "cached_input_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "input_cache_read",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
}
AGENT_KEYS: Final = ("gen_ai.agent.name", "agent.name", "agent_name", "service.name")
MODEL_KEYS: Final = ("gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "model")
PROVIDER_KEYS: Final = ("gen_ai.provider.name", "llm.provider", "gen_ai.system", "llm.system")
TOOL_KEYS: Final = ("gen_ai.tool.name", "tool.name")
COST_KEYS: Final = ("operation.cost", "llm.cost.total")
SESSION_KEYS: Final = ("gen_ai.conversation.id", "session.id")
INPUT_KEYS: Final = (
    "gen_ai.input.messages",
    "gen_ai.tool.call.arguments",
    "input.value",
    "tool.parameters",
)
OUTPUT_KEYS: Final = ("gen_ai.output.messages", "gen_ai.tool.call.result", "output.value")


def first_text(attributes: Attributes, keys: tuple[str, ...]) -> str:
    """The value of the first key that has one, as text."""
    for key in keys:
        value = attributes.get(key)
        if value not in (None, "", "unknown_service"):
            return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return ""


def kind_of(attributes: Attributes, otherwise: str = "other") -> str:
    """The kind that the attributes name."""
    return KINDS.get(first_text(attributes, KIND_KEYS).lower(), otherwise)


def usage_of(attributes: Attributes) -> TokenUsage | None:
    """The tokens that the attributes name; None where they name none."""
    found = {field: first_text(attributes, keys) for field, keys in USAGE_KEYS.items()}
    counts = {field: int(text) for field, text in found.items() if text}
    return TokenUsage.model_validate(counts) if any(counts.values()) else None


def time_us(text: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time; UTC where it names no zone."""
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(
        microseconds=1
    )
