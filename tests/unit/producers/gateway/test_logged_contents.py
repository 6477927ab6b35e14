"""Contents that come as log records: in the step of their span where they come before it."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from stepstream.producers.gateway.mapping.logged_contents import (
    ENTRY_BYTES,
    KEPT_US,
    MAX_SPAN_BYTES,
    LoggedContents,
)
from stepstream.producers.gateway.mapping.mapper import Origin
from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.gateway.mapping.published_calls import ENTRY_BYTES as CALL_BYTES
from stepstream.producers.gateway.mapping.published_calls import KEPT_US as CALL_KEPT_US
from stepstream.producers.gateway.mapping.published_calls import PublishedCalls, SpanKey
from stepstream.producers.gateway.mapping.spans import Span, SpanEvent
from stepstream.producers.gateway.otlp import answers
from stepstream.producers.gateway.service.ingest import Batch, Ingest, Memory
from stepstream.producers.user_ids import UserIds
from stepstream.schemas.capture import OFF, Capture
from tests.support.otlp import NOW_NS, ORIGIN, any_value, json_request, pairs, request_of, span

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
# Name, body and attributes.
Logged = tuple[str, Any, dict[str, Any]]
QUESTION: Logged = ("gen_ai.user.message", {"content": "where is order 7?"}, {})
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"o":7}'}}
ANSWER: Logged = (
    "gen_ai.choice",
    {"index": 0, "message": {"role": "assistant", "tool_calls": [CALL]}},
    {},
)


def logs(one: Span, *logged: Logged) -> bytes:
    """A request with log records of a span, as instrumentations write them."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for number, (name, body, attributes) in enumerate(logged):
        scope.log_records.add(
            time_unix_nano=NOW_NS - 5_000_000 + number,
            trace_id=bytes.fromhex(one.trace_id),
            span_id=bytes.fromhex(one.span_id),
            event_name=name,
            attributes=pairs(attributes),
            body=None if body is None else any_value(body),
        )
    data: bytes = request.SerializeToString()
    return data


def call(more: dict[str, Any] | None = None) -> Span:
    return span(1, attributes=CHAT | (more or {}))


def taken(ingest: Ingest, spans: list[Span], origin: Origin = ORIGIN) -> list[dict[str, Any]]:
    """The steps of a request of spans."""
    *_, batch = ingest.traces(request_of(spans).SerializeToString(), answers.PROTOBUF, origin)
    return steps_of(batch)


def logged_steps(ingest: Ingest, body: bytes, origin: Origin = ORIGIN) -> list[dict[str, Any]]:
    *_, batch = ingest.logs(body, answers.PROTOBUF, origin)
    return steps_of(batch)


def steps_of(batch: Batch) -> list[dict[str, Any]]:
    assert not batch.refused, batch.first
    return [json.loads(value) for _, value in batch.records]


def test_contents_fill_the_span_that_comes_after_them() -> None:
    """Messages by time, also as JSON, and the tools that the answer chose."""
    for form in (answers.PROTOBUF, answers.JSON):
        ingest, one = Ingest(Options()), call()
        assert len(logged_steps(ingest, logs(one, ANSWER, QUESTION))) == 2
        data = request_of([one]).SerializeToString()
        if form == answers.JSON:
            data = json.dumps(json_request([one])).encode()
        *_, batch = ingest.traces(data, form, ORIGIN)
        step, selection = steps_of(batch)
        assert json.loads(step["input"]) == [{"role": "user", "content": "where is order 7?"}]
        (choice,) = json.loads(step["output"])
        assert choice["message"]["tool_calls"] == [CALL]
        assert (selection["kind"], selection["tool"]) == ("tool_selection", "look_up")


def test_details_of_an_inference_fill_it_with_its_instructions() -> None:
    """The event of the newer conventions has all messages at once."""
    ingest, one = Ingest(Options()), call()
    details = {
        "gen_ai.system_instructions": [{"type": "text", "content": "be brief"}],
        "gen_ai.input.messages": [{"role": "user", "parts": []}],
        "gen_ai.output.messages": [{"role": "assistant", "parts": []}],
    }
    name = "gen_ai.client.inference.operation.details"
    logged_steps(ingest, logs(one, (name, None, details)))
    (step,) = taken(ingest, [one])
    system, user = json.loads(step["input"])
    assert (system["role"], user["role"]) == ("system", "user")
    assert json.loads(step["output"]) == [{"role": "assistant", "parts": []}]


