"""Answers as providers' APIs give them, by client: what is in them, what was counted, and what it
costs by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from stepstream.producers.responses.answer import Answer
from stepstream.schemas.ids import new_step_id, new_trace_id
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import Step
from stepstream.schemas.usage import TokenUsage


class Case(NamedTuple):
    """An answer: its JSON, or its pieces; text and calls in it; counts, dollars; the names that the
    program gave."""

    given: Any
    counts: dict[str, int]
    usd: str | None
    text: str = "hi"
    calls: tuple[tuple[str, Any], ...] = ()
    model: str = ""
    provider: str = ""
    tier: str = ""


def chat(
    model: str = "gpt-4o", message: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": "hi"} | (message or {}),
    }
    return {
        "id": "c",
        "created": 1,
        "object": "chat.completion",
        "model": model,
        "choices": [choice],
    } | more


def chunk(
    delta: dict[str, Any] | None = None, model: str = "gpt-4o", **more: Any
) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta}]
    return {
        "id": "c",
        "created": 1,
        "object": "chat.completion.chunk",
        "model": model,
        "choices": choices,
    } | more


def piece(
    name: str | None, arguments: str | None, index: int | None = None, identity: str | None = None
) -> dict[str, Any]:
    """A piece of a streamed call, as OpenAI writes it."""
    function = {
        key: text for key, text in (("name", name), ("arguments", arguments)) if text is not None
    }
    call = {
        "function": function,
        **({} if index is None else {"index": index}),
        **({} if identity is None else {"id": identity}),
    }
    return chunk({"tool_calls": [call]})


def response(output: list[Any] | None = None, model: str = "gpt-4o", **more: Any) -> dict[str, Any]:
    message = {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "hi", "annotations": []}],
    }
    return {
        "id": "r",
        "object": "response",
        "created_at": 1.0,
        "model": model,
        "status": "completed",
        "output": [*(output or []), message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    } | more


def message(
    model: str = "claude-sonnet-4-5", content: list[Any] | None = None, **usage: Any
) -> dict[str, Any]:
    return {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": model,
        "stop_reason": "end_turn",
        "content": [*(content or []), {"type": "text", "text": "hi"}],
        "usage": usage,
    }


def gemini(
    model: str = "gemini-2.5-flash", parts: list[Any] | None = None, usage: Any = None, **more: Any
) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": "hi"}] if parts is None else parts}
    return {
        "candidates": [{"content": content, **more}],
        "usage_metadata": usage,
        "model_version": model,
    }


def modality(name: str, count: int) -> dict[str, Any]:
    return {"modality": name, "token_count": count}


def converse(**usage: Any) -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
        "stopReason": "end_turn",
        "usage": usage,
        "metrics": {"latencyMs": 5},
    }


NOVA: Final = "us.amazon.nova-lite-v1:0"
SONNET: Final = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
HUNDRED: Final = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
BOTH: Final = {"input_tokens": 100, "output_tokens": 50}

OPENAI: Final[dict[str, Case]] = {
    "chat, audio": Case(
        chat(
            message={
                "content": None,
                "audio": {"id": "a", "transcript": "hi", "data": "UklG", "expires_at": 1},
            },
            usage=HUNDRED
            | {
                "prompt_tokens_details": {"audio_tokens": 80},
                "completion_tokens_details": {"audio_tokens": 40},
            },
        ),
        BOTH | {"input_audio_tokens": 80, "output_audio_tokens": 40},
        "0.00075",  # 100 at 2.5, 50 at 10 dollars a million: gpt-4o has no prices for audio
    ),
    "chat, cache written": Case(
        chat(
            model="gpt-5.6-sol",
            usage=HUNDRED
            | {"prompt_tokens_details": {"cache_write_tokens": 80, "cached_tokens": 10}},
        ),
        BOTH | {"cache_write_tokens": 80, "cached_input_tokens": 10},
        "0.001444",  # 10 at 4, 80 at 5, 10 at 0.4, 50 at 20 dollars a million
    ),
    # Half of the price of the default tier below.
    "chat, flex": Case(
        chat(model="o3", usage=HUNDRED, service_tier="flex"), BOTH, "0.0003", tier="flex"
    ),
    "chat, default tier": Case(
        chat(model="o3", usage=HUNDRED, service_tier="default"), BOTH, "0.0006", tier="default"
    ),
    # A tier whose price the provider does not publish: the cost is unknown, not 0.
    "chat, scale tier": Case(
        chat(model="o3", usage=HUNDRED, service_tier="scale"), BOTH, None, tier="scale"
    ),
    "chat, legacy function": Case(
        chat(
            message={"content": None, "function_call": {"name": "find", "arguments": '{"a": 1}'}},
            usage=HUNDRED,
        ),
        BOTH,
        "0.00075",
        "",
        (("find", {"a": 1}),),
    ),
    "chat without usage": Case(chat(), {}, None),
    "completion": Case(
        {
            "id": "c",
            "created": 1,
            "object": "text_completion",
            "model": "gpt-3.5-turbo-instruct",
            "choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}],
            "usage": HUNDRED,
        },
        BOTH,
        "0.00025",  # 100 at 1.5, 50 at 2 dollars a million
    ),
    "response, searches": Case(
        response(
            [
                {
                    "type": "web_search_call",
                    "id": "w",
                    "status": "completed",
                    "action": {"type": "search", "query": "q"},
                },
                {
                    "type": "web_search_call",
                    "id": "x",
                    "status": "completed",
                    "action": {"type": "open_page", "url": "u"},
                },
                {"type": "file_search_call", "id": "f", "status": "completed", "queries": ["q"]},
            ],
            usage={
                "input_tokens": 100,
                "output_tokens": 50,
                "total_tokens": 150,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        ),
        BOTH | {"web_searches": 1, "storage_searches": 1},
        "0.01325",  # as chat, a search of 10 and one of 2.5 dollars a thousand
        calls=(
            ("web_search", {"type": "search", "query": "q"}),
            ("web_search", {"type": "open_page", "url": "u"}),
            ("file_search", ["q"]),
        ),
    ),
    # Containers are billed by the session, which an answer does not contain.
    "response, code": Case(
        response(
            [
                {
                    "type": "code_interpreter_call",
                    "id": "i",
                    "status": "completed",
                    "code": "1",
                    "container_id": "c",
                }
            ],
            usage={"input_tokens": 100, "output_tokens": 50},
        ),
        BOTH | {"code_executions": 1},
        None,
        calls=(("code_interpreter", 1),),
    ),
    # The usage of the model that made the image is not in the answer.
    "response, an image by another model": Case(
        response(
            [{"type": "image_generation_call", "id": "i", "status": "completed", "result": "aGk="}],
            usage={"input_tokens": 100, "output_tokens": 50},
        ),
        BOTH | {"incomplete": True},
        None,
        calls=(("image_generation", None),),
    ),
    "response, tools given": Case(
        response(
            usage={"input_tokens": 100, "output_tokens": 50},
            service_tier="priority",
            tool_usage={
                "web_search": {"num_requests": 2},
                "image_gen": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
            },
        ),
        BOTH | {"web_searches": 2},
        "0.021275",  # 4.25 and 17 dollars a million by priority, two searches
        tier="priority",
    ),
    "embeddings": Case(
        {
            "object": "list",
            "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.1]}],
            "usage": {"prompt_tokens": 1_000, "total_tokens": 1_000},
        },
        {"input_tokens": 1_000},
        "0.00002",  # 1,000 at 0.02 dollars a million
        "1 embedding",
        provider="openai",
    ),
    "images": Case(
        {
            "created": 1,
            "data": [{"b64_json": "aGk="}, {"b64_json": "aGk="}],
            "usage": {
                "input_tokens": 60,
                "output_tokens": 1_000,
                "total_tokens": 1_060,
                "input_tokens_details": {"image_tokens": 40, "text_tokens": 20},
            },
        },
        {
            "input_tokens": 60,
            "output_tokens": 1_000,
            "input_image_tokens": 40,
            "output_image_tokens": 1_000,
        },
        "0.03242",  # 20 at 5, 40 at 8, 1,000 at 32 dollars a million
        "2 images",
        model="gpt-image-1.5",
        provider="openai",
    ),
    "images and texts": Case(
        {
            "created": 1,
            "data": [{"b64_json": "aGk="}],
            "usage": {
                "input_tokens": 20,
                "output_tokens": 1_000,
                "total_tokens": 1_020,
                "input_tokens_details": {"image_tokens": 0, "text_tokens": 20},
                "output_tokens_details": {"image_tokens": 900, "text_tokens": 100},
            },
        },
        {"input_tokens": 20, "output_tokens": 1_000, "output_image_tokens": 900},
        "0.0299",  # 20 at 5, 900 at 32, 100 at 10 dollars a million
        "1 image",
        model="gpt-image-1.5",
        provider="openai",
    ),
    "transcription by duration": Case(
        {"text": "hi", "usage": {"type": "duration", "seconds": 90.0}},
        {"audio_ms": 90_000},
        "0.009",  # 1.5 minutes at 0.006
        model="whisper-1",
        provider="openai",
    ),
    "transcription by tokens": Case(
        {
            "text": "hi",
            "usage": {
                "type": "tokens",
                "input_tokens": 100,
                "output_tokens": 50,
                "total_tokens": 150,
                "input_token_details": {"audio_tokens": 90, "text_tokens": 10},
            },
        },
        BOTH | {"input_audio_tokens": 90},
        "0.0005325",  # 90 at 3, 10 at 1.25, 50 at 5 dollars a million
        model="gpt-4o-mini-transcribe",
        provider="openai",
    ),
    "realtime": Case(
        {
            "object": "realtime.response",
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "audio", "transcript": "hi"}]}],
            "usage": {
                "input_tokens": 100,
                "output_tokens": 50,
                "total_tokens": 150,
                "input_token_details": {
                    "text_tokens": 20,
                    "audio_tokens": 80,
                    "cached_tokens": 30,
                    "cached_tokens_details": {"text_tokens": 10, "audio_tokens": 20},
                },
                "output_token_details": {"text_tokens": 10, "audio_tokens": 40},
            },
        },
        BOTH
        | {
            "cached_input_tokens": 30,
            "input_audio_tokens": 80,
            "cached_audio_tokens": 20,
            "output_audio_tokens": 40,
        },
        "0.004692",  # 10 at 4, 10 at 0.4, 60 at 32, 20 at 0.4, 10 at 16, 40 at 64 dollars a million
        model="gpt-realtime",
        provider="openai",
    ),
}

OTHERS_LIKE_OPENAI: Final[dict[str, Case]] = {
    "OpenRouter": Case(
        chat("anthropic/claude-sonnet-4.5", usage=HUNDRED | {"cost": 0.00105}), BOTH, "0.00105"
    ),
    "OpenRouter, own key": Case(
        chat(
            "x/y",
            usage=HUNDRED
            | {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.0360795}},
        ),
        BOTH,
        "0.0360795",  # the provider's bill; OpenRouter takes no fee
    ),
    "OpenRouter, own key and a fee": Case(
        chat(
            "x/y",
            usage=HUNDRED
            | {"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}},
        ),
        BOTH,
        "0.021",  # 0.02 of the provider and 0.001 of OpenRouter
    ),
    "OpenRouter, not one's own key": Case(
        chat(
            "x/y",
            usage=HUNDRED
            | {"cost": 0.02, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.02}},
        ),
        BOTH,
        "0.02",  # the provider's bill is part of OpenRouter's
    ),
    "0 is no bill": Case(
        chat("anthropic/claude-sonnet-4.5", usage=HUNDRED | {"cost": 0}),
        BOTH,
        "0.00105",  # by the price list: 100 at 3, 50 at 15 dollars a million
        provider="openrouter",
    ),
    "0 for a free model": Case(
        chat("deepseek/deepseek-r1:free", usage=HUNDRED | {"cost": 0}), BOTH, "0"
    ),
    # No charge is negative: the price list counts.
    "a charge that is none": Case(chat(usage=HUNDRED | {"cost": -1}), BOTH, "0.00075"),
    # A dollar has 10,000,000,000 ticks.
    "xAI's ticks": Case(
        chat("grok-4", usage=HUNDRED | {"cost_in_usd_ticks": 12_000_000}), BOTH, "0.0012"
    ),
    "xAI, thoughts apart": Case(
        chat(
            "grok-4",
            usage={
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 150,
                "completion_tokens_details": {"reasoning_tokens": 30},
            },
        ),
        BOTH | {"reasoning_tokens": 30},
        "0.00105",  # 100 at 3, 20 and 30 at 15 dollars a million
    ),
    "Perplexity": Case(
        chat(
            "sonar-pro",
            usage=HUNDRED
            | {
                "cost": {"input_tokens_cost": 0.0003, "total_cost": 0.0075},
                "num_search_queries": 2,
            },
        ),
        BOTH | {"web_searches": 2},
        "0.0075",
    ),
    "DeepSeek": Case(
        chat(
            "deepseek-chat",
            usage=HUNDRED | {"prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40},
        ),
        BOTH | {"cached_input_tokens": 60},
        "0.00007",  # 40 at 0.27, 60 at 0.07, 50 at 1.1 dollars a million
        provider="deepseek",
    ),
    "Mistral": Case(chat("mistral-large-latest", usage=HUNDRED), BOTH, "0.0005"),
    "LiteLLM of Anthropic": Case(
        chat(
            "claude-sonnet-4-5",
            usage=HUNDRED
            | {
                "cache_creation_input_tokens": 40,
                "cache_read_input_tokens": 30,
                "server_tool_use": {"web_search_requests": 1},
                "prompt_tokens_details": {
                    "cached_tokens": 30,
                    "cache_creation_tokens": 40,
                    "cache_creation_token_details": {"ephemeral_1h_input_tokens": 40},
                },
            },
        ),
        BOTH
        | {
            "cached_input_tokens": 30,
            "cache_write_tokens": 40,
            "cache_write_1h_tokens": 40,
            "web_searches": 1,
        },
        "0.011089",  # 30 at 3, 30 at 0.3, 40 at 6, 50 at 15 dollars a million, one search
    ),
    "LiteLLM names the server": Case(
        chat(SONNET, usage=HUNDRED) | {"_hidden_params": {"custom_llm_provider": "bedrock"}},
        BOTH,
        "0.001155",
    ),
}

ANTHROPIC: Final[dict[str, Case]] = {
    "cache for an hour": Case(
        message(
            input_tokens=10,
            output_tokens=100,
            cache_creation_input_tokens=100_000,
            cache_creation={
                "ephemeral_1h_input_tokens": 80_000,
                "ephemeral_5m_input_tokens": 20_000,
            },
        ),
        {
            "input_tokens": 100_010,
            "output_tokens": 100,
            "cache_write_tokens": 100_000,
            "cache_write_1h_tokens": 80_000,
        },
        "0.55653",
    ),
    "server tools": Case(
        message(
            content=[
                {
                    "type": "server_tool_use",
                    "id": "s",
                    "name": "web_search",
                    "input": {"query": "q"},
                },
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
            ],
            input_tokens=100,
            output_tokens=50,
            server_tool_use={"web_search_requests": 2, "web_fetch_requests": 1},
        ),
        BOTH | {"web_searches": 2},
        "0.02105",
        calls=(("web_search", {"query": "q"}),),
    ),
    "thoughts": Case(
        message(input_tokens=100, output_tokens=50, output_tokens_details={"thinking_tokens": 30}),
        BOTH | {"reasoning_tokens": 30},
        "0.00105",
    ),
    "batch": Case(
        message(input_tokens=100, output_tokens=50, service_tier="batch"),
        BOTH,
        "0.000525",
        tier="batch",
    ),
    "priority": Case(
        message(input_tokens=100, output_tokens=50, service_tier="priority"),
        BOTH,
        None,
        tier="priority",
    ),
    "standard": Case(
        message(input_tokens=100, output_tokens=50, service_tier="standard"),
        BOTH,
        "0.00105",
        tier="standard",
    ),
    "one country": Case(
        message(input_tokens=100, output_tokens=50, inference_geo="us"), BOTH, None, tier="geo_us"
    ),
    "a compaction is not in the totals": Case(
        message(
            input_tokens=100,
            output_tokens=50,
            iterations=[
                {"type": "message", "input_tokens": 100, "output_tokens": 50},
                {
                    "type": "compaction",
                    "input_tokens": 1_000,
                    "output_tokens": 10,
                    "cache_read_input_tokens": 0,
                    "cache_creation_input_tokens": 0,
                },
            ],
        ),
        {"input_tokens": 1_100, "output_tokens": 60},
        "0.0042",
    ),
    "by Bedrock": Case(
        message("claude-sonnet-4-5-20250929", input_tokens=100, output_tokens=50)
        | {"id": "msg_bdrk_01"},
        BOTH,
        "0.001155",  # a regional endpoint costs a tenth more than Anthropic's API
    ),
    "by Vertex": Case(
        message("claude-sonnet-4-5-20250929", input_tokens=100, output_tokens=50)
        | {"id": "msg_vrtx_01"},
        BOTH,
        "0.00105",
    ),
    # The advisor is another model with other prices, and its part has no price here.
    "another model helped": Case(
        message(
            input_tokens=100,
            output_tokens=50,
            iterations=[
                {
                    "type": "advisor_message",
                    "model": "claude-opus-5",
                    "input_tokens": 9,
                    "output_tokens": 9,
                    "cache_read_input_tokens": 0,
                    "cache_creation_input_tokens": 0,
                },
            ],
        ),
        BOTH | {"incomplete": True},
        None,
    ),
}

GOOGLE: Final[dict[str, Case]] = {
    "audio": Case(
        gemini(
            usage={
                "prompt_token_count": 19_220,
                "candidates_token_count": 100,
                "prompt_tokens_details": [modality("AUDIO", 19_200), modality("TEXT", 20)],
            }
        ),
        {"input_tokens": 19_220, "output_tokens": 100, "input_audio_tokens": 19_200},
        "0.019456",  # 20 at 0.3, 19,200 at 1, 100 at 2.5 dollars a million
    ),
    "an image": Case(
        gemini(
            "gemini-2.5-flash-image",
            parts=[{"inline_data": {"mime_type": "image/png", "data": "aGk="}}],
            usage={
                "prompt_token_count": 20,
                "candidates_token_count": 1_290,
                "candidates_tokens_details": [modality("IMAGE", 1_290)],
            },
        ),
        {"input_tokens": 20, "output_tokens": 1_290, "output_image_tokens": 1_290},
        "0.038706",  # 20 at 0.3, 1,290 at 30 dollars a million
        "",
    ),
    "thoughts, tools and a cache": Case(
        gemini(
            usage={
                "prompt_token_count": 100,
                "tool_use_prompt_token_count": 20,
                "candidates_token_count": 30,
                "thoughts_token_count": 40,
                "cached_content_token_count": 60,
                "cache_tokens_details": [modality("AUDIO", 10)],
                "prompt_tokens_details": [modality("AUDIO", 30)],
            }
        ),
        {
            "input_tokens": 120,
            "output_tokens": 70,
            "cached_input_tokens": 60,
            "reasoning_tokens": 40,
            "input_audio_tokens": 30,
            "cached_audio_tokens": 10,
        },
        "0.0002095",  # 40 at 0.3, 20 at 1, 50 at 0.03, 10 at 0.1, 70 at 2.5 dollars a million
    ),
    "grounded": Case(
        gemini(
            usage={"prompt_token_count": 100, "candidates_token_count": 50},
            grounding_metadata={"web_search_queries": ["a", "b"]},
        ),
        BOTH | {"web_searches": 1},
        "0.035155",  # 100 at 0.3, 50 at 2.5 dollars a million, one grounded prompt at 0.035
    ),
    # From Gemini 3 on each search query is charged, before that each prompt with any.
    "grounded, charged by query": Case(
        gemini(
            "gemini-3.8-flash",
            usage={"prompt_token_count": 100, "candidates_token_count": 50},
            grounding_metadata={"web_search_queries": ["a", "b"]},
        ),
        BOTH | {"web_searches": 2},
        "0.0282625",
    ),
    # Capacity that was paid in advance has no price by tokens.
    "prepaid": Case(
        gemini(
            usage={
                "prompt_token_count": 100,
                "candidates_token_count": 50,
                "traffic_type": "PROVISIONED_THROUGHPUT",
            }
        ),
        BOTH,
        None,
        tier="PROVISIONED_THROUGHPUT",
    ),
    "on demand": Case(
        gemini(
            usage={
                "prompt_token_count": 100,
                "candidates_token_count": 50,
                "traffic_type": "ON_DEMAND",
            }
        ),
        BOTH,
        "0.000155",
        tier="ON_DEMAND",
    ),
    "embeddings": Case(
        {
            "embeddings": [
                {"values": [0.1], "statistics": {"token_count": 600.0}},
                {"values": [0.2], "statistics": {"token_count": 400.0}},
            ]
        },
        {"input_tokens": 1_000},
        "0.00015",  # 1,000 at 0.15 dollars a million
        "2 embeddings",
        model="gemini-embedding-001",
    ),
    "interaction": Case(
        {
            "id": "i",
            "status": "completed",
            "model": "gemini-2.5-flash",
            "steps": [
                {"type": "model_output", "content": [{"type": "text", "text": "hi"}]},
                {"type": "function_call", "id": "f", "name": "find", "arguments": {"a": 1}},
            ],
            "usage": {
                "total_input_tokens": 100,
                "total_output_tokens": 30,
                "total_thought_tokens": 20,
                "total_cached_tokens": 0,
                "input_tokens_by_modality": [{"modality": "audio", "tokens": 80}],
            },
        },
        BOTH | {"reasoning_tokens": 20, "input_audio_tokens": 80},
        "0.000211",  # 80 at 1, 20 at 0.3, 30 and 20 at 2.5 dollars a million
        calls=(("find", {"a": 1}),),
    ),
}

BEDROCK: Final[dict[str, Case]] = {
    "converse, cache for an hour": Case(
        converse(
            inputTokens=10,
            outputTokens=100,
            cacheWriteInputTokens=100_000,
            cacheReadInputTokens=1_000,
            cacheDetails=[
                {"ttl": "1h", "inputTokens": 80_000},
                {"ttl": "5m", "inputTokens": 20_000},
            ],
        ),
        {
            "input_tokens": 101_010,
            "output_tokens": 100,
            "cache_write_tokens": 100_000,
            "cache_write_1h_tokens": 80_000,
            "cached_input_tokens": 1_000,
        },
        "0.612513",  # 10 at 3.3, 80,000 at 6.6, 20,000 at 4.125, 1,000 at 0.33, 100 at 16.5
        model=SONNET,
    ),
    "converse, routed": Case(
        converse(inputTokens=100, outputTokens=50)
        | {"trace": {"promptRouter": {"invokedModelId": NOVA}}},
        BOTH,
        "0.000018",  # the model that the router chose: 100 at 0.06, 50 at 0.24
    ),
    "converse, flex": Case(
        converse(inputTokens=100, outputTokens=50) | {"serviceTier": {"type": "flex"}},
        BOTH,
        None,
        model=NOVA,
        tier="flex",
    ),
    "converse, default": Case(
        converse(inputTokens=100, outputTokens=50) | {"serviceTier": {"type": "default"}},
        BOTH,
        "0.000018",
        model=NOVA,
        tier="default",
    ),
    "converse, faster": Case(
        converse(inputTokens=100, outputTokens=50)
        | {"performanceConfig": {"latency": "optimized"}},
        BOTH,
        None,
        model=NOVA,
        tier="optimized",
    ),
    "Titan": Case(
        {
            "inputTextTokenCount": 100,
            "results": [{"tokenCount": 50, "outputText": "hi", "completionReason": "FINISH"}],
        },
        BOTH,
        "0.00005",  # 100 at 0.2, 50 at 0.6 dollars a million
        model="amazon.titan-text-express-v1",
    ),
    "Titan's embedding": Case(
        {"embedding": [0.1], "inputTextTokenCount": 1_000},
        {"input_tokens": 1_000},
        "0.00002",
        "1 embedding",
        model="amazon.titan-embed-text-v2:0",
    ),
    "Llama": Case(
        {
            "generation": "hi",
            "prompt_token_count": 100,
            "generation_token_count": 50,
            "stop_reason": "stop",
        },
        BOTH,
        None,
        model="meta.llama-unlisted",
    ),
    # boto3 returns the body as a stream that is not read here: the counts come from the headers.
    "the call itself": Case(
        {
            "body": "(a stream)",
            "contentType": "application/json",
            "ResponseMetadata": {
                "HTTPHeaders": {
                    "x-amzn-bedrock-input-token-count": "100",
                    "x-amzn-bedrock-output-token-count": "50",
                }
            },
        },
        BOTH,
        "0.000018",
        "",
        model=NOVA,
    ),
}

COHERE: Final[dict[str, Case]] = {
    "chat": Case(
        {
            "id": "c",
            "finish_reason": "COMPLETE",
            "message": {
                "role": "assistant",
                "content": [{"type": "text", "text": "hi"}],
                "tool_calls": [
                    {
                        "id": "t",
                        "type": "function",
                        "function": {"name": "find", "arguments": '{"a": 1}'},
                    }
                ],
            },
            "usage": {
                # Cohere bills fewer tokens than it counts.
                "billed_units": {"input_tokens": 100.0, "output_tokens": 50.0},
                "tokens": {"input_tokens": 300.0, "output_tokens": 55.0},
            },
        },
        BOTH,
        "0.00075",
        calls=(("find", {"a": 1}),),
        model="command-r-plus",
    ),
    "chat, first version": Case(
        {
            "text": "hi",
            "generation_id": "g",
            "finish_reason": "COMPLETE",
            "tool_calls": [{"name": "find", "parameters": {"a": 1}}],
            "meta": {"billed_units": {"input_tokens": 100.0, "output_tokens": 50.0}},
        },
        BOTH,
        "0.00075",
        calls=(("find", {"a": 1}),),
        model="command-r-plus",
    ),
    "embeddings": Case(
        {
            "id": "e",
            "embeddings": {"float": [[0.1], [0.2]]},
            "texts": ["a", "b"],
            "response_type": "embeddings_by_type",
            "meta": {"billed_units": {"input_tokens": 1_000.0}},
        },
        {"input_tokens": 1_000},
        "0.00012",  # 1,000 at 0.12 dollars a million
        "2 embeddings",
        model="embed-v4.0",
    ),
    # The price list has no price for reranking.
    "ranking": Case(
        {
            "id": "r",
            "results": [{"index": 1, "relevance_score": 0.9}],
            "meta": {"billed_units": {"search_units": 1.0}},
        },
        {"rerank_searches": 1},
        None,
        "1 document",
        model="rerank-v3.5",
    ),
}

OTHERS: Final[dict[str, Case]] = {
    "Mistral, conversation": Case(
        {
            "conversation_id": "c",
            "outputs": [
                {"type": "message.output", "content": "hi", "model": "mistral-large-latest"},
                {
                    "type": "function.call",
                    "tool_call_id": "t",
                    "name": "find",
                    "arguments": '{"a": 1}',
                },
            ],
            "usage": HUNDRED,
        },
        BOTH,
        "0.0005",
        calls=(("find", {"a": 1}),),
    ),
    "Mistral, pages": Case(
        {
            "pages": [{"index": 0, "markdown": "hi", "images": [], "dimensions": None}],
            "model": "mistral-ocr-2505",
            "usage_info": {"pages_processed": 10},
        },
        {"document_pages": 10},
        "0.01",  # 10 at 0.001
    ),
    "Mistral, transcription": Case(
        {
            "model": "voxtral-mini-2602",
            "text": "hi",
            "language": "en",
            "usage": {"prompt_audio_seconds": 60},
        },
        {"audio_ms": 60_000},
        "0.003",  # a minute at 0.003
        provider="mistral",
    ),
    "Ollama, embeddings": Case(
        {"model": "all-minilm", "embeddings": [[0.1]], "prompt_eval_count": 8},
        {"input_tokens": 8},
        None,
        "1 embedding",
    ),
    "LangChain of OpenAI, flex": Case(
        {
            "content": "hi",
            "response_metadata": {
                "model_name": "o3",
                "model_provider": "openai",
                "service_tier": "flex",
            },
            "usage_metadata": {
                "input_tokens": 100,
                "output_tokens": 50,
                "total_tokens": 150,
                "input_token_details": {"flex_cache_read": 40, "flex": 60},
                "output_token_details": {"flex_reasoning": 20, "flex": 30},
            },
        },
        BOTH | {"cached_input_tokens": 40, "reasoning_tokens": 20},
        "0.00027",  # 60 at 1, 40 at 0.25, 50 at 4 dollars a million: half of the default tier
        tier="flex",
    ),
    "LangChain of Anthropic, cache for an hour": Case(
        {
            "content": [{"type": "text", "text": "hi"}],
            "response_metadata": {
                "model_name": "claude-sonnet-4-5",
                "model_provider": "anthropic",
                "usage": {"input_tokens": 10, "server_tool_use": {"web_search_requests": 1}},
            },
            "usage_metadata": {
                "input_tokens": 100_010,
                "output_tokens": 100,
                "total_tokens": 100_110,
                "input_token_details": {
                    "cache_read": 0,
                    "cache_creation": 0,
                    "ephemeral_1h_input_tokens": 80_000,
                    "ephemeral_5m_input_tokens": 20_000,
                },
            },
        },
        {
            "input_tokens": 100_010,
            "output_tokens": 100,
            "cache_write_tokens": 100_000,
            "cache_write_1h_tokens": 80_000,
            "web_searches": 1,
        },
        "0.56653",  # 10 at 3, 80,000 at 6, 20,000 at 3.75, 100 at 15, a search at 0.01
    ),
    "LangChain, audio": Case(
        {
            "content": "hi",
            "response_metadata": {
                "model_name": "gemini-2.5-flash",
                "model_provider": "google_genai",
            },
            "usage_metadata": {
                "input_tokens": 100,
                "output_tokens": 50,
                "total_tokens": 150,
                "input_token_details": {"audio": 80},
            },
        },
        BOTH | {"input_audio_tokens": 80},
        "0.000211",  # 80 at 1, 20 at 0.3, 50 at 2.5 dollars a million
    ),
    "LangChain, generations": Case(
        {
            "generations": [[{"text": "hi"}]],
            "llm_output": {"token_usage": HUNDRED, "model_name": "gpt-4o"},
        },
        BOTH,
        "0.00075",
    ),
}

PLAIN: Final[dict[str, Case]] = {
    f"{client}: {name}": case
    for client, cases in (
        ("OpenAI", OPENAI),
        ("like OpenAI", OTHERS_LIKE_OPENAI),
        ("Anthropic", ANTHROPIC),
        ("Google", GOOGLE),
        ("Bedrock", BEDROCK),
        ("Cohere", COHERE),
        ("others", OTHERS),
    )
    for name, case in cases.items()
}


DAY_US = int(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()) * 1_000_000


BOOK = PriceBook()


def counts(answer: Answer) -> dict[str, Any]:
    """What was counted, without zeros."""
    if answer.usage is None:
        return {}
    return {
        name: count for name in TokenUsage.model_fields if (count := getattr(answer.usage, name))
    }


def dollars(answer: Answer, case: Case) -> str | None:
    """What the step costs, with the names that the program gave; None where that is unknown."""
    step = Step(
        trace_id=new_trace_id(), step_id=new_step_id(), kind="llm_call", name="x",
        start_time=DAY_US, usage=answer.usage,
        model=answer.model or case.model, provider=case.provider or answer.provider,
        attributes={"service_tier": answer.service_tier},
    )  # fmt: skip
    nanos = BOOK.cost(
        step, None if answer.charged_usd is None else round(answer.charged_usd * 10**9)
    ).nanos
    return None if nanos is None else f"{Decimal(nanos) / 10**9:f}"
