"""Step events for tests: one valid event to vary, and hypothesis strategies of valid, odd and
broken ones."""

from __future__ import annotations

import json
from typing import Any, Final

from hypothesis import strategies as st

from stepstream.schemas.step import KINDS, StepEvent
from stepstream.schemas.usage import DETAILS, MAX_USAGE_COUNT, TOTALLED

# 2026-01-01, the Kafka timestamp of the records that tests make.
NOW_US: Final = 1_767_225_600_000_000
TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
STEP_ID: Final = "00f067aa0ba902b7"
PARENT_ID: Final = "00f067aa0ba902b6"


def event(**changes: Any) -> dict[str, Any]:
    """A valid ended step, with changes; ``...`` as a value takes a field away."""
    base = {
        "schema_version": 1,
        "trace_id": TRACE_ID,
        "step_id": STEP_ID,
        "phase": "end",
        "kind": "tool_call",
        "name": "lookup",
        "start_time": NOW_US - 1_000_000,
        "end_time": NOW_US,
    } | changes
    return {key: value for key, value in base.items() if value is not ...}


def value(**changes: Any) -> bytes:
    """The record's value of ``event(**changes)``."""
    return json.dumps(event(**changes), ensure_ascii=False).encode()


# Characters that JSON text can hold; surrogates cannot be encoded.
texts: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names: Final = texts.filter(bool)
trace_ids: Final = st.integers(1, 2**128 - 1).map("{:032x}".format)
step_ids: Final = st.integers(1, 2**64 - 1).map("{:016x}".format)
counts: Final = st.integers(0, 2**53)
costs: Final = st.decimals(0, 1_000_000, places=9, allow_nan=False).map(lambda d: format(d, "f"))
json_scalars: Final = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values: Final = st.recursive(
    json_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)

_usage = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys((*TOTALLED, *DETAILS), st.integers(0, MAX_USAGE_COUNT))
    | {"incomplete": st.booleans()},
)
_document = st.fixed_dictionaries(
    {},
    optional={
        "id": texts,
        "score": st.floats(allow_nan=False, allow_infinity=False),
        "content": texts,
    },
)
# A day: starts lie in the day before yesterday, ends in yesterday, so that none precedes its start.
_ages = st.integers(0, 86_400_000_000)

# Events of version 1 as they should be written.
valid_events: Final = st.fixed_dictionaries(
    {
        "trace_id": trace_ids,
        "step_id": step_ids,
        "kind": st.sampled_from(KINDS),
        "name": names,
        "start_time": _ages.map(lambda age: NOW_US - 2 * 86_400_000_000 + age),
        "end_time": _ages.map(lambda age: NOW_US - 86_400_000_000 + age),
    },
    optional={
        "schema_version": st.just(1),
        "parent_step_id": step_ids | st.just(""),
        "phase": st.sampled_from(["start", "end"]),
        "tool": texts,
        "model": texts,
        "provider": texts,
        "project": names,
        "environment": texts,
        "agent": texts,
        "agent_version": texts,
        "task": texts,
        "session_id": texts,
        "user_id": texts,
        "first_token_time": st.none() | _ages.map(lambda age: NOW_US - 86_400_000_000 + age),
        "status": st.sampled_from(["ok", "error", "cancelled"]),
        "error_type": texts,
        "error_message": texts,
        "attempt": st.integers(1, 1_000_000),
        "retry_of": step_ids | st.just(""),
        "fallback_of": step_ids | st.just(""),
        "usage": st.none() | _usage,
        "cost_usd": st.none() | costs | st.floats(0, 1_000_000) | st.integers(0, 1_000_000),
        "cost_source": st.sampled_from(["", "given", "priced", "unpriced"]),
        "price_version": texts,
        "input": texts,
        "output": texts,
        "input_bytes": st.none() | counts,
        "output_bytes": st.none() | counts,
        "tool_schema": texts,
        "documents": st.lists(_document, max_size=3),
        "attributes": st.dictionaries(texts, texts, max_size=3),
    },
)

_FIELDS = tuple(StepEvent.model_fields)


@st.composite
def odd_events(draw: st.DrawFn) -> dict[str, Any]:
    """A valid event after a few accidents: nulls, other types, other values, unknown and missing
    fields."""
    data: dict[str, Any] = dict(draw(valid_events))
    # Few accidents at a time: with many, the first one that is refused hides the others.
    for field in draw(st.lists(st.sampled_from(_FIELDS), max_size=3, unique=True)):
        data[field] = draw(json_values | st.sampled_from(_TEMPTING))
    for field in draw(st.lists(st.sampled_from(sorted(data)), max_size=1)):
        del data[field]
    return data | draw(
        st.dictionaries(names.filter(lambda name: name not in _FIELDS), json_values, max_size=2)
    )


# What producers in other languages really send: whole floats, numbers as text, zero values, wrong
# cases, mixed lists.
_TEMPTING: Final[list[Any]] = [
    1.0, 1e15, 2**63, 2**64, -1, 0, "", "1", "0.5", "NaN", "Infinity", "1e-7", "-0", " 1 ", "1_0",
    "$1", True, [], {},
    TRACE_ID.upper(), "0" * 32, "0" * 16, STEP_ID, "END", "started", "running", "llm", [None],
    {"a": None}, [{"id": 7}],
    {"input_tokens": 3.0}, {"input_tokens": None, "surprise": 1}, {"input_tokens": -1},
    [{"score": 1}, {"score": True}],
    {"a": 1, "b": 2.5, "c": [1, {"d": None}]}, {"input_tokens": 2**53 + 1}, [{"score": 10**309}],
    10**400, "x" * 5000,
]  # fmt: skip