def test_contents_that_come_after_their_span_amend_it() -> None:
    """They are steps below it too: one that was published by another gateway is not known here."""
    ingest, one = Ingest(Options()), call()
    (step,) = taken(ingest, [one])
    assert "input" not in step
    question, answer, amended, selection = logged_steps(ingest, logs(one, QUESTION, ANSWER))
    contents = {name: amended.pop(name) for name in ("input", "output", "amends")}
    assert amended == step
    assert contents["amends"]
    assert json.loads(contents["input"]) == [{"role": "user", "content": "where is order 7?"}]
    assert "look_up" in contents["output"]
    assert (selection["kind"], selection["parent_step_id"]) == ("tool_selection", one.span_id)
    assert question["parent_step_id"] == answer["parent_step_id"] == one.span_id
    assert "order 7" in question["input"]
    assert "look_up" in answer["output"]


class _Interrupted(PublishedCalls):
    """Runs another thread's work just before a call is added."""

    def __init__(self, other: Callable[[], None]) -> None:
        super().__init__()
        self._other = other

    def add(self, key: SpanKey, record: bytes, now_us: int) -> None:
        self._other()
        super().add(key, record, now_us)


@pytest.mark.parametrize("answered", [True, False])
def test_contents_that_another_thread_handles_at_the_same_time_are_in_the_step(
    answered: bool,
) -> None:
    """That thread looks for the call after this one has looked for its contents, and before this
    one has published it: neither finds what the other has.
    """
    one = call()
    body = logs(one, QUESTION, *([ANSWER] if answered else []))
    other: list[Ingest] = []
    memory = Memory(published=_Interrupted(lambda: found.extend(logged_steps(other[0], body))))
    found: list[dict[str, Any]] = []
    other.append(Ingest(Options(), memory))
    (step, *selections) = taken(Ingest(Options(), memory), [one])
    assert len(found) == 1 + answered
    assert not any(logged.get("amends") for logged in found)
    assert json.loads(step["input"]) == [{"role": "user", "content": "where is order 7?"}]
    assert [selection["tool"] for selection in selections] == ["look_up"] * answered
    # What comes after that is still added, and what is known adds nothing.
    later = logged_steps(other[0], logs(one, QUESTION, ANSWER))
    assert [bool(logged.get("amends")) for logged in later[2:3]] == [True]
    assert "look_up" in later[2]["output"]


def test_contents_before_and_after_their_span_are_in_one_step() -> None:
    """Also where they come one by one; repeated records add nothing."""
    ingest, one = Ingest(Options()), call()
    logged_steps(ingest, logs(one, QUESTION))
    (step,) = taken(ingest, [one])
    assert "order 7" in step["input"]
    _, amended, _ = logged_steps(ingest, logs(one, ANSWER))
    assert (amended["input"], amended["step_id"]) == (step["input"], one.span_id)
    complete = call({"gen_ai.input.messages": "[1]", "gen_ai.output.messages": "[2]"})
    complete.span_id = f"{2:016x}"
    taken(ingest, [complete])
    assert len(logged_steps(ingest, logs(complete, QUESTION, ANSWER))) == 2


def test_an_amended_step_is_as_private_as_its_span() -> None:
    """User ids are hashed once, contents are kept back, secrets taken out."""
    key = "sk-" + "proj-" + "a1B2" * 10
    hashed = Options(user_ids=UserIds("k" * 32))
    for options in (hashed, Options(capture=Capture(default=OFF))):
        ingest, one = Ingest(options), call({"user.id": "anna"})
        (step,) = taken(ingest, [one])
        secret: Logged = ("gen_ai.user.message", {"content": f"use {key}"}, {})
        found = logged_steps(ingest, logs(one, secret))
        assert key not in json.dumps(found)
        amended = [item for item in found if item.get("amends")]
        assert len(amended) == (options is hashed)
        assert all(item["user_id"] == step["user_id"] for item in amended)


def test_published_calls_are_bounded_in_bytes_and_time() -> None:
    kept = PublishedCalls(max_bytes=10 * (CALL_BYTES + 100))
    for number in range(30):
        kept.add(("p", "t", str(number)), b"x" * 100, number)
    assert len(kept) == 10
    assert kept.get(("p", "t", "19")) is None
    assert kept.get(("p", "t", "20")) is not None
    kept.add(("p", "t", "29"), b"y", 50)
    assert (len(kept), kept.get(("p", "t", "29"))) == (10, b"y")
    kept.add(("p", "t", "new"), b"z", CALL_KEPT_US + 40)
    assert [kept.get(("p", "t", name)) for name in ("28", "29", "new")] == [None, b"y", b"z"]


