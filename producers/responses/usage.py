"""Token usage and charges of model answers, converted from each provider's fields.

Providers count differently: OpenAI includes cached tokens in the input, Anthropic does not. Here
input includes cached and cache-written tokens, output includes reasoning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from stepstream.producers.responses.fields import first_of, get, is_a, items_of, text_of, word_of
from stepstream.producers.values.inspection import field_of
from stepstream.schemas.money import NANOS_PER_USD, nanos_from_usd
from stepstream.schemas.normalise import counted
from stepstream.schemas.usage import MAX_USAGE_COUNT, TokenUsage, TokenUsageStruct

# LangChain prefixes some counts with the service tier.
_TIERS_IN_NAMES: Final = ("", "priority_", "flex_")
# xAI reports its charge in ten-billionths of a dollar.
_TICKS_PER_USD: Final = 10_000_000_000
_UPSTREAM_PARTS: Final = (
    ("upstream_inference_prompt_cost", "upstream_inference_input_cost"),
    ("upstream_inference_completions_cost", "upstream_inference_output_cost"),
)
"""What OpenRouter's answers call the parts of what was paid upstream: its chat, its responses."""


class Counts:
    """Reads the counts of one answer. ``incomplete`` is set by a count that is impossible."""

    def __init__(self) -> None:
        self.incomplete = False

    def of(self, source: Any, *names: str) -> int:
        """The first of the named counts that is present; 0 if there is none."""
        if source is None:
            return 0
        for name in names:
            value = field_of(source, name)
            if type(value) is int and 0 <= value <= MAX_USAGE_COUNT:
                return value
            if value is not None and is_a(value, int | float):
                made = counted(value)
                self.incomplete = self.incomplete or made.lost
                return made.number
        return 0

    def made(self, **counts: int) -> TokenUsage | None:
        """The usage; None if there was no count at all."""
        given = {name: min(count, MAX_USAGE_COUNT) for name, count in counts.items() if count}
        if not given and not self.incomplete:
            return None
        return TokenUsageStruct(**given, incomplete=self.incomplete)


