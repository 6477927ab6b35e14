"""What instrumentations do that would make a plain mapping wrong: one test for each."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from stepstream import Tracer
from stepstream.otel import SpanProcessor
from stepstream.producers.gateway.mapping.mapper import Mapper, Origin, Refused
from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.gateway.mapping.spans import (
    KIND_CONSUMER,
    KIND_SERVER,
    Resource,
    Span,
    SpanEvent,
    Unreadable,
)
from stepstream.producers.gateway.otlp import otlp_json, protobuf
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.capture import OFF, Capture
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import AnyStep
from tests.support.otlp import (
    NOW_NS,
    NOW_US,
    OPTIONS,
    ORIGIN,
    TRACE,
    json_request,
    json_span,
    mapped,
    request_of,
    span,
    step_of,
)
from tests.support.processes import wait_until

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}


def usage(attributes: dict[str, Any], scope: str = "") -> tuple[int, int, int, int, int]:
    """Input, output, cached, written, reasoning."""
    step = step_of({**CHAT, **attributes}, resource=Resource({}, scope))
    assert step.usage is not None
    found = step.usage
    return (
        found.input_tokens,
        found.output_tokens,
        found.cached_input_tokens,
        found.cache_write_tokens,
        found.reasoning_tokens,
    )


@pytest.mark.parametrize("operation", ["invoke_agent", "invoke_workflow", "something_else"])
def test_usage_of_a_parent_is_an_attribute_and_never_counted(operation: str) -> None:
    """Agents repeat the sum of their children's tokens."""
    step = step_of(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.usage.input_tokens": 900,
            "gen_ai.usage.output_tokens": 90,
            "operation.cost": 0.5,
        },
        parent_id="b7ad6b7169203331",
    )
    assert (step.usage, step.cost_usd) == (None, None)
    assert step.attributes["gen_ai.usage.input_tokens"] == "900"
    assert step.attributes["operation.cost"] == "0.5"


def test_a_call_s_usage_is_marked_so_that_the_worker_counts_the_innermost() -> None:
    """Two instrumentations of one call, or Vercel's outer and inner span, come in different
    requests.
    """
    assert step_of({**CHAT, "gen_ai.usage.input_tokens": 9}).usage_may_repeat
    assert not step_of({"gen_ai.operation.name": "execute_tool"}).usage_may_repeat
    outer = step_of({"ai.operationId": "ai.generateText", "ai.usage.promptTokens": 12})
    inner = step_of({"ai.operationId": "ai.generateText.doGenerate", "ai.usage.promptTokens": 12})
    assert (outer.kind, outer.usage) == ("agent", None)
    assert inner.kind == "llm_call"
    assert inner.usage is not None


