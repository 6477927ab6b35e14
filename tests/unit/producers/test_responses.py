"""Models' answers:

every usual shape gives text, tool calls, tokens in our meaning, model and provider.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from stepstream.producers.responses.reader import Answer, read_response
from stepstream.producers.responses.streamed import read_stream
from tests.support.sdk import Traced, traced


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced() as made:
        yield made


def objects(value: Any) -> Any:
    """The same answer as a library's objects have it: attributes in place of keys."""
    if isinstance(value, dict):
        return SimpleNamespace(**{key: objects(item) for key, item in value.items()})
    return [objects(item) for item in value] if isinstance(value, list) else value


OPENAI_CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Let me check.",
                "tool_calls": [
                    {
                        "id": "c1",
                        "type": "function",
                        "function": {"name": "lookup", "arguments": '{"order": 7}'},
                    },
                    {
                        "id": "c2",
                        "type": "function",
                        "function": {"name": "broken", "arguments": "{order: 7"},
                    },
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens_details": {"reasoning_tokens": 20},
    },
}
OPENAI_RESPONSE = {
    "object": "response",
    "model": "gpt-5",
    "status": "completed",
    "output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "Let me check."}]},
        {"type": "function_call", "name": "lookup", "arguments": '{"order": 7}', "call_id": "c1"},
        {"type": "web_search_call", "id": "w1", "action": {"query": "x"}},
    ],
    "usage": {
        "input_tokens": 100,
        "output_tokens": 50,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens_details": {"reasoning_tokens": 20},
    },
}
ANTHROPIC = {
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "Let me check."},
        {"type": "tool_use", "id": "c1", "name": "lookup", "input": {"order": 7}},
    ],
    "stop_reason": "tool_use",
    "usage": {
        # Anthropic leaves cached tokens out of input_tokens: 30 + 60 + 10 are the 100 of the
        # others.
        "input_tokens": 30,
        "output_tokens": 50,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 10,
    },
}
GOOGLE = {
    "model_version": "gemini-2.5-pro",
    "candidates": [
        {
            "finish_reason": "STOP",
            "content": {
                "parts": [
                    {"text": "hm", "thought": True},
                    {"text": "Let me check."},
                    {"function_call": {"name": "lookup", "args": {"order": 7}}},
                ]
            },
        }
    ],
    "usage_metadata": {
        # Google counts the results of tools apart from the prompt.
        "prompt_token_count": 90,
        "tool_use_prompt_token_count": 10,
        "candidates_token_count": 30,
        "thoughts_token_count": 20,
        "cached_content_token_count": 60,
    },
}
GOOGLE_REST = {
    "modelVersion": "gemini-2.5-pro",
    "candidates": [{"finishReason": "STOP", "content": {"parts": [{"text": "hi"}]}}],
    "usageMetadata": {
        "promptTokenCount": 100,
        "candidatesTokenCount": 30,
        "thoughtsTokenCount": 20,
    },
}
LANGCHAIN = {
    "content": [{"type": "text", "text": "Let me check."}],
    "tool_calls": [{"name": "lookup", "args": {"order": 7}, "id": "c1"}],
    "response_metadata": {
        "model_name": "claude-sonnet-4-5",
        "model_provider": "anthropic",
        "stop_reason": "tool_use",
    },
    "usage_metadata": {
        "input_tokens": 100,
        "output_tokens": 50,
        "input_token_details": {
            "cache_read": 60,
            "cache_creation": 0,
            "ephemeral_5m_input_tokens": 10,
        },
        "output_token_details": {"reasoning": 20},
    },
}
BEDROCK_CALL = {"toolUse": {"name": "lookup", "input": {"order": 7}, "toolUseId": "c1"}}
BEDROCK = {
    "output": {"message": {"content": [{"text": "Let me check."}, BEDROCK_CALL]}},
    "stopReason": "tool_use",
    "usage": {
        "inputTokens": 30,
        "outputTokens": 50,
        "cacheReadInputTokens": 60,
        "cacheWriteInputTokens": 10,
    },
}
OLLAMA = {
    "model": "llama3.2",
    "done": True,
    "done_reason": "stop",
    "message": {
        "content": "Let me check.",
        "tool_calls": [{"function": {"name": "lookup", "arguments": {"order": 7}}}],
    },
    "prompt_eval_count": 100,
    "eval_count": 50,
}
# The same answer as each library has it; only names, nesting and what counts include differ.
# name, answer, (input, output, cached, written, reasoning), model, provider
SHAPES = [
    ("openai chat", OPENAI_CHAT, (100, 50, 60, 0, 20), "gpt-4o-2024-08-06", ""),
    ("openai responses", OPENAI_RESPONSE, (100, 50, 60, 0, 20), "gpt-5", ""),
    ("anthropic", ANTHROPIC, (100, 50, 60, 10, 0), "claude-sonnet-4-5", "anthropic"),
    ("google", GOOGLE, (100, 50, 60, 0, 20), "gemini-2.5-pro", "google"),
    ("langchain", LANGCHAIN, (100, 50, 60, 10, 20), "claude-sonnet-4-5", "anthropic"),
    ("bedrock", BEDROCK, (100, 50, 60, 10, 0), "", "aws"),
    ("ollama", OLLAMA, (100, 50, 0, 0, 0), "llama3.2", "ollama"),
]


