"""Rows of the store become the events that they were made of, in the order of their times."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stepstream.backtest.history import in_order
from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.times import time_of
from tests.support.step_events import NOW_US, TRACE_ID


def row(number: int, start_us: int, end_us: int | None, **more: Any) -> dict[str, Any]:
    """A row as a ClickHouse client gives it."""
    times = {"start_time": time_of(start_us), "end_time": end_us and time_of(end_us)}
    base = {
        "trace_id": TRACE_ID,
        "step_id": f"{number:016x}",
        "kind": "tool_call",
        "name": "search",
    }
    return {**base, "phase": "start" if end_us is None else "end", **times, **more}


def decoded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(event.value) for event in in_order(rows)]


def test_a_step_is_its_start_and_its_end() -> None:
    """The start has what is known then, the end everything; a given cost stays as it was."""
    full = row(
        2,
        NOW_US,
        NOW_US + 5,
        input="q",
        output="a",
        status="error",
        error_type="E",
        cost_usd=Decimal("0.010000000"),
        cost_source="priced",
        input_tokens=7,
        output_tokens=0,
        usage_details={"web_searches": 2, "unknown": 1},
        documents=[("d1", 0.5, "text"), {"id": "d2", "score": None, "content": ""}],
        attributes={"k": "v"},
        parent_step_id="",
    )
    start, end = decoded([full])
    assert (start["phase"], start["input"], start["attributes"]) == ("start", "q", {"k": "v"})
    # A start cannot know these: a detector that saw them would find problems too early.
    assert not {"output", "status", "error_type", "cost_usd", "usage", "end_time"} & set(start)
    assert end["usage"] == {"input_tokens": 7, "web_searches": 2}
    assert (end["cost_usd"], end["status"], end["end_time"]) == ("0.010000000", "error", NOW_US + 5)
    assert end["documents"] == [{"id": "d1", "score": 0.5, "content": "text"}, {"id": "d2"}]
    for event in in_order([full]):
        # By the function that the worker uses: what it would refuse is missing from a backtest.
        assert isinstance(accept_value(event.value, timestamp_us=NOW_US), Accepted)


def test_an_open_step_is_its_start_alone_and_one_without_duration_its_end() -> None:
    """What never ended has no end; what took no time was reported once."""
    phases = [event["phase"] for event in decoded([row(2, NOW_US, None), row(3, NOW_US, NOW_US)])]
    assert phases == ["start", "end"]


def test_times_without_a_zone_are_utc() -> None:
    """As ClickHouse's clients return them."""
    aware = datetime(2026, 1, 1, 12, 0, 0, 250, tzinfo=UTC)
    naive = aware.replace(tzinfo=None)
    (event,) = in_order([{**row(2, NOW_US, None), "start_time": naive}])
    assert event.at_us == round(aware.timestamp() * 1e6)


@given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(0, 50)), max_size=30))
def test_events_come_in_the_order_of_their_times(spans: list[tuple[int, int | None]]) -> None:
    """Each start and each end once, none before one that was earlier."""
    rows = [
        row(number + 1, NOW_US + start, None if took is None else NOW_US + start + took)
        for number, (start, took) in enumerate(sorted(spans, key=lambda span: span[0]))
    ]
    events = list(in_order(rows))
    times = [event.at_us for event in events]
    assert times == sorted(times)
    seen = [(value["step_id"], value["phase"]) for value in map(_value, events)]
    assert len(seen) == len(set(seen))
    wanted = sum(1 if took is None or took == 0 else 2 for _, took in spans)
    assert len(events) == wanted


def _value(event: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(event.value)
    return found
