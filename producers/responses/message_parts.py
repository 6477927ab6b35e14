"""Parts of messages that several clients share: contents and tool calls."""

from __future__ import annotations

from typing import Any, Final

from stepstream.producers.responses.answer import ToolCall
from stepstream.producers.responses.fields import first_of, get, is_a, items_of, parsed, text_of


def content_text(content: Any) -> str:
    """The text of a message's content, which is text or a list of blocks."""
    if is_a(content, str):
        return str.__str__(content)
    if not is_a(content, list | tuple):
        return ""
    return "".join(
        str.__str__(block) if is_a(block, str) else text_of(block, "text") for block in content
    )


def openai_calls(message: Any) -> list[ToolCall]:
    """Tool calls of a chat message."""
    calls = []
    for call in items_of(message, "tool_calls"):
        function = first_of(get(call, "function", "custom"), call)
        arguments = get(function, "arguments", "input", "parameters")
        calls.append(ToolCall(text_of(function, "name"), parsed(arguments), call_id(call)))
    legacy = get(message, "function_call")
    # The field of OpenAI before tool_calls; compatible servers still send it.
    if not calls and text_of(legacy, "name"):
        calls.append(ToolCall(text_of(legacy, "name"), parsed(get(legacy, "arguments"))))
    return calls


def call_id(call: Any) -> str:
    """The id of a call; empty if there is none, or if it is Mistral's ``null``."""
    found = text_of(call, "id")
    return "" if found == "null" else found


def anthropic_server(message: Any) -> str:
    """The provider that served an Anthropic message, from its id, which Bedrock and Vertex mark."""
    identity = text_of(message, "id")
    return next(
        (provider for prefix, provider in _SERVERS if identity.startswith(prefix)), "anthropic"
    )


# Each of them has its own prices for the same model.
_SERVERS: Final = (("msg_bdrk_", "aws"), ("msg_vrtx_", "google"))


def number_of(count: int, noun: str) -> str:
    """``3 images``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def item_text(item: Any) -> str:
    if text_of(item, "type") not in ("message", "message.output"):
        return ""
    content = get(item, "content")
    if is_a(content, str):
        return str.__str__(content)
    return "".join(
        text_of(part, "text", "refusal", "transcript") for part in items_of(item, "content")
    )


def item_call(item: Any) -> ToolCall | None:
    """The tool call that an item of a response is; None for other items."""
    kind = text_of(item, "type").replace(".", "_")
    if not kind.endswith("_call"):
        return None
    name = text_of(item, "name") or kind.removesuffix("_call")
    arguments = get(item, "arguments", "input", "action", "code", "queries")
    return ToolCall(name, parsed(arguments), text_of(item, "call_id", "tool_call_id", "id"))
