"""The public model and the struct that hot paths use are two readings of one contract: they
always agree.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from pydantic import ValidationError

from stepstream.schemas.accept import (
    DEFAULT_LIMITS,
    MAX_NESTING,
    Accepted,
    Rejected,
    _accept_at_length,
    accept,
    accept_leniently,
    accept_value,
)
from stepstream.schemas.step import Step, StepEvent
from tests.support.step_events import NOW_US, event, odd_events, valid_events, value

UNREADABLE = {"malformed_json", "missing_field", "invalid_field", "unknown_version"}


def as_model(raw: bytes) -> StepEvent | None:
    try:
        return StepEvent.model_validate_json(raw)
    except ValidationError:
        return None


def assert_one_answer(raw: bytes) -> None:
    """Reading ``raw`` in full or by the model first gives the same step, clamps and reason."""
    direct = accept_value(raw, timestamp_us=NOW_US)
    assert accept_leniently(raw, NOW_US, DEFAULT_LIMITS) == direct, (
        "the quick way decides otherwise"
    )
    assert_one_verdict(raw, direct)
    model = as_model(raw)
    if model is None:
        assert isinstance(direct, Rejected), "the model rejects what accept takes"
        assert direct.reason in UNREADABLE
        return
    assert not isinstance(direct, Rejected) or direct.reason != "malformed_json", (
        "accept rejects what the model reads"
    )
    through_model = accept_value(model.model_dump_json().encode(), timestamp_us=NOW_US)
    if isinstance(direct, Rejected) and isinstance(through_model, Rejected):
        assert through_model.reason == direct.reason  # details quote the value as it was written
        return
    assert isinstance(direct, Accepted)
    assert isinstance(through_model, Accepted)
    assert (through_model.step, through_model.cost_nanos) == (direct.step, direct.cost_nanos)
    left = Counter(direct.clamped)  # the model does not report what it had repaired before
    left.subtract(through_model.clamped)
    assert min(left.values(), default=0) >= 0


def assert_one_verdict(raw: bytes, direct: Accepted | Rejected) -> None:
    """With its key and place a record gets the same answer from both ways."""
    key = b"0" * 32 if isinstance(direct, Rejected) else direct.step.trace_id.encode()
    for given_key, partition, headers in (
        (key, 0, None),
        (key, 1, [("stepstream-schema", b"step/1")]),
        (key.upper(), 0, [("stepstream-schema", b"step/9")]),
        (b"another", 1, None),
        (None, 0, None),
    ):
        at_length = _accept_at_length(
            raw, given_key, (partition, 2), NOW_US, headers, DEFAULT_LIMITS
        )
        quick = accept(
            raw,
            key=given_key,
            partition=partition,
            partitions=2,
            timestamp_us=NOW_US,
            headers=headers,
        )
        assert quick == at_length


@settings(max_examples=100)
@given(valid_events)
def test_valid_events_are_read_alike(data: dict[str, Any]) -> None:
    """Every event as version 1 has it is read by both, field by field the same."""
    raw = json.dumps(data).encode()
    result = accept_value(raw, timestamp_us=NOW_US)
    model = as_model(raw)
    assert model is not None
    assert isinstance(result, Accepted)
    assert set(result.clamped) <= {"first_token_out_of_range", "own_parent"}
    if not result.clamped:
        assert result.step == msgspec.convert(model.model_dump(), Step)
    assert_one_answer(raw)


@settings(max_examples=250)
@given(odd_events())
@example(event(schema_version=None))
@example(event(schema_version="1"))
@example(event(cost_usd=None))
@example(event(cost_usd="NaN"))
@example(event(cost_usd=10**400))
@example(event(documents=[{"score": 10**400}]))
@example(event(usage={"input_tokens": 3.0, "surprise": None}))
@example(event(start_time=10**30))
@example(event(end_time=-(10**30)))
@example(event(name="\U0001f9ed\u200d\u0000\x7f"))
def test_odd_events_are_read_alike(data: dict[str, Any]) -> None:
    """Nulls, whole floats, huge and negative numbers, objects for text and unknown fields get
    one answer.
    """
    assert_one_answer(json.dumps(data, ensure_ascii=False).encode())


@settings(max_examples=100)
@given(valid_events)
def test_events_survive_the_round_trip(data: dict[str, Any]) -> None:
    """StepEvent -> JSON -> Step -> JSON -> StepEvent loses and changes nothing."""
    model = StepEvent.model_validate_json(json.dumps(data))
    struct = msgspec.json.decode(model.model_dump_json(), type=Step)
    again = StepEvent.model_validate_json(msgspec.json.encode(struct))
    assert again == model
    assert StepEvent.model_validate(model.model_dump()) == model


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b'{"trace_id": "\\ud800"}', id="lone surrogate"),
        pytest.param(value()[:-1], id="cut short"),
        pytest.param(value() + value(), id="two values"),
        pytest.param(b"[" + value() + b"]", id="a list"),
        pytest.param(value()[:-1] + b',"input":' + b"[" * 250 + b"]" * 250 + b"}", id="too deep"),
    ],
)
def test_neither_takes_what_is_no_json(raw: bytes) -> None:
    """Text that RFC 8259 does not allow, or that readers disagree on, is taken by neither."""
    assert as_model(raw) is None
    assert_one_answer(raw)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(value(input="x")[:-2] + b'\xff"}', id="not UTF-8"),
        pytest.param(value()[:-1] + b',"input":NaN}', id="NaN"),
        pytest.param(value()[:-1] + b',"input":{"x":1e400}}', id="beyond doubles"),
        pytest.param(
            value()[:-1] + b',"attributes":{"x":1e400}}', id="beyond doubles, in attributes"
        ),
        pytest.param(value()[:-1] + b',"cost_usd":1e400}', id="beyond doubles, as cost"),
        pytest.param(value()[:-1] + b',"attempt":' + b"9" * 5_000 + b"}", id="5,000 digits"),
        pytest.param(
            value()[:-1] + b',"usage":{"input_tokens":-' + b"9" * 5_000 + b"}}",
            id="5,000 digits, in usage",
        ),
        pytest.param(
            value()[:-1] + b',"input":[' + b"9" * 5_000 + b"]}", id="5,000 digits, in input"
        ),
        pytest.param(b"\xef\xbb\xbf" + value(), id="byte order mark"),
    ],
)
def test_odd_bytes_and_numbers_are_repaired(raw: bytes) -> None:
    """What JSON does not allow within one value costs no step, whichever way it is read."""
    direct = accept_value(raw, timestamp_us=NOW_US)
    assert isinstance(direct, Accepted)
    assert accept_leniently(raw, NOW_US, DEFAULT_LIMITS) == direct


def test_both_take_the_deepest_nesting_allowed() -> None:
    """Nesting up to the limit is read by both, and becomes text."""
    deep = b"[" * (MAX_NESTING - 2) + b"]" * (MAX_NESTING - 2)
    raw = value()[:-1] + b',"input":' + deep + b"}"
    result = accept_value(raw, timestamp_us=NOW_US)
    assert isinstance(result, Accepted)
    assert result.step.input == deep.decode()
    assert_one_answer(raw)


def test_the_last_of_two_equal_keys_counts() -> None:
    """A field written twice has its last value, for both."""
    raw = value()[:-1] + b',"name":"second"}'
    model = as_model(raw)
    assert model is not None
    assert model.name == "second"
    assert_one_answer(raw)
