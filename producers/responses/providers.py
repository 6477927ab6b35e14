"""Readers of answers of Google, Bedrock, Cohere, Ollama and Mistral.

Each returns None for an answer of another shape.
"""

from __future__ import annotations

from typing import Any, Final

from stepstream.producers.responses.answer import Answer, ToolCall
from stepstream.producers.responses.fields import (
    get,
    is_a,
    items_of,
    name_of,
    parsed,
    text_of,
    whole_number,
    word_of,
)
from stepstream.producers.responses.message_parts import (
    content_text,
    item_call,
    item_text,
    number_of,
    openai_calls,
)
from stepstream.producers.responses.usage import (
    Counts,
    bedrock_usage,
    cohere_usage,
    google_tier,
    google_usage,
    usage_of,
)


def google(response: Any) -> Answer | None:
    candidates = items_of(response, "candidates")
    usage = get(response, "usage_metadata", "usageMetadata")
    if (usage is None and not candidates) or items_of(response, "embeddings"):
        return None
    model = text_of(response, "model_version", "modelVersion")
    parts = items_of(get(candidates[0], "content"), "parts") if candidates else []
    calls = [
        call for part in parts if (call := get(part, "function_call", "functionCall")) is not None
    ]
    reason = get(candidates[0], "finish_reason", "finishReason") if candidates else None
    return Answer(
        # Summaries of thoughts are not part of the answer.
        text="".join(text_of(part, "text") for part in parts if get(part, "thought") is not True),
        tool_calls=[
            ToolCall(text_of(call, "name"), parsed(get(call, "args")), text_of(call, "id"))
            for call in calls
        ],
        usage=google_usage(usage, _searches(candidates, model)),
        model=model,
        provider="google",
        finish_reason=name_of(reason),
        service_tier=google_tier(usage),
    )


def _searches(candidates: list[Any], model: str) -> int:
    """Web searches that Google charges for:

    every query; before Gemini 3 every answer that searched.
    """
    grounding = [
        get(candidate, "grounding_metadata", "groundingMetadata") for candidate in candidates
    ]
    queries = [
        query
        for found in grounding
        for query in items_of(found, "web_search_queries", "webSearchQueries")
    ]
    return min(len(queries), 1) if model.startswith(("gemini-1", "gemini-2")) else len(queries)


def google_interaction(response: Any) -> Answer | None:
    usage = get(response, "usage")
    steps = items_of(response, "steps", "outputs")
    if get(usage, "total_input_tokens") is None:
        return None
    parts = [part for step in steps for part in (items_of(step, "content") or [step])]
    return Answer(
        text="".join(
            text_of(part, "text") for part in parts if text_of(part, "type") in ("text", "")
        ),
        tool_calls=[
            ToolCall(text_of(step, "name"), parsed(get(step, "arguments")), text_of(step, "id"))
            for step in steps
            if text_of(step, "type") == "function_call"
        ],
        usage=google_usage(
            usage, sum(_grounding(tool) for tool in items_of(usage, "grounding_tool_count"))
        ),
        model=text_of(response, "model"),
        provider="google",
        finish_reason=word_of(response, "status"),
        service_tier=google_tier(response),
    )


def _grounding(tool: Any) -> int:
    return Counts().of(tool, "count") if "search" in word_of(tool, "type") else 0


def google_embeddings(response: Any) -> Answer | None:
    embeddings = items_of(response, "embeddings")
    if not embeddings or get(embeddings[0], "values") is None:
        return None
    counts = Counts()
    usage = google_usage(get(response, "usage_metadata", "usageMetadata"))
    tokens = sum(
        counts.of(get(item, "statistics"), "token_count", "tokenCount") for item in embeddings
    )
    characters = counts.of(
        get(response, "metadata"), "billable_character_count", "billableCharacterCount"
    )
    return Answer(
        text=number_of(len(embeddings), "embedding"),
        usage=usage or counts.made(input_tokens=tokens, input_characters=characters),
        provider="google",
    )


def bedrock(response: Any) -> Answer | None:
    message = get(get(response, "output"), "message")
    usage = get(response, "usage")
    if message is None or get(usage, "inputTokens") is None:
        return None
    blocks = items_of(message, "content")
    calls = [call for block in blocks if (call := get(block, "toolUse")) is not None]
    return Answer(
        text="".join(text_of(block, "text") for block in blocks),
        tool_calls=[
            ToolCall(text_of(call, "name"), get(call, "input"), text_of(call, "toolUseId"))
            for call in calls
        ],
        usage=bedrock_usage(usage),
        model=text_of(get(get(response, "trace"), "promptRouter"), "invokedModelId"),
        provider="aws",
        finish_reason=text_of(response, "stopReason"),
        service_tier=bedrock_tier(response),
    )


def bedrock_tier(response: Any) -> str:
    """The service tier of a Bedrock call, or its latency setting if that costs extra."""
    latency = text_of(get(response, "performanceConfig"), "latency")
    return latency if latency == "optimized" else text_of(get(response, "serviceTier"), "type")


