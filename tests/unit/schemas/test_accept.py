"""``accept`` alone decides what a valid step is: never raising, from the record alone, the
same every time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.schemas.accept import (
    CLAMPS,
    DEFAULT_LIMITS,
    REASONS,
    Accepted,
    Headers,
    Limits,
    Misrouted,
    Rejected,
    accept,
    accept_value,
    truncated,
)
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.times import DAY_US
from stepstream.schemas.usage import TokenUsageStruct
from tests.support.step_events import (
    NOW_US,
    PARENT_ID,
    STEP_ID,
    TRACE_ID,
    json_values,
    odd_events,
    value,
)

PARTITIONS = 12
HOME = partition_for(TRACE_ID, PARTITIONS)

_UNBOUNDED = (
    "kind name tool model provider project environment agent agent_version task session_id user_id"
    " status error_type error_message retry_of fallback_of tool_schema cost_usd cost_source"
    " price_version"
)

used = TokenUsageStruct
Verdict = Accepted | Misrouted | Rejected


def validate(
    raw: bytes | None,
    *,
    key: bytes | None = TRACE_ID.encode(),
    partition: int = HOME,
    headers: Headers = RECORD_HEADERS,
    limits: Limits = DEFAULT_LIMITS,
) -> Verdict:
    return accept(
        raw,
        key=key,
        partition=partition,
        partitions=PARTITIONS,
        timestamp_us=NOW_US,
        headers=headers,
        limits=limits,
    )


def record(raw: bytes | None, **others: Any) -> Callable[[], Verdict]:
    return partial(validate, raw, **others)


# For each reason, records that must be rejected with it.
REJECTED: dict[str, list[tuple[str, Callable[[], Verdict]]]] = {
    "empty": [("tombstone", record(None)), ("no bytes", record(b""))],
    "too_large": [("over the limit", record(value(input="x" * 1_048_576)))],
    "malformed_json": [
        ("not JSON", record(b"hello")),
        ("a list", record(b"[]")),
        ("a number", record(b"5")),
        ("null", record(b"null")),
        ("cut short", record(value()[:-1])),
        ("a bomb of brackets", record(b"[" * 500_000)),
        ("a bomb of objects", record(b'{"input":' * 100_000)),
    ],
    "unknown_version": [
        ("by field", record(value(schema_version=2))),
        ("by field, before anything else", record(json.dumps({"schema_version": 2}).encode())),
        ("by header", record(value(), headers=[("stepstream-schema", b"step/2")])),
        (
            "by header, another event",
            record(value(), headers=[("stepstream-schema", b"trajectory/1")]),
        ),
        ("by header, more digits", record(value(), headers=[("stepstream-schema", b"step/10")])),
    ],
    "missing_field": [
        *(
            (f"no {name}", record(value(**{name: ...})))
            for name in ("trace_id", "step_id", "kind", "name", "start_time")
        ),
        ("null is absent", record(value(name=None))),
        ("an end without end_time", record(value(end_time=...))),
        ("an empty object", record(b"{}")),
    ],
    "invalid_field": [
        ("trace_id cut in half", record(value(trace_id=TRACE_ID[:15]))),
        ("trace_id of a name", record(value(trace_id="order-7"))),
        ("zero trace_id", record(value(trace_id="0" * 32))),
        ("zero step_id", record(value(step_id="0" * 16))),
        ("step_id as a number", record(value(step_id=7))),
        ("true for a number", record(value(start_time=True))),
        ("time in words", record(value(start_time="yesterday"))),
        ("a time of day without a zone", record(value(start_time="2026-01-01T00:00:00"))),
    ],
    "missing_key": [
        ("no key", record(value(), key=None)),
        ("an empty key", record(value(), key=b"")),
    ],
    "foreign_key": [
        ("another key", record(value(), key=b"order-7")),
        ("another id", record(value(), key=b"f" * 32)),
        ("the id's bytes", record(value(), key=bytes.fromhex(TRACE_ID))),
    ],
    "time_out_of_range": [
        ("negative start", record(value(start_time=-1))),
        ("negative end", record(value(end_time=-1))),
        (
            "seconds instead of microseconds",
            record(value(start_time=NOW_US // 1_000_000, end_time=NOW_US // 1_000_000)),
        ),
        (
            "nanoseconds instead of microseconds",
            record(value(start_time=NOW_US * 1_000, end_time=NOW_US * 1_000)),
        ),
        (
            "milliseconds with a fraction",
            record(value(start_time=NOW_US / 1_000 + 0.5, end_time=NOW_US)),
        ),
        ("start far ahead", record(value(start_time=NOW_US + DAY_US + 1, end_time=NOW_US))),
        ("end far ahead", record(value(end_time=NOW_US + DAY_US + 1))),
        ("older than what is kept", record(value(start_time=NOW_US - 30 * DAY_US - 1))),
        ("beyond 64 bits", record(value(start_time=10**30))),
    ],
}

# For each clamp, records that must be accepted with it, and what it must leave behind.
CLAMPED: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "end_before_start": [
        (
            "by a second",
            {"start_time": NOW_US, "end_time": NOW_US - 1_000_000},
            {"end_time": NOW_US},
        )
    ],
    "unknown_kind": [
        ("someone else's", {"kind": "CHAIN"}, {"kind": "other", "attributes": {"kind": "CHAIN"}})
    ],
    "unknown_status": [
        ("without an error", {"status": "OK"}, {"status": "ok"}),
        ("in other words", {"status": "FAILED"}, {"status": "error"}),
        ("American", {"status": "Canceled"}, {"status": "cancelled"}),
        ("with an error type", {"status": "failed", "error_type": "Timeout"}, {"status": "error"}),
        ("with an error message", {"status": "", "error_message": "no route"}, {"status": "error"}),
    ],
    "own_parent": [("a cycle of one", {"parent_step_id": STEP_ID}, {"parent_step_id": ""})],
    "content_truncated": [
        ("input", {"input": "a" * 70_000}, {"input": "a" * 65_536, "input_bytes": 70_000}),
        (
            "output of wide characters",
            {"output": "\u20ac" * 30_000},
            {"output": "\u20ac" * 21_845, "output_bytes": 90_000},
        ),
        (
            "size known before",
            {"input": "a" * 70_000, "input_bytes": 9_000_000},
            {"input_bytes": 9_000_000},
        ),
    ],
    "text_truncated": [
        ("name", {"name": "n" * 600}, {"name": "n" * 512}),
        ("error message", {"error_message": "m" * 5_000}, {"error_message": "m" * 4_096}),
    ],
    "attributes_dropped": [
        (
            "the last ones",
            {"attributes": {f"k{i}": "v" for i in range(70)}},
            {"attributes": {f"k{i}": "v" for i in range(64)}},
        )
    ],
    "documents_dropped": [
        ("the last ones", {"documents": [{"id": str(i)} for i in range(300)]}, {})
    ],
    "invalid_cost": [
        (
            "negative",
            {"cost_usd": "-0.01", "cost_source": "given"},
            {"cost_usd": None, "cost_source": ""},
        ),
        ("no number", {"cost_usd": "$0.01"}, {"cost_usd": None}),
        ("empty", {"cost_usd": ""}, {"cost_usd": None}),
        ("NaN", {"cost_usd": "NaN"}, {"cost_usd": None}),
        ("cents of a fortune", {"cost_usd": 1_000_001}, {"cost_usd": None}),
        ("digits for pages", {"cost_usd": "1e999999"}, {"cost_usd": None}),
        ("a list", {"cost_usd": [1]}, {"cost_usd": None}),
        ("true", {"cost_usd": True}, {"cost_usd": None}),
        ("an object", {"cost_usd": {"total": 1}}, {"cost_usd": None}),
    ],
    "unknown_cost_source": [
        ("someone else's", {"cost_usd": "1", "cost_source": "guess"}, {"cost_source": ""})
    ],
    "invalid_reference": [
        ("retry_of", {"retry_of": "call-1"}, {"retry_of": ""}),
        ("fallback_of", {"fallback_of": "7"}, {"fallback_of": ""}),
        ("parent_step_id", {"parent_step_id": "root"}, {"parent_step_id": "4813494d137e1631"}),
    ],
    "first_token_out_of_range": [
        ("before the start", {"first_token_time": 5}, {"first_token_time": None}),
        ("after the end", {"first_token_time": NOW_US + 1}, {"first_token_time": None}),
        (
            "far ahead in a start",
            {"phase": "start", "end_time": ..., "first_token_time": 2**70},
            {"first_token_time": None},
        ),
    ],
    "value_converted": [
        ("trace_id in upper case", {"trace_id": TRACE_ID.upper()}, {"trace_id": TRACE_ID}),
        ("trace_id as a UUID", {"trace_id": str(UUID(TRACE_ID))}, {"trace_id": TRACE_ID}),
        ("trace_id with a newline", {"trace_id": TRACE_ID + "\n"}, {"trace_id": TRACE_ID}),
        ("step_id without its zeros", {"step_id": STEP_ID.lstrip("0")}, {"step_id": STEP_ID}),
        (
            "parent in upper case",
            {"parent_step_id": PARENT_ID.upper()},
            {"parent_step_id": PARENT_ID},
        ),
        ("retry_of in upper case", {"retry_of": PARENT_ID.upper()}, {"retry_of": PARENT_ID}),
        ("phase in upper case", {"phase": "START", "end_time": ...}, {"phase": "start"}),
        ("another word for the end", {"phase": "finish"}, {"phase": "end"}),
        ("another word for the start", {"phase": "begin", "end_time": ...}, {"phase": "start"}),
        ("kind in upper case", {"kind": "LLM_CALL"}, {"kind": "llm_call"}),
        ("an empty name", {"name": "", "tool": "search"}, {"name": "search"}),
        ("an empty project", {"project": ""}, {"project": "default"}),
        ("a name as a number", {"name": 7}, {"name": "7"}),
        ("time as digits", {"start_time": str(NOW_US - 5)}, {"start_time": NOW_US - 5}),
        ("time with a fraction", {"start_time": NOW_US - 5.5}, {"start_time": NOW_US - 6}),
        (
            "time as a date",
            {"start_time": "2026-01-01T00:59:59.5+01:00"},
            {"start_time": NOW_US - 500_000},
        ),
        ("attempt as text", {"attempt": "3"}, {"attempt": 3}),
        ("size as text", {"input_bytes": "12"}, {"input_bytes": 12}),
        ("a text as a document", {"documents": ["plain"]}, {}),
    ],
    "value_dropped": [
        ("attempt 0", {"attempt": 0}, {"attempt": 1}),
        ("attempt beyond reason", {"attempt": 10**30}, {"attempt": 1}),
        ("attempt in words", {"attempt": "first"}, {"attempt": 1}),
        ("a negative size", {"output_bytes": -1}, {"output_bytes": None}),
        ("documents as an object", {"documents": {}}, {"documents": []}),
        ("a score in words", {"documents": [{"id": "a", "score": "high"}]}, {}),
        ("attributes as a list", {"attributes": []}, {"attributes": {}}),
        ("first token in words", {"first_token_time": "soon"}, {"first_token_time": None}),
    ],
    "usage_clamped": [
        (
            "negative",
            {"usage": {"input_tokens": -320, "output_tokens": 5}},
            {"usage": used(output_tokens=5, incomplete=True)},
        ),
        ("true", {"usage": {"input_tokens": True}}, {"usage": used(incomplete=True)}),
        ("2^53", {"usage": {"input_tokens": 2**53}}, {"usage": used(incomplete=True)}),
        (
            "the largest safe integer",
            {"usage": {"output_tokens": 2**53 - 1}},
            {"usage": used(incomplete=True)},
        ),
        ("beyond 64 bits", {"usage": {"output_tokens": 10**30}}, {"usage": used(incomplete=True)}),
        ("digits", {"usage": {"input_tokens": "120"}}, {"usage": used(input_tokens=120)}),
        ("a fraction", {"usage": {"input_tokens": 12.4}}, {"usage": used(input_tokens=12)}),
        ("words", {"usage": {"web_searches": "many"}}, {"usage": used(incomplete=True)}),
        ("a list", {"usage": [1, 2]}, {"usage": used(incomplete=True)}),
        ("a number", {"usage": 12}, {"usage": used(incomplete=True)}),
    ],
    "text_repaired": [],
}


# Records that are invalid by their characters alone, which JSON here cannot contain.
REPAIRED = [
    (b'"name":"\xff\xfeok"', "\ufffd\ufffdok"),
    (b'"name":"half \\ud83d pair"', "half ? pair"),
    (b'"name":"a\x01b"', "a\x01b"),
]


def cases(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(slug, *case[1:], id=f"{slug}: {case[0]}")
        for slug, rows in table.items()
        for case in rows
    ]


def test_every_reason_and_every_clamp_is_reached_here() -> None:
    """The tables of outcomes are complete: nothing is promised that no test reaches."""
    # A reason without a case here would be documented and untested.
    assert REJECTED.keys() == REASONS.keys()
    assert CLAMPED.keys() == CLAMPS.keys()
    assert all(REJECTED.values())
    assert all(rows for clamp, rows in CLAMPED.items() if clamp != "text_repaired")


@pytest.mark.parametrize(("reason", "read"), cases(REJECTED))
def test_what_is_no_step_is_rejected_with_its_reason(
    reason: str, read: Callable[[], Verdict]
) -> None:
    """A bad record goes to the dead letter with one reason and a detail that fits a header."""
    verdict = read()
    assert isinstance(verdict, Rejected)
    assert verdict.reason == reason
    assert 0 < len(verdict.detail) < 400


@pytest.mark.parametrize(("clamp", "changes", "left"), cases(CLAMPED))
def test_what_can_be_clamped_is_accepted_and_counted(
    clamp: str, changes: dict[str, Any], left: dict[str, Any]
) -> None:
    """A step with a blemish counts; what was changed is named once for each change."""
    verdict = validate(value(**changes))
    assert isinstance(verdict, Accepted)
    assert verdict.clamped == (clamp,)
    assert all(verdict.notes)
    assert {name: getattr(verdict.step, name) for name in left} == left


@pytest.mark.parametrize(("name", "left"), REPAIRED)
def test_odd_bytes_in_a_text_do_not_cost_the_step(name: bytes, left: str) -> None:
    """Bytes that are no UTF-8, half of a surrogate pair, control characters: replaced,
    counted, accepted.
    """
    # Written as bytes: an encoder would not make such a text.
    verdict = validate(value(name=...)[:-1] + b"," + name + b"}")
    assert isinstance(verdict, Accepted)
    assert (verdict.step.name, verdict.clamped) == (left, ("text_repaired",))


def test_numbers_that_json_does_not_have_are_handled_by_their_field() -> None:
    """NaN is no count and no cost; in contents it is what was written."""
    raw = (
        value()[:-1]
        + b',"usage":{"input_tokens":NaN,"output_tokens":3},"cost_usd":-Infinity,"input":{"x":NaN}}'
    )
    verdict = validate(raw)
    assert isinstance(verdict, Accepted)
    assert verdict.clamped == ("usage_clamped", "invalid_cost")
    assert verdict.step.usage == used(output_tokens=3, incomplete=True)
    assert verdict.step.input == '{"x":NaN}'


def test_a_key_in_another_form_is_the_same_key() -> None:
    """The run's id in upper case finds its run, wherever its producer's partitioner put it."""
    upper = TRACE_ID.upper().encode()
    assert isinstance(validate(value(), key=upper), Accepted)
    assert isinstance(
        validate(value(trace_id=TRACE_ID.upper()), key=upper, partition=(HOME + 1) % PARTITIONS),
        Misrouted,
    )


@pytest.mark.parametrize(
    ("time", "unit"),
    [
        (NOW_US // 1_000_000, "seconds"),
        (NOW_US // 1_000, "milliseconds"),
        (NOW_US * 1_000, "nanoseconds"),
    ],
)
def test_a_time_in_another_unit_is_refused_by_name(time: int, unit: str) -> None:
    """Who wrote milliseconds reads that they look like milliseconds."""
    verdict = validate(value(start_time=time, end_time=time))
    assert isinstance(verdict, Rejected)
    assert f"looks like {unit}, and times are microseconds" in verdict.detail


def test_notes_name_the_field_and_its_value() -> None:
    """The validation of a file shows the value, not only the field."""
    verdict = validate(value(usage={"input_tokens": -320}, attempt=0))
    assert isinstance(verdict, Accepted)
    assert sorted(verdict.notes) == [
        "attempt: 0 is not the number of an attempt and was dropped",
        "usage.input_tokens: -320 is an impossible count: it counts as unknown",
    ]


def test_a_plain_step_is_accepted_as_it_is() -> None:
    """A valid record is accepted unclamped, at its own partition, with or without headers."""
    for headers in (
        RECORD_HEADERS,
        None,
        [("stepstream-schema", b"step/1.7"), ("traceparent", b"00-x")],
    ):
        verdict = validate(
            value(cost_usd="0.0000000005", parent_step_id=PARENT_ID), headers=headers
        )
        assert isinstance(verdict, Accepted)
        assert (verdict.clamped, verdict.cost_nanos) == ((), 0)
        assert verdict.step.parent_step_id == PARENT_ID


def test_a_long_name_is_cut_whatever_else_the_record_holds() -> None:
    """An input that takes more room as text than it was sent with (1e15 has four characters)
    hides nothing.
    """
    numbers = b",".join([b"1e15"] * 500)
    verdict = validate(value(name="n" * 600)[:-1] + b',"input":[' + numbers + b"]}")
    assert isinstance(verdict, Accepted)
    assert verdict.clamped == ("text_truncated",)


def test_documents_beyond_the_limit_are_dropped_from_the_end() -> None:
    """The best documents come first and stay."""
    verdict = validate(value(documents=[{"id": str(i)} for i in range(300)]))
    assert isinstance(verdict, Accepted)
    assert [document.id for document in verdict.step.documents] == [str(i) for i in range(256)]


def test_a_step_on_a_wrong_partition_is_misrouted() -> None:
    """A valid step that another partitioner placed is handed back with the partition where
    its run lives.
    """
    verdict = validate(value(), partition=(HOME + 1) % PARTITIONS)
    assert isinstance(verdict, Misrouted)
    assert verdict.partition == HOME
    assert verdict.step.trace_id == TRACE_ID


def test_limits_are_inclusive() -> None:
    """What is exactly as large or as old as allowed passes untouched."""
    exact = {
        "name": "n" * 512,
        "error_message": "m" * 4_096,
        "input": "x" * 65_536,
        "start_time": NOW_US - 30 * DAY_US,
        "end_time": NOW_US + DAY_US,
        "attributes": {str(i): "" for i in range(64)},
        "documents": [{}] * 256,
        "cost_usd": "1000000",
    }
    raw = value(**exact)
    verdict = validate(raw, limits=Limits(max_record_bytes=len(raw)))
    assert isinstance(verdict, Accepted)
    assert verdict.clamped == ()
    assert isinstance(validate(raw, limits=Limits(max_record_bytes=len(raw) - 1)), Rejected)


def test_time_is_compared_with_the_record_not_with_the_clock() -> None:
    """An old record replayed years later gets the verdict that it got when it was new."""
    long_ago = 1_000_000_000_000_000
    raw = value(start_time=long_ago, end_time=long_ago)
    assert isinstance(accept_value(raw, timestamp_us=long_ago), Accepted)
    assert isinstance(accept_value(raw, timestamp_us=NOW_US), Rejected)


@settings(max_examples=150)
@given(st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
def test_no_value_makes_it_raise(raw: bytes) -> None:
    """Any bytes and any JSON get a verdict."""
    verdict = accept_value(raw, timestamp_us=NOW_US)
    assert isinstance(verdict, Accepted) or verdict.reason in REASONS


@settings(max_examples=100)
@given(st.data())
def test_no_damage_makes_it_raise(data: st.DataObject) -> None:
    """A valid record with bytes cut out, put in or changed gets a verdict, whatever its key
    and headers are.
    """
    raw = bytearray(json.dumps(data.draw(odd_events())).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    header = st.tuples(
        st.sampled_from(["stepstream-schema", "other"]), st.binary(max_size=8) | st.just(b"step/1")
    )
    verdict = validate(
        bytes(raw),
        key=data.draw(st.none() | st.binary()),
        headers=data.draw(st.none() | st.lists(header)),
    )
    assert not isinstance(verdict, Rejected) or verdict.reason in REASONS


@settings(max_examples=150)
@given(odd_events())
def test_an_accepted_step_is_accepted_again_unchanged(data: dict[str, Any]) -> None:
    """Clamping is done once: what was accepted, written and read again is the same step, with
    nothing left to clamp.
    """
    first = accept_value(json.dumps(data).encode(), timestamp_us=NOW_US)
    if isinstance(first, Accepted):
        # The worker sends misrouted steps on, and another worker accepts them again.
        again = accept_value(msgspec.json.encode(first.step), timestamp_us=NOW_US)
        assert again == Accepted(first.step, first.cost_nanos, ())


@pytest.mark.parametrize(
    "huge",
    ["x" * 10_000, "9" * 10_000, "\U0001f9ed" * 10_000],
    ids=["letters", "digits", "symbols"],
)
@pytest.mark.parametrize("field", _UNBOUNDED.split())
def test_what_is_accepted_is_bounded(field: str, huge: str) -> None:
    """Whatever a producer sends, a step's names and references stay small enough for state
    and store, and it is counted.
    """
    verdict = validate(value(**{field: huge}))
    assert isinstance(verdict, Accepted)
    assert len(verdict.clamped) == 1
    kept = [text for text in msgspec.to_builtins(verdict.step).values() if isinstance(text, str)]
    assert max(map(len, kept)) <= DEFAULT_LIMITS.max_message_chars


def test_every_limit_is_positive_and_an_integer() -> None:
    """Limits are plain numbers, with the unit in their names."""
    for field in fields(Limits):
        limit = getattr(DEFAULT_LIMITS, field.name)
        if field.name in ("project_ages_us", "content_bytes_by_kind") or not field.init:
            continue
        assert isinstance(limit, int)
        assert limit > 0
        assert field.name.endswith(("_bytes", "_chars", "_us", "_attributes", "_documents"))


@given(st.text(max_size=50), st.integers(0, 60))
def test_truncation_keeps_whole_characters(text: str, max_bytes: int) -> None:
    """A cut text is a prefix, fits the size, and never ends within a character.

    The stated size is that of the whole text.
    """
    cut, size = truncated(text, max_bytes)
    whole = text.encode("utf-8", "replace")
    assert size == len(whole)
    assert len(cut.encode("utf-8", "replace")) <= max_bytes or cut == text
    if size <= max_bytes:
        assert cut == text
    else:
        assert whole.decode().startswith(cut)
        assert len(cut.encode()) > max_bytes - 4