def usage_of(source: Any) -> TokenUsage | None:
    """Usage as OpenAI, and those who copy it, count it: everything included.

    Also Mistral, Groq, DeepSeek, xAI, Perplexity, OpenRouter, LiteLLM and LangChain.
    """
    if source is None:
        return None
    counts = Counts()
    into = get(source, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    out = get(source, "completion_tokens_details", "output_tokens_details", "output_token_details")
    given, output = (
        counts.of(source, "prompt_tokens", "input_tokens"),
        counts.of(source, "completion_tokens", "output_tokens"),
    )
    cached = counts.of(into, "cached_tokens", *_tiered("cache_read"))
    cached = cached or counts.of(
        source, "prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens"
    )
    by_age = first_of(
        get(into, "cache_creation_token_details"), get(source, "cache_creation"), into
    )
    for_an_hour = counts.of(by_age, "ephemeral_1h_input_tokens")
    written = counts.of(
        into, "cache_write_tokens", "cache_creation_tokens", *_tiered("cache_creation")
    )
    written = written or counts.of(source, "cache_creation_input_tokens")
    written = written or for_an_hour + counts.of(by_age, "ephemeral_5m_input_tokens")
    reasoning = counts.of(
        out, "reasoning_tokens", "thinking_tokens", *_tiered("reasoning")
    ) or counts.of(source, "reasoning_tokens")
    cached_parts = first_of(
        get(into, "cached_tokens_details"), get(source, "cached_tokens_details")
    )
    if given and cached + written > given:  # a proxy passed Anthropic's own counts on
        given += cached + written
    # xAI counts reasoning separately from the output: the total shows it.
    if reasoning and counts.of(source, "total_tokens") == given + output + reasoning:
        output += reasoning
    return counts.made(
        input_tokens=given or cached + written,
        output_tokens=output,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
        cache_write_1h_tokens=for_an_hour,
        input_audio_tokens=counts.of(into, "audio_tokens", "audio"),
        input_image_tokens=counts.of(into, "image_tokens", "image"),
        input_video_tokens=counts.of(into, "video_tokens", "video"),
        cached_audio_tokens=counts.of(cached_parts, "audio_tokens", "cached_audio_tokens"),
        cached_image_tokens=counts.of(cached_parts, "image_tokens", "cached_image_tokens"),
        output_audio_tokens=counts.of(out, "audio_tokens", "audio"),
        output_image_tokens=counts.of(out, "image_tokens", "image"),
        output_video_tokens=counts.of(out, "video_tokens", "video"),
        citation_tokens=counts.of(source, "citation_tokens"),
        audio_ms=_milliseconds(counts, source),
        document_pages=counts.of(source, "pages_processed"),
        web_searches=_web_searches(counts, source, into),
    )


def _tiered(name: str) -> tuple[str, ...]:
    return tuple(tier + name for tier in _TIERS_IN_NAMES)


def _milliseconds(counts: Counts, source: Any) -> int:
    seconds = (
        get(source, "seconds")
        if text_of(source, "type") == "duration"
        else get(source, "prompt_audio_seconds")
    )
    if not is_a(seconds, int | float) or is_a(seconds, bool):
        return 0
    made = counted(seconds * 1_000 if _is_finite(seconds) else seconds)
    counts.incomplete = counts.incomplete or made.lost
    return made.number


def _web_searches(counts: Counts, source: Any, into: Any) -> int:
    tools = get(source, "server_tool_use", "server_tool_use_details")
    return (
        counts.of(tools, "web_search_requests")
        or counts.of(into, "web_search_requests")
        or counts.of(get(source, "connectors"), "web_search", "web_search_premium")
        or counts.of(source, "num_search_queries")
    )


def image_usage(source: Any) -> TokenUsage | None:
    """Usage of an image endpoint: output tokens of unknown kind are image tokens."""
    usage = usage_of(source)
    if usage is None or usage.output_image_tokens:
        return usage
    texts = Counts().of(get(source, "output_tokens_details"), "text_tokens")
    return changed(usage, output_image_tokens=max(0, usage.output_tokens - texts))


def anthropic_usage(source: Any, model: str = "") -> TokenUsage | None:
    """Usage of an Anthropic message, whose input excludes cached tokens.

    ``iterations`` list what is not in the totals: compactions, which are added, and calls of other
    models, which make the usage incomplete because their price is another one.
    """
    counts = Counts()
    used = _anthropic_counts(counts, source)
    for iteration in items_of(source, "iterations"):
        kind, of_model = text_of(iteration, "type"), text_of(iteration, "model")
        # The counts of both models are in one sum, and each has a price of its own.
        if of_model and model and of_model != model:
            counts.incomplete = True
        elif kind == "compaction":
            more = _anthropic_counts(counts, iteration)
            used = {name: count + more[name] for name, count in used.items()}
    return counts.made(
        **used, web_searches=counts.of(get(source, "server_tool_use"), "web_search_requests")
    )


def _anthropic_counts(counts: Counts, source: Any) -> dict[str, int]:
    cached = counts.of(source, "cache_read_input_tokens")
    by_age = get(source, "cache_creation")
    for_an_hour = counts.of(by_age, "ephemeral_1h_input_tokens")
    written = counts.of(source, "cache_creation_input_tokens") or (
        for_an_hour + counts.of(by_age, "ephemeral_5m_input_tokens")
    )
    return {
        "input_tokens": counts.of(source, "input_tokens") + cached + written,
        "output_tokens": counts.of(source, "output_tokens"),
        "cached_input_tokens": cached,
        "cache_write_tokens": written,
        "reasoning_tokens": counts.of(get(source, "output_tokens_details"), "thinking_tokens"),
        "cache_write_1h_tokens": for_an_hour,
    }


def anthropic_tier(source: Any) -> str:
    """The tier, speed or region that an Anthropic message was charged by; empty for the standard
    price.
    """
    tier, speed = text_of(source, "service_tier"), text_of(source, "speed")
    if speed and speed != "standard":
        return speed
    if text_of(source, "inference_geo") == "us":
        return "geo_us"
    return tier


def bedrock_usage(source: Any) -> TokenUsage | None:
    """Usage of Bedrock's converse operations, and of the metrics that end its other streams."""
    counts = Counts()
    cached = counts.of(source, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = counts.of(source, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    ages = [detail for detail in items_of(source, "cacheDetails") if text_of(detail, "ttl") == "1h"]
    return counts.made(
        input_tokens=counts.of(source, "inputTokens", "inputTokenCount") + cached + written,
        output_tokens=counts.of(source, "outputTokens", "outputTokenCount"),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=sum(counts.of(detail, "inputTokens") for detail in ages),
    )


def google_usage(source: Any, searches: int = 0) -> TokenUsage | None:
    """Usage of a Gemini answer.

    Thoughts and prompts of its tools are counted separately there and added here.
    """
    counts = Counts()
    thoughts = counts.of(
        source, "thoughts_token_count", "thoughtsTokenCount", "total_thought_tokens"
    )
    prompt = counts.of(source, "prompt_token_count", "promptTokenCount", "total_input_tokens")
    tools = counts.of(
        source, "tool_use_prompt_token_count", "toolUsePromptTokenCount", "total_tool_use_tokens"
    )
    output = counts.of(
        source,
        "candidates_token_count",
        "candidatesTokenCount",
        "response_token_count",
        "responseTokenCount",
        "total_output_tokens",
    )
    into = _by_modality(
        counts,
        source,
        "prompt_tokens_details",
        "promptTokensDetails",
        "input_tokens_by_modality",
    ) + _by_modality(
        counts,
        source,
        "tool_use_prompt_tokens_details",
        "toolUsePromptTokensDetails",
        "tool_use_tokens_by_modality",
    )
    cached = _by_modality(
        counts, source, "cache_tokens_details", "cacheTokensDetails", "cached_tokens_by_modality"
    )
    out = _by_modality(
        counts,
        source,
        "candidates_tokens_details",
        "candidatesTokensDetails",
        "response_tokens_details",
        "responseTokensDetails",
        "output_tokens_by_modality",
    )
    return counts.made(
        input_tokens=prompt + tools,
        output_tokens=output + thoughts,
        cached_input_tokens=counts.of(
            source, "cached_content_token_count", "cachedContentTokenCount", "total_cached_tokens"
        ),
        reasoning_tokens=thoughts,
        input_audio_tokens=_sum_of(into, "audio"),
        input_image_tokens=_sum_of(into, "image"),
        input_video_tokens=_sum_of(into, "video"),
        cached_audio_tokens=_sum_of(cached, "audio"),
        cached_image_tokens=_sum_of(cached, "image"),
        output_audio_tokens=_sum_of(out, "audio"),
        output_image_tokens=_sum_of(out, "image"),
        output_video_tokens=_sum_of(out, "video"),
        web_searches=searches,
    )


def _by_modality(counts: Counts, source: Any, *names: str) -> list[tuple[str, int]]:
    found = items_of(source, *names)
    return [
        (word_of(item, "modality").lower(), counts.of(item, "token_count", "tokenCount", "tokens"))
        for item in found
    ]


def _sum_of(parts: Iterable[tuple[str, int]], modality: str) -> int:
    return sum(count for name, count in parts if name == modality)


def google_tier(source: Any) -> str:
    """The traffic type that a Gemini answer was charged as."""
    return word_of(source, "service_tier", "serviceTier") or word_of(
        source, "traffic_type", "trafficType"
    )


def cohere_usage(source: Any) -> TokenUsage | None:
    """Usage of a Cohere answer: billed units if present, else tokens."""
    counts = Counts()
    billed, tokens = get(source, "billed_units"), get(source, "tokens")
    tokens = (
        billed
        if counts.of(billed, "input_tokens") or counts.of(billed, "output_tokens")
        else tokens
    )
    images = counts.of(billed, "image_tokens")
    return counts.made(
        input_tokens=counts.of(tokens, "input_tokens") + images,
        output_tokens=counts.of(tokens, "output_tokens"),
        cached_input_tokens=counts.of(source, "cached_tokens"),
        input_image_tokens=images,
        rerank_searches=counts.of(billed, "search_units"),
        document_pages=counts.of(billed, "pages"),
    )


def changed(usage: TokenUsage, **counts: Any) -> TokenUsage:
    """A copy of the usage with other counts."""
    names = TokenUsage.model_fields
    return TokenUsageStruct(**{name: getattr(usage, name) for name in names} | counts)


def later(before: TokenUsage | None, after: TokenUsage | None) -> TokenUsage | None:
    """Usage of an answer from its running totals: the highest value of each count."""
    if before is None or after is None:
        return before or after
    return TokenUsageStruct(
        **{
            name: max(getattr(before, name), getattr(after, name))
            for name in TokenUsage.model_fields
        }
    )


def charge_of(usage: Any, model: str = "") -> float | None:
    """The charge that the provider reported, in dollars; None if it did not.

    With the user's own provider key, OpenRouter reports what was paid to the provider separately,
    and it is added; without that part the rest is not the whole charge. 0 is a charge only of a
    model that is free by its name; otherwise it means an unknown amount.
    """
    charged = _amount(get(usage, "cost"))
    if charged is None and (ticks := _amount(get(usage, "cost_in_usd_ticks"))) is not None:
        charged = ticks / _TICKS_PER_USD
    if charged is None:
        return None
    if get(usage, "is_byok") is True:
        upstream = _upstream(get(usage, "cost_details"))
        charged = charged + upstream if upstream else 0.0
    return charged if charged or model.endswith(":free") else None


def _upstream(details: Any) -> float:
    """The amount that OpenRouter paid to the provider; 0 if it is not reported."""
    whole = _amount(get(details, "upstream_inference_cost"))
    return whole or sum(_amount(get(details, *names)) or 0.0 for names in _UPSTREAM_PARTS)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        return False


def _amount(value: Any) -> float | None:
    """A possible amount, from a number or digits, or the total of an object."""
    if not is_a(value, int | float | str):
        value = get(value, "total_cost")
    if is_a(value, str):
        value = _in_digits(str.__str__(value))
    if is_a(value, bool) or not is_a(value, int | float):
        return None
    return float(value) if _is_finite(value) and value >= 0 else None


def _in_digits(text: str) -> float | None:
    try:
        return nanos_from_usd(text) / NANOS_PER_USD
    except ValueError:
        return None