@pytest.mark.parametrize(
    ("attributes", "scope", "expected"),
    [
        # OpenAI and Gemini: the cached tokens are in the input.
        ({"gen_ai.usage.input_tokens": 100, "gen_ai.usage.cache_read.input_tokens": 40}, "", (100,
        0, 40, 0, 0)),
        # Anthropic raw: more was cached than there is input, so it is not in it.
        ({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.cache_read_input_tokens": 40}, "", (50, 0,
        40, 0, 0)),
        (
            {
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.cache_read.input_tokens": 40,
                "gen_ai.usage.cache_creation.input_tokens": 7,
            },
            "",
            (57, 0, 40, 7, 0),
        ),
        # Strands on Bedrock leaves them out always.
        (
            {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.cache_read_input_tokens": 40},
            "strands.telemetry.tracer",
            (140, 0, 40, 0, 0),
        ),
        # ADK leaves thoughts out of the output.
        (
            {"gen_ai.usage.output_tokens": 100, "gen_ai.usage.reasoning.output_tokens": 30},
            "gcp.vertex.agent",
            (0, 130, 0, 0, 30),
        ),
        ({"gen_ai.usage.output_tokens": 100, "gen_ai.usage.reasoning_tokens": 30}, "", (0, 100, 0,
        0, 30)),
        # Langfuse's buckets do not overlap, unless their total shows that they do.
        (
            {"langfuse.observation.usage_details": {"input": 60, "input_cached_tokens": 40,
            "output": 5}},
            "",
            (100, 5, 40, 0, 0),
        ),
        (
            {
                "langfuse.observation.usage_details": json.dumps(
                    {"input": 100, "input_cache_read": 40, "output": 5, "total": 105}
                )
            },
            "",
            (100, 5, 40, 0, 0),
        ),
        ({"ai.usage.promptTokens": "12", "ai.usage.completionTokens": 3.0}, "", (12, 3, 0, 0, 0)),
        ({"llm.token_count.prompt": 5, "gen_ai.usage.input_tokens": 6}, "", (6, 0, 0, 0, 0)),
    ],
)  # fmt: skip
def test_cached_tokens_are_counted_once(
    attributes: dict[str, Any], scope: str, expected: tuple[int, int, int, int, int]
) -> None:
    """Getting it wrong halves or doubles the price."""
    assert usage(attributes, scope) == expected


@pytest.mark.parametrize(
    ("attributes", "provider", "priced"),
    [
        ({"gen_ai.system": "spring_ai", "gen_ai.request.model": "gpt-4o"}, "", True),
        ({"gen_ai.provider.name": "strands-agents", "gen_ai.request.model": "gpt-4o"}, "", True),
        ({"gen_ai.system": "gcp.vertex.agent", "gen_ai.request.model": "gemini-2.0-flash"}, "",
        True),
        (
            {"gen_ai.system": "langchain", "llm.provider": "openai",
            "gen_ai.request.model": "gpt-4o"},
            "openai",
            True,
        ),
        ({"gen_ai.provider.name": "azure.ai.openai", "gen_ai.request.model": "gpt-4o"}, "azure",
        True),
        (
            {
                "gen_ai.provider.name": "aws.bedrock",
                "gen_ai.request.model": "us.anthropic.claude-3-5-sonnet-20241022-v2:0",
            },
            "aws",
            True,
        ),
        ({"ai.model.provider": "openai.chat", "ai.model.id": "gpt-4o"}, "openai", True),
        ({"gen_ai.provider.name": "acme", "gen_ai.request.model": "acme-1"}, "acme", False),
    ],
)  # fmt: skip
def test_a_framework_is_no_provider(
    attributes: dict[str, Any], provider: str, priced: bool
) -> None:
    """Then the provider follows from the model's name."""
    counts = {"gen_ai.usage.input_tokens": 1_000, "gen_ai.usage.output_tokens": 10}
    step = step_of({"gen_ai.operation.name": "chat", **counts, **attributes})
    assert step.provider == provider
    assert (PriceBook().cost(step, None).source == "priced") is priced


def test_ids_in_json_are_hex_and_base64_is_refused_with_that_sentence() -> None:
    """Upper case is taken; protobuf's own JSON mapping would read hex as base64, silently wrong."""
    # OTLP/JSON departs from protobuf's mapping: ids are hex there, in any case.
    upper = json_span(span()) | {"traceId": TRACE.upper()}
    (good,) = otlp_json.spans(json.dumps(json_request([upper])).encode())
    assert not isinstance(good, Unreadable)
    assert mapped(good)[0].trace_id == TRACE
    encoded = {
        "traceId": base64.b64encode(bytes.fromhex(TRACE)).decode(),
        "spanId": base64.b64encode(bytes(range(8))).decode(),
    }
    (bad,) = otlp_json.spans(json.dumps(json_request([json_span(span()) | encoded])).encode())
    assert not isinstance(bad, Unreadable)
    refused = Mapper(OPTIONS).steps(bad, ORIGIN)
    assert isinstance(refused, Refused)
    assert "base64" in refused.detail
    assert "hex" in refused.detail


def test_json_may_write_numbers_as_texts_and_leave_out_what_is_zero() -> None:
    """``intValue`` as text or number, enums as number or name, NaN as text, no ``kind``."""
    raw = {
        "traceId": TRACE,
        "spanId": "00000000000000aa",
        "parentSpanId": None,
        "name": "chat",
        "startTimeUnixNano": NOW_NS - 5_000,
        "endTimeUnixNano": str(NOW_NS),
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": 7}},
            {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "8"}},
            {"key": "odd", "value": {"doubleValue": "NaN"}},
            {"key": "none", "value": {}},
            {"key": "flag", "value": {"boolValue": False}},
        ],
        "status": {"code": "STATUS_CODE_ERROR"},
    }
    (one,) = otlp_json.spans(json.dumps(json_request([raw])).encode())
    assert not isinstance(one, Unreadable)
    step = mapped(one)[0]
    assert step.usage is not None
    assert (step.usage.input_tokens, step.usage.output_tokens, step.status) == (7, 8, "error")
    assert (step.attributes["odd"], step.attributes["flag"]) == ("nan", "false")
    assert step.parent_step_id == ""


