"""Requests in protobuf and JSON, against OpenTelemetry's own messages; what is broken costs as
little as possible.
"""

from __future__ import annotations

import contextlib
import json
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from stepstream.producers.gateway.mapping.mapper import Mapper
from stepstream.producers.gateway.mapping.spans import Resource, Span, SpanEvent, Unreadable
from stepstream.producers.gateway.otlp import answers, otlp_json, protobuf, wire
from stepstream.producers.gateway.otlp.malformed import Malformed, TooMany
from tests.support.otlp import (
    NOW_NS,
    ORIGIN,
    any_value,
    json_pairs,
    json_request,
    json_span,
    pairs,
    request_of,
    span,
)

VALUES: dict[str, Any] = {
    "text": "wörld",
    "empty": "",
    "zero": 0,
    "negative": -5,
    "large": 2**63 - 1,
    "smallest": -(2**63),
    "true": True,
    "false": False,
    "half": 0.5,
    "list": ["a", 1, [True, None, {}], {"deep": {"er": 2}}],
    "map": {"a": 1, "b": ["c"]},
    "bytes": b"\x00\xff",
    "long": "x" * 300,
    "longer": "y" * 20_000,
}
WHOLE = span(
    attributes=VALUES,
    resource=Resource({"service.name": "shop", "n": 1}, "scope", "1.2"),
    status=2,
    status_message="it failed",
    flags=0x301,
    kind=3,
    trace_state="a=b",
    events=[SpanEvent(NOW_NS, "exception", {"exception.type": "KeyError"})],
)


def test_protobuf_is_read_as_opentelemetry_writes_it() -> None:
    """Every kind of value, and every field."""
    (found,) = protobuf.spans(request_of([WHOLE]).SerializeToString())
    assert found == WHOLE


def test_json_is_read_to_the_same_span() -> None:
    """Apart from bytes, which JSON writes in base64, and events and states, which the helper
    leaves out.
    """
    plain = {name: value for name, value in VALUES.items() if name != "bytes"}
    one = span(attributes=plain, status=2, status_message="it failed", flags=0x301, kind=3)
    (found,) = otlp_json.spans(json.dumps(json_request([one])).encode())
    assert found == one


values = st.recursive(
    st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(values)
@settings(max_examples=300, deadline=None)
def test_any_value_is_read_as_it_was_written(value: Any) -> None:
    """The reader of values is ours; OpenTelemetry's own writer is the oracle."""
    assert wire.value_of(any_value(value).SerializeToString(), wire.NestedBytesLeft()) == value


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_bytes_that_are_no_value_raise_one_error(data: bytes) -> None:
    """Nothing but ``ValueError``."""
    with contextlib.suppress(ValueError):
        wire.value_of(data, wire.NestedBytesLeft())


def test_values_within_each_other_without_end_cost_the_span() -> None:
    """Neither the stack nor the request."""
    deep: Any = "x"
    for _ in range(20):
        deep = [deep]
    body = request_of([span(1, attributes={"deep": deep}), span(2)]).SerializeToString()
    bad, good = protobuf.spans(body)
    assert isinstance(bad, Unreadable)
    assert "deep" in bad.why
    assert isinstance(good, Span)


def test_an_invalid_attribute_costs_its_span_alone() -> None:
    """A value that is cut off, and a name that is not UTF-8."""
    marker = "0123456789"
    body = request_of(
        [span(1, attributes={"odd": marker}), span(2, attributes={marker: "x"}), span(3)]
    ).SerializeToString()
    at = body.index(marker.encode())
    broken = body[: at - 1] + b"\x7f" + body[at:]  # the stated length of the text exceeds the body
    first, second, third = protobuf.spans(broken)
    assert isinstance(first, Unreadable)
    assert isinstance(second, Span)
    assert isinstance(third, Span)
    again = body.rindex(marker.encode())
    named = body[:again] + b"\xff" + body[again + 1 :]
    first, second, third = protobuf.spans(named)
    assert isinstance(first, Span)
    assert isinstance(second, Span)
    assert list(second.attributes) == ["\ufffd123456789"]
    assert isinstance(third, Span)


def test_a_span_that_is_no_protobuf_costs_itself() -> None:
    """The others of the request are read."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    good = request_of([span(1)]).resource_spans[0].scope_spans[0].spans[0]
    scope.spans.append(good)
    scope.spans.append(good)
    body = bytearray(request.SerializeToString())
    name = body.rindex(b"work")
    body[name - 1] = 0x7F
    first, second = protobuf.spans(bytes(body))
    assert isinstance(first, Span)
    assert isinstance(second, Unreadable)


@pytest.mark.parametrize("body", [b"\xff\xff", b"hello", b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_request_is_malformed(body: bytes) -> None:
    """That is the one case in which nothing of a request is taken."""
    with pytest.raises(Malformed):
        list(protobuf.spans(body))
    with pytest.raises(Malformed):
        list(otlp_json.spans(body))


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "5",
        '{"resourceSpans": 5}',
        '{"resourceSpans": [5]}',
        '{"resourceSpans": [{"scopeSpans": 5}]}',
    ],
)
def test_json_of_another_form_is_malformed(body: str) -> None:
    """A list or a number where the request's own frame should be."""
    with pytest.raises(Malformed):
        list(otlp_json.spans(body.encode()))


def test_an_empty_request_holds_nothing() -> None:
    """Both forms of nothing."""
    assert list(protobuf.spans(b"")) == []
    assert list(otlp_json.spans(b"{}")) == []
    assert list(otlp_json.spans(b'{"resourceSpans": null}')) == []


def test_broken_bodies_never_raise_anything_else() -> None:
    """Bytes changed, cut and doubled at random: spans, unreadable ones, or ``Malformed``."""
    # A fixed seed: a body that fails once fails in every run.
    chance = random.Random(5)
    whole = {
        "protobuf": request_of([WHOLE, span(2), WHOLE]).SerializeToString(),
        "json": json.dumps(json_request([span(1, attributes={"a": ["b", 1]}), span(2)])).encode(),
    }
    for number in range(2_000):
        form = ("protobuf", "json")[number % 2]
        body = broken(whole[form], chance)
        read = protobuf.spans if form == "protobuf" else otlp_json.spans
        with contextlib.suppress(Malformed):
            for found in read(body):
                assert isinstance(found, Span | Unreadable)


def broken(body: bytes, chance: random.Random) -> bytes:
    data = bytearray(body)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(1, 40)]
            case 2:
                data[at:at] = data[at : at + chance.randrange(1, 40)]
            case _:
                data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
        if not data:
            break
    return bytes(data)


