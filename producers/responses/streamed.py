"""Assembles streamed answers: raw events, helper events of the clients, plain text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from stepstream.producers.responses.answer import Answer
from stepstream.producers.responses.call_pieces import CallPieces
from stepstream.producers.responses.fields import first_of, get, is_a, items_of, text_of
from stepstream.producers.responses.message_parts import (
    anthropic_server,
    call_id,
    content_text,
    item_call,
    number_of,
)
from stepstream.producers.responses.providers import bedrock_tier
from stepstream.producers.responses.reader import read_response, server_of
from stepstream.producers.responses.usage import (
    anthropic_tier,
    anthropic_usage,
    bedrock_usage,
    changed,
    charge_of,
    cohere_usage,
    image_usage,
    later,
    usage_of,
)
from stepstream.schemas.usage import TokenUsage


def read_stream(chunks: Sequence[Any]) -> Answer | None:
    """The answer that the pieces make; None if they have no known shape."""
    pieces = [piece for chunk in chunks if (piece := _unwrapped(chunk)) is not None]
    if not pieces:
        return None
    for read in _READERS:
        try:
            answer = read(pieces)
        except Exception:  # a field has another type than in this shape: try the next one
            continue
        if answer is not None:
            return answer
    return None


def _unwrapped(chunk: Any) -> Any:
    """A piece without its wrapper: Mistral's ``data``, OpenAI's helper events, Bedrock's bytes."""
    if is_a(chunk, str):
        return chunk
    data = get(chunk, "data")
    if data is not None and (get(data, "choices") is not None or text_of(data, "type")):
        return data
    if text_of(chunk, "type") == "chunk" and get(chunk, "chunk") is not None:
        return get(chunk, "chunk")
    raw = get(get(chunk, "chunk"), "bytes")
    if is_a(raw, bytes):
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            return None
    return chunk


def _texts(chunks: Sequence[Any]) -> Answer | None:
    return (
        Answer(text="".join(map(str.__str__, chunks)))
        if all(is_a(chunk, str) for chunk in chunks)
        else None
    )


def _openai_chat(chunks: Sequence[Any]) -> Answer | None:
    if not any(_first_choice(chunk, "delta", "text") is not None for chunk in chunks):
        return None
    answer = Answer()
    texts: list[str] = []
    calls = CallPieces()
    for chunk in chunks:
        usage = first_of(get(chunk, "usage"), get(get(chunk, "x_groq"), "usage"))
        answer.model = text_of(chunk, "model") or answer.model
        answer.provider = server_of(chunk) or answer.provider
        answer.usage = later(answer.usage, usage_of(usage))
        charged = charge_of(usage, answer.model)
        answer.charged_usd = answer.charged_usd if charged is None else charged
        answer.service_tier = (
            text_of(chunk, "service_tier") or text_of(usage, "service_tier") or answer.service_tier
        )
        # Of several alternatives the first is recorded, as of an answer in one piece.
        for choice in items_of(chunk, "choices")[:1]:
            answer.finish_reason = text_of(choice, "finish_reason") or answer.finish_reason
            delta = get(choice, "delta")
            spoken = text_of(get(delta, "audio"), "transcript")
            texts.append(
                content_text(get(delta, "content"))
                or text_of(delta, "refusal")
                or text_of(choice, "text")
                or spoken
            )
            for piece in items_of(delta, "tool_calls"):
                function = get(piece, "function", "custom")
                arguments = get(function, "arguments", "args", "input")
                calls.add(get(piece, "index"), call_id(piece), text_of(function, "name"), arguments)
            legacy = get(delta, "function_call")
            if text_of(legacy, "name", "arguments"):
                calls.add(-1, "", text_of(legacy, "name"), get(legacy, "arguments"))
    answer.text = "".join(texts)
    answer.tool_calls = calls.complete()
    return answer


def _first_choice(chunk: Any, *names: str) -> Any:
    choices = items_of(chunk, "choices")
    return get(choices[0], *names) if choices else None


def _openai_response(chunks: Sequence[Any]) -> Answer | None:
    for chunk in reversed(chunks):
        # The last event has the whole response, so pieces are only needed after an interruption.
        if text_of(chunk, "type") in _LAST_EVENTS:
            return read_response(get(chunk, "response"))
    if not any(text_of(chunk, "type").startswith("response.") for chunk in chunks):
        return None
    # An interrupted stream: the first event has the model, finished items have the calls.
    begun = next((found for chunk in chunks if (found := get(chunk, "response")) is not None), None)
    done = [
        get(chunk, "item")
        for chunk in chunks
        if text_of(chunk, "type") == "response.output_item.done"
    ]
    return Answer(
        text="".join(
            text_of(chunk, "delta") for chunk in chunks if text_of(chunk, "type") in _TEXT_EVENTS
        ),
        tool_calls=[call for item in done if (call := item_call(item)) is not None],
        model=text_of(begun, "model"),
    )


