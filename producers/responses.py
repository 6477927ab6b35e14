"""Models' answers in their usual shapes: text, tool calls, tokens, model. No library of theirs is imported.

Objects and dictionaries are read alike, by the names of their fields. Token counts become ours: input includes cached and
cache-written tokens, output includes reasoning. Anthropic and Bedrock count cached input apart, Google counts thoughts apart:
they are added.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from stepstream.producers.foreign import field_of
from stepstream.schemas.step import TokenUsage, TokenUsageStruct

if TYPE_CHECKING:
    from stepstream.producers.filling import Fills


@dataclass(slots=True)
class ToolCall:
    """A tool that the model chose, and its arguments: JSON where they are, text where they are not."""

    name: str
    arguments: Any = None
    id: str = ""


@dataclass(slots=True)
class Answer:
    """What a model answered."""

    text: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    usage: TokenUsage | None = None
    model: str = ""
    provider: str = ""
    finish_reason: str = ""
    cost_usd: float | None = None

    @property
    def output(self) -> object:
        """The text; with tool calls, ``{"text": ..., "tool_calls": [{"name", "arguments", "id"}]}``."""
        if not self.tool_calls:
            return self.text or None
        calls = [
            {"name": call.name, "arguments": call.arguments, **({"id": call.id} if call.id else {})} for call in self.tool_calls
        ]
        return {**({"text": self.text} if self.text else {}), "tool_calls": calls}

    def record_on(self, step: Fills) -> None:
        """Put it onto a step. The model that answered replaces the one that was asked for."""
        if self.output is not None:
            step.set_output(self.output)
        record = step._record
        if self.usage is not None:
            record.usage = self.usage
        if self.model and self.model != record.model:
            if record.model:
                step.set_attribute("request_model", record.model)
            record.model = self.model
        record.provider = record.provider or self.provider
        if self.finish_reason:
            step.set_attribute("finish_reason", self.finish_reason)
        if self.cost_usd is not None and record.cost_usd is None:
            step.set_cost(self.cost_usd)


def read_response(response: object) -> Answer | None:
    """The answer in a response of a known shape; None for any other."""
    if response is None or isinstance(response, str | bytes | int | float | list | tuple):
        return None
    for read in _READERS:
        answer = read(response)
        if answer is not None:
            return answer
    return None


# --- reading fields of objects and dictionaries alike ---


def get(source: Any, *names: str) -> Any:
    """The first of the fields that is there; None where none is."""
    for name in names:
        value = field_of(source, name)
        if value is not None:
            return value
    return None


def text_of(source: Any, *names: str) -> str:
    """A field that is text; empty where it is not."""
    value = get(source, *names)
    return value if isinstance(value, str) else ""


def count_of(source: Any, *names: str) -> int:
    """A field that is a count; 0 where it is not."""
    value = get(source, *names)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def items_of(source: Any, *names: str) -> list[Any]:
    """A field that is a list; empty where it is not."""
    value = get(source, *names)
    return list(value) if isinstance(value, list | tuple) else []


def parsed(arguments: Any) -> Any:
    """A call's arguments: JSON text as what it says, anything else as it is."""
    if not isinstance(arguments, str):
        return dict(arguments) if issubclass(type(arguments), dict) else arguments
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def usage_of(source: Any) -> TokenUsage | None:
    """Tokens as OpenAI, and those who copy it, count them: everything included."""
    if source is None:
        return None
    details_in = get(source, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    details_out = get(source, "completion_tokens_details", "output_tokens_details", "output_token_details")
    given = count_of(source, "prompt_tokens", "input_tokens")
    cached = count_of(details_in, "cached_tokens", "cache_read")
    cached = cached or count_of(source, "prompt_cache_hit_tokens", "cache_read_input_tokens")
    written = count_of(details_in, "cache_write_tokens", "cache_creation_tokens", "cache_creation")
    written = written or count_of(source, "cache_creation_input_tokens") or _written_by_age(details_in)
    used = TokenUsageStruct(
        # more cached than there was: somebody passed Anthropic's own counts on
        input_tokens=given if cached + written <= given else given + cached + written,
        output_tokens=count_of(source, "completion_tokens", "output_tokens"),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=count_of(details_out, "reasoning_tokens", "reasoning"),
    )
    return used if used.input_tokens or used.output_tokens else None


def _written_by_age(details: Any) -> int:
    return count_of(details, "ephemeral_5m_input_tokens") + count_of(details, "ephemeral_1h_input_tokens")


def usage_apart(source: Any, *, read: str, written: str, plain: str, output: str) -> TokenUsage | None:
    """Tokens as Anthropic counts them: cached input beside the input, so they are added."""
    cached, cache_written = count_of(source, read), count_of(source, written)
    used = TokenUsageStruct(
        input_tokens=count_of(source, plain) + cached + cache_written,
        output_tokens=count_of(source, output),
        cached_input_tokens=cached,
        cache_write_tokens=cache_written,
    )
    return used if used.input_tokens or used.output_tokens else None


def anthropic_usage(source: Any) -> TokenUsage | None:
    """Tokens of an Anthropic message."""
    return usage_apart(
        source,
        read="cache_read_input_tokens",
        written="cache_creation_input_tokens",
        plain="input_tokens",
        output="output_tokens",
    )


def google_usage(source: Any) -> TokenUsage | None:
    """Tokens of a Gemini answer: thoughts and the prompts of its own tools stand apart, so they are added."""
    thoughts = count_of(source, "thoughts_token_count", "thoughtsTokenCount")
    used = TokenUsageStruct(
        input_tokens=count_of(source, "prompt_token_count", "promptTokenCount")
        + count_of(source, "tool_use_prompt_token_count", "toolUsePromptTokenCount"),
        output_tokens=count_of(source, "candidates_token_count", "candidatesTokenCount") + thoughts,
        cached_input_tokens=count_of(source, "cached_content_token_count", "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )
    return used if used.input_tokens or used.output_tokens else None


def _content_text(content: Any) -> str:
    """The text of a message's content, which is text or a list of blocks."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        return ""
    return "".join(block if isinstance(block, str) else text_of(block, "text") for block in content)


def openai_calls(message: Any) -> list[ToolCall]:
    """Tool calls of a chat message."""
    calls = []
    for call in items_of(message, "tool_calls"):
        function = get(call, "function", "custom")
        name = text_of(function, "name")
        calls.append(ToolCall(name, parsed(get(function, "arguments", "input")), text_of(call, "id")))
    return calls


# --- the shapes ---


def _langchain(response: Any) -> Answer | None:
    raw = get(response, "raw") if issubclass(type(response), dict) and "parsed" in response else response
    if get(raw, "response_metadata") is None or get(raw, "content") is None:
        return None
    metadata = get(raw, "response_metadata")
    calls = [ToolCall(text_of(c, "name"), get(c, "args"), text_of(c, "id")) for c in items_of(raw, "tool_calls")]
    return Answer(
        text=_content_text(get(raw, "content")),
        tool_calls=calls,
        usage=usage_of(get(raw, "usage_metadata")) or usage_of(get(metadata, "token_usage", "usage")),
        model=text_of(metadata, "model_name", "model"),
        provider=_PROVIDERS.get(text_of(metadata, "model_provider"), text_of(metadata, "model_provider")),
        finish_reason=text_of(metadata, "finish_reason", "stop_reason"),
    )


def _openai_chat(response: Any) -> Answer | None:
    choices = items_of(response, "choices")
    if not choices:
        return None
    message = get(choices[0], "message")
    if message is None and get(choices[0], "text") is None:
        return None
    usage = get(response, "usage")
    cost = get(usage, "cost")  # OpenRouter says what it charged
    return Answer(
        text=_content_text(get(message, "content")) or text_of(message, "refusal") or text_of(choices[0], "text"),
        tool_calls=openai_calls(message),
        usage=usage_of(usage),
        model=text_of(response, "model"),
        finish_reason=text_of(choices[0], "finish_reason"),
        cost_usd=float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None,
    )


def _openai_response(response: Any) -> Answer | None:
    output = items_of(response, "output")
    if text_of(response, "object") != "response" and not (output and get(response, "usage") is not None):
        return None
    answer = Answer(usage=usage_of(get(response, "usage")), model=text_of(response, "model"))
    texts = []
    for item in output:
        kind = text_of(item, "type")
        if kind == "message":
            texts.append("".join(text_of(part, "text", "refusal") for part in items_of(item, "content")))
        elif kind.endswith("_call"):
            name = text_of(item, "name") or kind.removesuffix("_call")
            answer.tool_calls.append(
                ToolCall(name, parsed(get(item, "arguments", "input", "action")), text_of(item, "call_id", "id"))
            )
    answer.text = "\n".join(texts)
    answer.finish_reason = text_of(response, "status")
    return answer


def _anthropic(response: Any) -> Answer | None:
    if text_of(response, "type") != "message" or get(response, "content") is None:
        return None
    blocks = items_of(response, "content")
    return Answer(
        text="".join(text_of(block, "text") for block in blocks if text_of(block, "type") == "text"),
        tool_calls=[
            ToolCall(text_of(block, "name"), parsed(get(block, "input")), text_of(block, "id"))
            for block in blocks
            if text_of(block, "type").endswith("tool_use")
        ],
        usage=anthropic_usage(get(response, "usage")),
        model=text_of(response, "model"),
        provider="anthropic",
        finish_reason=text_of(response, "stop_reason"),
    )


def _google(response: Any) -> Answer | None:
    candidates = items_of(response, "candidates")
    usage = get(response, "usage_metadata", "usageMetadata")
    if usage is None and not candidates:
        return None
    parts = items_of(get(candidates[0], "content"), "parts") if candidates else []
    calls = [call for part in parts if (call := get(part, "function_call", "functionCall")) is not None]
    reason = get(candidates[0], "finish_reason", "finishReason") if candidates else None
    return Answer(
        text="".join(text_of(part, "text") for part in parts if get(part, "thought") is not True),
        tool_calls=[ToolCall(text_of(call, "name"), parsed(get(call, "args")), text_of(call, "id")) for call in calls],
        usage=google_usage(usage),
        model=text_of(response, "model_version", "modelVersion"),
        provider="google",
        finish_reason=str(getattr(reason, "name", reason) or ""),
    )


def _bedrock(response: Any) -> Answer | None:
    message = get(get(response, "output"), "message")
    usage = get(response, "usage")
    if message is None or get(usage, "inputTokens") is None:
        return None
    blocks = items_of(message, "content")
    calls = [call for block in blocks if (call := get(block, "toolUse")) is not None]
    return Answer(
        text="".join(text_of(block, "text") for block in blocks),
        tool_calls=[ToolCall(text_of(call, "name"), get(call, "input"), text_of(call, "toolUseId")) for call in calls],
        usage=usage_apart(
            usage, read="cacheReadInputTokens", written="cacheWriteInputTokens", plain="inputTokens", output="outputTokens"
        ),
        provider="aws",
        finish_reason=text_of(response, "stopReason"),
    )


def _ollama(response: Any) -> Answer | None:
    message = get(response, "message")
    if get(response, "done") is None or (message is None and get(response, "response") is None):
        return None
    used = TokenUsageStruct(
        input_tokens=count_of(response, "prompt_eval_count"), output_tokens=count_of(response, "eval_count")
    )
    return Answer(
        text=text_of(message, "content") if message is not None else text_of(response, "response"),
        tool_calls=openai_calls(message),
        usage=used if used.input_tokens or used.output_tokens else None,
        model=text_of(response, "model"),
        provider="ollama",
        finish_reason=text_of(response, "done_reason"),
    )


def _embeddings(response: Any) -> Answer | None:
    data = items_of(response, "data")
    if not data or get(data[0], "embedding") is None:
        return None
    return Answer(
        text=f"{len(data)} embedding{'' if len(data) == 1 else 's'}",
        usage=usage_of(get(response, "usage")),
        model=text_of(response, "model"),
    )


def _wrapped(response: Any) -> Answer | None:
    """A parsed object that carries the answer it was made from, as instructor's do."""
    raw = get(response, "_raw_response")
    return None if raw is None or raw is response else read_response(raw)


_PROVIDERS: Final = {"google_genai": "google", "google_vertexai": "google", "bedrock_converse": "aws"}
_READERS: Final[tuple[Callable[[Any], Answer | None], ...]] = (
    _langchain,
    _openai_chat,
    _openai_response,
    _anthropic,
    _google,
    _bedrock,
    _ollama,
    _embeddings,
    _wrapped,
)
