"""A run over several processes: trace context in headers, Kafka headers and the environment."""

from __future__ import annotations

import os
from typing import Any

import pytest

from stepstream.producers.remote import context_from, tracestate_with_ours
from tests.support.sdk import logged, traced

TRACE, STEP = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{STEP}-01"


@pytest.mark.parametrize(
    "context",
    [
        PARENT,
        PARENT.upper().encode(),
        {"Traceparent": PARENT, "other": 1},
        {"HTTP_TRACEPARENT": PARENT},
        {"TRACEPARENT": PARENT},
        [(b"host", b"x"), (b"traceparent", PARENT.encode())],
        f"cc-{TRACE}-{STEP}-01-what-comes-later",
    ],
)
def test_what_names_a_parent(context: Any) -> None:
    """Every form in which headers are passed on."""
    found = context_from(context)
    assert found is not None
    assert (found.trace_id, found.step_id, found.reports) == (TRACE, STEP, False)


@pytest.mark.parametrize(
    "context",
    [
        None, 7, "", "garbage", {}, [], [1, ("a",), ("traceparent", None)],
        f"ff-{TRACE}-{STEP}-01", f"00-{'0' * 32}-{STEP}-01", f"00-{TRACE}-{'0' * 16}-01",
        {"traceparent": f"00-{TRACE}-{STEP}"},
    ],
)  # fmt: skip
def test_what_names_none(context: Any) -> None:
    """Runs in the block are then their own."""
    assert context_from(context) is None
    with traced() as made:
        with made.tracer.continue_run(context), made.tracer.run("agent"):
            pass
        assert made.ended["agent"].parent_step_id == ""


@pytest.mark.parametrize("way", ["headers", "kafka", "environment"])
def test_a_run_goes_on_in_another_process(way: str) -> None:
    """The second tracer stands for the other process: same run, and its root is a step's child."""
    with traced() as first, traced(agent="other") as second:
        with first.tracer.run("planner") as run, run.tool("ask") as asking:
            ways: dict[str, Any] = {
                "headers": lambda: first.tracer.trace_headers({"accept": "x", "TraceParent": "?"}),
                "kafka": lambda: first.tracer.trace_kafka_headers([("kept", b"1")]),
                "environment": first.tracer.trace_environment,
            }
            with second.tracer.continue_run(ways[way]()):
                assert second.tracer.current_step() is None
                with second.tracer.run("researcher") as inner, inner.tool("search"):
                    assert second.tracer.current_run() is inner
            with second.tracer.run("alone"):
                pass
        ended = second.ended
        assert ended["researcher"].trace_id == run.trace_id == ended["search"].trace_id
        assert ended["researcher"].parent_step_id == asking.step_id
        assert not ended["researcher"].parent_remote, "the parent reports too"
        assert ended["search"].parent_step_id == ended["researcher"].step_id
        assert ended["alone"].trace_id != run.trace_id


def test_a_parent_that_is_not_ours() -> None:
    """Its span may never arrive: the step is then the run's root."""
    with traced() as made:
        given = {"traceparent": PARENT, "tracestate": "vendor=1"}
        with made.tracer.continue_run(given), made.tracer.run("agent") as run:
            headers = made.tracer.trace_headers({"tracestate": "vendor=1"})
        # Ours first, as W3C Trace Context asks of who changes it; the vendor's is kept.
        assert headers["tracestate"] == "stepstream=1,vendor=1"
        assert headers["traceparent"] == f"00-{TRACE}-{run.step_id}-01"
        assert made.ended["agent"].trace_id == TRACE
        assert made.ended["agent"].parent_remote


@pytest.mark.parametrize("given", [5, [7], "text", [("a",)]])
def test_wrong_headers_come_back_without_an_error(given: Any) -> None:
    """What cannot be read as headers is logged."""
    with traced(sound=False) as made, logged() as lines, made.tracer.run("agent"):
        assert made.tracer.trace_headers(given) == given
        assert made.tracer.trace_environment(given) == given
        assert made.tracer.trace_kafka_headers(given) == given
    assert lines


def test_odd_headers_are_kept() -> None:
    """Names that are no text, and Kafka headers as a mapping, which the client takes too."""
    odd: Any = {1: 2}
    with traced() as made, made.tracer.run("agent"):
        assert made.tracer.trace_headers(odd).keys() == {1, "traceparent", "tracestate"}
        names = [name for name, _ in made.tracer.trace_kafka_headers({"a": b"b"})]
        assert names == ["a", "traceparent", "tracestate"]


@pytest.mark.parametrize("value", [b"vendor=1", "vendor=1"])
def test_kafka_headers_of_the_record_before_are_replaced(value: Any) -> None:
    """In any case and from an iterator; a header without a value stays."""
    given = [("TraceParent", b"?"), ("TraceState", value), ("empty", None)]
    with traced() as made, made.tracer.run("agent") as run:
        # An iterator can be read once: reading it twice lost the tracestate.
        found = made.tracer.trace_kafka_headers(iter(given))
    assert found == [
        ("empty", None),
        ("traceparent", f"00-{run.trace_id}-{run.step_id}-01".encode()),
        ("tracestate", b"stepstream=1,vendor=1"),
    ]


def test_outside_of_a_step_nothing_is_added() -> None:
    """The given headers come back as they are."""
    with traced() as made:
        assert made.tracer.trace_headers({"a": "b"}) == {"a": "b"}
        assert made.tracer.trace_headers() == {}
        assert made.tracer.trace_kafka_headers([("a", b"b")]) == [("a", b"b")]
        assert made.tracer.trace_kafka_headers(None) == []
        passed_on = [("traceparent", PARENT.encode()), ("tracestate", b"vendor=1")]
        assert made.tracer.trace_kafka_headers(passed_on) == passed_on
        assert made.tracer.trace_environment() == dict(os.environ)


def test_a_long_trace_state_keeps_ours() -> None:
    """Entries at the end are left out beyond the specification's limit."""
    state = tracestate_with_ours(",".join(f"vendor{number}={'x' * 50}" for number in range(30)))
    assert state == ",".join(
        ["stepstream=1", *(f"vendor{number}={'x' * 50}" for number in range(8))]
    )
    assert len(state) <= 512
    assert len(tracestate_with_ours("a," * 500_000)) <= 512
