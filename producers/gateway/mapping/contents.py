"""Inputs and outputs that stand elsewhere than in one attribute: flattened lists, span events,
tool calls of an answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from stepstream.producers.gateway.mapping.spans import Span, SpanEvent
from stepstream.producers.gateway.mapping.texts import parsed, text_of

MAX_INDEX: Final = 4_096
"""A higher index in a flattened list is dropped: it must not make us allocate."""
MAX_TOOL_CALLS: Final = 64

Flat = dict[int, dict[str, Any]]
"""A flattened list: fields by index."""

_INPUT_EVENTS: Final = frozenset(
    {
        "gen_ai.system.message",
        "gen_ai.user.message",
        "gen_ai.assistant.message",
        "gen_ai.tool.message",
        "gen_ai.content.prompt",
    }
)
_OUTPUT_EVENTS: Final = frozenset({"gen_ai.choice", "gen_ai.content.completion"})
DETAILS_EVENT: Final = "gen_ai.client.inference.operation.details"
CONTENT_EVENTS: Final = _INPUT_EVENTS | _OUTPUT_EVENTS | {DETAILS_EVENT}
"""Events that carry contents, as span events and as log records."""


class ToolCall(NamedTuple):
    """A tool that a model asked for."""

    id: str
    name: str
    arguments: str


def messages_of(flat: Flat) -> list[dict[str, Any]]:
    """Flattened messages as a list of ``role``, ``content`` and ``tool_calls``.

    A streamed answer may be flattened piece by piece (each an item without a role of its own, or
    hundreds of one role): neighbours of the same role that hold nothing but text are one message.
    """
    made: list[dict[str, Any]] = []
    for index in sorted(flat):
        message = _message(flat[index])
        last = made[-1] if made else None
        # Some instrumentations record each chunk of a stream as a message of its own.
        if last is not None and _is_piece(last, message):
            last["content"] += message.get("content", "")
        else:
            made.append(message)
    return made


def _is_piece(last: dict[str, Any], message: dict[str, Any]) -> bool:
    return (
        message.keys() <= {"role", "content"}
        and last.keys() == {"role", "content"}
        and message.get("role", last["role"]) == last["role"] == "assistant"
        and isinstance(last["content"], str)
        and isinstance(message.get("content", ""), str)
    )


def _message(fields: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    calls: dict[str, dict[str, Any]] = {}
    parts: dict[str, Any] = {}
    for path, value in fields.items():
        name = path.removeprefix("message.")
        head, _, rest = name.partition(".")
        if head == "tool_calls" and rest:
            index, _, what = rest.partition(".")
            calls.setdefault(index, {})[what.rpartition(".")[2]] = value
        elif head == "contents" and rest:
            index, _, what = rest.partition(".")
            if what.endswith(".text"):
                parts[index] = value
        elif rest:
            made[name] = value
        else:
            made[head] = value
    if parts and "content" not in made:
        made["content"] = "\n".join(text_of(parts[index]) for index in sorted(parts, key=_number))
    if calls:
        made["tool_calls"] = [calls[index] for index in sorted(calls, key=_number)]
    return made


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else MAX_INDEX


def documents_of(flat: Flat) -> list[dict[str, Any]]:
    """Flattened documents as maps with ``id``, ``score`` and ``content``."""
    return [
        {path.removeprefix("document."): value for path, value in flat[index].items()}
        for index in sorted(flat)
    ]


def from_events(events: Iterable[SpanEvent]) -> tuple[str, str]:
    """Input and output in a span's events; empty texts where the events have none."""
    given: list[Any] = []
    taken: list[Any] = []
    for event in events:
        if event.name == DETAILS_EVENT:
            given += _instructions(event.attributes)
            given += _as_list(event.attributes.get("gen_ai.input.messages"))
            taken += _as_list(event.attributes.get("gen_ai.output.messages"))
        elif event.name in _INPUT_EVENTS:
            given.append(_event_message(event.name, event.attributes))
        elif event.name in _OUTPUT_EVENTS:
            taken.append(_event_message(event.name, event.attributes))
    return text_of(given) if given else "", text_of(taken) if taken else ""