@pytest.mark.parametrize(
    "trace_id", ["", "0" * 32, TRACE[:-1], TRACE + "0", "g" * 32, "0x" + TRACE[:30]]
)
def test_impossible_ids_cost_the_span(trace_id: str) -> None:
    """With a sentence that explains what is wrong with them."""
    refused = Mapper(OPTIONS).steps(span(trace_id=trace_id), ORIGIN)
    assert isinstance(refused, Refused)
    assert "trace id" in refused.detail


def test_attributes_as_an_object_cost_the_span_with_an_explanation() -> None:
    """The others of the request are taken."""
    bad = json_span(span(2)) | {"attributes": {"gen_ai.operation.name": "chat"}}
    good, wrong = otlp_json.spans(json.dumps(json_request([span(1), bad])).encode())
    assert not isinstance(good, Unreadable)
    assert isinstance(wrong, Unreadable)
    assert "list" in wrong.why


def test_text_that_is_not_utf8_is_replaced() -> None:
    """Protobuf would refuse the whole request for one such attribute."""
    marker = "0123456789"
    body = request_of([span(1, attributes={"odd": marker}), span(2)]).SerializeToString()
    broken = body.replace(marker.encode(), b"\xff\xfe23456789")
    first, second = protobuf.spans(broken)
    assert not isinstance(first, Unreadable)
    assert not isinstance(second, Unreadable)
    assert first.attributes["odd"] == "\ufffd\ufffd23456789"
    assert second.span_id == f"{2:016x}"


@pytest.mark.parametrize(
    ("flags", "state", "parent", "expected"),
    [
        (0x301, "", 7, True),
        (0x101, "", 7, False),  # known to be local
        (0x001, "", 7, False),  # older SDKs and JavaScript do not set the flag
        (0x301, "", 0, False),
        (0x301, "vendor=x,stepstream=1", 7, False),  # the parent reports to Stepstream too
    ],
)
def test_a_parent_in_another_process_is_known_by_the_flags(
    flags: int, state: str, parent: int, expected: bool
) -> None:
    """Such a parent may never be exported to us: the run must not wait for it."""
    step = mapped(span(1, parent, flags=flags, trace_state=state))[0]
    assert step.parent_remote is expected
    assert step.parent_unknown is (flags == 0x001)


@pytest.mark.parametrize("kind", [KIND_SERVER, KIND_CONSUMER])
def test_a_server_s_parent_is_remote_also_without_flags(kind: int) -> None:
    """What it answers was sent by another process."""
    step = mapped(span(1, 7, kind=kind))[0]
    assert (step.parent_remote, step.parent_unknown) == (True, False)
    local = mapped(span(1, 7, kind=kind, flags=0x101))[0]
    assert (local.parent_remote, local.parent_unknown) == (False, False)


HTTP = {"http.request.method": "GET", "url.full": "https://example.com/?q=1", "server.port": 443}