def test_log_records_are_read() -> None:
    """Name, ids, time, attributes and a body of any kind."""
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(pairs({"service.name": "shop"}))
    record = group.scope_logs.add().log_records.add(
        observed_time_unix_nano=7,
        event_name="gen_ai.choice",
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
        attributes=pairs({"a": 1}),
    )
    record.body.CopyFrom(any_value({"index": 0}))
    (found,) = protobuf.log_records(request.SerializeToString())
    assert not isinstance(found, Unreadable)
    assert (found.event_name, found.time_ns, found.attributes, found.body) == (
        "gen_ai.choice",
        7,
        {"a": 1},
        {"index": 0},
    )
    assert found.resource.attributes == {"service.name": "shop"}


def test_partial_success_is_read_by_opentelemetry() -> None:
    """Its own message reads ours."""
    answer = ExportTraceServiceResponse.FromString(
        answers.success("traces", answers.PROTOBUF, 300, "ä" * 900)
    )
    assert answer.partial_success.rejected_spans == 300
    assert answer.partial_success.error_message == "ä" * 400
    assert answers.success("traces", answers.PROTOBUF) == b""
    assert json.loads(answers.success("logs", answers.JSON, 2, "why")) == {
        "partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "why"}
    }
    assert answers.success("traces", answers.JSON) == b"{}"
    assert json.loads(answers.failure(503, "later", answers.JSON)) == {
        "code": 14,
        "message": "later",
    }
    assert answers.failure(400, "no", answers.PROTOBUF) == b"\x08\x03\x12\x02no"


