"""Everything the SDK writes is accepted as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepstream.producers.exit_summary import Totals
from stepstream.producers.transport.encoder import Encoder
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.producers.transport.redactor import Redactor
from stepstream.schemas.accept import DEFAULT_LIMITS, Accepted, Limits, accept
from stepstream.schemas.content_limits import MAX_BYTES
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.retention import record_limits
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import KINDS, RECORD_HEADERS
from stepstream.schemas.step import Step as StepRecord
from tests.support.sdk import traced

any_text = st.text(st.characters(), max_size=20) | st.sampled_from(
    # Longer than each limit in characters or in bytes; half a surrogate pair, which UTF-8 cannot
    # encode; characters that JSON writes as two or six.
    ["", "x" * 600, "é" * 9_000, "\x00" * 70_000, "\ud800", '"' * 70_000, "🙂" * 30_000]
)
any_value = (
    any_text
    | st.integers()
    | st.floats()
    | st.none()
    | st.lists(st.integers())
    | st.dictionaries(any_text, any_text)
)
# Beyond the 64 bits of the store in both directions.
numbers = st.integers(-(2**70), 2**70) | st.floats() | any_text | st.none()
fields = st.fixed_dictionaries(
    {},
    optional={
        "input": any_value,
        "tool": any_text,
        "model": any_text,
        "provider": any_text,
        "tool_schema": any_text,
        "attempt": numbers,
        "retry_of": any_text,
        "fallback_of": any_text,
        "attributes": st.dictionaries(any_text, any_value, max_size=80),
        "surprise": any_value,
    },
)
owners = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("task", "agent", "agent_version", "session_id", "user_id", "project", "environment"),
        any_text,
    ),
)
writes = st.lists(
    st.one_of(
        st.tuples(st.just("set_output"), any_value),
        st.tuples(st.just("set_input"), any_value),
        st.tuples(st.just("set_cost"), numbers),
        st.tuples(st.just("set_model"), any_text),
        st.tuples(st.just("set_error"), any_text),
        st.tuples(
            st.just("set_documents"),
            st.lists(any_value, max_size=5) | st.just([{"content": "x" * 1000}] * 400),
        ),
        st.tuples(st.just("set_attributes"), st.dictionaries(any_text, any_value, max_size=5)),
        st.tuples(st.just("record_response"), any_value),
        st.tuples(st.just("usage"), st.lists(numbers, min_size=5, max_size=5)),
        st.tuples(st.just("record_first_token"), st.none()),
    ),
    max_size=4,
)
USAGE = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)


def write(step: Any, what: str, value: Any) -> None:
    if what == "usage":
        step.set_usage(**dict(zip(USAGE, value, strict=True)))
    elif what == "record_first_token":
        step.record_first_token()
    else:
        getattr(step, what)(value)


def accepted(transport: MemoryTransport, limits: Limits = DEFAULT_LIMITS) -> list[Accepted]:
    """What the worker makes of each record, on the partition that its key has."""
    out = []
    for record in transport.records:
        accepted = accept(
            record.value,
            key=record.key,
            partition=partition_for(record.key, 12),
            partitions=12,
            timestamp_us=time.time_ns() // 1_000,
            headers=RECORD_HEADERS,
            limits=limits,
        )
        assert isinstance(accepted, Accepted), accepted
        out.append(accepted)
    return out


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    owners,
    st.lists(st.tuples(any_text | st.sampled_from(KINDS), any_text, fields, writes), max_size=3),
    st.booleans(),
)
def test_whatever_a_program_does(whose: dict[str, Any], steps: list[Any], capture: bool) -> None:
    """Any use of the API gives events that pass ``accept``, none of them clamped."""
    with traced(sound=False, agent="", capture_content=capture, max_content_bytes=100_000) as made:
        with made.tracer.run(**whose) as run:
            for kind, name, opened, written in steps:
                with run.step(kind, name=name, **opened) as step:
                    for what, value in written:
                        write(step, what, value)
        assert made.tracer.flush(20)
        found = accepted(made.transport)
    assert len(found) == 2 * (len(steps) + 1)
    # A clamped field is a repair by the worker: what the SDK sends needs none.
    assert [each.clamped for each in found if each.clamped] == []


@pytest.mark.parametrize("fill", ["\x00", "\x7f", '"', "é", "🙂", "\\"])
def test_the_largest_record_is_small_enough(fill: str) -> None:
    """Contents, documents and attributes at their limits, all of them characters that JSON makes
    longer, still fit.
    """
    with traced(max_content_bytes=65_536) as made:
        with made.tracer.tool(
            "find",
            input=fill * 70_000,
            attributes={fill * 500 + str(n): fill * 9_000 for n in range(70)},
        ) as step:
            step.set_output(fill * 70_000)
            step.set_documents([{"content": fill * 70_000}] * 300)
            step.set_error(fill * 9_000)
        assert made.tracer.flush(20)
        for each in accepted(made.transport):
            assert each.clamped == ()


@pytest.mark.parametrize("how", [{"capture": "*=off"}, {"max_content_bytes": 2}])
def test_attributes_that_are_too_large_are_cut_where_contents_are_not_sent(
    how: dict[str, Any],
) -> None:
    """Else the record would be refused as too large, and the step lost."""
    with traced(**how) as made:
        with made.tracer.tool("find") as step:
            step.set_attributes({str(number): "\x01" * 4_000 for number in range(64)})
        assert made.tracer.flush(20)
        found = accepted(made.transport)
    assert len(found[-1].step.attributes) == 64
    assert all("cut]" in value for value in found[-1].step.attributes.values())


@pytest.mark.parametrize("fill", ["x", '"', "é", "\n"])
def test_contents_are_kept_whole_up_to_the_limit_of_their_kind(fill: str) -> None:
    """An input and an output of a megabyte each arrive as they are, and are accepted so."""
    wanted = Settings(content_limits="tool_call=1MB")
    text = fill * (MAX_BYTES // len(fill.encode()))
    with traced(content_limits=wanted.content_limits) as made:
        for kind in ("tool_call", "retrieval"):
            with made.tracer.step(kind, name="read", input=text) as step:
                step.set_output(text)
        assert made.tracer.flush(20)
        for each in accepted(made.transport, record_limits(wanted)):
            assert each.clamped == ()
            whole = each.step.kind == "tool_call"
            assert (each.step.input == text) == whole
            if each.step.phase == "end":
                assert (each.step.output == text) == whole
                assert (each.step.output_bytes is None) == whole


def encoder(price_book: Callable[[], PriceBook] = PriceBook) -> Encoder:
    return Encoder(Redactor(), price_book, 16_384, Totals())


def record(**changes: Any) -> StepRecord:
    base = {
        "trace_id": "1" * 32,
        "step_id": "2" * 16,
        "kind": "llm_call",
        "name": "plan",
        "start_time": 1,
        "end_time": 2,
    }
    return StepRecord(**{**base, "phase": "end", **changes})


def test_prices_are_loaded_when_first_needed() -> None:
    """Steps without tokens that are no model calls never read prices."""
    made: list[int] = []

    def price_book() -> PriceBook:
        made.append(1)
        return PriceBook()

    encode = encoder(price_book)
    encode(record(kind="tool_call"))
    assert made == []


def test_the_input_of_both_events_is_cleaned_once() -> None:
    """The end event carries the same clean input as the start event, also where it was changed in
    between.
    """
    encode = encoder()
    text = '{"password":"hunter2"}'
    start = encode(record(phase="start", end_time=None, input=text)).value
    end = encode(record(input=text)).value
    assert b"hunter2" not in start + end
    changed = (
        encode(record(phase="start", end_time=None, step_id="3" * 16, input=text)),
        encode(record(step_id="3" * 16, input="b")),
    )
    assert b'"input":"b"' in changed[1].value


def test_inputs_of_unfinished_steps_are_bounded_by_bytes() -> None:
    """The oldest are let go of when there are too many bytes, and each is when its step ends."""
    encode = Encoder(Redactor(), PriceBook, 16_384, Totals(), max_cached_bytes=100_000)
    for number in range(50):
        encode(record(phase="start", end_time=None, step_id=f"{number:016x}", input="x y " * 2_000))
        assert encode.cached_bytes <= 100_000
    assert encode.cached_bytes > 50_000
    for number in range(50):
        value = encode(record(step_id=f"{number:016x}", input="x y " * 2_000)).value
        assert b'"input":"x y ' in value
    assert encode.cached_bytes == 0


def test_objects_with_secrets_in_their_attributes() -> None:
    """An object recorded by its attributes shows none that a name gives away."""

    class Client:
        def __init__(self) -> None:
            self.host, self.password, self.api_key = "db", "hunter2-x", "q8w7e6r5t4"

    with traced() as made:
        with made.tracer.tool("find", input=Client(), attributes={"client": Client()}) as step:
            step.set_output([Client()])
        event = made.ended["find"]
    for text in (event.input, event.output, event.attributes["client"]):
        assert "host='db'" in text
        assert "hunter2" not in text
        assert "q8w7" not in text