def test_log_records_name_their_project_as_spans_do() -> None:
    request = ExportLogsServiceRequest.FromString(logs(call(), QUESTION))
    request.resource_logs[0].resource.attributes.extend(pairs({"stepstream.project": "shop"}))
    body = request.SerializeToString()
    (step,) = logged_steps(Ingest(Options()), body)
    assert step["project"] == "shop"
    only = Origin("other", ORIGIN.now_us, frozenset({"other"}))
    *_, batch = Ingest(Options()).logs(body, answers.PROTOBUF, only)
    assert (batch.taken, batch.refused) == (0, 1)


def test_a_spans_own_contents_go_before_logged_ones() -> None:
    ingest = Ingest(Options())
    one = call({"gen_ai.input.messages": '[{"role":"user","content":"own"}]'})
    logged_steps(ingest, logs(one, QUESTION, ANSWER))
    step, *_ = taken(ingest, [one])
    assert "own" in step["input"]
    assert "order 7" not in step["input"]
    assert "look_up" in step["output"]


def test_a_record_that_is_sent_again_counts_once() -> None:
    """And a span that is sent again has the same contents."""
    ingest, one = Ingest(Options()), call()
    for _ in range(2):
        logged_steps(ingest, logs(one, QUESTION))
    assert [step["input"] for step in taken(ingest, [one])] == [
        step["input"] for step in taken(ingest, [one])
    ]
    assert len(json.loads(taken(ingest, [one])[0]["input"])) == 1


def test_contents_stay_in_their_project_and_are_not_kept_where_they_are_not_wanted() -> None:
    ingest, one = Ingest(Options()), call()
    logged_steps(ingest, logs(one, QUESTION), Origin("other", ORIGIN.now_us))
    assert "input" not in taken(ingest, [one])[0]
    private = Ingest(Options(capture=Capture(default=OFF)))
    logged_steps(private, logs(one, QUESTION))
    (step,) = taken(private, [one])
    assert "input" not in step
    assert step["input_bytes"] > 10


def test_secrets_in_logged_contents_are_taken_out() -> None:
    ingest, one = Ingest(Options()), call()
    key = "sk-" + "proj-" + "a1B2" * 10
    logged_steps(ingest, logs(one, ("gen_ai.user.message", {"content": f"use {key}"}, {})))
    assert key not in json.dumps(taken(ingest, [one]))


@pytest.mark.parametrize("name", ["gen_ai.client.inference.operation.details", "gen_ai.choice"])
def test_what_is_kept_has_about_the_size_that_is_counted(name: str) -> None:
    """Neither attributes that are no contents nor many empty values take more."""
    logged = LoggedContents()
    ingest = Ingest(Options(), Memory(logged))
    long = {"other": "x" * 100_000, "gen_ai.prompt": "why?", "gen_ai.input.messages": [[[]] * 300]}
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(1, 51):
            logged_steps(ingest, logs(span(number, attributes=CHAT), (name, None, long)))
        assert len(logged) == 50
        gc.collect()
        taken_bytes = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken_bytes < 4 * logged.size_bytes + 500_000


def event(text: str, time_ns: int = 1) -> SpanEvent:
    return SpanEvent(time_ns, "gen_ai.user.message", {"content": text})


def test_what_is_kept_is_bounded_in_bytes_and_time() -> None:
    """The oldest go first; one span cannot take everything."""
    kept = LoggedContents(max_bytes=10 * (ENTRY_BYTES + 100))
    for number in range(30):
        kept.add(("p", "t", str(number)), "s", event("x"), 100, number)
    assert len(kept) == 10
    assert not kept.of(("p", "t", "19"))
    assert kept.of(("p", "t", "20"))
    kept.add(("p", "t", "new"), "s", event("x"), 100, KEPT_US + 25)
    assert kept.of(("p", "t", "25"))
    assert not kept.of(("p", "t", "24"))
    large = LoggedContents()
    for number in range(5):
        large.add(("p", "t", "1"), str(number), event("x", 9 - number), MAX_SPAN_BYTES // 3, 0)
    found = large.of(("p", "t", "1"))
    assert [one.time_ns for one in found] == [8, 9]
    assert large.size_bytes < MAX_SPAN_BYTES
