"""The lines above a trace: whose run it is, how it went, what it took, what is odd about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from stepstream.render.glyphs import UNICODE, Glyphs
from stepstream.render.rows import RunRow
from stepstream.render.values import (
    clip,
    format_time,
    one_line,
    short_id,
    zone_name,
)
from stepstream.schemas.formatting import (
    format_count,
    format_duration,
    format_number_of,
    format_usd,
)

MIN_WIDTH: Final = 40
STATUS_STYLES: Final[dict[str, str]] = {
    "ok": "green",
    "error": "bold red",
    "running": "bold yellow",
    "cancelled": "magenta",
    "stopped": "magenta",
    "incomplete": "yellow",
}


@dataclass(frozen=True, slots=True)
class View:
    """How to draw: width in cells (at least 40), the time now (for running steps), how much."""

    width: int
    now_us: int
    zone: tzinfo | None = None
    contents: bool = False
    full: bool = False
    """Contents in full, folded; else the beginning of each on one line."""
    limit: int = 200
    glyphs: Glyphs = UNICODE

    @property
    def cells(self) -> int:
        return max(MIN_WIDTH, self.width)


def heading(run: RunRow, view: View) -> Text:
    """Up to five lines, none wider than the view."""
    glyphs = view.glyphs
    dot = f" {glyphs.dot} "
    room = view.cells
    text = Text()
    # The id in full can be copied into SQL; it is shortened where the line has no room for it.
    who = one_line(run.who)
    trace_id = (
        run.trace_id if cell_len(who) + len(run.status) + 40 <= room else short_id(run.trace_id)
    )
    text.append(
        clip(who, room - len(run.status) - len(trace_id) - 8, glyphs.ellipsis), style="bold"
    )
    text.append("  ")
    text.append(run.status, style=STATUS_STYLES.get(run.status, ""))
    text.append(f"  run {trace_id}", style="dim")
    end_us = max(run.end_us, view.now_us) if run.running else run.end_us
    facts = [
        f"{format_time(run.start_us, view.zone)} {zone_name(run.start_us, view.zone)}",
        format_duration(end_us - run.start_us) + (" so far" if run.running else ""),
        format_number_of(run.steps, "step"),
        format_usd(run.cost_nanos) + (" + ?" if run.unpriced_steps else ""),
        f"{format_count(run.input_tokens)}{glyphs.arrow}{format_count(run.output_tokens)} tokens",
    ]
    whose = [run.project, run.environment, run.agent_version, run.session_id, run.user_id]
    whose.append(f"{one_line(run.task_id)}, attempt {run.attempt}" if run.task_id else "")
    labels = ("project", "environment", "version", "session", "user", "of task")
    oddities = [
        (run.error_steps, "failed"),
        (run.open_steps, "still open"),
        (run.unpriced_steps, "unpriced"),
        (run.orphan_steps, "without their parent"),
        (run.late_steps, "late"),
        (run.duplicates, "sent again and dropped"),
        (run.steps_over_limit, "over the limit, not drawn"),
        (run.skewed_steps, "by a clock that differs"),
    ]
    rows = [
        (dot.join(facts), ""),
        (
            dot.join(
                f"{name} {one_line(value)}"
                for name, value in zip(labels, whose, strict=True)
                if value
            ),
            "dim",
        ),
        (dot.join(f"{count} {what}" for count, what in oddities if count), "yellow"),
        (_failure(run), "red"),
    ]
    for row, style in rows:
        if row:
            text.append("\n" + clip(row, room, glyphs.ellipsis), style=style)
    return text


def _failure(run: RunRow) -> str:
    what = one_line(
        " ".join(part for part in (run.failed_kind.replace("_", " "), run.failed_tool) if part)
    )
    why = one_line(": ".join(part for part in (run.error_type, run.error_message) if part))
    return f"failed: {what + ', ' if what else ''}{why}" if why else ""
