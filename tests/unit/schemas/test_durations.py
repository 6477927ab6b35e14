"""Durations as people write them, and as documents keep them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from stepstream.schemas import CONTRACTS
from stepstream.schemas.durations import (
    MAX_DURATION_US,
    DurationUs,
    parse_duration_us,
    write_duration,
)
from stepstream.schemas.formatting import format_duration

DURATION: TypeAdapter[int] = TypeAdapter(DurationUs)


@given(st.integers(0, MAX_DURATION_US))
def test_a_duration_as_written_reads_back(duration_us: int) -> None:
    """To the microsecond, whatever it is."""
    assert parse_duration_us(write_duration(duration_us)) == duration_us


def test_defaults_stand_in_the_schema_as_they_are_written() -> None:
    """A default that is copied from ``stepstream schema`` into a document means the same there."""
    for name, model in CONTRACTS.items():
        for field, default in durations_in(model.model_json_schema()):
            assert isinstance(default, str), f"{field} of {name}"
            assert parse_duration_us(default) > 0
    assert ("after", "5m") in set(durations_in(CONTRACTS["Policy"].model_json_schema()))


def durations_in(schema: Any) -> Iterator[tuple[str, Any]]:
    """Name and default of each field that is a duration."""
    if isinstance(schema, dict):
        for name, field in schema.get("properties", {}).items():
            if (
                isinstance(field, dict)
                and "90s" in str(field.get("description"))
                and field.get("default") is not None
            ):
                yield name, field["default"]
        schema = list(schema.values())
    for part in schema if isinstance(schema, list) else ():
        yield from durations_in(part)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("90s", 90_000_000),
        ("1h30m", 5_400_000_000),
        ("250ms", 250_000),
        ("2d", 172_800_000_000),
        ("1w", 604_800_000_000),
        ("1.5s", 1_500_000),
        ("1 h 5 m", 3_900_000_000),
        ("7us", 7),
        (90, 90_000_000),
        (0.25, 250_000),
    ],
)
def test_durations_are_read_as_people_write_them(text: str | float, us: int) -> None:
    """Units may be combined; a bare number is seconds."""
    assert parse_duration_us(text) == us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "5 parsecs",
        "1h30",
        "-5s",
        True,
        None,
        "1e3s",
        [],
        float("inf"),
        float("nan"),
        "101y",
        "6000w",
        10**12,
    ],
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """Bad input raises ValueError that quotes it, and nothing else.

    So do durations beyond a hundred years.
    """
    with pytest.raises(ValueError, match=r"not a duration|longer than 100 years|without a unit"):
        parse_duration_us(text)


@given(st.integers(1, MAX_DURATION_US))
def test_durations_survive_documents(us: int) -> None:
    """A duration written to JSON and read again is the same, to the microsecond."""
    assert DURATION.validate_json(DURATION.dump_json(us)) == us
    assert DURATION.validate_python(DURATION.dump_python(us)) == us


class Example(BaseModel):
    """A document with a duration."""

    limit: DurationUs


@pytest.mark.parametrize("limit", [0, -1, "0s"])
def test_a_duration_in_a_document_is_positive(limit: object) -> None:
    """A limit of no time at all is a slip and is refused."""
    with pytest.raises(ValidationError):
        Example.model_validate({"limit": limit})


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (-5, "0 us"),
        (999, "999 us"),
        (380_000, "380 ms"),
        (1_250_000, "1.25 s"),
        (2_000_000, "2 s"),
        (125_000_000, "2 m 5 s"),
        (12_000_000_000, "3 h 20 m"),
        (180_000_000_000, "2 d 2 h"),
    ],
)
def test_durations_are_shown_in_two_units_at_most(us: int, text: str) -> None:
    """What a person reads is short."""
    assert format_duration(us) == text


@given(st.integers(0, MAX_DURATION_US))
@example(999_600)
@example(59_999_000)
@example(119_700_000)
@example(3_599_900_000)
def test_durations_never_show_a_full_next_unit(us: int) -> None:
    """Rounding never shows 1000 ms or 60 s."""
    text = format_duration(us)
    assert not text.startswith(("1000 us", "1000 ms", "60 s"))
    assert " 60 " not in text


@pytest.mark.parametrize("text", [300_000_000, "300000000", 4e7])
def test_a_large_number_without_a_unit_is_refused(text: object) -> None:
    """It was meant in another unit than seconds: the error shows how to write one."""
    with pytest.raises(ValueError, match=r"without a unit is seconds, [\d,]+ days: write the unit"):
        parse_duration_us(text)
    # Five minutes without a unit are plausible.
    assert parse_duration_us(300) == 300_000_000
