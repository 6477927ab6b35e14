"""Reads text, tool calls, usage and model from the answers of model clients.

Objects and dictionaries are read alike, by field names; no client library is imported. Usage is
read in ``usage``, streamed answers in ``streamed``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stepstream.producers.responses import providers as provider_responses
from stepstream.producers.responses.answer import Answer, ToolCall
from stepstream.producers.responses.fields import first_of, get, is_a, items_of, parsed, text_of
from stepstream.producers.responses.message_parts import (
    anthropic_server,
    content_text,
    item_call,
    item_text,
    number_of,
    openai_calls,
)
from stepstream.producers.responses.usage import (
    Counts,
    anthropic_tier,
    anthropic_usage,
    changed,
    charge_of,
    image_usage,
    usage_of,
)
from stepstream.schemas.usage import TokenUsage

__all__ = ["Answer", "ToolCall", "read_response"]


def read_response(response: object) -> Answer | None:
    """The answer in a response of a known shape; None for any other."""
    if response is None or is_a(response, str | bytes | int | float | list | tuple):
        return None
    # In the order of _READERS: a more specific shape comes before those that it resembles.
    for read in _READERS:
        try:
            answer = read(response)
        except Exception:  # a field has another type than in this shape: try the next one
            continue
        if answer is not None:
            return answer
    return None


def server_of(response: Any) -> str:
    """The provider that LiteLLM called; empty for another client."""
    hidden = first_of(
        get(get(response, "__pydantic_private__"), "_hidden_params"),
        get(response, "_hidden_params"),
    )
    return text_of(hidden, "custom_llm_provider")


# --- the shapes ---


def _langchain(response: Any) -> Answer | None:
    raw = (
        get(response, "raw")
        if is_a(response, dict) and dict.__contains__(response, "parsed")
        else response
    )
    metadata, content = get(raw, "response_metadata"), get(raw, "content")
    if metadata is None or content is None:
        return None
    calls = [
        ToolCall(text_of(c, "name"), get(c, "args"), text_of(c, "id"))
        for c in items_of(raw, "tool_calls")
    ]
    reported = get(metadata, "token_usage", "usage")
    model = text_of(metadata, "model_name", "model", "model_id")
    searches = Counts().of(get(reported, "server_tool_use"), "web_search_requests")
    usage = usage_of(get(raw, "usage_metadata")) or usage_of(reported)
    named = text_of(metadata, "model_provider")
    return Answer(
        text=content_text(content),
        tool_calls=calls,
        usage=changed(usage, web_searches=searches) if usage is not None and searches else usage,
        model=model,
        provider=_PROVIDERS.get(named, named),
        finish_reason=text_of(metadata, "finish_reason", "stop_reason"),
        charged_usd=charge_of(reported, model),
        service_tier=text_of(metadata, "service_tier") or anthropic_tier(reported),
    )


def _langchain_result(response: Any) -> Answer | None:
    """LangChain's list of generations: the first one, with the usage of all."""
    generations = items_of(response, "generations")
    first = generations[0] if generations else None
    first = first[0] if is_a(first, list) and first else first
    reported = get(response, "llm_output")
    if first is None or (get(first, "message") is None and not text_of(first, "text")):
        return None
    answer = _langchain(get(first, "message")) or Answer(text=text_of(first, "text"))
    answer.usage = answer.usage or usage_of(get(reported, "token_usage", "usage"))
    answer.model = answer.model or text_of(reported, "model_name", "model")
    return answer


def _openai_chat(response: Any) -> Answer | None:
    choices = items_of(response, "choices")
    if not choices:
        return None
    message = get(choices[0], "message")
    if message is None and get(choices[0], "text") is None:
        return None
    usage, model = get(response, "usage"), text_of(response, "model")
    spoken = text_of(get(message, "audio"), "transcript")
    return Answer(
        text=content_text(get(message, "content"))
        or text_of(message, "refusal")
        or text_of(choices[0], "text")
        or spoken,
        tool_calls=openai_calls(message),
        usage=usage_of(usage),
        model=model,
        provider=server_of(response),
        finish_reason=text_of(choices[0], "finish_reason"),
        charged_usd=charge_of(usage, model),
        service_tier=text_of(response, "service_tier") or text_of(usage, "service_tier"),
    )