def tokens(answer: Answer | None) -> tuple[int, int, int, int, int] | None:
    assert answer is not None
    used = answer.usage
    if used is None:
        return None
    return (
        used.input_tokens,
        used.output_tokens,
        used.cached_input_tokens,
        used.cache_write_tokens,
        used.reasoning_tokens,
    )


@pytest.mark.parametrize("as_objects", [False, True], ids=["dict", "object"])
@pytest.mark.parametrize(
    ("name", "response", "used", "model", "provider"), SHAPES, ids=[shape[0] for shape in SHAPES]
)
def test_shapes(
    name: str,
    response: dict[str, Any],
    used: tuple[int, ...],
    model: str,
    provider: str,
    as_objects: bool,
) -> None:
    """Text without thoughts, the call with its arguments as JSON, and tokens that include what is
    cached and reasoned.
    """
    answer = read_response(objects(response) if as_objects else response)
    assert answer is not None
    assert answer.text == "Let me check."
    assert (answer.tool_calls[0].name, answer.tool_calls[0].arguments) in [
        ("lookup", {"order": 7}),
        ("lookup", SimpleNamespace(order=7)),
    ]
    assert tokens(answer) == used
    assert (answer.model, answer.provider) == (model, provider)
    # Each has its own words for it; they are kept as they are.
    assert answer.finish_reason


def test_more_shapes() -> None:
    """Google's REST names, old completions, refusals, embeddings, wrapped answers, Anthropic's
    counts in OpenAI's clothes.
    """
    assert tokens(read_response(GOOGLE_REST)) == (100, 50, 0, 0, 20)
    completion = read_response(
        {"choices": [{"text": "hi", "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}
    )
    assert completion is not None
    assert completion.text == "hi"
    refusal = read_response({"choices": [{"message": {"content": None, "refusal": "no"}}]})
    assert refusal is not None
    assert refusal.text == "no"
    embeddings = read_response(
        {"data": [{"embedding": [0.1] * 1000}], "model": "e", "usage": {"prompt_tokens": 8}}
    )
    assert embeddings is not None
    assert (embeddings.text, tokens(embeddings)) == ("1 embedding", (8, 0, 0, 0, 0))
    wrapped = read_response(SimpleNamespace(name="parsed", _raw_response=objects(OPENAI_CHAT)))
    assert tokens(wrapped) == (100, 50, 60, 0, 20)
    structured = read_response({"raw": objects(LANGCHAIN), "parsed": None})
    assert tokens(structured) == (100, 50, 60, 10, 20)
    passed_on = {
        "prompt_tokens": 30,
        "completion_tokens": 5,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 10,
    }
    assert tokens(
        read_response({"choices": [{"message": {"content": "x"}}], "usage": passed_on})
    ) == (100, 5, 60, 10, 0)


@pytest.mark.parametrize(
    "response", [None, "text", 5, [], {}, object(), {"choices": []}, {"usage": {"input_tokens": 3}}]
)
def test_what_is_no_answer(response: object) -> None:
    """Anything else is not taken for an answer."""
    assert read_response(response) is None


def test_odd_fields_do_not_hurt() -> None:
    """Fields of the wrong type count as absent."""
    odd = {
        "choices": [{"message": {"content": 7, "tool_calls": "x"}}],
        "usage": {"prompt_tokens": "many"},
        "model": 3,
    }
    answer = read_response(odd)
    assert answer is not None
    assert (answer.text, answer.tool_calls, answer.usage, answer.model) == ("", [], None, "")


def test_recorded_on_a_step(made: Traced) -> None:
    """The model that answered replaces the one asked for; tool calls become JSON in the output; the
    tokens are priced.
    """
    with made.tracer.run():
        with made.tracer.llm("plan", model="gpt-4o", provider="openai") as step:
            step.record_response(objects(OPENAI_CHAT))
        with made.tracer.llm("text") as step:
            step.record_response(ANTHROPIC | {"content": [{"type": "text", "text": "hi"}]})
        with made.tracer.llm("odd") as step:
            step.record_response({"answer": 42})
    plan, text, odd = (made.ended[name] for name in ("plan", "text", "odd"))
    assert json.loads(plan.output) == {
        "text": "Let me check.",
        "tool_calls": [
            {"name": "lookup", "arguments": {"order": 7}, "id": "c1"},
            # Models write invalid JSON: the text is kept, because it explains the failure.
            {"name": "broken", "arguments": "{order: 7", "id": "c2"},
        ],
    }
    assert (plan.model, plan.attributes) == (
        "gpt-4o-2024-08-06",
        {"request_model": "gpt-4o", "finish_reason": "tool_calls"},
    )
    assert plan.cost_source == "priced"
    assert (text.output, text.provider, text.cost_source) == ("hi", "anthropic", "priced")
    assert odd.output == '{"answer":42}'


def test_a_charged_cost_is_given(made: Traced) -> None:
    """If the answer reports the charge, that is the cost."""
    with made.tracer.llm("ask") as step:
        step.record_response(
            {
                "choices": [{"message": {"content": "x"}}],
                "usage": {"prompt_tokens": 1, "cost": 0.00125},
            }
        )
    event = made.ended["ask"]
    assert (str(event.cost_usd), event.cost_source) == ("0.00125", "given")


def chat_chunk(delta: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    choices = (
        []
        if delta is None
        else [{"delta": delta, "finish_reason": more.pop("finish_reason", None)}]
    )
    return {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": choices, **more}


OPENAI_CHUNKS = [
    chat_chunk({"role": "assistant", "content": "Let me "}),
    chat_chunk({"content": "check."}),
    chat_chunk(
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "lookup", "arguments": ""}}]}
    ),
    chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"order"'}}]}),
    chat_chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 7}"}}]}),
    chat_chunk({}, finish_reason="tool_calls"),
    chat_chunk(None, usage=OPENAI_CHAT["usage"]),
]
ANTHROPIC_CHUNKS = [
    {
        "type": "message_start",
        "message": {
            "model": "claude-sonnet-4-5",
            "usage": {**ANTHROPIC["usage"], "output_tokens": 1},  # type: ignore[dict-item]
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Let me check."},
    },
    {
        "type": "content_block_start",
        "index": 1,
        "content_block": {"type": "tool_use", "id": "c1", "name": "lookup"},
    },
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": '{"order"'},
    },
    {
        "type": "content_block_delta",
        "index": 1,
        "delta": {"type": "input_json_delta", "partial_json": ": 7}"},
    },
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 50}},
    {"type": "message_stop"},
]
RESPONSE_CHUNKS = [
    {"type": "response.output_text.delta", "delta": "Let me"},
    # The last event has the whole answer, which replaces the pieces.
    {"type": "response.completed", "response": OPENAI_RESPONSE},
]
GOOGLE_CHUNKS = [
    {
        "candidates": [{"content": {"parts": [{"text": "Let me "}]}}],
        "usage_metadata": {"prompt_token_count": 90},
    },
    {
        **GOOGLE,
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "check."},
                        {"function_call": {"name": "lookup", "args": {"order": 7}}},
                    ]
                }
            }
        ],
    },
]