def test_noise_travels_as_a_bare_node_of_the_tree() -> None:
    """Ids, name, times and status: dropping HTTP spans would orphan the steps below them."""
    # Kind 3 is CLIENT.
    step = mapped(span(1, 7, name="GET", attributes=HTTP, kind=3))[0]
    assert (step.kind, step.attributes, step.input) == ("other", {}, "")
    assert step.parent_step_id == f"{7:016x}"
    failed = mapped(span(1, 7, attributes={"http.response.status_code": 503, **HTTP}))[0]
    assert (failed.status, failed.error_type) == ("error", "503")


QUERY = {"db.system": "postgresql", "db.statement": "SELECT 1"}
DROP = msgspec.structs.replace(OPTIONS, other_spans="drop")


@pytest.mark.parametrize(("choice", "count"), [("bare", 2), ("keep", 2), ("drop", 1)])
def test_a_setting_keeps_noise_or_drops_calls_to_databases(choice: str, count: int) -> None:
    """The HTTP span stays in the tree in any case: a service may have steps below it."""
    options = Options(limits=OPTIONS.limits, other_spans=choice)
    mapper = Mapper(options)
    request, query = span(1, 7, attributes=HTTP, kind=3), span(2, 7, attributes=QUERY, kind=3)
    steps = [step for one in (request, query) for step in steps_by(mapper, one)]
    assert len(steps) == count
    assert steps[0].step_id == request.span_id
    assert steps[0].attributes.get("server.port") == ("443" if choice == "keep" else None)


def steps_by(mapper: Mapper, one: Span) -> list[AnyStep]:
    found = mapper.steps(one, ORIGIN)
    assert not isinstance(found, Refused), found
    return found


@pytest.mark.parametrize("order", list(itertools.permutations(range(5))))
def test_dropping_orphans_no_step_in_any_order(order: tuple[int, ...]) -> None:
    """Databases within databases, and steps and HTTP calls below them."""
    spans = [
        span(1, attributes={"gen_ai.operation.name": "invoke_agent"}),
        span(2, 1, attributes=QUERY, kind=3),
        span(3, 2, attributes=QUERY, kind=3),
        span(4, 3, attributes=CHAT),
        span(5, 2, attributes=HTTP, kind=3),
    ]
    mapper = Mapper(DROP)
    steps = [step for number in order for step in steps_by(mapper, spans[number])]
    ids = {step.step_id for step in steps}
    assert {spans[0].span_id, spans[3].span_id, spans[4].span_id} <= ids
    assert {step.parent_step_id for step in steps} - {""} <= ids


def test_a_published_start_has_an_end_where_noise_is_dropped() -> None:
    """What kind of span it is may become known after its start."""
    mapper = Mapper(DROP)
    one = span(2, 1, kind=3)
    started = mapper.start(one, ORIGIN)
    one.attributes = QUERY
    (ended,) = steps_by(mapper, one)
    assert isinstance(started, AnyStep)
    assert (started.step_id, ended.phase) == (ended.step_id, "end")


def test_a_server_s_span_at_the_root_is_no_agent() -> None:
    """A request to a web framework is not the run of an agent; a function of the program is."""
    assert mapped(span(1, kind=KIND_SERVER))[0].kind == "other"
    assert mapped(span(1, attributes=HTTP))[0].kind == "other"
    assert mapped(span(1, kind=1))[0].kind == "agent"


def test_langsmith_s_own_kind_goes_before_the_operation() -> None:
    """It calls a retriever ``embeddings``; its session is a project and no conversation."""
    step = step_of(
        {
            "langsmith.span.kind": "retriever",
            "gen_ai.operation.name": "embeddings",
            "langsmith.trace.session_id": "project-1",
            "langsmith.metadata.thread_id": "thread-1",
        }
    )
    assert (step.kind, step.session_id) == ("retrieval", "thread-1")
    # A prompt template is no call, although the operation states one.
    prompt = step_of({"langsmith.span.kind": "prompt", "gen_ai.operation.name": "chat"})
    assert prompt.kind == "other"


