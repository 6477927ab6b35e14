"""Draws one run: heading, steps as a tree with bars on a time axis, and its alerts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from stepstream.render.alerts import HANGING_CELLS, Note, alert_lines, gathered, note_line
from stepstream.render.arrange import Hidden, Line, arrange
from stepstream.render.glyphs import Glyphs
from stepstream.render.heading import View, heading
from stepstream.render.rows import RunRow, StepRow
from stepstream.render.story import story
from stepstream.render.values import (
    clean_lines,
    clip,
    fit,
    fold_text,
    folded,
    one_line,
)
from stepstream.schemas.alert import Alert
from stepstream.schemas.formatting import format_count, format_duration, format_usd

KIND_STYLES: Final[dict[str, str]] = {
    "agent": "blue",
    "llm_call": "magenta",
    "tool_call": "cyan",
    "retrieval": "green",
    "plan": "bright_blue",
}
MIN_CONTENT: Final = 20
"""Cells that a content gets however deep its step is."""
_TIME_CELLS: Final = 8
_MIN_COST_CELLS: Final = 9
_TOKEN_CELLS: Final = 11


@dataclass(frozen=True, slots=True)
class _Columns:
    label: int
    bar: int
    cost: int
    tokens: bool
    start_us: int
    end_us: int


def render_trace(
    steps: Sequence[StepRow],
    run: RunRow,
    alerts: Sequence[Alert],
    view: View,
    notes: Sequence[Note] = (),
) -> Text:
    """The whole picture, at most ``view.width`` wide (at least 40); readable without colour."""
    # Steps that an alert names are drawn whatever the limit leaves out.
    evidence = frozenset(step_id for alert in alerts for step_id in alert.step_ids)
    lines = arrange(steps, limit=view.limit, keep=evidence)
    columns = _columns(lines, run, steps, view)
    parts = [heading(run, view), _axis(columns, view.glyphs)]
    for line in lines:
        if line.hidden is not None:
            parts.append(_hidden(line, line.hidden, columns, view))
        elif line.step is not None:
            parts.append(_step(line, line.step, line.step.step_id in evidence, columns, view))
            parts.extend(_below(line, line.step, view))
    if below := story(steps, view):
        parts += [Text(""), *below]
    if alerts:
        parts.append(Text(""))
        ordered = sorted(alerts, key=lambda alert: alert.opened_at)
        lines_of = partial(
            alert_lines, zone=view.zone, glyphs=view.glyphs, history=True, own_run=True
        )
        alert_texts = [line for alert in ordered for line in lines_of(alert).split("\n")]
        parts.extend(
            piece for line in alert_texts for piece in fold_text(line, view.cells, HANGING_CELLS)
        )
    if notes:
        parts.append(Text(""))
        note_texts = (note_line(note, zone=view.zone) for note in gathered(notes))
        parts.extend(
            piece for line in note_texts for piece in fold_text(line, view.cells, HANGING_CELLS)
        )
    text = Text("\n", no_wrap=True, overflow="ignore").join(parts)
    text.no_wrap, text.overflow = True, "ignore"
    return text


def _columns(lines: Sequence[Line], run: RunRow, steps: Sequence[StepRow], view: View) -> _Columns:
    width = view.cells
    # Below 76 columns the tree needs the 12 cells more than the tokens do.
    tokens = width >= 76
    cost = max([_MIN_COST_CELLS, *(len(_cost(line.step)) for line in lines if line.step)])
    room = width - 3 - (_TIME_CELLS + 1) - (cost + 1) - (_TOKEN_CELLS + 1 if tokens else 0)
    wanted = max((cell_len(_label(line, view.glyphs)) for line in lines), default=0)
    # Below 30 cells a bar has no resolution that helps, and the label takes all of them.
    if room >= 30:
        label = min(max(wanted, 12), max(room * 3 // 5, room - 41))
        bar = min(room - label - 1, 60)
    else:
        label, bar = room, 0
    # The steps' own times, because hosts' clocks differ: a step may lie outside its run's times.
    start = min([step.start_us for step in steps] or [run.start_us])
    end = max([step.end_us or step.start_us for step in steps] or [run.end_us])
    return _Columns(
        label,
        bar,
        cost,
        tokens,
        start,
        max(end, view.now_us if run.running else run.end_us, start + 1),
    )


def _axis(columns: _Columns, glyphs: Glyphs) -> Text:
    line = " " * 3 + fit("", columns.label)
    if columns.bar:
        total = format_duration(columns.end_us - columns.start_us)
        line += " " + "0" + fit(total, columns.bar - 1, right=True, ellipsis=glyphs.ellipsis)
    line += " " + fit("time", _TIME_CELLS, right=True) + " " + fit("cost", columns.cost, right=True)
    if columns.tokens:
        line += " " + fit(f"in{glyphs.arrow}out", _TOKEN_CELLS, right=True)
    return Text(line, style="dim")


def _step(line: Line, step: StepRow, evidence: bool, columns: _Columns, view: View) -> Text:
    glyphs = view.glyphs
    sign = glyphs.failed if step.failed else glyphs.running if step.open else " "
    sign = glyphs.cancelled if step.status == "cancelled" else sign
    style = (
        "bold red"
        if step.failed
        else "bold yellow"
        if step.open
        else KIND_STYLES.get(step.kind, "")
    )
    text = Text()
    text.append(sign, style="bold red" if step.failed else "bold yellow")
    text.append(glyphs.evidence if evidence else " ", style="bold yellow")
    text.append(" ")
    branch = _branch(line.more, columns.label, glyphs)
    text.append(branch, style="dim")
    name = _name(line, step, glyphs)
    text.append(
        fit(name, columns.label - cell_len(branch), ellipsis=glyphs.ellipsis),
        style=style if step.failed else "",
    )
    if columns.bar:
        text.append(" ")
        text.append(_bar(step, columns, glyphs), style=style)
    text.append(" " + fit(_time(step, columns), _TIME_CELLS, right=True, ellipsis=glyphs.ellipsis))
    text.append(" " + fit(_cost(step), columns.cost, right=True, ellipsis=glyphs.ellipsis))
    if columns.tokens:
        text.append(
            " " + fit(_tokens(step, glyphs), _TOKEN_CELLS, right=True, ellipsis=glyphs.ellipsis),
            style="dim",
        )
    return text


def _label(line: Line, glyphs: Glyphs) -> str:
    return "" if line.step is None else "  " * len(line.more) + _name(line, line.step, glyphs)


def _name(line: Line, step: StepRow, glyphs: Glyphs) -> str:
    extra = [step.model or (step.tool if step.tool != step.name else "")]
    if step.kind == "retrieval" and not step.open:
        best = "" if step.best_score is None else f", best {step.best_score:.2f}"
        extra.append(
            f"{step.documents} documents{best}" if step.documents != 1 else f"1 document{best}"
        )
    if step.attempt > 1 or step.retry_of:
        extra.append(f"try {max(step.attempt, 2)}")
    if step.fallback_of:
        extra.append("fallback")
    if line.note:
        extra.append(line.note)
    return one_line(f" {glyphs.dot} ".join(part for part in (step.name, *extra) if part))


def _branch(more: tuple[bool, ...], label: int, glyphs: Glyphs) -> str:
    if not more:
        return ""
    # A deep step keeps 12 cells for its name: the branch is cut on its left.
    branch = "".join(glyphs.pipe if follows else "  " for follows in more[:-1])
    branch += glyphs.tee if more[-1] else glyphs.corner
    room = max(4, label - 12)
    return branch if len(branch) <= room else glyphs.ellipsis + branch[-(room - 1) :]


def _bar(step: StepRow, columns: _Columns, glyphs: Glyphs) -> str:
    """The step's place on the run's time axis: at least one cell, never outside."""
    span = columns.end_us - columns.start_us
    end_us = columns.end_us if step.end_us is None else step.end_us
    first = min((step.start_us - columns.start_us) * columns.bar // span, columns.bar - 1)
    # An integer division negated twice rounds up: the cell in which the step ends is filled.
    last = min(max(-((columns.start_us - end_us) * columns.bar // span), first + 1), columns.bar)
    filled = (glyphs.open_bar if step.open else glyphs.bar) * (last - first)
    return " " * first + filled + " " * (columns.bar - last)


def _time(step: StepRow, columns: _Columns) -> str:
    if step.end_us is None:
        return f"{format_duration(columns.end_us - step.start_us)}+".replace(" ", "")
    # "12 m 05 s" is one cell too wide for the column: without spaces it fits.
    text = format_duration(step.end_us - step.start_us)
    return text if len(text) <= _TIME_CELLS else text.replace(" ", "")


def _cost(step: StepRow) -> str:
    if step.cost_source == "unpriced":
        return "unpriced"
    return "" if step.cost_nanos is None else format_usd(step.cost_nanos)


def _tokens(step: StepRow, glyphs: Glyphs) -> str:
    if not (step.input_tokens or step.output_tokens):
        return ""
    return f"{format_count(step.input_tokens)}{glyphs.arrow}{format_count(step.output_tokens)}"


def _hidden(line: Line, hidden: Hidden, columns: _Columns, view: View) -> Text:
    names = ", ".join(f"{count} x {one_line(name)}" for name, count in hidden.names)
    cost = f" {view.glyphs.dot} {format_usd(hidden.cost_nanos)}" if hidden.cost_nanos else ""
    branch = _branch(line.more, columns.label, view.glyphs)
    what = f"... {hidden.steps:,} more: {names}{cost}"
    return Text(
        "   " + branch + clip(what, view.cells - 3 - len(branch), view.glyphs.ellipsis), style="dim"
    )


def _below(line: Line, step: StepRow, view: View) -> list[Text]:
    """The lines below a step: its error and, if asked for, its input, output and documents."""
    rows: list[tuple[str, str]] = []
    if step.failed:
        rows.append(
            (": ".join(part for part in (step.error_type, step.error_message) if part), "red")
        )
    indent = "   " + "  " * len(line.more) + "  "
    room = view.cells - len(indent)
    found = [
        # Cut first: a megabyte of content need not be scanned for one line.
        Text(indent + clip(one_line(text[:2_000]), room, view.glyphs.ellipsis), style=style)
        for text, style in rows
        if text
    ]
    if view.contents:
        contents = [
            ("in ", step.input),
            ("out ", step.output),
            *(("doc ", text) for text in step.texts),
        ]
        found += [
            shown
            for label, text in contents
            if text
            for shown in _content(label, text, indent, view)
        ]
    return found


def _content(label: str, text: str, indent: str, view: View) -> list[Text]:
    """An input, an output or a document: its beginning on one line, or all of it."""
    # At the deepest levels the indentation gives way, so that content keeps MIN_CONTENT cells.
    indent = indent[: max(0, view.cells - MIN_CONTENT - len(label))]
    room = view.cells - len(indent) - len(label)
    if not view.full:
        return [
            Text(
                indent + label + clip(one_line(text[:2_000]), room, view.glyphs.ellipsis),
                style="dim",
            )
        ]
    lines = [part for line in clean_lines(text) for part in folded(line, room)]
    return [
        Text(indent + (" " * len(label) if number else label) + line, style="dim")
        for number, line in enumerate(lines)
    ]