@pytest.mark.parametrize("as_objects", [False, True], ids=["dict", "object"])
@pytest.mark.parametrize(
    ("chunks", "used"),
    [
        (OPENAI_CHUNKS, (100, 50, 60, 0, 20)),
        (ANTHROPIC_CHUNKS, (100, 50, 60, 10, 0)),
        (RESPONSE_CHUNKS, (100, 50, 60, 0, 20)),
        (GOOGLE_CHUNKS, (100, 50, 60, 0, 20)),
    ],
    ids=["openai", "anthropic", "responses", "google"],
)
def test_streams(chunks: list[Any], used: tuple[int, ...], as_objects: bool) -> None:
    """The pieces of a streamed answer make the same answer as one that came whole."""
    answer = read_stream(objects(chunks) if as_objects else chunks)
    assert answer is not None
    assert answer.text == "Let me check."
    assert answer.tool_calls[0].name == "lookup"
    assert tokens(answer) == used


def test_watched_streams(made: Traced) -> None:
    """``record_stream`` passes the pieces on, records the answer at their end, and what came so far
    when left early.
    """
    with made.tracer.run():
        with made.tracer.llm("whole") as step:
            assert list(step.record_stream(OPENAI_CHUNKS)) == OPENAI_CHUNKS
        with made.tracer.llm("left") as step:
            pieces = iter(step.record_stream(iter(OPENAI_CHUNKS)))
            next(pieces)
        # As a program that leaves a loop early does.
        pieces.close()  # type: ignore[attr-defined]
    whole, left = made.ended["whole"], made.ended["left"]
    assert json.loads(whole.output)["tool_calls"][0]["arguments"] == {"order": 7}
    assert whole.usage is not None
    assert whole.first_token_time is not None
    assert left.output == "Let me "


async def test_watched_async_streams(made: Traced) -> None:
    """The same for asynchronous streams."""

    async def stream() -> Any:
        for chunk in OPENAI_CHUNKS:
            yield chunk

    with made.tracer.llm("whole") as step:
        assert [chunk async for chunk in step.record_stream(stream())] == OPENAI_CHUNKS
    assert made.ended["whole"].model == "gpt-4o"