def test_a_declared_schema_is_no_input() -> None:
    """``tool.parameters`` holds arguments in some instrumentations and the schema in others."""
    tool = {"openinference.span.kind": "TOOL", "tool.name": "find"}
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert step_of({**tool, "tool.parameters": json.dumps(schema)}).input == ""
    described = {"city": {"type": "string", "description": "where"}}
    assert step_of({**tool, "tool.parameters": json.dumps(described)}).input == ""
    assert step_of({**tool, "tool.parameters": '{"city":"Oslo"}'}).input == '{"city":"Oslo"}'
    both = {**tool, "tool.parameters": '{"city":"Oslo"}', "input.value": "Oslo"}
    assert step_of(both).input == "Oslo"


def test_a_huge_index_of_a_flattened_list_allocates_nothing() -> None:
    """The others of the list are kept, in order."""
    step = step_of(
        {
            "openinference.span.kind": "LLM",
            "llm.input_messages.999999999.message.content": "far",
            "llm.input_messages.4096.message.content": "far",
            "llm.input_messages.1.message.role": "user",
            "llm.input_messages.1.message.content": "hello",
            "llm.input_messages.0.message.role": "system",
            "llm.input_messages.0.message.contents.0.message_content.text": "be kind",
        }
    )
    assert json.loads(step.input) == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hello"},
    ]


def test_messages_may_stand_in_events() -> None:
    """Span events of the older conventions, and the one event of the newer."""
    events = [
        SpanEvent(NOW_NS, "gen_ai.user.message", {"content": "hi", "gen_ai.system": "openai"}),
        SpanEvent(NOW_NS, "gen_ai.choice", {"message": '{"content":"hello"}', "index": 0}),
    ]
    step = step_of(CHAT, events=events)
    assert json.loads(step.input) == [{"role": "user", "content": "hi"}]
    assert json.loads(step.output) == [
        {"role": "assistant", "message": {"content": "hello"}, "index": 0}
    ]
    details = {
        "gen_ai.input.messages": '[{"role":"user","parts":[]}]',
        "gen_ai.output.messages": [{"role": "assistant", "parts": []}],
    }
    name = "gen_ai.client.inference.operation.details"
    newer = step_of(CHAT, events=[SpanEvent(NOW_NS, name, details)])
    assert json.loads(newer.input) == [{"role": "user", "parts": []}]
    assert json.loads(newer.output) == [{"role": "assistant", "parts": []}]


def test_media_is_described_before_texts_are_cut() -> None:
    """An image would displace the text next to it."""
    image = base64.b64encode(b"\x89PNG" + bytes(range(256)) * 256).decode()
    content = [
        {"type": "image", "mime_type": "image/png", "content": image},
        {"type": "text", "content": "what is this?"},
    ]
    step = step_of({**CHAT, "gen_ai.input.messages": json.dumps(content)})
    assert "what is this?" in step.input
    assert "[image/png, 65,540 bytes, sha256 " in step.input
    assert step.input_bytes is None
    url = f"data:image/jpeg;base64,{image} and text"
    assert step_of({**CHAT, "input.value": url}).input.endswith("] and text")
    words = "x" * 5_000
    assert step_of({**CHAT, "input.value": words}).input == words


@pytest.mark.parametrize(
    "output",
    [
        '[{"role":"assistant","parts":[{"type":"tool_call","id":"c1","name":"find","arguments":{"q":1}}]}]',
        '{"tool_calls":[{"id":"c1","type":"function","function":{"name":"find","arguments":"{\\"q\\":1}"}}]}',
        '{"content":[{"type":"tool_use","id":"c1","name":"find","input":{"q":1}}]}',
        '[{"toolCallId":"c1","toolName":"find","args":{"q":1}}]',
        '{"content":{"parts":[{"function_call":{"id":"c1","name":"find","args":{"q":1}}}]}}',
        '{"output":[{"type":"function_call","call_id":"c1","name":"find","arguments":"{\\"q\\":1}"}]}',
        '{"content":[{"toolUse":{"toolUseId":"c1","name":"find","input":{"q":1}}}]}',
    ],
)
def test_the_choice_of_a_tool_is_a_step_of_its_own(output: str) -> None:
    """Without a span of its own: it is part of the model's answer, in each provider's form."""
    call, chosen = mapped(span(attributes={**CHAT, "gen_ai.output.messages": output}))
    assert (chosen.kind, chosen.tool, chosen.parent_step_id) == (
        "tool_selection",
        "find",
        call.step_id,
    )
    assert json.loads(chosen.input) == {"q": 1}
    assert chosen.attributes == {"tool_call_id": "c1"}
    # An exporter that retries must not add a second choice: the id is derived.
    again = mapped(span(attributes={**CHAT, "gen_ai.output.messages": output}))[1]
    assert again.step_id == chosen.step_id


