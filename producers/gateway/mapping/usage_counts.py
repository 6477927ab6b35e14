"""Tokens and cost of a model call, from the counts of every convention.

Input includes cached and written tokens, output includes reasoning, as OpenTelemetry has it.
Anthropic's and Bedrock's raw counts leave the cache out of the input: taking one for the other
halves or doubles the price.
"""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from stepstream.producers.gateway.mapping.names import Field as F
from stepstream.producers.gateway.mapping.texts import parsed
from stepstream.schemas.money import MAX_COST_USD
from stepstream.schemas.step import decimal_text
from stepstream.schemas.usage import MAX_USAGE_COUNT, TokenUsage, TokenUsageStruct

RAW_INPUT: Final = ("strands", "com.anthropic.claude_code")
"""Scopes (by how they begin) whose input leaves out what was read from or written to the cache:
Strands on Bedrock, Claude Code.
"""
USAGE_IN_OUTPUT: Final = frozenset(
    ["genkit:output", "haystack.component.output", "response_data", "mlflow.spanOutputs"]
)
"""Attributes whose JSON holds the model's usage, where no other attribute does."""
THOUGHTS_APART: Final = ("gcp.vertex.agent",)
"""Scopes whose output leaves out reasoning: Google ADK."""

# Buckets of Langfuse's usage_details and LangChain's usage_metadata, as far as they mean one of
# our counts.
_CACHED: Final = frozenset(
    [
        "input_cached_tokens",
        "input_cache_read",
        "cache_read_input_tokens",
        "cached_tokens",
        "input_cached_content",
        "cache_read",
        "input_cached",
    ]
)
_WRITTEN: Final = frozenset(
    [
        "cache_creation_input_tokens",
        "input_cache_creation",
        "cache_creation",
        "input_cache_write",
        "cache_write_input_tokens",
        "input_cache_creation_5m",
        "input_cache_creation_1h",
    ]
)
_REASONING: Final = frozenset(
    [
        "output_reasoning_tokens",
        "output_reasoning",
        "reasoning_tokens",
        "reasoning",
        "output_thoughts",
    ]
)
_INPUT: Final = frozenset(["input", "prompt_tokens", "input_tokens", "promptTokens", "inputTokens"])
_OUTPUT: Final = frozenset(
    ["output", "completion_tokens", "output_tokens", "completionTokens", "outputTokens"]
)


def count_of(value: Any) -> int | None:
    """A count as a whole number; None for what is none. ``"12"`` and ``12.0`` are twelve."""
    if value.__class__ is int:
        return int(value) if 0 <= value <= MAX_USAGE_COUNT else None
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number) or number != int(number) or not 0 <= number <= MAX_USAGE_COUNT:
        return None
    return int(number)


def usage_of(values: list[Any], scope: str) -> TokenUsage | None:
    """The usage in a span's fields; None where neither input nor output tokens are given."""
    given = count_of(values[F.INPUT_TOKENS])
    produced = count_of(values[F.OUTPUT_TOKENS])
    cached = count_of(values[F.CACHED_TOKENS]) or 0
    written = count_of(values[F.CACHE_WRITE_TOKENS]) or 0
    reasoning = count_of(values[F.REASONING_TOKENS]) or 0
    if (details := values[F.TOKEN_DETAILS]) is not None:
        counts = parsed(details)
        if isinstance(counts, dict):
            given, produced, cached, written, reasoning = _with_details(
                counts, given, produced, (cached, written, reasoning)
            )
    if given is None and produced is None:
        return None
    tokens, output = given or 0, produced or 0
    # Anthropic counts cached tokens separately, OpenTelemetry includes them in the input. A sum
    # above the input shows that the instrumentation passed on the counts of Anthropic.
    if cached + written > tokens or (cached + written and scope.startswith(RAW_INPUT)):
        tokens += cached + written
    # The same for reasoning, which Google ADK leaves out of the output.
    if reasoning > output or (reasoning and scope in THOUGHTS_APART):
        output += reasoning
    return TokenUsageStruct(
        input_tokens=tokens,
        output_tokens=output,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        input_audio_tokens=min(tokens, count_of(values[F.AUDIO_INPUT_TOKENS]) or 0),
        output_audio_tokens=min(output, count_of(values[F.AUDIO_OUTPUT_TOKENS]) or 0),
    )


Parts = tuple[int, int, int]


