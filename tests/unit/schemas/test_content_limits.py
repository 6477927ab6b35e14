"""Limits of contents by kind of step: what may be written, and what a record keeps."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.content_limits import MAX_BYTES, parse_content_limits, record_bytes
from stepstream.schemas.retention import record_limits
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import KINDS
from stepstream.schemas.topics import STEP_RECORD_BYTES
from tests.support.step_events import NOW_US, value


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", {}),
        ("llm_call=1MB", {"llm_call": MAX_BYTES}),
        ("llm_call=200000, tool_call=256KB", {"llm_call": 200_000, "tool_call": 262_144}),
        ("llm_call=10,*=1 mb", dict.fromkeys(KINDS, MAX_BYTES) | {"llm_call": 10}),
        ("output=0", {"output": 0}),
    ],
)
def test_limits_are_read(text: str, limits: dict[str, int]) -> None:
    assert parse_content_limits(text, KINDS) == limits


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("llm_call", "is not KIND=BYTES, such as llm_call=1MB"),
        ("llm=1MB", "no kind 'llm': write \\* or one of agent, plan"),
        ("llm_call=2MB", "the largest limit is 1MB"),
        ("llm_call=-1", "is not KIND=BYTES"),
    ],
)
def test_a_wrong_limit_is_explained(text: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(content_limits=text)


def test_the_largest_record_fits_the_topic() -> None:
    """With room for the key, the headers and Kafka's own fields."""
    assert record_bytes({"llm_call": MAX_BYTES}) + 65_536 < STEP_RECORD_BYTES
    assert record_bytes({}) == 1_048_576


def test_a_kind_with_a_limit_keeps_its_contents() -> None:
    """Line ends and quotation marks double a text in JSON; the record is still accepted."""
    limits = record_limits(Settings(content_limits="tool_call=1MB,output=1KB"))
    text = '"\n' * (MAX_BYTES // 2)
    for kind, kept in (("tool_call", MAX_BYTES), ("llm_call", 65_536), ("output", 1_024)):
        record = value(kind=kind, input=text, output=text)
        verdict = accept_value(record, timestamp_us=NOW_US, limits=limits)
        assert isinstance(verdict, Accepted), verdict
        assert (len(verdict.step.input), len(verdict.step.output)) == (kept, kept)
        assert verdict.step.input_bytes == (None if kept == MAX_BYTES else MAX_BYTES)


def test_a_copy_of_settings_has_its_own_limits() -> None:
    before = Settings(content_limits="llm_call=1KB")
    assert before.content_bytes("llm_call") == 1_024
    after = before.model_copy(update={"content_limits": "llm_call=2KB"})
    assert after.content_bytes("llm_call") == 2_048
    assert after.content_bytes("tool_call") == after.max_content_bytes
    assert after.content_bytes_by_kind == {"llm_call": 2_048}
