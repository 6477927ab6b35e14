"""Streamed answers, put together from their pieces: OpenAI, Anthropic, Google, LangChain, Ollama, plain text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from stepstream.producers.responses import (
    Answer,
    ToolCall,
    anthropic_usage,
    get,
    items_of,
    parsed,
    read_response,
    text_of,
    usage_of,
)
from stepstream.schemas.step import TokenUsage, TokenUsageStruct


def read_stream(chunks: Sequence[Any]) -> Answer | None:
    """The answer that the pieces make; None where they are of no known shape."""
    pieces = [chunk for chunk in chunks if chunk is not None]
    if not pieces:
        return None
    for read in _READERS:
        answer = read(pieces)
        if answer is not None:
            return answer
    return None


def _texts(chunks: Sequence[Any]) -> Answer | None:
    return Answer(text="".join(chunks)) if all(isinstance(chunk, str) for chunk in chunks) else None


def _openai_chat(chunks: Sequence[Any]) -> Answer | None:
    if not any(_delta(chunk) is not None for chunk in chunks):
        return None
    answer = Answer()
    texts: list[str] = []
    calls: dict[int, ToolCall] = {}
    for chunk in chunks:
        answer.model = text_of(chunk, "model") or answer.model
        answer.usage = usage_of(get(chunk, "usage")) or answer.usage
        for choice in items_of(chunk, "choices")[:1]:
            answer.finish_reason = text_of(choice, "finish_reason") or answer.finish_reason
            delta = get(choice, "delta")
            texts.append(text_of(delta, "content", "refusal"))
            for piece in items_of(delta, "tool_calls"):
                _add_call(calls, get(piece, "index"), text_of(piece, "id"), get(piece, "function"))
    answer.text = "".join(texts)
    answer.tool_calls = _complete(calls)
    return answer


def _delta(chunk: Any) -> Any:
    choices = items_of(chunk, "choices")
    return get(choices[0], "delta") if choices else None


def _add_call(calls: dict[int, ToolCall], index: Any, identity: str, function: Any) -> None:
    call = calls.setdefault(index if isinstance(index, int) else len(calls), ToolCall("", ""))
    call.id = call.id or identity
    call.name += text_of(function, "name")
    call.arguments += text_of(function, "arguments", "args")


def _complete(calls: dict[int, ToolCall]) -> list[ToolCall]:
    for call in calls.values():
        call.arguments = parsed(call.arguments) if call.arguments else {}
    return list(calls.values())


def _openai_response(chunks: Sequence[Any]) -> Answer | None:
    for chunk in reversed(chunks):
        if text_of(chunk, "type") in ("response.completed", "response.incomplete", "response.failed"):
            return read_response(get(chunk, "response"))
    if not any(text_of(chunk, "type").startswith("response.") for chunk in chunks):
        return None
    return Answer(text="".join(text_of(c, "delta") for c in chunks if text_of(c, "type") == "response.output_text.delta"))


def _anthropic(chunks: Sequence[Any]) -> Answer | None:
    if not any(text_of(chunk, "type") in ("message_start", "content_block_delta") for chunk in chunks):
        return None
    answer = Answer(provider="anthropic")
    texts: list[str] = []
    calls: dict[int, ToolCall] = {}
    begun: TokenUsage | None = None
    for chunk in chunks:
        kind = text_of(chunk, "type")
        if kind == "message_start":
            message = get(chunk, "message")
            answer.model = text_of(message, "model")
            begun = anthropic_usage(get(message, "usage"))
        elif kind == "content_block_start":
            block = get(chunk, "content_block")
            if text_of(block, "type").endswith("tool_use"):
                _add_call(calls, get(chunk, "index"), text_of(block, "id"), {"name": text_of(block, "name")})
        elif kind == "content_block_delta":
            delta = get(chunk, "delta")
            texts.append(text_of(delta, "text"))
            if text_of(delta, "partial_json"):
                _add_call(calls, get(chunk, "index"), "", {"arguments": text_of(delta, "partial_json")})
        elif kind == "message_delta":
            answer.finish_reason = text_of(get(chunk, "delta"), "stop_reason")
            begun = _later(begun, anthropic_usage(get(chunk, "usage")))
    answer.text = "".join(texts)
    answer.tool_calls = _complete(calls)
    answer.usage = begun
    return answer


def _later(before: TokenUsage | None, after: TokenUsage | None) -> TokenUsage | None:
    """Running totals of one message: each count is the highest that was said."""
    if before is None or after is None:
        return before or after
    names = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
    return TokenUsageStruct(**{name: max(getattr(before, name), getattr(after, name)) for name in names})


def _whole_answers(chunks: Sequence[Any]) -> Answer | None:
    """Pieces that are answers themselves (Google, Ollama, Bedrock): texts and calls add up, the last counts stand."""
    out: Answer | None = None
    for chunk in chunks:
        answer = read_response(chunk)
        if answer is None:
            continue
        if out is None:
            out = answer
            continue
        out.text += answer.text
        out.tool_calls += answer.tool_calls
        out.usage = _later(out.usage, answer.usage)
        out.model, out.finish_reason = answer.model or out.model, answer.finish_reason or out.finish_reason
    return out


def _langchain(chunks: Sequence[Any]) -> Answer | None:
    """LangChain's pieces add up by themselves."""
    first = chunks[0]
    if get(first, "response_metadata") is None or get(first, "content") is None or not hasattr(first, "__add__"):
        return None
    try:
        whole = first
        for chunk in chunks[1:]:
            whole = whole + chunk
    except TypeError:
        return None
    return read_response(whole)


_READERS: Final[tuple[Callable[[Sequence[Any]], Answer | None], ...]] = (
    _texts,
    _openai_chat,
    _openai_response,
    _anthropic,
    _langchain,
    _whole_answers,
)
