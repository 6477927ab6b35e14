"""A stand-in for OpenAI's API: it asks for the first tool that is offered, then answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.support.receiver import serving

MODEL: Final = "gpt-4o-2024-08-06"
# Input, output and cached tokens of the call that asks for a tool.
FIRST: Final = (120, 8, 40)
SECOND: Final = (200, 12, 0)
ANSWER: Final = "Order 7 has shipped."
FINAL: Final = "final_answer"
"""The tool that agents of smolagents answer with."""


def _call(call_id: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool, "arguments": json.dumps(arguments, separators=(",", ":"))}
    return {"id": call_id, "type": "function", "function": function}


def _chat(request: dict[str, Any]) -> dict[str, Any]:
    answered = any(one.get("role") in ("tool", "assistant") for one in request["messages"])
    tools = [one["function"]["name"] for one in request.get("tools") or ()]
    asks = bool(tools) and not answered
    message: dict[str, Any] = {"role": "assistant", "content": None if asks else ANSWER}
    if asks:
        message["tool_calls"] = [_call("call_1", tools[0], {"order": 7})]
    elif FINAL in tools:
        message["content"] = None
        message["tool_calls"] = [_call("call_2", FINAL, {"answer": ANSWER})]
    given, taken, cached = FIRST if asks else SECOND
    return {
        "id": f"chatcmpl-{given}",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": MODEL,
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls" if asks else "stop"}
        ],
        "usage": {
            "prompt_tokens": given,
            "completion_tokens": taken,
            "total_tokens": given + taken,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }


def _response(request: dict[str, Any]) -> dict[str, Any]:
    items = request["input"] if isinstance(request["input"], list) else []
    answered = any(one.get("type") == "function_call_output" for one in items)
    asks = bool(request.get("tools")) and not answered
    item: dict[str, Any] = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": ANSWER, "annotations": []}],
    }
    if asks:
        item = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": request["tools"][0]["name"],
            "arguments": '{"order":7}',
            "status": "completed",
        }
    given, taken, cached = FIRST if asks else SECOND
    return {
        "id": f"resp_{given}",
        "object": "response",
        "created_at": 1_790_000_000,
        "model": MODEL,
        "status": "completed",
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": request.get("tools", []),
        "usage": {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": taken,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": given + taken,
        },
    }


async def _answer(request: Request) -> JSONResponse:
    body = json.loads(await request.body())
    is_response = request.url.path.endswith("/responses")
    return JSONResponse(_response(body) if is_response else _chat(body))


@contextmanager
def running() -> Iterator[str]:
    """The base address of a stand-in that answers until the block ends."""
    with serving(Starlette(routes=[Route("/{path:path}", _answer, methods=["POST"])])) as url:
        yield f"{url}/v1"
