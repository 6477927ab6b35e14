"""Two runs next to each other."""

from __future__ import annotations

from typing import Any

from rich.cells import cell_len

from stepstream.render.compare import Side, aligned, render_comparison
from stepstream.render.heading import View
from stepstream.render.rows import RunRow, StepRow

SECOND = 1_000_000
VIEW = View(width=100, now_us=0)


def steps(*names: str, **statuses: str) -> list[StepRow]:
    """A root and the steps below it, one after the other."""
    root = StepRow(step_id="root", kind="agent", name="support", start_us=0, end_us=9 * SECOND)
    below = [
        StepRow(
            step_id=f"s{place}",
            parent_step_id="root",
            kind="tool_call",
            name=name,
            start_us=place * SECOND,
            end_us=(place + 1) * SECOND,
            status=statuses.get(name, "ok"),
            cost_nanos=10_000_000,
        )
        for place, name in enumerate(names)
    ]
    return [root, *below]


def run(trace_id: str, **more: Any) -> RunRow:
    return RunRow(trace_id=trace_id, status="ok", start_us=0, end_us=9 * SECOND, **more)


def pairs(left: list[StepRow], right: list[StepRow]) -> list[tuple[str, str]]:
    return [
        (
            pair.left.step.name if pair.left and pair.left.step else "",
            pair.right.step.name if pair.right and pair.right.step else "",
        )
        for pair in aligned(left, right, 200)
    ]


def test_an_inserted_step_does_not_shift_the_rest() -> None:
    assert pairs(steps("a", "b", "c"), steps("a", "new", "b", "c")) == [
        ("support", "support"),
        ("a", "a"),
        ("", "new"),
        ("b", "b"),
        ("c", "c"),
    ]


def test_differences_are_marked_and_counted() -> None:
    left = Side(run("a" * 32, agent="support", steps=4), steps("a", "old", "b"))
    right = Side(run("b" * 32, agent="support", steps=4), steps("a", "b", "new", b="error"))
    lines = render_comparison(left, right, VIEW).plain.splitlines()
    assert max(cell_len(line) for line in lines) <= 100
    assert lines[0].split() == ["run", "aaaaaaaa", "bbbbbbbb"]
    signs = {line[48:51].strip() for line in lines[8:-2]}
    assert signs == {"", "<", ">", "!"}
    assert lines[-1] == ("3 steps in both runs, 1 only in the left one, 1 only in the right one")


def test_texts_of_agents_cannot_control_the_terminal() -> None:
    side = Side(run("a" * 32, agent="x\x1b[31m"), steps("a\x1b[2J\n"))
    assert "\x1b" not in render_comparison(side, side, VIEW).plain


def test_empty_runs_are_compared_as_well() -> None:
    side = Side(run("a" * 32), [])
    assert render_comparison(side, side, VIEW).plain.endswith("0 only in the right one")
