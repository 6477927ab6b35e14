"""Two runs next to each other, aligned by what their steps are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from stepstream.render.arrange import Line, arrange
from stepstream.render.heading import STATUS_STYLES, View
from stepstream.render.rows import RunRow, StepRow
from stepstream.render.values import fit, format_time, one_line, short_id
from stepstream.schemas.alignment import align, step_key
from stepstream.schemas.formatting import format_duration, format_number_of, format_usd

MIN_WIDTH: Final = 80
_NUMBERS: Final = 18
"""Cells of duration and cost."""
_LABELS: Final = ("run", "status", "agent", "started", "duration", "steps", "cost")


@dataclass(frozen=True, slots=True)
class Side:
    """A run and its steps."""

    run: RunRow
    steps: Sequence[StepRow]


@dataclass(frozen=True, slots=True)
class Pair:
    """The same step of both runs, or a step of one of them."""

    left: Line | None
    right: Line | None


def aligned(left: Sequence[StepRow], right: Sequence[StepRow], limit: int) -> list[Pair]:
    """The steps of both trees in order, paired by what they did (``schemas.alignment``).

    A step that one run has more leaves the pairs after it as they are. Above ``limit`` steps each
    side has those that matter (see ``arrange``).
    """
    lines = [[line for line in arrange(steps, limit=limit) if line.step] for steps in (left, right)]
    keys = [[_key(line) for line in side] for side in lines]
    return [
        Pair(
            None if pair.left is None else lines[0][pair.left],
            None if pair.right is None else lines[1][pair.right],
        )
        for pair in align(*keys)
    ]


def _key(line: Line) -> tuple[str, str]:
    assert line.step is not None
    return step_key(line.step.kind, line.step.name, line.step.tool, line.step.model)


def render_comparison(left: Side, right: Side, view: View) -> Text:
    """Both runs, at least 80 cells wide. A sign between them marks what differs.

    ``<`` and ``>``: only the left or the right run has the step; ``!``: it ended otherwise.
    """
    width = max(MIN_WIDTH, view.width)
    half = (width - 3) // 2
    pairs = aligned(left.steps, right.steps, view.limit)
    parts = [*_heading(left, right, half, view), Text("")]
    parts += [_row(pair, half, view) for pair in pairs]
    parts += [Text(""), Text(_summary(pairs), style="dim")]
    text = Text("\n", no_wrap=True, overflow="ignore").join(parts)
    text.no_wrap, text.overflow = True, "ignore"
    return text


def _heading(left: Side, right: Side, half: int, view: View) -> Iterator[Text]:
    def values(side: Side) -> list[str]:
        run = side.run
        return [
            short_id(run.trace_id),
            run.status,
            f"{run.who} {run.agent_version}".strip(),
            format_time(run.start_us, view.zone),
            format_duration(run.end_us - run.start_us),
            f"{run.steps:,}",
            format_usd(run.cost_nanos) + (" + ?" if run.unpriced_steps else ""),
        ]

    for label, one, other in zip(_LABELS, values(left), values(right), strict=True):
        text = Text(f"{label:<9}", style="dim")
        for place, value in enumerate((one, other)):
            room = half - 9 if place == 0 else half
            style = STATUS_STYLES.get(value, "") if label == "status" else ""
            text.append(fit(one_line(value), room, ellipsis=view.glyphs.ellipsis), style=style)
            text.append("   " if place == 0 else "")
        yield text


def _row(pair: Pair, half: int, view: View) -> Text:
    ended = {line.step.status for line in (pair.left, pair.right) if line and line.step}
    sign = ">" if pair.left is None else "<" if pair.right is None else " "
    sign = "!" if len(ended) > 1 else sign
    text = _cell(pair.left, half, view)
    text.append(f" {sign} ", style="bold yellow")
    text.append_text(_cell(pair.right, half, view))
    text.rstrip()
    return text


def _cell(line: Line | None, cells: int, view: View) -> Text:
    if line is None or line.step is None:
        return Text(" " * cells)
    step, glyphs = line.step, view.glyphs
    mark = glyphs.failed if step.failed else glyphs.running if step.open else " "
    took = "" if step.end_us is None else format_duration(step.end_us - step.start_us)
    cost = "" if step.cost_nanos is None else format_usd(step.cost_nanos)
    # At most six levels: each side has half of the width.
    label = f"{mark} {'  ' * min(len(line.more), 6)}{one_line(step.name)}"
    numbers = fit(took.replace(" ", ""), 8, right=True) + fit(cost, 10, right=True)
    text = Text(fit(label, cells - _NUMBERS, ellipsis=glyphs.ellipsis))
    text.append(numbers)
    text.stylize("red" if step.failed else "")
    return text


def _summary(pairs: Sequence[Pair]) -> str:
    both = sum(pair.left is not None and pair.right is not None for pair in pairs)
    left = sum(pair.right is None for pair in pairs)
    right = sum(pair.left is None for pair in pairs)
    return (
        f"{format_number_of(both, 'step')} in both runs, {left:,} only in the left one, "
        f"{right:,} only in the right one"
    )