def bedrock_body(response: Any) -> Answer | None:
    """An answer of Bedrock's ``invoke_model``: Titan, Llama, or the headers of the call itself."""
    headers = get(get(response, "ResponseMetadata"), "HTTPHeaders")
    results = items_of(response, "results")
    counts = Counts()
    text, reason = (
        text_of(response, "generation"),
        text_of(response, "stop_reason", "completionReason"),
    )
    # The body is a stream that only the program may read, so the counts come from the headers.
    if is_a(headers, dict) and get(response, "body") is not None:
        given = {
            name: whole_number(get(headers, f"x-amzn-bedrock-{name}-token-count"))
            for name in _HEADER_COUNTS
        }
        usage = bedrock_usage(
            {f"{_HEADER_COUNTS[name]}TokenCount": count for name, count in given.items()}
        )
        return Answer(usage=usage, provider="aws", service_tier=text_of(response, "serviceTier"))
    if get(response, "inputTextTokenCount") is not None:
        used = counts.made(
            input_tokens=counts.of(response, "inputTextTokenCount"),
            output_tokens=sum(counts.of(result, "tokenCount") for result in results)
            or counts.of(response, "totalOutputTextTokenCount"),
        )
        text = "".join(text_of(result, "outputText") for result in results) or text_of(
            response, "outputText"
        )
        text = text or ("1 embedding" if items_of(response, "embedding") else "")
    elif get(response, "generation_token_count") is not None:
        used = counts.made(
            input_tokens=counts.of(response, "prompt_token_count"),
            output_tokens=counts.of(response, "generation_token_count"),
        )
    else:
        return None
    return Answer(text=text, usage=used, provider="aws", finish_reason=reason)


_HEADER_COUNTS: Final = {
    "input": "input",
    "output": "output",
    "cache-read-input": "cacheReadInput",
    "cache-write-input": "cacheWriteInput",
}


def cohere(response: Any) -> Answer | None:
    # The clients of Cohere's API v2 and v1 return different shapes.
    usage, message, meta = get(response, "usage"), get(response, "message"), get(response, "meta")
    if get(usage, "billed_units", "tokens") is not None and message is not None:
        text, calls, reported = content_text(get(message, "content")), openai_calls(message), usage
    elif get(meta, "billed_units", "tokens") is not None:
        text, calls, reported = text_of(response, "text"), openai_calls(response), meta
        if results := items_of(response, "results"):
            text = number_of(len(results), "document")
        elif (vectors := get(response, "embeddings")) is not None:
            text = number_of(_vectors(vectors), "embedding")
    else:
        return None
    return Answer(
        text=text or text_of(message, "tool_plan"),
        tool_calls=calls,
        usage=cohere_usage(reported),
        model=text_of(response, "model"),
        provider="cohere",
        finish_reason=text_of(response, "finish_reason"),
    )


def _vectors(embeddings: Any) -> int:
    if is_a(embeddings, list | tuple):
        return len(embeddings)
    for name in ("float_", "float", "int8", "uint8", "binary", "ubinary", "base64"):
        if found := items_of(embeddings, name):
            return len(found)
    return 0


def ollama(response: Any) -> Answer | None:
    message = get(response, "message")
    vectors = (
        items_of(response, "embeddings") if get(response, "prompt_eval_count") is not None else []
    )
    if not vectors and (
        get(response, "done") is None or (message is None and get(response, "response") is None)
    ):
        return None
    counts = Counts()
    text = text_of(message, "content") if message is not None else text_of(response, "response")
    return Answer(
        text=number_of(len(vectors), "embedding") if vectors else text,
        tool_calls=openai_calls(message),
        usage=counts.made(
            input_tokens=counts.of(response, "prompt_eval_count"),
            output_tokens=counts.of(response, "eval_count"),
        ),
        model=text_of(response, "model"),
        provider="ollama",
        finish_reason=text_of(response, "done_reason"),
    )


def mistral_conversation(response: Any) -> Answer | None:
    outputs = items_of(response, "outputs")
    if not outputs or get(response, "usage") is None:
        return None
    models = [model for item in outputs if (model := text_of(item, "model"))]
    return Answer(
        text="\n".join(text for item in outputs if (text := item_text(item))),
        tool_calls=[call for item in outputs if (call := item_call(item)) is not None],
        usage=usage_of(get(response, "usage")),
        model=models[-1] if models else "",
        provider="mistral",
    )


def pages(response: Any) -> Answer | None:
    pages, info = items_of(response, "pages"), get(response, "usage_info")
    counts = Counts()
    read = counts.of(info, "pages_processed")
    if info is None or not read:
        return None
    annotated = read if text_of(response, "document_annotation") else 0
    return Answer(
        text="\n".join(text_of(page, "markdown") for page in pages),
        usage=counts.made(document_pages=read, annotated_pages=annotated),
        model=text_of(response, "model"),
        provider="mistral",
    )
