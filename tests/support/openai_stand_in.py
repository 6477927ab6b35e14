"""A stand-in for OpenAI's API: it asks for the first tool that is offered, then answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

MODEL: Final = "gpt-4o-2024-08-06"
FIRST: Final = (120, 8, 40)
"""Input, output and cached tokens of the call that asks for a tool."""
SECOND: Final = (200, 12, 0)
ANSWER: Final = "Order 7 has shipped."


def _chat(request: dict[str, Any]) -> dict[str, Any]:
    answered = any(one.get("role") == "tool" for one in request["messages"])
    asks = bool(request.get("tools")) and not answered
    message: dict[str, Any] = {"role": "assistant", "content": None if asks else ANSWER}
    if asks:
        function = request["tools"][0]["function"]
        message["tool_calls"] = [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": function["name"], "arguments": '{"order":7}'},
            }
        ]
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


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = _response(body) if self.path.endswith("/responses") else _chat(body)
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def running() -> Iterator[str]:
    """The base address of a stand-in that answers until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