def _with_details(
    counts: dict[str, Any], given: int | None, produced: int | None, parts: Parts
) -> tuple[int | None, int | None, int, int, int]:
    """The counts with those of a map on top, which holds buckets that may or may not overlap.

    Langfuse's buckets do not overlap (``input`` leaves out ``input_cached_tokens``), unless an
    integration filled them in so that they do. The total decides which of the two it is.
    """
    nested = {
        name: count
        for inner in ("input_token_details", "output_token_details")
        if isinstance(details := counts.get(inner), dict)
        for name, value in details.items()
        if (count := count_of(value))
    }
    found = {name: count for name, value in counts.items() if (count := count_of(value))} | nested
    cached = sum(found.get(name, 0) for name in _CACHED) or parts[0]
    written = sum(found.get(name, 0) for name in _WRITTEN) or parts[1]
    reasoning = sum(found.get(name, 0) for name in _REASONING) or parts[2]
    plain_input = next((found[name] for name in sorted(_INPUT) if name in found), None)
    plain_output = next((found[name] for name in sorted(_OUTPUT) if name in found), None)
    total = found.get("total") or found.get("total_tokens")
    apart = cached + written + reasoning
    # LangChain nests the parts in the sums; a flat map lists buckets next to each other.
    exclusive = not nested and (
        total is None or total == (plain_input or 0) + (plain_output or 0) + apart
    )
    if apart and exclusive:
        plain_input = (plain_input or 0) + cached + written
        plain_output = (plain_output or 0) + reasoning
    return (
        given if given is not None else plain_input,
        produced if produced is not None else plain_output,
        cached,
        written,
        reasoning,
    )


_GENKIT: Final = {"googleai": "google", "vertexai": "google", "googlegenai": "google"}


def take_from_output(values: list[Any]) -> None:
    """Fill usage, model and provider from a model's answer, where no attribute has them."""
    output = parsed(values[F.OUTPUT])
    if values[F.MODEL] is None and values[F.REQUEST_MODEL] is None:
        provider, slash, model = str(values[F.CHAT_NAME] or "").partition("/")
        if slash:  # Genkit: googleai/gemini-2.5-flash
            values[F.REQUEST_MODEL] = model
            values[F.PROVIDER] = values[F.PROVIDER] or _GENKIT.get(provider, provider)
    if not isinstance(output, dict):
        return
    replies = output.get("replies")
    reply = replies[0] if isinstance(replies, list) and replies else None
    about = (reply.get("meta") or reply.get("_meta")) if isinstance(reply, dict) else None
    if about is None and isinstance(listed := output.get("meta"), list) and listed:
        about = listed[0]  # Haystack's text generators: texts, and their meta next to them
    for source in (output, output.get("message"), about):
        if not isinstance(source, dict):
            continue
        if values[F.INPUT_TOKENS] is None and values[F.TOKEN_DETAILS] is None:
            values[F.TOKEN_DETAILS] = source.get("usage")
        if values[F.MODEL] is None:
            values[F.MODEL] = source.get("model")


_COST, _COST_DETAILS, _TOKEN_DETAILS = int(F.COST), int(F.COST_DETAILS), int(F.TOKEN_DETAILS)
_IN_MAPS: Final = (_COST_DETAILS, _TOKEN_DETAILS)


def _total_cost(details: dict[str, Any], field: int) -> Any:
    """The sum in a map of costs, or in a map of tokens that has one."""
    found = details.get("total_cost", details.get("total") if field == _COST_DETAILS else None)
    if found is not None or field != _COST_DETAILS:
        return found
    parts = [value for value in details.values() if isinstance(value, int | float)]
    return sum(parts) if parts else None


def cost_of(values: list[Any]) -> str | None:
    """The cost in dollars as a decimal text; None where the span has none or an impossible one."""
    value = values[_COST]
    for field in _IN_MAPS:
        if value is None and values[field] is not None:
            details = parsed(values[field])
            value = _total_cost(details, field) if isinstance(details, dict) else None
    # bool is an int in Python: True would be a cost of 1 dollar.
    if value is None or isinstance(value, bool | list | dict):
        return None
    try:
        cost = Decimal(str(value))
    except InvalidOperation:
        return None
    if not cost.is_finite() or not 0 <= cost <= MAX_COST_USD:
        return None
    return decimal_text(cost)
