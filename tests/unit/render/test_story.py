"""The critical path, and what followed each failure, below a trace."""

from __future__ import annotations

from typing import Any

from stepstream.render.heading import View
from stepstream.render.rows import StepRow
from stepstream.render.story import story

SECOND = 1_000_000
VIEW = View(width=120, now_us=100 * SECOND)


def step(name: str, start: int, end: int | None, parent: str = "root", **more: Any) -> StepRow:
    return StepRow(
        step_id=more.pop("step_id", name),
        parent_step_id=parent,
        start_us=start * SECOND,
        end_us=None if end is None else end * SECOND,
        kind=more.pop("kind", "tool_call"),
        name=name,
        **more,
    )


def lines(*steps: StepRow) -> list[str]:
    return [line.plain for line in story(steps, VIEW)]


ROOT = step("agent", 0, 10, "", step_id="root", kind="agent")


def test_the_critical_path_has_the_time_of_each_step_on_it() -> None:
    steps = [ROOT, step("plan", 0, 2), step("search", 2, 9), step("aside", 2, 4)]
    assert lines(*steps) == ["critical path  agent 1 s → plan 2 s → search 7 s"]


def test_a_long_path_is_cut_to_its_longest_steps() -> None:
    many = [step(f"s{n}", n, n + 1 if n < 9 else 10) for n in range(10)]
    (line,) = lines(ROOT, *many)
    assert line.endswith("and 2 shorter ones")


def test_a_short_run_that_went_well_has_none() -> None:
    assert lines(ROOT, step("plan", 0, 2)) == []


def test_what_followed_a_failure_is_named() -> None:
    failed = step("refund", 1, 2, status="error")
    assert lines(ROOT, failed) == ["after failure  refund refund: nothing came after it"]
    assert lines(ROOT, failed, step("answer", 3, 4)) == [
        "after failure  refund refund: then answer (ok); not tried again"
    ]
    again = step("refund", 3, 4, step_id="second")
    assert lines(ROOT, failed, again) == [
        "after failure  refund refund: then refund (ok); tried again once and went well"
    ]


def test_many_failures_are_counted() -> None:
    failed = [step(f"f{n}", n, n + 1, status="error") for n in range(7)]
    assert lines(ROOT, *failed)[-1] == "after failure  2 more"


def test_a_running_step_is_on_the_path_until_now() -> None:
    running = step("agent", 0, None, "", step_id="root", kind="agent")
    steps = [running, step("a", 0, 1), step("b", 1, 2), step("wait", 2, None)]
    assert lines(*steps)[0].endswith("wait 1 m 38 s")
