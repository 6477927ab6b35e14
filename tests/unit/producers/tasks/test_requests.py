"""Requests to run an agent: what is sent, and a clear error for each bad input."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.producers.tasks.requests import fields_of, submit_record
from stepstream.schemas.task_messages import decode_message, encode_message

NOW_US = 1_800_000_000_000_000


def record(**fields: Any) -> Any:
    return submit_record(
        {"agent": "refund", **fields}, project="shop", by="ann@host", now_us=NOW_US
    )


@dataclasses.dataclass
class Order:
    number: int


def test_a_request_becomes_a_record_that_the_scheduler_reads() -> None:
    sent = record(
        input={"order": 7},
        id="order-7-refund",
        priority=5,
        delay="30s",
        deadline="1h",
        after=["other"],
        user_id="u-9",
        budget_usd=0.5,
    )
    read: Any = decode_message(encode_message(sent), b"shop")
    assert read == sent
    assert (read.task_id, read.priority, read.delay_us, read.deadline_us) == (
        "order-7-refund", 5, 30_000_000, 3_600_000_000,
    )  # fmt: skip
    assert (read.after, read.user_id, read.budget_usd) == (["other"], "u-9", "0.5")
    assert msgspec.json.decode(read.input) == {"order": 7}


def test_ids_are_made_where_none_is_given() -> None:
    assert record().task_id != record().task_id


def test_dataclasses_and_dates_are_inputs() -> None:
    assert msgspec.json.decode(record(input=Order(7)).input) == {"number": 7}


def test_a_deadline_may_be_a_time() -> None:
    later = datetime.fromtimestamp(NOW_US / 1e6 + 60, UTC)
    assert record(deadline=later).deadline_us == 60_000_000
    assert record(deadline=later.isoformat()).deadline_us == 60_000_000


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"agent": ""}, "agent: the name of the agent"),
        ({"agent": 7}, "agent=7: a text"),
        ({"input": object()}, "input: the input is not JSON: objects of type object"),
        ({"input": {1, object()}}, "is not JSON"),
        ({"input": "x" * 300_000}, "at most 262,144 are allowed: store it elsewhere"),
        ({"input": 1, "input_ref": "s3://b/k"}, "not both"),
        ({"id": ""}, None),
        ({"id": "a\nb"}, "without control characters"),
        ({"id": "a\x1b"}, "without control characters"),
        ({"id": " a"}, "surrounding spaces"),
        ({"id": "x" * 257}, "1 to 256 characters"),
        ({"priority": 10}, "priority=10: a whole number from 0 to 9"),
        ({"priority": True}, "priority=True"),
        ({"delay": "-5s"}, "delay='-5s': it cannot be negative"),
        ({"delay": -5}, "delay=-5: it cannot be negative"),
        ({"delay": "7d"}, "delay='7d': at most 6d"),
        ({"delay": "soon"}, "delay='soon': not a duration"),
        ({"delay": float("nan")}, "not a duration"),
        ({"deadline": 0}, "more than 0"),
        ({"deadline": "-1h"}, "cannot be negative"),
        ({"deadline": datetime(2020, 1, 1, tzinfo=UTC)}, "it is in the past"),
        ({"deadline": "2020-01-01T00:00:00Z"}, "it is in the past"),
        ({"deadline": "2020-T"}, "a duration such as 1h, or a time"),
        ({"delay": "1h", "deadline": "30m"}, "would expire before its delay of 1h"),
        ({"attempts": 0}, "attempts=0: a whole number from 1 to 100"),
        ({"timeout": 0}, "timeout=0: more than 0"),
        ({"budget_usd": 0}, "budget_usd=0: dollars, more than 0"),
        ({"budget_usd": "much"}, "dollars, more than 0"),
        ({"after": "other"}, "a list of task ids"),
        ({"after": ["x"] * 101}, "at most 100 tasks"),
        ({"on_busy": "wait"}, "on_busy='wait'"),
        ({"user_id": 9}, "user_id=9: a text"),
        ({"prioriti": 1}, "did you mean priority?"),
    ],
)
def test_each_bad_input_has_its_error(fields: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert record(**fields).task_id
        return
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is compared below
        record(**fields)
    assert message in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


@given(
    input=JSON,
    priority=st.integers(0, 9),
    delay=st.sampled_from([None, "5s", "1500ms", 90]),
    attempts=st.sampled_from([None, 1, 100]),
)
def test_a_gateway_gets_the_same_request(**fields: Any) -> None:
    """The fields that are posted to a gateway give the record that Kafka would get."""
    sent = record(id="one", **fields)
    posted = fields_of(sent)
    again = submit_record(
        {name: value for name, value in posted.items() if name != "project"},
        project=posted["project"],
        by="ann@host",
        now_us=NOW_US,
    )
    assert again == sent