def test_declared_tools_are_not_chosen_ones() -> None:
    """A definition in the answer's text has parameters, no arguments."""
    output = (
        '{"tools":[{"type":"function","function":{"name":"find","parameters":{}}}],"tool_calls":[]}'
    )
    assert len(mapped(span(attributes={**CHAT, "output.value": output}))) == 1


def test_session_and_user_are_taken_from_every_convention() -> None:
    """From any step: which one names them differs, and the run takes the first that does."""
    for name in ("session.id", "gen_ai.conversation.id", "langfuse.session.id"):
        assert step_of({name: "s1"}, parent_id="b7ad6b7169203331").session_id == "s1"
    for name in ("user.id", "enduser.id", "langfuse.user.id"):
        assert step_of({name: 7}).user_id == "7"


def test_pending_spans_are_starts() -> None:
    """Logfire's have an id of their own; the parent is the span that they announce."""
    step = step_of(
        {
            **CHAT,
            "logfire.span_type": "pending_span",
            "logfire.pending_parent_id": "00000000000000cc",
        },
        parent_id="00000000000000bb",
    )
    assert (step.phase, step.step_id, step.parent_step_id, step.end_time) == (
        "start",
        "00000000000000bb",
        "00000000000000cc",
        None,
    )
    root = step_of(
        {"logfire.span_type": "pending_span", "logfire.pending_parent_id": "0" * 16},
        parent_id="00000000000000bb",
    )
    assert root.parent_step_id == ""


def test_a_repeated_span_gives_the_same_records() -> None:
    """Exporters repeat after a timeout: same trace, step and phase count once."""
    one = span(attributes={**CHAT, "gen_ai.output.messages": '[{"type":"tool_call","name":"x"}]'})
    assert mapped(one) == mapped(one)


def test_a_failed_tool_may_have_no_status() -> None:
    """The result decides."""
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "pay"}

    def status(result: str, code: int = 0) -> str:
        return str(step_of({**tool, "gen_ai.tool.call.result": result}, status=code).status)

    assert status('{"isError":true,"content":"declined"}') == "error"
    assert status('{"error":"declined"}') == "error"
    assert status("Error: declined") == "error"
    assert status('{"error":null,"result":5}') == "ok"
    assert status("no Error here") == "ok"
    assert status('{"error":"declined"}', code=1) == "ok"
    assert step_of({**tool, "gen_ai.tool.status": "error"}).status == "error"


@pytest.mark.parametrize(
    ("attributes", "events", "expected"),
    [
        ({"gen_ai.response.time_to_first_chunk": 0.25}, [], 250_000),
        ({"ai.response.msToFirstChunk": 250}, [], 250_000),
        ({"gen_ai.server.time_to_first_token": 250}, [], 250_000),
        ({}, [SpanEvent(NOW_NS - 1_750_000_000, "First Token Stream Event", {})], 250_000),
        ({"gen_ai.response.time_to_first_chunk": 99}, [], None),
        ({"langfuse.observation.completion_start_time": '"not a time"'}, [], None),
    ],
)
def test_the_first_token_is_found_in_every_unit(
    attributes: dict[str, Any], events: list[SpanEvent], expected: int | None
) -> None:
    """Seconds, milliseconds, events; what lies outside the step is dropped."""
    step = step_of({**CHAT, **attributes}, events=events)
    found = step.first_token_time
    assert (None if found is None else found - step.start_time) == expected


