"""Streamed answers as the clients' newest packages yield them, piece by piece."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.support.client_answers import (
    BOTH,
    HUNDRED,
    NOVA,
    Case,
    chunk,
    gemini,
    message,
    modality,
    piece,
    response,
)

CONTENT: Final = [chunk({"role": "assistant", "content": "h"}), chunk({"content": "i"})]
USED: Final = chunk(usage=HUNDRED)


def begun(**usage: Any) -> dict[str, Any]:
    """The first event of an Anthropic stream."""
    first = message(input_tokens=100, output_tokens=1, **usage)
    return {"type": "message_start", "message": first | {"content": [], "stop_reason": None}}


def text_block(text: str = "hi", index: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "type": "content_block_start",
            "index": index,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": "text_delta", "text": text},
        },
        {"type": "content_block_stop", "index": index},
    ]


def ended(**usage: Any) -> dict[str, Any]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 50} | usage,
    }


STOP: Final = {"type": "message_stop"}


def wrapped(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As ``invoke_model_with_response_stream`` yields them."""
    return [{"chunk": {"bytes": json.dumps(event).encode()}} for event in events]


METRICS: Final = {"inputTokenCount": 100, "outputTokenCount": 50, "invocationLatency": 5}
TWO_CALLS: Final = (("weather", {"city": "Bern"}), ("clock", {"zone": "CET"}))