def _openai_response(response: Any) -> Answer | None:
    output = items_of(response, "output")
    kind = text_of(response, "object")
    # Compatible servers leave out the object type.
    if kind not in ("response", "realtime.response") and not (
        output and get(response, "usage") is not None
    ):
        return None
    usage, model = get(response, "usage"), text_of(response, "model")
    answer = Answer(
        usage=_with_tools(usage_of(usage), response, output),
        model=model,
        provider=server_of(response),
        finish_reason=text_of(response, "status"),
        charged_usd=charge_of(usage, model),
        service_tier=text_of(response, "service_tier"),
    )
    answer.text = "\n".join(text for item in output if (text := item_text(item)))
    answer.tool_calls = [call for item in output if (call := item_call(item)) is not None]
    return answer


def _with_tools(usage: TokenUsage | None, response: Any, output: list[Any]) -> TokenUsage | None:
    """Usage with the calls of the provider's own tools.

    Generated images make it incomplete: another model made them, at a price that is not known here.
    """
    if usage is None:
        return None
    reported, kinds = get(response, "tool_usage"), [text_of(item, "type") for item in output]
    counts = Counts()
    if reported is None:
        searches = sum(
            kind == "web_search_call" and text_of(get(item, "action"), "type") in ("", "search")
            for kind, item in zip(kinds, output, strict=True)
        )
        drawn = kinds.count("image_generation_call")
    else:
        searches = counts.of(get(reported, "web_search"), "num_requests")
        drawn = counts.of(get(reported, "image_gen"), "total_tokens")
    return changed(
        usage,
        web_searches=usage.web_searches or searches,
        storage_searches=kinds.count("file_search_call"),
        code_executions=kinds.count("code_interpreter_call"),
        incomplete=usage.incomplete or counts.incomplete or drawn > 0,
    )


def _anthropic(response: Any) -> Answer | None:
    if text_of(response, "type") != "message" or get(response, "content") is None:
        return None
    blocks = items_of(response, "content")
    usage, model = get(response, "usage"), text_of(response, "model")
    return Answer(
        text="".join(
            text_of(block, "text") for block in blocks if text_of(block, "type") == "text"
        ),
        tool_calls=[
            ToolCall(text_of(block, "name"), parsed(get(block, "input")), text_of(block, "id"))
            for block in blocks
            if text_of(block, "type").endswith("tool_use")
        ],
        usage=anthropic_usage(usage, model),
        model=model,
        provider=anthropic_server(response),
        finish_reason=text_of(response, "stop_reason"),
        charged_usd=charge_of(usage, model),
        service_tier=anthropic_tier(usage),
    )


def _embeddings(response: Any) -> Answer | None:
    data = items_of(response, "data")
    if not data or get(data[0], "embedding") is None:
        return None
    usage, model = get(response, "usage"), text_of(response, "model")
    return Answer(
        text=number_of(len(data), "embedding"),
        usage=usage_of(usage),
        model=model,
        provider=server_of(response),
        charged_usd=charge_of(usage, model),
    )


def _images(response: Any) -> Answer | None:
    data = items_of(response, "data")
    if not data or get(data[0], "b64_json", "url") is None or get(data[0], "embedding") is not None:
        return None
    extra = get(response, "svg_usage")
    usage = image_usage(get(response, "usage"))
    if usage is not None and extra is not None:  # another model wrote the SVG
        usage = changed(usage, incomplete=True)
    return Answer(text=number_of(len(data), "image"), usage=usage, model=text_of(response, "model"))


def _transcription(response: Any) -> Answer | None:
    usage = get(response, "usage")
    heard = get(usage, "seconds", "prompt_audio_seconds", "input_tokens", "prompt_tokens")
    if (
        get(response, "text") is None
        or usage is None
        or (heard is None and get(response, "language") is None)
    ):
        return None
    return Answer(
        text=text_of(response, "text"), usage=usage_of(usage), model=text_of(response, "model")
    )


def _wrapped(response: Any) -> Answer | None:
    """A parsed object that keeps the raw answer, as the library instructor returns it."""
    raw = get(response, "_raw_response")
    return None if raw is None or raw is response else read_response(raw)


_PROVIDERS: Final = {
    "google_genai": "google",
    "google_vertexai": "google",
    "bedrock_converse": "aws",
    "bedrock": "aws",
}
_READERS: Final[tuple[Callable[[Any], Answer | None], ...]] = (
    _langchain,
    _openai_chat,
    provider_responses.cohere,
    provider_responses.google_interaction,
    _openai_response,
    _anthropic,
    provider_responses.google,
    provider_responses.bedrock,
    provider_responses.mistral_conversation,
    provider_responses.bedrock_body,
    provider_responses.ollama,
    _embeddings,
    _images,
    provider_responses.google_embeddings,
    _transcription,
    provider_responses.pages,
    _langchain_result,
    _wrapped,
)