def test_documents_of_a_retrieval() -> None:
    """As JSON, or flattened."""
    listed = step_of(
        {
            "gen_ai.operation.name": "retrieval",
            "gen_ai.retrieval.query.text": "refund",
            "gen_ai.retrieval.documents": '[{"id":"d1","score":0.5},{"id":2,"score":"high"}]',
        }
    )
    assert (listed.kind, listed.input) == ("retrieval", "refund")
    assert [(d.id, d.score) for d in listed.documents] == [("d1", 0.5), ("2", None)]
    flat = step_of(
        {
            "openinference.span.kind": "RETRIEVER",
            "retrieval.documents.1.document.content": "second",
            "retrieval.documents.0.document.id": "d1",
            "retrieval.documents.0.document.score": 0.9,
            "retrieval.documents.0.document.content": "first",
        }
    )
    assert [(d.id, d.score, d.content) for d in flat.documents] == [
        ("d1", 0.9, "first"),
        ("", None, "second"),
    ]


def test_times_that_cannot_be_are_refused_with_the_reason() -> None:
    """Too old for what is kept, in the future, or absent."""
    mapper = Mapper()
    for start, word in (
        (NOW_NS - 40 * 86_400_000_000_000, "30 days"),
        (NOW_NS + 3 * 86_400_000_000_000, "future"),
        (0, "no start"),
        (NOW_US, "days ago"),
    ):
        refused = mapper.steps(span(start_ns=start, end_ns=start), ORIGIN)
        assert isinstance(refused, Refused)
        assert word in refused.detail
        assert refused.reason == "time_out_of_range"


def test_a_span_may_name_a_project_that_its_key_allows() -> None:
    """A key for some projects cannot write into others."""
    mapper = Mapper(OPTIONS)
    one = span(attributes={"stepstream.project": "billing"})
    (step,) = mapped(one, origin=Origin("shop", NOW_US))
    assert step.project == "billing"
    refused = mapper.steps(one, Origin("shop", NOW_US, frozenset({"shop"})))
    assert isinstance(refused, Refused)
    assert "billing" in refused.detail


def test_contents_can_be_left_out() -> None:
    """Sizes stay; attributes that hold messages go too."""
    options = Options(limits=OPTIONS.limits, capture=Capture(default=OFF))
    attributes = {**CHAT, "input.value": "my secret", "llm.prompts": "my secret", "top_k": 3}
    step = mapped(span(attributes=attributes), options)[0]
    # The size stays: it shows that there was an input.
    assert (step.input, step.input_bytes) == ("", 9)
    assert "my secret" not in str(step.attributes)
    assert step.attributes["top_k"] == "3"


def test_a_hung_call_is_exported_only_with_its_start() -> None:
    """OpenTelemetry exports a span when it ends; the span processor publishes its start."""
    transport = MemoryTransport()
    sdk = Tracer(Settings(project="shop", environment="prod", quiet=True), transport=transport)
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.add_span_processor(SpanProcessor(tracer=sdk))
    try:
        hung = provider.get_tracer("shop").start_span("chat gpt-4o", attributes=CHAT)
        wait_until(lambda: transport.started, 10, "the start is published")
        assert sdk.flush(10)
        (start,) = transport.events
        # So nothing of a call that hangs reaches any backend.
        assert exporter.get_finished_spans() == ()
        assert (start.phase, start.kind, start.end_time) == ("start", "llm_call", None)
        assert start.step_id == f"{hung.get_span_context().span_id:016x}"
    finally:
        provider.shutdown()
        sdk.close(5)


def test_contents_are_kept_whole_up_to_the_limit_of_their_kind() -> None:
    text = "a long prompt\n" * 5_000
    options = Options(content_bytes_by_kind={"llm_call": 1_048_576})
    (call, tool) = (
        mapped(span(attributes={**named, "input.value": text}), options)[0]
        for named in (CHAT, {"gen_ai.operation.name": "execute_tool"})
    )
    assert (call.kind, call.input, call.input_bytes) == ("llm_call", text, None)
    assert (tool.kind, len(tool.input), tool.input_bytes) == ("tool_call", 16_384, len(text))