CALLS: Final[dict[str, Case]] = {
    # OpenAI's own form; the forms below are those of servers that copy it.
    "by index": Case(
        [
            piece("weather", "", 0, "a"),
            piece(None, '{"city": ', 0),
            piece(None, '"Bern"}', 0),
            piece("clock", "", 1, "b"),
            piece(None, '{"zone": "CET"}', 1),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        TWO_CALLS,
    ),
    # The index is 0 for every call: a new id or name is what begins the next one.
    "all of index 0": Case(
        [
            piece("weather", '{"city": "Bern"}', 0, "a"),
            piece("clock", '{"zone": ', 0, "b"),
            piece(None, '"CET"}', 0),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        TWO_CALLS,
    ),
    "all of index 0, ids resent": Case(
        [
            piece("weather", '{"city": ', 0, "a"),
            piece(None, '"Bern"}', 0, "a"),
            piece("clock", '{"zone": ', 0, "b"),
            piece(None, '"CET"}', 0, "b"),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        TWO_CALLS,
    ),
    # Pieces of two calls alternate: only the id names the call that a piece belongs to.
    "turn by turn, by id": Case(
        [
            piece("weather", '{"city": ', None, "a"),
            piece("clock", '{"zone": ', None, "b"),
            piece(None, '"Bern"}', None, "a"),
            piece(None, '"CET"}', None, "b"),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        TWO_CALLS,
    ),
    "no index, ids once": Case(
        [
            piece("weather", "", None, "a"),
            piece(None, '{"city": "Bern"}'),
            piece("clock", "", None, "b"),
            piece(None, '{"zone": "CET"}'),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        TWO_CALLS,
    ),
    # Nothing but the name marks where the second call begins.
    "no index, no id": Case(
        [
            piece("weather", '{"city": '),
            piece(None, '"Bern"}'),
            piece("clock", '{"zone": "CET"}'),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        TWO_CALLS,
    ),
    # The name again is no second call as long as the arguments are not complete.
    "name in every piece": Case(
        [
            piece("read_file", '{"p', 0, "a"),
            piece("read_file", 'ath": ', 0),
            piece("read_file", '"x"}', 0),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        (("read_file", {"path": "x"}),),
    ),
    "name in every piece, no index": Case(
        [
            piece("read_file", '{"p', None, "a"),
            piece("read_file", 'ath": '),
            piece("read_file", '"x"}'),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        (("read_file", {"path": "x"}),),
    ),
    "name and id in every piece": Case(
        [
            piece("read_file", '{"p', 0, "a"),
            piece("read_file", 'ath": ', 0, "a"),
            piece("read_file", '"x"}', 0, "a"),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        (("read_file", {"path": "x"}),),
    ),
    # The name itself comes in pieces, as the arguments do.
    "name in parts": Case(
        [
            piece("read_", None, 0, "a"),
            piece("file", None, 0),
            piece(None, '{"path": "x"}', 0),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        (("read_file", {"path": "x"}),),
    ),
    # Two calls of one tool: the name alone must not join them.
    "the same tool twice": Case(
        [piece("find", '{"a": 1}', 0, "a"), piece("find", '{"a": 2}', 1, "b"), USED],
        BOTH,
        "0.00075",
        "",
        (("find", {"a": 1}), ("find", {"a": 2})),
    ),
    "the same tool twice, all of index 0": Case(
        [piece("find", '{"a": 1}', 0, "a"), piece("find", '{"a": 2}', 0, "b"), USED],
        BOTH,
        "0.00075",
        "",
        (("find", {"a": 1}), ("find", {"a": 2})),
    ),
    # Arguments as an object instead of JSON text.
    "whole calls in one piece": Case(
        [
            chunk(
                {
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "a",
                            "function": {"name": "weather", "arguments": {"city": "Bern"}},
                        },
                        {
                            "index": 0,
                            "id": "b",
                            "function": {"name": "clock", "arguments": {"zone": "CET"}},
                        },
                    ]
                }
            ),
            USED,
        ],
        BOTH,
        "0.00075",
        "",
        TWO_CALLS,
    ),
}

STREAMS: Final[dict[str, Case]] = {
    **{f"calls, {name}": case for name, case in CALLS.items()},
    "OpenAI chat": Case([*CONTENT, USED], BOTH, "0.00075"),
    # OpenAI sends usage only with stream_options: {include_usage: true}.
    "OpenAI chat without usage": Case(CONTENT, {}, None),
    "OpenAI chat, tier and charge": Case(
        [chunk({"content": "hi"}, service_tier="flex"), chunk(usage=HUNDRED | {"cost": 0.0005})],
        BOTH,
        "0.0005",
        tier="flex",
    ),
    # With the user's own key the cost is 0 and the provider's charge is a detail.
    "OpenRouter, own key": Case(
        [
            chunk({"content": "hi"}, "x/y"),
            chunk(
                model="x/y",
                usage=HUNDRED
                | {
                    "cost": 0,
                    "is_byok": True,
                    "cost_details": {"upstream_inference_cost": 0.0360795},
                },
            ),
        ],
        BOTH,
        "0.0360795",
    ),
    # Gateways send 0 for "unknown" as well, so the list price is taken.
    "OpenRouter, 0 is no bill": Case(
        [chunk({"content": "hi"}), chunk(usage=HUNDRED | {"cost": 0})], BOTH, "0.00075"
    ),
    "OpenAI chat, audio": Case(
        [
            chunk({"audio": {"id": "a", "transcript": "h"}}),
            chunk({"audio": {"data": "UklG", "transcript": "i"}}),
            chunk(usage=HUNDRED | {"completion_tokens_details": {"audio_tokens": 40}}),
        ],
        BOTH | {"output_audio_tokens": 40},
        "0.00075",
    ),
    # The client's helper repeats each piece in events of its own: they count once.
    "OpenAI helper events": Case(
        [
            {"type": "chunk", "chunk": CONTENT[0], "snapshot": {}},
            {"type": "content.delta", "delta": "h", "snapshot": "h"},
            {"type": "chunk", "chunk": CONTENT[1], "snapshot": {}},
            {"type": "content.done", "content": "hi"},
            {"type": "chunk", "chunk": USED, "snapshot": {}},
        ],
        BOTH,
        "0.00075",
    ),
    "OpenAI completion": Case(
        [
            {
                "object": "text_completion",
                "model": "gpt-3.5-turbo-instruct",
                "choices": [{"index": 0, "text": "h"}],
            },
            {
                "object": "text_completion",
                "model": "gpt-3.5-turbo-instruct",
                "choices": [{"index": 0, "text": "i"}],
            },
            {
                "object": "text_completion",
                "model": "gpt-3.5-turbo-instruct",
                "choices": [],
                "usage": HUNDRED,
            },
        ],
        BOTH,
        "0.00025",
    ),
    "OpenAI responses": Case(
        [
            {"type": "response.created", "response": response() | {"output": []}},
            {"type": "response.output_text.delta", "delta": "hi"},
            {
                "type": "response.completed",
                "response": response(usage={"input_tokens": 100, "output_tokens": 50}),
            },
        ],
        BOTH,
        "0.00075",
    ),
    # Usage comes with the last event; what had arrived before is kept all the same.
    "OpenAI responses, broken off": Case(
        [
            {"type": "response.created", "response": response() | {"output": []}},
            {"type": "response.output_text.delta", "delta": "hi"},
            {
                "type": "response.output_item.done",
                "item": {
                    "type": "function_call",
                    "name": "find",
                    "arguments": "{}",
                    "call_id": "c",
                },
            },
        ],
        {},
        None,
        calls=(("find", {}),),
    ),
    "OpenAI realtime": Case(
        [
            {
                "type": "response.done",
                "response": response(
                    object="realtime.response", usage={"input_tokens": 100, "output_tokens": 50}
                ),
            }
        ],
        BOTH,
        "0.00075",
    ),
    "OpenAI images": Case(
        [
            {
                "type": "image_generation.partial_image",
                "b64_json": "aGk=",
                "partial_image_index": 0,
            },
            {
                "type": "image_generation.completed",
                "b64_json": "aGk=",
                "usage": {
                    "input_tokens": 20,
                    "output_tokens": 1_000,
                    "input_tokens_details": {"image_tokens": 0, "text_tokens": 20},
                },
            },
        ],
        {"input_tokens": 20, "output_tokens": 1_000, "output_image_tokens": 1_000},
        "0.0321",
        "1 image",
        model="gpt-image-1.5",
        provider="openai",
    ),
    "OpenAI transcription": Case(
        [
            {"type": "transcript.text.delta", "delta": "h"},
            {"type": "transcript.text.delta", "delta": "i"},
            {
                "type": "transcript.text.done",
                "text": "hi",
                "usage": {
                    "type": "tokens",
                    "input_tokens": 100,
                    "output_tokens": 50,
                    "input_token_details": {"audio_tokens": 90},
                },
            },
        ],
        BOTH | {"input_audio_tokens": 90},
        "0.0005325",
        model="gpt-4o-mini-transcribe",
        provider="openai",
    ),
    "Anthropic": Case([begun(), *text_block(), ended(), STOP], BOTH, "0.00105"),
    "Anthropic, cache for an hour": Case(
        [
            begun(
                cache_creation_input_tokens=1_000,
                cache_creation={"ephemeral_1h_input_tokens": 1_000},
            ),
            *text_block(),
            ended(),
            STOP,
        ],
        {
            "input_tokens": 1_100,
            "output_tokens": 50,
            "cache_write_tokens": 1_000,
            "cache_write_1h_tokens": 1_000,
        },
        "0.00705",
    ),
    "Anthropic, searches": Case(
        [
            begun(),
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {
                    "type": "server_tool_use",
                    "id": "s",
                    "name": "web_search",
                    "input": {},
                },
            },
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": '{"query": "q"}'},
            },
            *text_block(index=1),
            ended(server_tool_use={"web_search_requests": 2}),
            STOP,
        ],
        BOTH | {"web_searches": 2},
        "0.02105",
        calls=(("web_search", {"query": "q"}),),
    ),
    "Anthropic helper events": Case(
        [
            begun(),
            text_block()[0],
            text_block()[1],
            {"type": "text", "text": "hi", "snapshot": "hi"},
            {
                "type": "content_block_stop",
                "index": 0,
                "content_block": {"type": "text", "text": "hi"},
            },
            ended(),
            {"type": "message_stop", "message": message(input_tokens=100, output_tokens=50)},
        ],
        BOTH,
        "0.00105",
    ),
    # message_start has a first count of output tokens: a lower bound, marked as incomplete.
    "Anthropic, broken off": Case(
        [begun(), *text_block()],
        {"input_tokens": 100, "output_tokens": 1, "incomplete": True},
        None,
    ),
    "Google": Case(
        [
            gemini(
                parts=[{"text": "h"}],
                usage={"prompt_token_count": 100, "candidates_token_count": 20},
            ),
            gemini(
                parts=[{"text": "i"}],
                usage={
                    "prompt_token_count": 100,
                    "candidates_token_count": 50,
                    "prompt_tokens_details": [modality("AUDIO", 80)],
                    "traffic_type": "ON_DEMAND",
                },
            ),
        ],
        BOTH | {"input_audio_tokens": 80},
        "0.000211",
        tier="ON_DEMAND",
    ),
    "Google, interaction": Case(
        [
            {"event_type": "interaction.start", "interaction": {"id": "i"}},
            {"event_type": "step.delta", "delta": {"text": "hi"}},
            {
                "event_type": "interaction.complete",
                "interaction": {
                    "id": "i",
                    "model": "gemini-2.5-flash",
                    "status": "completed",
                    "usage": {"total_input_tokens": 100, "total_output_tokens": 50},
                },
            },
        ],
        BOTH,
        "0.000155",
    ),
    "Bedrock, converse": Case(
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "hi"}}},
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {
                "contentBlockStart": {
                    "contentBlockIndex": 1,
                    "start": {"toolUse": {"toolUseId": "t", "name": "find"}},
                }
            },
            {
                "contentBlockDelta": {
                    "contentBlockIndex": 1,
                    "delta": {"toolUse": {"input": '{"a": '}},
                }
            },
            {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"toolUse": {"input": "1}"}}}},
            {"messageStop": {"stopReason": "tool_use"}},
            {
                "metadata": {
                    "usage": {"inputTokens": 40, "outputTokens": 80, "totalTokens": 120},
                    "metrics": {"latencyMs": 5},
                }
            },
        ],
        {"input_tokens": 40, "output_tokens": 80},
        "0.00132",
        calls=(("find", {"a": 1}),),
        model="anthropic.claude-3-7-sonnet-20250219-v1:0",
    ),
    "Bedrock, converse without its end": Case(
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "hi"}}},
        ],
        {},
        None,
        model=NOVA,
    ),
    "Bedrock, Anthropic's bodies": Case(
        wrapped(
            [
                {
                    "type": "message_start",
                    "message": message(
                        "claude-sonnet-4-5-20250929", input_tokens=100, output_tokens=1
                    ),
                },
                *text_block(),
                ended(),
                STOP | {"amazon-bedrock-invocationMetrics": METRICS},
            ]
        ),
        BOTH,
        "0.001155",
    ),
    "Bedrock, Titan's bodies": Case(
        wrapped(
            [
                {"outputText": "h", "index": 0},
                {
                    "outputText": "i",
                    "index": 0,
                    "completionReason": "FINISH",
                    "amazon-bedrock-invocationMetrics": METRICS,
                },
            ]
        ),
        BOTH,
        "0.00005",
        model="amazon.titan-text-express-v1",
    ),
    "Bedrock, Nova's bodies": Case(
        wrapped(
            [
                {"messageStart": {"role": "assistant"}},
                {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "hi"}}},
                {"messageStop": {"stopReason": "end_turn"}},
                {
                    "metadata": {"usage": {"inputTokens": 100, "outputTokens": 50}},
                    "amazon-bedrock-invocationMetrics": METRICS,
                },
            ]
        ),
        BOTH,
        "0.000018",
        model=NOVA,
    ),
    "Mistral": Case(
        [
            {"data": chunk({"content": "h"}, "mistral-large-latest")},
            {"data": chunk({"content": [{"type": "text", "text": "i"}]})},
            {"data": chunk({"content": ""}, "mistral-large-latest", usage=HUNDRED)},
        ],
        BOTH,
        "0.0005",
    ),
    "Mistral, calls": Case(
        [
            {
                "data": chunk(
                    {
                        "tool_calls": [
                            {
                                "id": "a",
                                "index": 0,
                                "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
                            },
                            {
                                "id": "b",
                                "index": 1,
                                "function": {"name": "clock", "arguments": {"zone": "CET"}},
                            },
                        ]
                    },
                    "mistral-large-latest",
                    usage=HUNDRED,
                )
            }
        ],
        BOTH,
        "0.0005",
        "",
        TWO_CALLS,
    ),
    "Mistral, conversation": Case(
        [
            {
                "event": "e",
                "data": {
                    "type": "message.output.delta",
                    "content": "hi",
                    "model": "mistral-large-latest",
                },
            },
            {
                "event": "e",
                "data": {
                    "type": "function.call.delta",
                    "tool_call_id": "t",
                    "name": "find",
                    "arguments": '{"a": 1}',
                },
            },
            {"event": "e", "data": {"type": "conversation.response.done", "usage": HUNDRED}},
        ],
        BOTH,
        "0.0005",
        calls=(("find", {"a": 1}),),
    ),
    "Cohere": Case(
        [
            {"type": "message-start", "id": "m", "delta": {"message": {"role": "assistant"}}},
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"text": "hi"}}},
            },
            {
                "type": "tool-call-start",
                "index": 0,
                "delta": {
                    "message": {
                        "tool_calls": {
                            "id": "t",
                            "type": "function",
                            "function": {"name": "find", "arguments": ""},
                        }
                    }
                },
            },
            {
                "type": "tool-call-delta",
                "index": 0,
                "delta": {"message": {"tool_calls": {"function": {"arguments": '{"a": 1}'}}}},
            },
            {"type": "tool-call-end", "index": 0},
            {
                "type": "message-end",
                "delta": {
                    "finish_reason": "TOOL_CALL",
                    "usage": {"billed_units": {"input_tokens": 100.0, "output_tokens": 50.0}},
                },
            },
        ],
        BOTH,
        "0.00075",
        calls=(("find", {"a": 1}),),
        model="command-r-plus",
    ),
    # Version 1 of the API has another form of event; old programs still use it.
    "Cohere, first version": Case(
        [
            {"event_type": "text-generation", "text": "hi"},
            {
                "event_type": "stream-end",
                "response": {
                    "text": "hi",
                    "generation_id": "g",
                    "meta": {"billed_units": {"input_tokens": 100.0, "output_tokens": 50.0}},
                },
            },
        ],
        BOTH,
        "0.00075",
        model="command-r-plus",
    ),
    # Without a price: a model on the user's own machine.
    "Ollama": Case(
        [
            {"model": "llama3", "message": {"role": "assistant", "content": "h"}, "done": False},
            {
                "model": "llama3",
                "message": {"role": "assistant", "content": "i"},
                "done": True,
                "prompt_eval_count": 100,
                "eval_count": 50,
            },
        ],
        BOTH,
        None,
    ),
    "plain text": Case(["h", "i"], {}, None, model="gpt-4o"),
}
