"""Converts lists of messages in the format of OpenAI's API to runs.

Each answer of the model becomes a model call, each message of a tool the end of that tool's call.
Messages have no times: each step takes one second, counted from the time of the file, and has the
attribute ``synthetic_time``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from stepstream.producers.gateway.importers.ids import span_id_of
from stepstream.producers.gateway.mapping.spans import Span
from stepstream.producers.gateway.mapping.texts import text_of

SOURCE = "messages"
SECOND_NS = 1_000_000_000


def messages_in(item: Any) -> list[dict[str, Any]] | None:
    """The messages that a value holds, directly or under a usual name; None where it holds none."""
    if isinstance(item, dict):
        for name in ("messages", "traj", "conversation", "history"):
            found = messages_in(item.get(name))
            if found is not None:
                return found
        return None
    # An empty list has no sign of its format, so it is not taken for a conversation.
    is_list = isinstance(item, list) and bool(item)
    if is_list and all(isinstance(one, dict) and "role" in one for one in item):
        return list(item)
    return None


def spans(messages: list[dict[str, Any]], start_ns: int) -> Iterator[Span]:
    """The spans of one conversation. The same messages always give the same ids."""
    # Derived from the contents, so that a second import gives duplicates, which count once.
    trace_id = hashlib.sha256(msgspec.json.encode(messages)).hexdigest()[:32]
    root_id = span_id_of(SOURCE, f"{trace_id}/root")
    asked: dict[str, tuple[str, str]] = {}
    seen: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        role = message.get("role")
        attributes: dict[str, Any] = {}
        if role == "assistant":
            attributes = _call(message, seen)
            asked |= _asked(message)
        elif role in ("tool", "function"):
            attributes = _result(message, asked)
        seen.append(message)
        if not attributes:
            continue
        yield Span(
            trace_id,
            span_id_of(SOURCE, f"{trace_id}/{number}"),
            root_id,
            text_of(attributes.get("gen_ai.tool.name") or "chat"),
            start_ns + number * SECOND_NS,
            start_ns + (number + 1) * SECOND_NS,
            attributes | {"synthetic_time": "true"},
        )
    yield Span(
        trace_id,
        root_id,
        "",
        "conversation",
        start_ns,
        start_ns + max(1, len(messages)) * SECOND_NS,
        {
            "gen_ai.operation.name": "invoke_agent",
            "input.value": _first(messages, "user"),
            "output.value": _first(messages[::-1], "assistant"),
            "synthetic_time": "true",
        },
    )


def _call(message: dict[str, Any], seen: list[dict[str, Any]]) -> dict[str, Any]:
    found = {
        "gen_ai.operation.name": "chat",
        # The whole history in every call would make the import quadratic in its length.
        "gen_ai.input.messages": seen[-20:],
        "gen_ai.output.messages": [message],
    }
    if message.get("model"):
        found["gen_ai.request.model"] = message["model"]
    return found


def _asked(message: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Names and arguments of the tools that an answer asks for, by the call's id."""
    found: dict[str, tuple[str, str]] = {}
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            arguments = text_of(function.get("arguments"))
            found[text_of(call.get("id"))] = (text_of(function.get("name")), arguments)
    return found


def _result(message: dict[str, Any], asked: dict[str, tuple[str, str]]) -> dict[str, Any]:
    call_id = text_of(message.get("tool_call_id"))
    # A result has only the id of its call: name and arguments are in the earlier answer.
    name, arguments = asked.get(call_id, (text_of(message.get("name")), ""))
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name or "tool",
        "gen_ai.tool.call.id": call_id,
        "gen_ai.tool.call.arguments": arguments,
        "gen_ai.tool.call.result": text_of(message.get("content")),
    }


def _first(messages: list[dict[str, Any]], role: str) -> str:
    found = (one.get("content") for one in messages if one.get("role") == role)
    return text_of(next((content for content in found if content), ""))