_LAST_EVENTS: Final = (
    "response.completed",
    "response.incomplete",
    "response.failed",
    "response.done",
)
_TEXT_EVENTS: Final = (
    "response.output_text.delta",
    "response.refusal.delta",
    "response.audio_transcript.delta",
)


def _openai_media(chunks: Sequence[Any]) -> Answer | None:
    """Streamed images and transcriptions: the last event has the whole result."""
    for chunk in reversed(chunks):
        kind = text_of(chunk, "type")
        if kind in ("image_generation.completed", "image_edit.completed"):
            return Answer(text=number_of(1, "image"), usage=image_usage(get(chunk, "usage")))
        if kind in ("transcript.text.done", "transcription.done"):
            return Answer(
                text=text_of(chunk, "text"),
                usage=usage_of(get(chunk, "usage")),
                model=text_of(chunk, "model"),
            )
    if not any(text_of(chunk, "type") == "transcript.text.delta" for chunk in chunks):
        return None
    return Answer(text="".join(text_of(chunk, "delta") for chunk in chunks))


def _anthropic(chunks: Sequence[Any]) -> Answer | None:
    if not any(
        text_of(chunk, "type") in ("message_start", "content_block_delta") for chunk in chunks
    ):
        return None
    answer = Answer(provider="anthropic")
    texts: list[str] = []
    calls = CallPieces()
    used: TokenUsage | None = None
    ended = False
    for chunk in chunks:
        kind = text_of(chunk, "type")
        if kind == "message_start":
            message = get(chunk, "message")
            answer.model, answer.provider = text_of(message, "model"), anthropic_server(message)
            used = anthropic_usage(get(message, "usage"), answer.model)
            answer.service_tier = anthropic_tier(get(message, "usage"))
        elif kind == "content_block_start":
            block = get(chunk, "content_block")
            texts.append(text_of(block, "text"))
            if text_of(block, "type").endswith("tool_use"):
                calls.add(
                    get(chunk, "index"),
                    text_of(block, "id"),
                    text_of(block, "name"),
                    first_of(get(block, "input"), ""),
                )
        elif kind == "content_block_delta":
            delta = get(chunk, "delta")
            texts.append(text_of(delta, "text"))
            if text_of(delta, "partial_json"):
                calls.add(get(chunk, "index"), "", "", text_of(delta, "partial_json"))
        elif kind == "message_delta":
            ended = True
            answer.finish_reason = (
                text_of(get(chunk, "delta"), "stop_reason") or answer.finish_reason
            )
            used = later(used, anthropic_usage(get(chunk, "usage"), answer.model))
        # Bedrock adds its own counts to the last event of an Anthropic stream.
        metrics = get(chunk, "amazon-bedrock-invocationMetrics")
        if metrics is not None:
            ended, answer.provider = True, "aws"
            used = later(used, bedrock_usage(metrics))
    answer.text = "".join(texts)
    answer.tool_calls = calls.complete()
    # The output tokens come with the last event: without it the usage is incomplete.
    answer.usage = used if used is None or ended else changed(used, incomplete=True)
    return answer


def _bedrock_converse(chunks: Sequence[Any]) -> Answer | None:
    if not any(
        is_a(chunk, dict) and not _CONVERSE_EVENTS.isdisjoint(dict.keys(chunk)) for chunk in chunks
    ):
        return None
    answer = Answer(provider="aws")
    texts: list[str] = []
    calls = CallPieces()
    for chunk in chunks:
        begun, delta, end = (
            get(chunk, "contentBlockStart"),
            get(chunk, "contentBlockDelta"),
            get(chunk, "metadata"),
        )
        if begun is not None and (tool := get(get(begun, "start"), "toolUse")) is not None:
            calls.add(
                get(begun, "contentBlockIndex"),
                text_of(tool, "toolUseId"),
                text_of(tool, "name"),
                "",
            )
        if delta is not None:
            texts.append(text_of(get(delta, "delta"), "text"))
            if (tool := get(get(delta, "delta"), "toolUse")) is not None:
                calls.add(get(delta, "contentBlockIndex"), "", "", get(tool, "input"))
        answer.finish_reason = (
            text_of(get(chunk, "messageStop"), "stopReason") or answer.finish_reason
        )
        if end is not None:
            answer.usage = later(answer.usage, bedrock_usage(get(end, "usage")))
            answer.service_tier = bedrock_tier(end)
            answer.model = text_of(get(get(end, "trace"), "promptRouter"), "invokedModelId")
    answer.text = "".join(texts)
    answer.tool_calls = calls.complete()
    return answer


_CONVERSE_EVENTS: Final = frozenset(
    ("messageStart", "contentBlockStart", "contentBlockDelta", "messageStop")
)


