"""The lines below a trace: its critical path, and what followed each failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from stepstream.render.heading import View
from stepstream.render.rows import StepRow
from stepstream.render.values import fold_text, one_line, short_id
from stepstream.schemas.critical_path import Span, critical_path
from stepstream.schemas.formatting import format_duration

LEAST_STEPS: Final = 4
"""A run of fewer steps is its own critical path."""
MOST_ON_PATH: Final = 8
MOST_FAILURES: Final = 5
_INDENT: Final = 15


def story(steps: Sequence[StepRow], view: View) -> list[Text]:
    """The lines; none for a run that is short and went well."""
    lines = [*_path(steps, view), *_followed(steps, view)]
    return [piece for line in lines for piece in fold_text(line, view.cells, _INDENT)]


def path_ids(steps: Sequence[StepRow], now_us: int) -> list[tuple[str, int]]:
    """Steps on the critical path in order of time, and how long the run waited for each itself."""
    spans = (
        Span(step.step_id, step.parent_step_id, step.start_us, step.end_us or now_us)
        for step in steps
    )
    return [(part.step_id, part.own_us) for part in critical_path(spans)]


def _path(steps: Sequence[StepRow], view: View) -> list[Text]:
    if len(steps) < LEAST_STEPS:
        return []
    known = {step.step_id: step for step in steps}
    on_path = [part for part in path_ids(steps, view.now_us) if part[1] > 0]
    longest = set(sorted(on_path, key=lambda part: -part[1])[:MOST_ON_PATH])
    shown = [part for part in on_path if part in longest]
    words = f" {view.glyphs.arrow} ".join(
        f"{one_line(known[step_id].name)} {format_duration(own)}" for step_id, own in shown
    )
    left_out = len(on_path) - len(shown)
    more = f" and {left_out:,} shorter ones" if left_out else ""
    return [Text(f"critical path  {words}{more}", style="dim")] if shown else []


def _followed(steps: Sequence[StepRow], view: View) -> list[Text]:
    """Of each failed step, in order: the step after it, and whether it was tried again."""
    ordered = sorted(steps, key=lambda step: (step.start_us, step.step_id))
    parents = {step.parent_step_id for step in steps}
    failed = [step for step in ordered if step.failed and step.step_id not in parents]
    lines = [
        Text(f"after failure  {one_line(step.name)} {short_id(step.step_id)}: ", style="dim")
        + Text(_after(step, ordered), style="dim")
        for step in failed[:MOST_FAILURES]
    ]
    if len(failed) > MOST_FAILURES:
        lines.append(Text(f"after failure  {len(failed) - MOST_FAILURES:,} more", style="dim"))
    return lines


def _after(failed: StepRow, ordered: Sequence[StepRow]) -> str:
    ended = failed.end_us or failed.start_us
    later = [step for step in ordered if step.start_us >= ended and step is not failed]
    again = [
        step
        for step in later
        if step.retry_of == failed.step_id
        or (step.name == failed.name and step.kind == failed.kind)
    ]
    if not later:
        return "nothing came after it"
    following = f"then {one_line(later[0].name)} ({later[0].status})"
    if not again:
        return f"{following}; not tried again"
    good = next((step for step in again if step.status == "ok"), None)
    times = "once" if len(again) == 1 else f"{len(again):,} times"
    result = "and went well" if good is not None else "and did not go well"
    return f"{following}; tried again {times} {result}"
