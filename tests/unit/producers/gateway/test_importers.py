"""Exports of other tools as spans: original ids and times where they have any, the same ids again
otherwise.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.cases import case_files, read_json
from stepstream.producers.gateway.importers.files import format_of, items_of, spans_of
from stepstream.producers.gateway.importers.ids import span_id_of, trace_id_of
from stepstream.producers.gateway.mapping.spans import Span
from stepstream.schemas.step import AnyStep
from tests.support.data_cases import real_data
from tests.support.otlp import NOW_NS, TRACE, json_request, mapped, span


def steps_in(data: Any) -> list[AnyStep]:
    """The steps of a file with this value."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    found = []
    for item in items_of(raw):
        for one in spans_of(item, NOW_NS - 3_600_000_000_000):
            assert isinstance(one, Span)
            found += mapped(one)
    return found


def test_otlp_files_are_one_request_or_one_a_line() -> None:
    """As a Collector's file exporter writes them."""
    requests = [json_request([span(1)]), json_request([span(2, 1)])]
    assert len(steps_in(requests[0])) == 1
    assert len(steps_in("\n".join(map(json.dumps, requests)).encode())) == 2


PHOENIX: dict[str, Any] = {
    "name": "ChatCompletion",
    "context": {"trace_id": TRACE, "span_id": "00000000000000aa"},
    "span_kind": "LLM",
    "parent_id": "00000000000000bb",
    "start_time": "2026-09-20T10:00:00.250000+00:00",
    "end_time": "2026-09-20T10:00:01+00:00",
    "status_code": "ERROR",
    "status_message": "rate limited",
    "attributes": {
        "llm": {
            "model_name": "gpt-4o",
            "token_count": {"prompt": 12, "completion": 3, "prompt_details": {"cache_read": 4}},
            "input_messages": [{"message": {"role": "user", "content": "hi"}}],
        },
        "session": {"id": "s1"},
    },
    "events": [{"name": "exception", "attributes": {"exception.type": "RateLimit"}}],
}


def test_phoenix_spans_nested_and_as_columns() -> None:
    """Both forms give the same step."""
    columns = {
        name: value for name, value in PHOENIX.items() if name not in ("context", "attributes")
    }
    columns |= {
        "context.trace_id": TRACE,
        "context.span_id": "00000000000000aa",
        "attributes.llm.model_name": "gpt-4o",
        "attributes.llm.token_count.prompt": 12.0,
        "attributes.llm.token_count.completion": 3.0,
        "attributes.llm.token_count.prompt_details.cache_read": 4.0,
        "attributes.llm.input_messages": [{"message.role": "user", "message.content": "hi"}],
        "attributes.session.id": "s1",
        "attributes.output.value": None,
    }
    for form in (PHOENIX, columns):
        (step,) = steps_in([form])
        assert (step.kind, step.model, step.session_id) == ("llm_call", "gpt-4o", "s1")
        assert (step.parent_step_id, step.start_time % 1_000_000) == ("00000000000000bb", 250_000)
        assert step.usage is not None
        assert (step.usage.input_tokens, step.usage.cached_input_tokens) == (12, 4)
        assert json.loads(step.input) == [{"role": "user", "content": "hi"}]
        assert (step.status, step.error_type) == ("error", "RateLimit")


MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "cancel my order"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "function": {"name": "cancel", "arguments": '{"id":7}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "Error: not found"},
    {"role": "assistant", "content": "I could not find it"},
]


OBSERVATION: dict[str, Any] = {
    "id": "gen-1",
    "traceId": "run-1",
    "type": "GENERATION",
    "name": "answer",
    "model": "gpt-4o",
    "startTime": "2026-09-21T14:00:00.000Z",
    "endTime": "2026-09-21T14:00:01.000Z",
    "usageDetails": {"input": 10, "output": 2},
}


