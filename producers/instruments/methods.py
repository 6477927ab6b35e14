"""The methods of model clients that are recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Method:
    """One method: ``owner`` is a class of ``module``; empty for a function of the module."""

    module: str
    owner: str
    name: str
    provider: str
    streams: str = "argument"
    """When it returns a stream: ``no`` (never), ``argument`` (with ``stream=True``), ``always``."""
    is_async: bool = False
    """Whether its result has to be awaited."""
    inputs: tuple[str, ...] = ("messages",)
    """The arguments that are the input, in the order in which they are looked for."""
    label: str = ""
    """The name of the steps."""


def _both(
    module: str,
    owner: str,
    name: str,
    provider: str,
    *,
    streams: str = "argument",
    inputs: tuple[str, ...] = ("messages",),
    label: str,
) -> tuple[Method, Method]:
    """The method of the plain class and of its asynchronous form ``Async...``."""
    return (
        Method(module, owner, name, provider, streams, False, inputs, label),
        Method(module, f"Async{owner}", name, provider, streams, True, inputs, label),
    )


_OPENAI: Final = (
    *_both("openai.resources.chat.completions.completions", "Completions", "create", "openai",
           label="chat.completions"),
    *_both("openai.resources.chat.completions.completions", "Completions", "parse", "openai",
           streams="no", label="chat.completions"),
    *_both("openai.resources.completions", "Completions", "create", "openai",
           inputs=("prompt",), label="completions"),
    *_both("openai.resources.responses.responses", "Responses", "create", "openai",
           inputs=("input",), label="responses"),
    *_both("openai.resources.responses.responses", "Responses", "parse", "openai",
           streams="no", inputs=("input",), label="responses"),
    *_both("openai.resources.embeddings", "Embeddings", "create", "openai",
           streams="no", inputs=("input",), label="embeddings"),
)  # fmt: skip
_ANTHROPIC: Final = tuple(
    method
    for module in ("anthropic.resources.messages.messages",
                   "anthropic.resources.beta.messages.messages")
    for method in (
        *_both(module, "Messages", "create", "anthropic", label="messages"),
        *_both(module, "Messages", "parse", "anthropic", streams="no", label="messages"),
        # Not awaited: its result is a manager, entered with `with` or `async with`.
        Method(module, "Messages", "stream", "anthropic", "always", label="messages"),
        Method(module, "AsyncMessages", "stream", "anthropic", "always", label="messages"),
    )
)  # fmt: skip
# One request each. The public methods repeat them for functions that they call by themselves,
# and report the usage of the last request only.
_GOOGLE: Final = (
    *(
        method
        for name, streams in (("_generate_content", "no"), ("_generate_content_stream", "always"))
        for method in (
            Method("google.genai.models", "Models", name, "google", streams, False,
                   ("contents",), "generate_content"),
            Method("google.genai.models", "AsyncModels", name, "google", streams, True,
                   ("contents",), "generate_content"),
        )
    ),
    Method("google.genai.models", "Models", "embed_content", "google", "no", False,
           ("contents",), "embed_content"),
    Method("google.genai.models", "AsyncModels", "embed_content", "google", "no", True,
           ("contents",), "embed_content"),
)  # fmt: skip
_MISTRAL: Final = tuple(
    Method(module, owner, f"{name}{'_async' if is_async else ''}", "mistral", streams, is_async,
           inputs, label)
    for package in ("mistralai.client", "mistralai")
    for module, owner, name, streams, inputs, label in (
        (f"{package}.chat", "Chat", "complete", "no", ("messages",), "chat"),
        (f"{package}.chat", "Chat", "stream", "always", ("messages",), "chat"),
        (f"{package}.fim", "Fim", "complete", "no", ("prompt",), "fim"),
        (f"{package}.embeddings", "Embeddings", "create", "no", ("inputs",), "embeddings"),
    )
    for is_async in (False, True)
)  # fmt: skip
_COHERE: Final = (
    *_both("cohere.v2.client", "V2Client", "chat", "cohere", streams="no", label="chat"),
    Method("cohere.v2.client", "V2Client", "chat_stream", "cohere", "always", label="chat"),
    # An asynchronous generator: its result is iterated, not awaited.
    Method("cohere.v2.client", "AsyncV2Client", "chat_stream", "cohere", "always", label="chat"),
    *_both("cohere.v2.client", "V2Client", "embed", "cohere", streams="no",
           inputs=("texts", "inputs"), label="embed"),
    *_both("cohere.v2.client", "V2Client", "rerank", "cohere", streams="no",
           inputs=("query",), label="rerank"),
)  # fmt: skip
# Its answers name the provider that was called.
_LITELLM: Final = tuple(
    Method("litellm", "", f"{'a' if is_async else ''}{name}", "", streams, is_async, inputs, name)
    for name, streams, inputs in (
        ("completion", "argument", ("messages",)),
        ("text_completion", "argument", ("prompt",)),
        ("embedding", "no", ("input",)),
        ("responses", "argument", ("input",)),
    )
    for is_async in (False, True)
)

METHODS: Final[dict[str, tuple[Method, ...]]] = {
    "openai": _OPENAI,
    "anthropic": _ANTHROPIC,
    "google": _GOOGLE,
    "mistral": _MISTRAL,
    "cohere": _COHERE,
    "litellm": _LITELLM,
}
