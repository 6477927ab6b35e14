"""Schedules: what a document may contain, when it is due, also over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.schemas.documents import WrongDocument, decode_document, document_of
from stepstream.schemas.schedule import MAX_AT_ONCE, Schedule, due, request, times
from stepstream.schemas.times import DAY_US, HOUR_US, MINUTE_US

BERLIN = ZoneInfo("Europe/Berlin")
NOW = round(datetime(2026, 11, 30, 12, 0, 30, tzinfo=UTC).timestamp() * 1e6)


def schedule(**fields: Any) -> Schedule:
    made = document_of(
        {"kind": "Schedule", "name": "s", "agent": "a", "cron": "0 * * * *", **fields}
    )
    assert isinstance(made, Schedule)
    return made


def us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def local_times(cron: str, month: int, day: int, days: int = 1) -> list[str]:
    """The times in Berlin from the beginning of a day on."""
    made = schedule(cron=cron, timezone="Europe/Berlin")
    start = datetime(2026, month, day, tzinfo=BERLIN)
    found = times(made, us(start) - 1, us(start + timedelta(days=days)) - 1)
    return [f"{datetime.fromtimestamp(at / 1e6, BERLIN):%d %H:%M}" for at in found]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cron": "0 6 * *"}, "is no cron expression of five fields"),
        ({"cron": "0 6 * * * *"}, "is no cron expression of five fields"),
        ({"cron": "61 6 * * *"}, "is no cron expression"),
        ({"cron": "0 6 30 2 *"}, "or never occurs: Bad day-of-month"),
        ({"timezone": "Europe/Berlinn"}, "there is no time zone 'Europe/Berlinn'"),
        ({"timezone": "../etc/passwd"}, "there is no time zone"),
        ({"missed": "run-last"}, "did you mean run_last?"),
        ({"crom": "0 6 * * *"}, "did you mean cron?"),
        ({"input": "x" * 300_000}, "are the most"),
        ({"priority": -1}, "priority"),
        ({"deadline": "-1m"}, "deadline"),
    ],
)
def test_what_is_wrong_is_refused_with_its_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(WrongDocument) as error:
        schedule(**fields)
    assert reason in str(error.value)


def test_a_document_is_the_same_after_it_is_read_again() -> None:
    made = schedule(input={"a": [1]}, deadline="1h", budget_usd="0.50", cron="30 6 * * mon-fri")
    assert decode_document(made.model_dump_json()) == made


def test_a_time_that_the_clock_skips_occurs_after_the_change() -> None:
    """On 29 March 2026 Berlin goes from 02:00 to 03:00."""
    assert local_times("30 2 * * *", 3, 28, 3) == [
        "28 02:30",
        "29 03:00",
        "30 02:30",
    ]
    assert len(local_times("0 * * * *", 3, 29)) == 23


def test_a_time_that_exists_twice_occurs_once() -> None:
    """On 25 October 2026 Berlin goes from 03:00 to 02:00; hourly schedules follow real time."""
    assert local_times("30 2 * * *", 10, 25) == ["25 02:30"]
    assert len(local_times("0 * * * *", 10, 25)) == 25


def test_after_the_first_check_every_time_is_due_once() -> None:
    made = schedule(cron="* * * * *", applied_us=1)
    checked = NOW
    found: list[int] = []
    for second in range(0, 300, 7):
        now = NOW + second * 1_000_000
        found += due(made, checked, now)
        checked = now
    assert found == [NOW + (30 + 60 * n) * 1_000_000 for n in range(5)]


@pytest.mark.parametrize(("missed", "wanted"), [("run_last", 1), ("skip", 0), ("run_all", 24)])
def test_times_that_were_missed_follow_the_policy(missed: str, wanted: int) -> None:
    """Within the last day."""
    made = schedule(missed=missed, applied_us=1)
    later = NOW + 20 * MINUTE_US  # 12:20:30: the last time is not a minute ago
    assert len(due(made, 0, later)) == wanted
    assert due(schedule(missed=missed, applied_us=later), 0, later) == []
    assert due(schedule(missed=missed, enabled=False), 0, later) == []


def test_a_time_less_than_a_minute_ago_is_not_missed() -> None:
    """The worker may have been restarted in between."""
    assert len(due(schedule(missed="skip", applied_us=1), 0, NOW)) == 1


def test_what_is_made_up_for_is_bounded() -> None:
    found = due(schedule(cron="* * * * *", missed="run_all", applied_us=1), 0, NOW)
    assert len(found) == MAX_AT_ONCE
    assert found[-1] == NOW - 30_000_000


@given(
    st.integers(0, 3 * DAY_US),
    st.integers(0, 2 * HOUR_US),
    st.sampled_from(["UTC", "Asia/Kolkata"]),
)
def test_any_two_checks_in_a_row_request_what_one_does(start: int, gap: int, zone: str) -> None:
    made = schedule(cron="*/7 * * * *", timezone=zone, applied_us=1)
    first, second, third = NOW + start, NOW + start + gap // 2, NOW + start + gap
    parts = due(made, first, second) + due(made, second, third)
    assert parts == due(made, first, third)


def test_the_request_has_the_time_in_its_id() -> None:
    made = schedule(name="nightly", project="shop", input={"a": 1}, deadline="1h", budget_usd=1)
    sent = request(made, NOW - 30_000_000)
    assert sent.task_id == "nightly@2026-11-30T12:00Z"
    assert (sent.project, sent.agent, sent.input) == ("shop", "a", {"a": 1})
    assert (sent.deadline_us, sent.budget_usd, sent.by) == (HOUR_US, "1", "schedule:nightly")
    assert request(made, NOW - 30_000_000) == sent