def test_enormous_arrays_are_described_and_the_span_is_kept() -> None:
    """In protobuf: decoding them in Python would hold up all other requests for seconds."""
    # An empty text takes two bytes on the wire and an object in memory.
    few, many = [["a"], {"b": 1}], [""] * (wire.MAX_NESTED_BYTES // 2)
    one = span(attributes={"few": few, "many": many, "name": "x"})
    (found,) = protobuf.spans(request_of([one]).SerializeToString())
    assert isinstance(found, Span)
    assert found.attributes["few"] == few
    assert str(found.attributes["many"]).startswith("[nested values of ")
    assert found.attributes["name"] == "x"


def test_the_nested_values_of_a_span_and_its_events_count_together() -> None:
    """In protobuf: many events would hold up other requests as one enormous array does."""
    half = [""] * (wire.MAX_NESTED_BYTES // 8)
    events = [SpanEvent(NOW_NS, "e", {"a": half}) for _ in range(3)]
    one = span(attributes={"few": ["a"]}, events=events)
    (found,) = protobuf.spans(request_of([one]).SerializeToString())
    assert isinstance(found, Span)
    assert found.attributes["few"] == ["a"]
    values = [event.attributes["a"] for event in found.events]
    assert values[0] == half
    assert all(str(value).startswith("[nested values of ") for value in values[1:])


def test_an_array_behind_another_value_is_bounded_too() -> None:
    """The last member of an encoded value counts, so an array may hide behind a short one."""
    many = any_value([""] * wire.MAX_NESTED_BYTES).SerializeToString()
    hidden = any_value(True).SerializeToString() + many
    found = wire.value_of(hidden, wire.NestedBytesLeft())
    assert found == f"[nested values of {len(hidden):,} bytes]"
    body = b"x" * (2 * wire.MAX_NESTED_BYTES)
    assert wire.value_of(any_value(body).SerializeToString(), wire.NestedBytesLeft()) == body


def test_the_body_of_a_log_record_and_the_resources_of_a_request_are_bounded() -> None:
    """In protobuf, where a small compressed request may have 64 MB of them."""
    half = [""] * (wire.MAX_NESTED_BYTES // 8)
    request = ExportLogsServiceRequest()
    for _ in range(3):
        group = request.resource_logs.add()
        group.resource.attributes.extend(pairs({"many": half, "service.name": "shop"}))
        record = group.scope_logs.add().log_records.add()
        record.body.CopyFrom(any_value([half, half, half]))
    found = [
        one
        for one in protobuf.log_records(request.SerializeToString())
        if not isinstance(one, Unreadable)
    ]
    assert len(found) == 3
    assert all(str(one.body).startswith("[nested values of ") for one in found)
    resources = [one.resource.attributes for one in found]
    assert [one["service.name"] for one in resources] == ["shop"] * 3
    assert resources[0]["many"] == half
    assert all(str(one["many"]).startswith("[nested values of ") for one in resources[1:])


def test_too_many_nested_values_in_json_cost_their_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of all attributes of a span count together; other spans are kept."""
    monkeypatch.setattr(otlp_json, "MAX_NESTED_VALUES", 10)
    # Six and six: each attribute is within the bound, both together are not.
    spans = [span(1, attributes={"a": [1] * 6, "b": [1] * 6}), span(2, attributes={"a": [1] * 6})]
    first, second = otlp_json.spans(json.dumps(json_request(spans)).encode())
    assert isinstance(first, Unreadable)
    assert "more than 10 values" in first.why
    assert isinstance(second, Span)
    event = {"name": "e", "attributes": json_pairs({"a": [1] * 6})}
    raw = json_span(span(3)) | {"events": [event, event]}
    (third,) = otlp_json.spans(json.dumps(json_request([raw])).encode())
    assert isinstance(third, Unreadable)


def test_long_names_of_attributes_are_not_kept_in_memory() -> None:
    """Else a client could fill it with names of megabytes."""
    mapper = Mapper()
    tracemalloc.start()
    try:
        for number in range(300):
            mapper.steps(span(attributes={f"{number}{'x' * 100_000}": "1"}), ORIGIN)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 5_000_000


def _message(number: int, contents: bytes) -> bytes:
    """A protobuf field that holds a message."""
    size, length = len(contents), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    return bytes([number << 3 | 2]) + bytes(length) + contents


def _frame(*fields: bytes) -> bytes:
    """A request of one resource and one scope with these fields."""
    return _message(1, _message(2, b"".join(fields)))


EMPTY_ITEMS = 3 << 20
_IN_SPANS = b'{"resourceSpans":[{"scopeSpans":[{"spans":[', b"]}]}]}"


@pytest.mark.parametrize(
    "body",
    [
        _IN_SPANS[0] + b"{}," * EMPTY_ITEMS + b"{}" + _IN_SPANS[1],
        b'{"resourceSpans":[' + b"{}," * EMPTY_ITEMS + b"{}]}",
        _IN_SPANS[0] + b'{"attributes":[' + b"[]," * EMPTY_ITEMS + b"{}]}" + _IN_SPANS[1],
    ],
)
def test_a_small_body_of_json_cannot_take_gigabytes(body: bytes) -> None:
    """An empty object takes three bytes in a body and up to 230 in memory."""
    tracemalloc.start()
    try:
        with pytest.raises(TooMany):
            list(otlp_json.spans(body))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bad", ["null", "5", '"x"', "[1]", "true", '{"attributes":7}'])
def test_an_item_of_any_form_costs_itself_in_a_large_json_body(bad: str) -> None:
    """As in a small one."""
    good = json.dumps(json_span(span(1)) | {"name": "x" * (1 << 20)})
    for read, groups, scopes, items in (
        (otlp_json.spans, "resourceSpans", "scopeSpans", "spans"),
        (otlp_json.log_records, "resourceLogs", "scopeLogs", "logRecords"),
    ):
        one = good.replace('"startTimeUnixNano"', '"timeUnixNano"') if items != "spans" else good
        body = f'{{"{groups}":[null,{{"{scopes}":[null,{{"{items}":[{bad},{one}]}}]}}]}}'
        refused, taken = read(body.encode())
        assert isinstance(refused, Unreadable)
        assert not isinstance(taken, Unreadable)


def test_a_json_body_of_numbers_is_refused_as_a_whole() -> None:
    """An undecoded number takes 70 bytes in memory and two in a body."""
    with pytest.raises(Malformed, match=r"spans.*2,000,000 values.*send smaller"):
        list(otlp_json.spans(_IN_SPANS[0] + b"1," * (1 << 21) + b"{}" + _IN_SPANS[1]))


def test_a_json_body_of_millions_of_values_is_refused_with_the_reason() -> None:
    """Without being decoded, also where it has few objects."""
    start = b'{"attributes":[{"key":"a","value":{"arrayValue":{"values":['
    body = _IN_SPANS[0] + start + b"1," * 5_000_001 + b"1]}}}]}" + _IN_SPANS[1]
    for read in (otlp_json.spans, otlp_json.log_records):
        with pytest.raises(TooMany, match="5,000,000 values: send smaller ones"):
            list(read(body))


def test_commas_in_texts_are_no_values() -> None:
    """Also next to quotes that stand in a text."""
    for text in ("," * 5_000_001, '","\\' * 2_500_001):
        one = json_span(span(1)) | {"name": text}
        body = _IN_SPANS[0] + json.dumps(one).encode() + _IN_SPANS[1]
        (taken,) = otlp_json.spans(body)
        assert isinstance(taken, Span)
        assert taken.name == text
        refused, _ = otlp_json.spans(body.replace(b'[{"traceId"', b'[5,{"traceId"'))
        assert isinstance(refused, Unreadable)


@pytest.mark.parametrize(
    "body",
    [
        _frame(b"\x12\x00" * EMPTY_ITEMS),
        _message(1, b"\x12\x00" * EMPTY_ITEMS),
        b"\x0a\x00" * EMPTY_ITEMS,
        b"\x0a\x00" * 200_000,
    ],
)
def test_a_small_body_of_protobuf_cannot_take_gigabytes(body: bytes) -> None:
    """Empty spans, scopes and resources, in a large request and in a small one."""
    with pytest.raises(TooMany):
        list(protobuf.spans(body))


def test_a_large_item_of_many_events_is_refused_alone() -> None:
    """The others of its request are taken."""
    many = _message(2, b"\x5a\x00" * EMPTY_ITEMS)
    good = _message(
        2, request_of([WHOLE]).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    )
    refused, taken = protobuf.spans(_frame(many, good))
    assert isinstance(refused, Unreadable)
    assert "events" in refused.why
    assert isinstance(taken, Span)
    assert taken.attributes == WHOLE.attributes


def test_a_large_request_is_read_like_its_parts() -> None:
    """Beyond 4 MiB protobuf is decoded item by item; only what cannot be read is refused."""
    long = span(2, attributes={"long": "x" * (5 << 20)}, resource=WHOLE.resource)
    request = request_of([WHOLE, long])
    body = request.SerializeToString()
    assert len(body) > protobuf.LARGE_BYTES
    assert list(protobuf.spans(body)) == [WHOLE, long]
    first, second, broken = protobuf.spans(body + _frame(b"\x12\x02\x0a\x09"))
    assert (first, second) == (WHOLE, long)
    assert isinstance(broken, Unreadable)
    with pytest.raises(Malformed):
        list(protobuf.spans(body + b"\xff\xff"))
