"""Calendar windows: whole local hours, days and months, daylight saving time and odd zones
included; latency buckets.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stepstream.schemas.calendar import (
    Window,
    check_zone,
    day_kind,
    hour_of_week,
    window_name,
    window_of,
)
from stepstream.schemas.latency import bucket_start_us, latency_bucket, quantile_us, slower_than
from stepstream.schemas.policy import Policy
from stepstream.schemas.times import HOUR_US

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    # UTC+5:45; Lord Howe changes its clocks by half an hour, and Apia left out a whole day in 2011.
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
)
TIMES = st.integers(1_600_000_000_000_000, 1_900_000_000_000_000)


def us(text: str) -> int:
    """The microseconds of an ISO time."""
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("at", "window", "zone", "start", "end"),
    [
        (
            "2026-11-23T04:10:00+00:00",
            "hour",
            "UTC",
            "2026-11-23T04:00:00+00:00",
            "2026-11-23T05:00:00+00:00",
        ),
        (
            "2026-11-23T04:10:00+00:00",
            "hour",
            "Asia/Kolkata",
            # UTC+5:30: a local hour begins at the half hour of UTC.
            "2026-11-23T03:30:00+00:00",
            "2026-11-23T04:30:00+00:00",
        ),
        (
            "2026-11-22T23:10:00+00:00",
            "day",
            "Europe/Berlin",
            "2026-11-23T00:00:00+01:00",
            "2026-11-24T00:00:00+01:00",
        ),
        (
            # The day on which clocks go back: 25 hours.
            "2026-10-25T12:00:00+00:00",
            "day",
            "Europe/Berlin",
            "2026-10-25T00:00:00+02:00",
            "2026-10-26T00:00:00+01:00",
        ),
        (
            # The day on which clocks go forward: 23 hours.
            "2026-03-29T12:00:00+00:00",
            "day",
            "Europe/Berlin",
            "2026-03-29T00:00:00+01:00",
            "2026-03-30T00:00:00+02:00",
        ),
        (
            # Already November in Berlin.
            "2026-10-31T23:30:00+00:00",
            "month",
            "Europe/Berlin",
            "2026-11-01T00:00:00+01:00",
            "2026-12-01T00:00:00+01:00",
        ),
        (
            "2026-12-31T23:30:00+00:00",
            "month",
            "UTC",
            "2026-12-01T00:00:00+00:00",
            "2027-01-01T00:00:00+00:00",
        ),
        (
            # A leap year.
            "2024-02-29T23:30:00+00:00",
            "month",
            "UTC",
            "2024-02-01T00:00:00+00:00",
            "2024-03-01T00:00:00+00:00",
        ),
    ],
)
def test_windows_are_local(at: str, window: Window, zone: str, start: str, end: str) -> None:
    """A day is from local midnight to midnight: 25 hours when clocks go back, 23 when forward."""
    assert window_of(us(at), window, zone) == (us(start), us(end))


@given(TIMES, st.sampled_from(("hour", "day", "month")), st.sampled_from(ZONES))
def test_windows_follow_each_other(at: int, window: Window, zone: str) -> None:
    """Every moment lies in exactly one window, in every zone and over every change of clocks."""
    start, end = window_of(at, window, zone)
    assert start <= at < end
    assert window_of(start, window, zone) == window_of(end - 1, window, zone) == (start, end)
    assert window_of(end, window, zone)[0] == end
    assert window_of(start - 1, window, zone)[1] == start


@given(TIMES, st.sampled_from(ZONES))
def test_a_day_begins_at_the_first_moment_of_its_date(at: int, zone: str) -> None:
    """The local date changes there and nowhere within."""
    start, end = window_of(at, "day", zone)
    dates = {
        datetime.fromtimestamp(t / 1e6, UTC).astimezone(ZoneInfo(zone)).date()
        for t in (start, at, end - 1_000_000)
    }
    assert len(dates) == 1
    assert (
        datetime.fromtimestamp(start / 1e6 - 1, UTC).astimezone(ZoneInfo(zone)).date() not in dates
    )


def test_the_hour_that_comes_twice_is_two_windows() -> None:
    """In a zone whose clocks go back by half an hour too no window is empty or doubled."""
    first, second = us("2026-10-25T00:30:00+00:00"), us("2026-10-25T01:30:00+00:00")
    assert (
        window_of(first, "hour", "Europe/Berlin")[1]
        == window_of(second, "hour", "Europe/Berlin")[0]
    )


def test_windows_have_names() -> None:
    """As people write them, in their zone."""
    start = us("2026-11-01T00:00:00+01:00")
    assert window_name(start, "month", "Europe/Berlin") == "2026-11"
    assert window_name(start, "day", "Europe/Berlin") == "2026-11-01"
    assert window_name(start, "hour", "Europe/Berlin") == "2026-11-01 00:00 CET"


def test_days_of_the_week() -> None:
    """Monday's first hour is the first."""
    assert hour_of_week(us("2026-11-23T00:00:00+00:00")) == 0
    assert hour_of_week(us("2026-11-22T23:00:00+00:00")) == 167
    assert [day_kind(us(f"2026-11-{day}T12:00:00+00:00")) for day in (20, 21, 22, 23)] == [
        0,
        1,
        1,
        0,
    ]


def test_a_zone_that_does_not_exist_is_refused_with_a_hint() -> None:
    """On the way in, not when the first window is due."""
    assert check_zone("UTC") == "UTC"
    rule = {"rule": "spend", "limit_usd": 1, "timezone": "Europe/Atlantis"}
    with pytest.raises(ValidationError, match="give an IANA name such as Europe/Berlin"):
        Policy.model_validate({"name": "p", "rules": [rule]})


def test_a_window_rule_cannot_stop_a_run() -> None:
    """A rule about no single run sends no command, and an action there is an error."""
    with pytest.raises(ValidationError, match="only reports"):
        Policy.model_validate(
            {
                "name": "p",
                "mode": "enforce",
                "rules": [{"rule": "spend", "limit_usd": 1, "action": "stop"}],
            }
        )


@given(st.integers(0, 10**14))
def test_buckets_hold_durations_within_an_eighth(duration: int) -> None:
    """Buckets follow each other, and none is wider than 12.5 %."""
    bucket = latency_bucket(duration)
    low, high = bucket_start_us(bucket), bucket_start_us(bucket + 1)
    assert low <= duration < high
    assert high - low <= max(1, low / 8)


def test_a_histogram_answers() -> None:
    """How many were slower, and how long most took."""
    histogram: dict[int, int] = {}
    for seconds in range(1, 101):
        bucket = latency_bucket(seconds * 1_000_000)
        histogram[bucket] = histogram.get(bucket, 0) + 1
    # The bucket of the limit is cut in two: the count is an estimate.
    assert 85 <= slower_than(histogram, 10_000_000) <= 90
    assert slower_than(histogram, HOUR_US) == 0
    assert 50e6 <= quantile_us(histogram, 0.5) <= 50e6 * 1.14
    assert quantile_us({}, 0.5) == 0