@pytest.mark.parametrize(
    ("export", "session"),
    [
        ({"trace": {"id": "run-1", "sessionId": "s"}, "observations": [OBSERVATION]}, "s"),
        ({"id": "run-1", "sessionId": "s", "observations": [OBSERVATION]}, "s"),
        ([OBSERVATION], ""),
        ({"data": [OBSERVATION], "meta": {"page": 1}}, ""),
        ([{**OBSERVATION, "usageDetails": {}, "usage": {"input": 10, "output": 2}}], ""),
        ([{**OBSERVATION, "usageDetails": {}, "promptTokens": 10, "completionTokens": 2}], ""),
    ],
)
def test_every_export_of_langfuse_gives_the_same_step(export: Any, session: str) -> None:
    """The page of a trace, the answers of the API, the table of observations, older counts."""
    (step,) = steps_in(export)
    assert (step.kind, step.model, step.session_id) == ("llm_call", "gpt-4o", session)
    assert step.usage is not None
    assert (step.usage.input_tokens, step.usage.output_tokens) == (10, 2)
    assert step.step_id == span_id_of("langfuse", "gen-1")


@pytest.mark.parametrize("wrong", [5, "x", [1], True])
def test_members_of_a_wrong_type_cost_nothing_else(wrong: Any) -> None:
    """A file may come from anywhere: what is not of the expected type is left out."""
    (step,) = steps_in({"trace": wrong, "observations": [{**OBSERVATION, "usageDetails": wrong}]})
    assert (step.kind, step.name) == ("llm_call", "answer")
    # A number as tool_calls ended the whole import with a traceback.
    first, second = steps_in([{"role": "user"}, {"role": "assistant", "tool_calls": wrong}])
    assert {first.kind, second.kind} == {"llm_call", "agent"}


def test_a_page_of_phoenix_s_api() -> None:
    """Spans stand in ``data``; a reranker's documents are a nested list."""
    document = {"document": {"id": "d1", "score": 0.5, "content": "x"}}
    one = {
        "name": "rank",
        "context": {"trace_id": TRACE, "span_id": "00000000000000aa"},
        "span_kind": "RERANKER",
        "parent_id": "00000000000000bb",
        "start_time": "2026-09-21T14:00:00Z",
        "end_time": "2026-09-21T14:00:01Z",
        "status_code": "OK",
        "attributes": {"reranker": {"output_documents": [document]}},
    }
    (step,) = steps_in({"data": [one], "next_cursor": None})
    assert step.kind == "retrieval"
    assert [(found.id, found.score) for found in step.documents] == [("d1", 0.5)]


def test_message_lists_become_runs_with_made_up_times() -> None:
    """A second a step, marked as such; the same ids whenever the list is read."""
    steps = steps_in({"messages": MESSAGES})
    assert steps == steps_in(MESSAGES)
    kinds = [(step.kind, step.tool, step.status) for step in steps]
    assert kinds == [
        ("llm_call", "", "ok"),
        ("tool_selection", "cancel", "ok"),
        ("tool_call", "cancel", "error"),
        ("llm_call", "", "ok"),
        ("agent", "", "ok"),
    ]
    tool, root = steps[2], steps[-1]
    assert (tool.input, tool.output) == ('{"id":7}', "Error: not found")
    assert (root.input, root.output) == ("cancel my order", "I could not find it")
    assert {
        step.attributes["synthetic_time"] for step in steps if step.kind != "tool_selection"
    } == {"true"}
    assert {step.parent_step_id for step in steps if step.kind in ("llm_call", "tool_call")} == {
        root.step_id
    }


def test_ids_are_kept_or_derived() -> None:
    """Hex stays, a UUID is hex too, and everything else gives the same id each time."""
    assert trace_id_of("x", TRACE) == TRACE
    assert trace_id_of("x", "0AF76519-16CD-43DD-8448-EB211C80319C") == TRACE
    assert span_id_of("x", "obs-1") == span_id_of("x", "obs-1") != span_id_of("y", "obs-1")
    assert trace_id_of("x", "0" * 32) != "0" * 32


@pytest.mark.parametrize("data", [b"no json", b'{"a": 1}', b"[1, 2]", b"{}\nx"])
def test_what_is_no_export_is_refused_with_the_reason(data: bytes) -> None:
    """And not taken for something else."""
    with pytest.raises(ValueError, match=r"JSON|format|OTLP"):
        steps_in(data)


def test_real_conversations_and_exports_are_recognised() -> None:
    """Files as they are."""
    for path in case_files(real_data("otel_framework_traces")):
        assert format_of(read_json(path)) == "langfuse"
    for path in case_files(real_data("tau_bench"))[:3]:
        data = read_json(path)
        runs = data if isinstance(data, list) else [data]
        assert {format_of(run) for run in runs} == {"messages"}
