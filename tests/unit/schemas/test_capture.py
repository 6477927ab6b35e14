"""Which contents are sent, by the settings of capture."""

from __future__ import annotations

import pytest

from stepstream.schemas.capture import FULL, OFF, Capture, is_sampled
from stepstream.schemas.settings import Settings


def test_limits_by_kind() -> None:
    """Kinds with a limit of their own, and the others."""
    capture = Settings(capture="llm_call=off, tool_call=2KB,retrieval=on,*=500").content_capture
    found = [capture.limit(kind, "0" * 32) for kind in ("llm_call", "tool_call", "retrieval")]
    assert found == [OFF, 2_048, FULL]
    assert capture.limit("plan", "0" * 32) == 500
    assert not capture.is_full


def test_everything_is_sent_by_default() -> None:
    assert Settings().content_capture.is_full
    assert Settings().content_capture.limit("llm_call", "0" * 32) == FULL


def test_capture_content_turns_everything_off() -> None:
    """Whatever ``capture`` allows."""
    capture = Settings(capture_content=False, capture="llm_call=on").content_capture
    assert capture.limit("llm_call", "0" * 32) == OFF


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("llm", "KIND=on"),
        ("chat=off", "there is no kind 'chat'"),
        ("llm_call=some", "write on, off or a size"),
        ("llm_call=-1", "KIND=on"),
    ],
)
def test_a_wrong_setting_is_explained(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Settings(capture=text)


def test_the_sample_is_a_share_of_the_runs() -> None:
    """By the trace id alone; a larger share contains the smaller one."""
    ids = [f"{number:032x}" for number in range(4_000)]
    tenth = {one for one in ids if is_sampled(one, 0.1)}
    half = {one for one in ids if is_sampled(one, 0.5)}
    assert 300 < len(tenth) < 500
    assert 1_850 < len(half) < 2_150
    assert tenth < half
    assert not any(is_sampled(one, 0.0) for one in ids)
    assert all(is_sampled(one, 1.0) for one in ids)


def test_a_run_outside_of_the_sample_has_no_contents() -> None:
    capture = Capture(sample=0.5)
    ids = [f"{number:032x}" for number in range(100)]
    assert {capture.limit("llm_call", one) for one in ids} == {OFF, FULL}
    assert all((capture.limit("plan", one) == FULL) == is_sampled(one, 0.5) for one in ids)
