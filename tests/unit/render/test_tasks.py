"""The story of a task as people read it."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

from stepstream.render.tasks import Story, story_text, waited
from stepstream.schemas.times import time_of

BEGIN = time_of(1_790_000_000_000_000)


def at(seconds: float) -> Any:
    return BEGIN + timedelta(seconds=seconds)


def event(name: str, seconds: float, **fields: Any) -> dict[str, Any]:
    names = ("waiting_for", "waiting_until", "reason", "detail", "by", "target", "run_agent",
             "run_version", "executor_id", "trace_id", "error_type", "error_message")  # fmt: skip
    usual = {**dict.fromkeys(names, ""), "state": "waiting", "attempt": 0}
    return usual | {"event": name, "changed_at": at(seconds)} | fields


def task(**fields: Any) -> dict[str, Any]:
    texts = ("project", "environment", "version", "reason", "detail", "submitted_by", "user_id",
             "session_id", "parent_task_id", "key", "budget_usd", "input", "input_ref", "result",
             "error_type", "error_message", "stopping", "waiting_for", "executor_id")  # fmt: skip
    usual: dict[str, Any] = {
        **dict.fromkeys(texts, ""), "task_id": "order-7", "agent": "refund", "state": "ok",
        "priority": 0, "after": [], "max_attempts": 0, "timeout_us": 0, "not_before": None,
        "deadline_at": None, "attempt": 1, "submitted_at": at(0), "ended_at": at(9),
        "waiting_until": None, "fallbacks": [], "once": {}, "attempts": [],
    }  # fmt: skip
    return usual | fields


def text_of(story: Story, **options: Any) -> str:
    return story_text(story, now_us=1_790_000_100_000_000, zone=UTC, **options).plain


EVENTS = (
    event("submitted", 0, waiting_for="slot"),
    event("waiting", 2, waiting_for="budget", detail="$0.24 needed, $0.10 left"),
    event("bound", 5, state="bound", attempt=1, run_agent="refund", executor_id="ex-1"),
    event("started", 6, state="running", attempt=1, trace_id="ab" * 16),
    event("ended", 9, state="ok", attempt=1),
)
ATTEMPT = {
    "attempt": 1, "trace_id": "ab" * 16, "executor_id": "ex-1", "status": "ok", "reason": "",
    "error_type": "", "error_message": "", "started_at": at(6), "ended_at": at(9),
}  # fmt: skip


def test_waits_are_added_up_by_what_for() -> None:
    """A task that waits still waits until now."""
    now_us = 1_790_000_100_000_000
    assert waited(EVENTS, now_us) == {"slot": 2_000_000, "budget": 3_000_000}
    assert waited(EVENTS[:2], now_us)["budget"] == 98_000_000


def test_an_attempt_and_its_run_stand_before_the_change_that_they_led_to() -> None:
    run = {"trace_id": "ab" * 16, "status": "ok", "success": "true", "steps": 3, "cost_usd": 0.5,
           "duration_us": 3_000_000, "unpriced_steps": 1}  # fmt: skip
    found = {"trace_id": "ab" * 16, "severity": "note", "alert": "loop", "message": "m"}
    lines = text_of(Story(task(attempts=[ATTEMPT]), EVENTS, [run], [found])).splitlines()
    names = [line.split("  ")[2].strip() for line in lines if line.startswith("  14:13")]
    assert names[:4] == ["submitted", "waiting", "bound", "started"]
    place = next(k for k, line in enumerate(lines) if "attempt 1" in line and "ok on ex-1" in line)
    assert "run abababab ok, success true · 3 steps · 3 s · $0.50" in lines[place + 1]
    assert "note loop: m" in lines[place + 2]
    assert "ended" in lines[place + 3]
    assert "$0.50 in 1 run, 1 step of unknown cost" in "\n".join(lines)


def test_a_waiting_task_states_what_for_and_until_when() -> None:
    waits = task(state="waiting", waiting_for="retry", waiting_until=at(30), ended_at=None)
    text = text_of(Story(waits, EVENTS[:1]))
    assert "waiting for the pause before the next attempt until 14:13:50" in text


def test_input_and_result_are_cut_unless_they_are_asked_for() -> None:
    long = task(input="x" * 2_000, result="done")
    assert "x" * 2_000 not in text_of(Story(long, EVENTS))
    assert "x" * 2_000 in text_of(Story(long, EVENTS), full=True)


def test_what_was_refused_stands_at_the_end() -> None:
    refused = {"refused_at": at(50), "refused": "submit", "reason": "other_input", "detail": "d"}
    last = text_of(Story(task(), EVENTS, (), (), [refused])).splitlines()[-1]
    assert "refused" in last
    assert "other_input: d" in last


def test_a_story_begins_with_the_submit_and_repeats_no_word() -> None:
    """Below the date, also where the submit has no record of its own."""
    cancelled = event("ended", 9, state="cancelled", reason="cancelled", detail="cancelled")
    waits = task(state="cancelled", reason="cancelled", detail="cancelled", not_before=at(3))
    text = text_of(Story(waits, [EVENTS[2], cancelled]))
    assert text.index("2026-09-21\n") < text.index("submitted     ") < text.index("bound")
    assert "cancelled: cancelled" not in text
    assert "cancelled (cancelled)" not in text
    # The task has had an attempt: the time is that of a pause, not of a delay that was asked for.
    assert "not before" not in text