def of_logged_event(event: SpanEvent) -> tuple[str, str]:
    """Input and output in an event that is a step of its own: one message is not a list of one."""
    if event.name == DETAILS_EVENT:
        return from_events([event])
    message = text_of(_event_message(event.name, event.attributes))
    return ("", message) if event.name in _OUTPUT_EVENTS else (message, "")


def _instructions(attributes: dict[str, Any]) -> list[Any]:
    """The system's instructions as a message; nothing where there are none."""
    parts = _as_list(attributes.get("gen_ai.system_instructions"))
    return [{"role": "system", "parts": parts}] if parts else []


def _as_list(value: Any) -> list[Any]:
    decoded = parsed(value)
    if decoded is None or decoded == "":
        return []
    return decoded if isinstance(decoded, list) else [decoded]


_DETAILS: Final = ("gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages")
_WHOLE: Final = ("gen_ai.prompt", "gen_ai.completion")


def _used(name: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a content event that its contents are made of."""
    if name == DETAILS_EVENT:
        return {key: attributes[key] for key in _DETAILS if key in attributes}
    for whole in _WHOLE:
        if whole in attributes:
            return {whole: attributes[whole]}
    return {
        key: value
        for key, value in attributes.items()
        if value is not None and not key.startswith(("gen_ai.", "event."))
    }


def _event_message(name: str, attributes: dict[str, Any]) -> Any:
    fields = {key: parsed(value) for key, value in _used(name, attributes).items()}
    for whole in _WHOLE:
        if whole in fields:
            return fields[whole]
    role = name.removeprefix("gen_ai.").removesuffix(".message")
    return {"role": "assistant" if role == "choice" else role} | fields


def logged_event(name: str, time_ns: int, attributes: dict[str, Any], body: Any) -> SpanEvent:
    """A log record as the span event that it stands for: its body has the fields that a span event
    has as attributes.
    """
    fields = dict(body) if isinstance(body, dict) else {} if body is None else {"content": body}
    return SpanEvent(time_ns, name, _used(name, attributes | fields))


def compact(event: SpanEvent) -> SpanEvent:
    """The event with nested values as texts, which take a tenth of the memory; it has the same
    contents.
    """
    texts = {
        key: text_of(value) if isinstance(value, dict | list) else value
        for key, value in event.attributes.items()
    }
    return SpanEvent(event.time_ns, event.name, texts)


def exception_of(span: Span) -> tuple[str, str]:
    """Type and message of the exception that a span recorded last."""
    for event in reversed(span.events):
        if event.name == "exception":
            kind = event.attributes.get("exception.type")
            message = event.attributes.get("exception.message")
            return text_of(kind), text_of(message)
    return "", ""


def logged_events(value: Any) -> list[SpanEvent]:
    """The content events that stand in one attribute as a JSON list of maps."""
    items = parsed(value)
    if not isinstance(items, list):
        return []
    return [
        SpanEvent(0, str(item.get("event.name", "")), item)
        for item in items
        if isinstance(item, dict)
    ]


_FOUND_EVENTS: Final = ("db.query.result", "db.search.result")


def documents_in_events(events: Iterable[SpanEvent]) -> list[dict[str, Any]]:
    """The documents that a vector store's span lists in its events, one each."""
    return [
        {key.rpartition(".")[2]: value for key, value in event.attributes.items()}
        for event in events
        if event.name in _FOUND_EVENTS
    ]


_LISTS: Final = ("documents", "results", "nodes", "matches", "hits", "docs", "source_nodes")
_LIKE_DOCUMENTS: Final = frozenset(
    ["content", "text", "page_content", "pageContent", "document", "id", "document_id", "doc_id"]
)


def documents_in(output: Any) -> list[dict[str, Any]]:
    """The documents in a retriever's output; an empty list where it has no list of them."""
    found = parsed(output)
    if isinstance(found, dict):
        found = next((found[key] for key in _LISTS if isinstance(found.get(key), list)), None)
    if not isinstance(found, list):
        return []
    items = (_inner(item) for item in found if isinstance(item, dict))
    return [item for item in items if not _LIKE_DOCUMENTS.isdisjoint(item)]


def _inner(item: dict[str, Any]) -> dict[str, Any]:
    """A hit as one map: the document or node that it wraps, with the hit's score."""
    for key in ("document", "node", "kwargs"):
        inner = item.get(key)
        if isinstance(inner, dict):
            return inner | ({"score": item["score"]} if "score" in item else {})
    return item


_MENTIONS_CALLS: Final = (
    "tool_call",
    "toolName",
    "toolCall",
    "function_call",
    "functionCall",
    "toolUse",
    "tool_use",
)


def tool_calls_of(output: str) -> list[ToolCall]:
    """The tools that a model's answer asks for, in the forms of the usual providers; each once."""
    if not any(word in output for word in _MENTIONS_CALLS):
        return []
    found: dict[tuple[str, str, str], ToolCall] = {}
    for call in _calls_in(parsed(output), 0):
        # Messages and their raw form may both be in the answer: a call with an id counts once.
        found.setdefault((call.id, call.name, call.arguments if not call.id else ""), call)
        # Each becomes a step, so an answer must not be able to create any number of them.
        if len(found) >= MAX_TOOL_CALLS:
            break
    return list(found.values())


def _calls_in(value: Any, depth: int) -> Iterator[ToolCall]:
    # An answer is data of a model: nesting must not exhaust the stack.
    if depth > 12:
        return
    if isinstance(value, list):
        for item in value:
            yield from _calls_in(item, depth + 1)
        return
    if not isinstance(value, dict):
        return
    call = _call(value)
    if call is not None:
        yield call
        return
    for key, item in value.items():
        if key in _LISTED and isinstance(item, list):
            yield from _listed(item, depth + 1)
        elif isinstance(item, dict | list):
            yield from _calls_in(item, depth + 1)


_LISTED: Final = ("tool_calls", "toolCalls")


def _listed(items: list[Any], depth: int) -> Iterator[ToolCall]:
    """Calls in a list that holds nothing else: a name is enough, a type may be absent."""
    for item in items:
        if isinstance(item, dict) and "function" not in item and isinstance(item.get("name"), str):
            yield _made(item)
        else:
            yield from _calls_in(item, depth)


def _call(item: dict[str, Any]) -> ToolCall | None:
    """The call that a map stands for: a part, or a call as providers and Vercel write it."""
    kind = item.get("type")
    for key in ("function_call", "functionCall", "toolUse"):
        inner = item.get(key)
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            return _made(inner)
    function = item.get("function")
    if isinstance(function, dict) and isinstance(function.get("name"), str):
        if "arguments" not in function:
            return None  # a declaration of a tool has parameters, not arguments
        return _made(function, item)
    if isinstance(item.get("toolName"), str):
        return _made(item, name="toolName")
    if kind in ("tool_call", "tool_use", "function_call", "tool-call") and isinstance(
        item.get("name"), str
    ):
        return _made(item)
    return None


def _made(
    item: dict[str, Any], outer: dict[str, Any] | None = None, name: str = "name"
) -> ToolCall:
    ids = (outer or {}, item)
    call_id = next(
        (
            text_of(source[key])
            for source in ids
            for key in ("id", "call_id", "toolCallId", "tool_call_id", "toolUseId")
            if source.get(key)
        ),
        "",
    )
    arguments = next(
        (item[key] for key in ("arguments", "args", "input") if item.get(key) is not None), ""
    )
    return ToolCall(call_id, text_of(item[name]), text_of(arguments))


def derived_step_id(*parts: str) -> str:
    """A step id that the same parts always give: a repeated export is a duplicate."""
    found = hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).hexdigest()[:16]
    # An id of zeros only is invalid in OpenTelemetry.
    return found if found.strip("0") else "0" * 15 + "1"