def _bedrock_bodies(chunks: Sequence[Any]) -> Answer | None:
    """Titan, Llama and Nova by ``invoke_model_with_response_stream``.

    The texts add up; the last event has the metrics.
    """
    if not any(get(chunk, "amazon-bedrock-invocationMetrics") is not None for chunk in chunks):
        return None
    whole = _bedrock_converse(chunks) or Answer(provider="aws")
    whole.text = whole.text or "".join(
        text_of(chunk, "outputText", "generation", "text") for chunk in chunks
    )
    for chunk in chunks:
        whole.usage = later(
            whole.usage, bedrock_usage(get(chunk, "amazon-bedrock-invocationMetrics"))
        )
        whole.finish_reason = (
            text_of(chunk, "stop_reason", "completionReason") or whole.finish_reason
        )
    return whole


def _cohere(chunks: Sequence[Any]) -> Answer | None:
    for chunk in chunks:
        if text_of(chunk, "event_type") == "stream-end":
            return read_response(get(chunk, "response"))
    kinds = {text_of(chunk, "type") for chunk in chunks}
    if kinds.isdisjoint(("content-delta", "message-end", "tool-call-start")):
        return None
    answer = Answer(provider="cohere")
    texts: list[str] = []
    plans: list[str] = []
    calls = CallPieces()
    for chunk in chunks:
        delta = get(chunk, "delta")
        message = get(delta, "message")
        texts.append(text_of(get(message, "content"), "text"))
        plans.append(text_of(message, "tool_plan"))
        call = get(message, "tool_calls")
        if call is not None and not is_a(call, list | tuple):
            function = get(call, "function")
            calls.add(
                get(chunk, "index"),
                text_of(call, "id"),
                text_of(function, "name"),
                get(function, "arguments"),
            )
        answer.finish_reason = text_of(delta, "finish_reason") or answer.finish_reason
        answer.usage = later(answer.usage, cohere_usage(get(delta, "usage")))
    answer.text = "".join(texts) or "".join(plans)
    answer.tool_calls = calls.complete()
    return answer


def _mistral_conversation(chunks: Sequence[Any]) -> Answer | None:
    if not any(text_of(chunk, "type") == "conversation.response.done" for chunk in chunks):
        return None
    answer = Answer(provider="mistral")
    texts: list[str] = []
    calls = CallPieces()
    for chunk in chunks:
        kind = text_of(chunk, "type")
        answer.model = text_of(chunk, "model") or answer.model
        if kind == "message.output.delta":
            content = get(chunk, "content")
            texts.append(content_text(content) or text_of(content, "text"))
        elif kind == "function.call.delta":
            calls.add(
                None,
                text_of(chunk, "tool_call_id"),
                text_of(chunk, "name"),
                get(chunk, "arguments"),
            )
        elif kind == "conversation.response.done":
            answer.usage = usage_of(get(chunk, "usage"))
    answer.text = "".join(texts)
    answer.tool_calls = calls.complete()
    return answer


def _google_interaction(chunks: Sequence[Any]) -> Answer | None:
    for chunk in reversed(chunks):
        whole = get(chunk, "interaction")
        if whole is not None and get(get(whole, "usage"), "total_input_tokens") is not None:
            answer = read_response(whole)
            if answer is not None:
                answer.text = answer.text or "".join(
                    text_of(get(piece, "delta"), "text") for piece in chunks
                )
            return answer
    return None


def _whole_answers(chunks: Sequence[Any]) -> Answer | None:
    """Pieces that are answers themselves (Google, Ollama):

    texts and calls add up, the last usage counts.
    """
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
        out.usage = later(out.usage, answer.usage)
        out.model, out.finish_reason = (
            answer.model or out.model,
            answer.finish_reason or out.finish_reason,
        )
        out.service_tier = answer.service_tier or out.service_tier
        out.charged_usd = out.charged_usd if answer.charged_usd is None else answer.charged_usd
    return out


def _langchain(chunks: Sequence[Any]) -> Answer | None:
    """LangChain's pieces, which support ``+``."""
    pieces = [first_of(get(chunk, "message"), chunk) for chunk in chunks]
    first = pieces[0]
    if (
        get(first, "response_metadata") is None
        or get(first, "content") is None
        or not hasattr(type(first), "__add__")
    ):
        return None
    try:
        whole = first
        for piece in pieces[1:]:
            whole = whole + piece
    except TypeError:
        return None
    return read_response(whole)


_READERS: Final[tuple[Callable[[Sequence[Any]], Answer | None], ...]] = (
    _texts,
    _langchain,
    _openai_chat,
    _openai_response,
    _openai_media,
    _anthropic,
    _bedrock_bodies,
    _bedrock_converse,
    _cohere,
    _mistral_conversation,
    _google_interaction,
    _whole_answers,
)
