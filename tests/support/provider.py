"""A local stand-in of the providers' APIs: whole answers and streams, as the clients read them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.receiver import serving

TEXTS = ("Hello", " there", ".")
TEXT = "".join(TEXTS)
COUNTED = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
ANTHROPIC_USED = {"input_tokens": 9, "output_tokens": 3}
GEMINI_COUNTED = {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12}


@dataclass
class Provider:
    """Where it listens, and the bodies that it was sent."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    # A tool that the first answer of a chat calls, with the argument ``order`` 7.
    tool: str = ""


def event(data: Any, name: str = "") -> str:
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "") + f"data: {text}\n\n"


def _chat(body: dict[str, Any], provider: Provider) -> Any:
    whole: dict[str, Any] = {"id": "c", "created": 1, "model": "gpt-4o"}
    answered = any(message.get("role") == "tool" for message in body.get("messages", ()))
    if body.get("stream"):
        chunk = {**whole, "object": "chat.completion.chunk"}

        def choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
            return {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

        return "".join(
            [
                *(event(choice({"role": "assistant", "content": text})) for text in TEXTS),
                event(choice({}, "stop")),
                event({**chunk, "choices": [], "usage": COUNTED}),
                event("[DONE]"),
            ]
        )
    message: dict[str, Any] = {"role": "assistant", "content": TEXT}
    if provider.tool and not answered:
        call = {"name": provider.tool, "arguments": '{"order": 7}'}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        }
    reason = "tool_calls" if "tool_calls" in message else "stop"
    choices = [{"index": 0, "finish_reason": reason, "message": message}]
    return {**whole, "object": "chat.completion", "choices": choices, "usage": COUNTED}


def _response(status: str, output: list[Any] | None = None) -> dict[str, Any]:
    text = {"type": "output_text", "text": TEXT, "annotations": []}
    message = {
        "type": "message", "id": "m", "role": "assistant", "status": status, "content": [text],
    }  # fmt: skip
    details = {"input_tokens_details": {"cached_tokens": 0},
               "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    done = status == "completed"
    return {
        "id": "r", "object": "response", "created_at": 1, "model": "gpt-4o", "status": status,
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "output": (output or [message]) if done else [],
        "usage": {**ANTHROPIC_USED, "total_tokens": 12, **details} if done else None,
    }  # fmt: skip


def _responses(body: dict[str, Any], provider: Provider) -> Any:
    given = body.get("input", "")
    answered = isinstance(given, list) and any(
        item.get("type") == "function_call_output" for item in given
    )
    call = {
        "type": "function_call", "id": "f", "call_id": "call_1", "status": "completed",
        "name": provider.tool, "arguments": '{"order": 7}',
    }  # fmt: skip
    output = [call] if provider.tool and not answered else None
    if not body.get("stream"):
        return _response("completed", output)
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response("in_progress")}
    ]
    at = {"item_id": "m", "output_index": 0, "content_index": 0}
    events += [
        {"type": "response.output_text.delta", **at, "delta": text, "logprobs": []}
        for text in TEXTS
    ]
    events += [{"type": "response.completed", "response": _response("completed", output)}]
    return "".join(
        event({**data, "sequence_number": number}, str(data["type"]))
        for number, data in enumerate(events)
    )


def _messages(body: dict[str, Any], provider: Provider) -> Any:
    message: dict[str, Any] = {
        "id": "m", "type": "message", "role": "assistant", "model": "claude-next",
        "stop_sequence": None,
    }  # fmt: skip
    if not body.get("stream"):
        content = [{"type": "text", "text": TEXT}]
        return {**message, "content": content, "stop_reason": "end_turn", "usage": ANTHROPIC_USED}
    started = {**message, "content": [], "stop_reason": None,
               "usage": {"input_tokens": 9, "output_tokens": 1}}  # fmt: skip
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": started},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0,
             "delta": {"type": "text_delta", "text": text}}
            for text in TEXTS
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
         "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]  # fmt: skip
    return "".join(event(data, data["type"]) for data in events)


def _gemini(path: str) -> Any:
    def part(text: str, **more: Any) -> dict[str, Any]:
        content = {"role": "model", "parts": [{"text": text}]}
        return {"candidates": [{"content": content, **more}], "modelVersion": "gemini-2.5-flash"}

    if "streamGenerateContent" not in path:
        return {**part(TEXT, finishReason="STOP"), "usageMetadata": GEMINI_COUNTED}
    last = {**part("", finishReason="STOP"), "usageMetadata": GEMINI_COUNTED}
    return "".join(event(data) for data in [*map(part, TEXTS), last])


def _cohere(body: dict[str, Any]) -> Any:
    tokens = {"tokens": {"input_tokens": 9, "output_tokens": 3}}
    if not body.get("stream"):
        message = {"role": "assistant", "content": [{"type": "text", "text": TEXT}]}
        return {"id": "m", "finish_reason": "COMPLETE", "message": message, "usage": tokens}
    start = {"message": {"role": "assistant", "content": []}}
    events = [
        {"type": "message-start", "id": "m", "delta": start},
        *(
            {"type": "content-delta", "index": 0,
             "delta": {"message": {"content": {"text": text}}}}
            for text in TEXTS
        ),
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": tokens}},
    ]  # fmt: skip
    return "".join(event(data) for data in events)


def _bedrock(path: str) -> Any:
    if "converse" in path:
        message = {"role": "assistant", "content": [{"text": TEXT}]}
        used = {"inputTokens": 9, "outputTokens": 3, "totalTokens": 12}
        return {"output": {"message": message}, "stopReason": "end_turn", "usage": used,
                "metrics": {"latencyMs": 5}}  # fmt: skip
    content = [{"type": "text", "text": TEXT}]
    return {"id": "m", "type": "message", "role": "assistant", "model": "claude-next",
            "content": content, "stop_reason": "end_turn", "usage": ANTHROPIC_USED}  # fmt: skip


@contextmanager
def provider() -> Iterator[Provider]:
    """A provider that answers every client."""
    made = Provider()

    async def answer(request: Request) -> Response:
        body = json.loads(await request.body())
        path = request.url.path
        made.asked.append(body)
        if made.status != 200:
            return JSONResponse({"error": {"message": "refused", "type": "x"}}, made.status)
        if "chat/completions" in path:
            found = _chat(body, made)
        elif "embeddings" in path:
            vector = {"object": "embedding", "index": 0, "embedding": [0.1]}
            found = {"object": "list", "model": "text-embedding-3-small", "data": [vector],
                     "usage": {"prompt_tokens": 9, "total_tokens": 9}}  # fmt: skip
        elif path.endswith("/responses"):
            found = _responses(body, made)
        elif path.endswith("/messages"):
            found = _messages(body, made)
        elif "enerateContent" in path:
            found = _gemini(path)
        elif path.endswith("v2/chat"):
            found = _cohere(body)
        else:
            found = _bedrock(path)
        if isinstance(found, str):
            return Response(found, media_type="text/event-stream")
        return JSONResponse(found)

    with serving(Starlette(routes=[Route("/{path:path}", answer, methods=["POST"])])) as url:
        made.url = url
        yield made
