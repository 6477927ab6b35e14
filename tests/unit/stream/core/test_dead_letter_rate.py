"""The dead letter's fuse: it alerts once, ends by itself, and a restart changes neither."""

from __future__ import annotations

from typing import Any

import msgspec

from stepstream.schemas.times import MINUTE_US
from stepstream.stream.core.dead_letter_rate import DeadLetterRate
from stepstream.stream.core.outputs import Output

START_US = 1_790_000_000_000_000 // MINUTE_US * MINUTE_US


def fuse(limit: int = 10) -> DeadLetterRate:
    return DeadLetterRate("steps", 3, "state", limit)


def states(outputs: list[Output]) -> list[dict[str, Any]]:
    """The findings among outputs."""
    return [
        msgspec.json.decode(output.value or b"") for output in outputs if output.topic == "findings"
    ]


def notes(outputs: list[Output]) -> list[Output]:
    return [output for output in outputs if output.topic == "state"]


def test_up_to_the_limit_nothing_is_sent() -> None:
    """Some garbage is normal; minutes do not add up."""
    made = fuse()
    for minute in range(5):
        assert made.refused(10, START_US + minute * MINUTE_US) == []
    assert not made.is_exceeded


def test_beyond_the_limit_one_alert_is_raised() -> None:
    """However many more come, in that minute or in the next."""
    made = fuse()
    out = [
        *made.refused(6, START_US),
        *made.refused(6, START_US + 1),
        *made.refused(60, START_US + 2),
    ]
    out += made.refused(60, START_US + MINUTE_US)
    (finding,) = states(out)
    assert (finding["alert"], finding["subject"], finding["severity"]) == (
        "dead-letter-rate",
        "steps/3",
        "error",
    )
    assert finding["message"] == "more than 10 records a minute of steps/3 are refused"
    assert (made.is_exceeded, len(notes(out))) == (True, 1)


def test_it_is_over_after_a_minute_within_the_limit() -> None:
    """Not with the minute in which it blew, whose rest may have been quiet."""
    made = fuse()
    (fired,) = states(made.refused(11, START_US))
    assert made.passed(START_US + MINUTE_US) == []
    assert made.refused(11, START_US + MINUTE_US + 1) == []
    assert made.passed(START_US + 2 * MINUTE_US) == []
    (resolved,) = states(made.passed(START_US + 3 * MINUTE_US))
    assert (resolved["state"], made.is_exceeded) == ("resolved", False)
    assert resolved["finding_id"] != fired["finding_id"]
    assert (
        states(made.refused(11, START_US + 4 * MINUTE_US))[0]["finding_id"] != fired["finding_id"]
    )


def test_a_long_silence_is_a_minute_within_the_limit() -> None:
    """A log without new records refuses nothing."""
    made = fuse()
    made.refused(11, START_US)
    assert [finding["state"] for finding in states(made.passed(START_US + 5 * MINUTE_US))] == [
        "resolved"
    ]


def test_a_restart_knows_that_it_has_blown() -> None:
    """The same alert goes on, and ends; what is read again raises the same finding."""
    made = fuse()
    out = made.refused(11, START_US)
    again = fuse()
    assert again.restore(notes(out)[0].value or b"") == START_US
    # The alert is open already: it is known from the state record.
    assert again.refused(11, START_US) == []
    again.passed(START_US + MINUTE_US)
    ended = again.passed(START_US + 2 * MINUTE_US)
    assert [finding["state"] for finding in states(ended)] == ["resolved"]
    third = fuse()
    assert third.restore(notes(ended)[0].value or b"") == 0
    assert not third.is_exceeded
    forgetful = fuse()
    # Without the record the finding comes again with the same id, and changes nothing.
    assert states(forgetful.refused(11, START_US))[0]["finding_id"] == states(out)[0]["finding_id"]


def test_without_a_limit_it_never_blows() -> None:
    """Off is off."""
    made = fuse(limit=0)
    assert made.refused(10**6, START_US) == []
