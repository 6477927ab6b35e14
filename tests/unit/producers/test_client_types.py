"""The same answers as objects of the clients' own classes, plain and streamed."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stepstream.producers.responses.answer import Answer
from stepstream.producers.responses.reader import read_response
from stepstream.producers.responses.streamed import read_stream
from tests.support.client_answers import (
    ANTHROPIC,
    COHERE,
    GOOGLE,
    OPENAI,
    OTHERS,
    OTHERS_LIKE_OPENAI,
    Case,
    counts,
    dollars,
)
from tests.support.client_streams import STREAMS

Make = Callable[[Any], Any]


def typed(module: str, path: str) -> Any:
    """A class of a client's package; the test is skipped where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pytest.importorskip(module)
    for name in path.split("."):
        found = getattr(found, name, None) or importlib.import_module(f"{found.__name__}.{name}")
    return found


def openai(path: str) -> Make:
    return lambda data: typed("openai._models", "construct_type")(
        type_=typed("openai.types", path), value=data
    )


def anthropic(module: str, path: str) -> Make:
    return lambda data: typed("anthropic._models", "construct_type")(
        type_=typed(module, path), value=data
    )


def cohere(module: str, path: str) -> Make:
    made = "cohere.core.unchecked_base_model"
    return lambda data: typed(made, "construct_type")(type_=typed(module, path), object_=data)


def validated(module: str, path: str) -> Make:
    return lambda data: typed(module, path).model_validate(data)


OPENAI_TYPES = {
    "chat": "chat.ChatCompletion",
    "completion": "Completion",
    "response": "responses.Response",
    "embeddings": "CreateEmbeddingResponse",
    "images": "ImagesResponse",
    "transcription": "audio.Transcription",
}
COHERE_TYPES = {
    "chat": ("cohere.v2.types", "V2ChatResponse"),
    "chat, first version": ("cohere", "NonStreamedChatResponse"),
    "embeddings": ("cohere", "EmbedByTypeResponse"),
    "ranking": ("cohere.v2.types", "V2RerankResponse"),
}
MISTRAL = "mistralai.client.models"


def plain() -> list[Any]:
    """Each case with the class that its client makes of it."""
    found: list[tuple[str, Case, Make]] = []
    for name, case in OPENAI.items():
        kind = name.partition(",")[0].partition(" ")[0]
        if kind in OPENAI_TYPES:
            found.append((f"OpenAI: {name}", case, openai(OPENAI_TYPES[kind])))
    found += [
        (f"like OpenAI: {name}", case, openai("chat.ChatCompletion"))
        for name, case in OTHERS_LIKE_OPENAI.items()
        if "_hidden_params" not in case.given
    ]
    for name, case in ANTHROPIC.items():
        beta = "iterations" in case.given["usage"]
        make = (
            anthropic("anthropic.types.beta", "BetaMessage")
            if beta
            else anthropic("anthropic.types", "Message")
        )
        found.append((f"Anthropic: {name}", case, make))
    for name, case in GOOGLE.items():
        if name != "interaction":
            kind = "EmbedContentResponse" if name == "embeddings" else "GenerateContentResponse"
            found.append((f"Google: {name}", case, validated("google.genai.types", kind)))
    found += [
        (f"Cohere: {name}", case, cohere(*COHERE_TYPES[name])) for name, case in COHERE.items()
    ]
    found += [
        (
            "Mistral: chat",
            OTHERS_LIKE_OPENAI["Mistral"],
            validated(MISTRAL, "ChatCompletionResponse"),
        ),
        (
            "Mistral: conversation",
            OTHERS["Mistral, conversation"],
            validated(MISTRAL, "ConversationResponse"),
        ),
        ("Mistral: pages", OTHERS["Mistral, pages"], validated(MISTRAL, "OCRResponse")),
        (
            "Mistral: transcription",
            OTHERS["Mistral, transcription"],
            validated(MISTRAL, "TranscriptionResponse"),
        ),
    ]
    return [pytest.param(case, make, id=name) for name, case, make in found]


def streamed() -> list[Any]:
    """Each stream with the class of its pieces."""
    found: list[tuple[str, Make]] = []
    for name in STREAMS:
        if name.startswith(("calls,", "OpenRouter")) or name in (
            "OpenAI chat",
            "OpenAI chat without usage",
            "OpenAI chat, tier and charge",
            "OpenAI chat, audio",
        ):
            found.append((name, openai("chat.ChatCompletionChunk")))
        elif name.startswith("OpenAI responses"):
            found.append((name, openai("responses.ResponseStreamEvent")))
        elif name.startswith("Anthropic"):
            found.append((name, anthropic("anthropic.lib.streaming", "MessageStreamEvent")))
        elif name == "Google":
            found.append((name, validated("google.genai.types", "GenerateContentResponse")))
        elif name in ("Mistral", "Mistral, calls"):
            found.append((name, mistral_chunk))
        elif name == "Cohere":
            found.append((name, cohere("cohere.v2.types", "V2ChatStreamResponse")))
        elif name == "Cohere, first version":
            found.append((name, cohere("cohere", "StreamedChatResponse")))
    return [pytest.param(STREAMS[name], make, id=name) for name, make in found]


def mistral_chunk(piece: Any) -> Any:
    """Its client insists on a reason in every choice."""
    data = piece["data"]
    choices = [choice | {"finish_reason": None} for choice in data["choices"]]
    return typed(MISTRAL, "CompletionEvent").model_validate({"data": data | {"choices": choices}})


def check(answer: Answer | None, case: Case) -> None:
    assert answer is not None
    assert (counts(answer), dollars(answer, case)) == (case.counts, case.usd)
    assert (answer.text, answer.service_tier) == (case.text, case.tier)
    assert [call.name for call in answer.tool_calls] == [call[0] for call in case.calls]


@pytest.mark.parametrize(("case", "make"), plain())
def test_plain_answers_of_the_clients_own_classes(case: Case, make: Make) -> None:
    """Fields that were not sent are None, UNSET or defaults there: they change nothing."""
    check(read_response(made(make, case.given)), case)


@pytest.mark.parametrize(("case", "make"), streamed())
def test_streamed_answers_of_the_clients_own_classes(case: Case, make: Make) -> None:
    """The same for the pieces of streams."""
    pieces: Sequence[Any] = case.given
    check(read_stream([made(make, piece) for piece in pieces]), case)


def made(make: Make, data: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(data)
